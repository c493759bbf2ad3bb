"""The steps of a full run are commands that their scripts take, and a small one goes through from start to page."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bedside.cli import main as bedside

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_each_step_is_a_command_that_its_script_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    steps = importlib.import_module("steps")
    small = steps.Inputs(tmp_path / "xrays", tmp_path / "chest")
    for inputs in (None, small):
        choice = steps.Choice(
            str(tmp_path / "d.pt"), "random:0", tmp_path / "networks", sys.executable, inputs
        )
        for step in steps.list_steps(choice):
            first, *rest = step.words
            words = [
                *map(str, rest),
                *(["--json", str(tmp_path / "x.json")] if step.figures else []),
                "--help",
            ]
            scripted = first != "-m"
            command = importlib.import_module(Path(first).stem).main if scripted else bedside
            done = CliRunner().invoke(command, words if scripted else words[1:])
            assert done.exit_code == 0, (step.name, done.output)


@pytest.mark.slow
def test_small_run_goes_through_from_start_to_page(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "all.py", "--out", run, "--small"],
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads((run / "run.json").read_text())["steps"]
    assert {name: step["failed"] for name, step in told.items() if step["failed"]} == {}
    assert done.returncode == 0, done.stderr
    page = tmp_path / "RESULTS.md"
    subprocess.run([sys.executable, BENCHMARKS / "results.py", run, "--out", page], check=True)
    text = page.read_text("utf-8")
    assert "A small run" in text
    assert "FAILED" not in text
    assert "Not run" not in text
