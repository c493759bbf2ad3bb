"""The full run goes on where it was interrupted and past what fails, and its page hides nothing."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from made_bench import make_run

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
WRITE = "import json, sys\njson.dump({'n': 1}, open(sys.argv[-1], 'w'))\nprint('went well')\n"
MACHINE: dict[str, Any] = {
    "processor": "Some CPU", "cores": 2, "memory_mib": 2048, "flags": ["avx2"], "gpus": [], "threads": 2,
    "system": "Linux", "python": "3.11.0", "versions": {"numpy": "2.0"}, "before": {"load": 1.9},
    "after": {"power_mode": None}, "throttled": None, "throttled_by": [], "hottest_c": None,
}  # fmt: skip

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(importlib.import_module("all"), "LOOK_S", 0.0)
    return importlib.import_module


@pytest.fixture
def make(load: Load, tmp_path: Path) -> Callable[..., Any]:
    """A step that runs some code."""

    def make_step(name: str, code: str, **options: Any) -> Any:
        script = tmp_path / f"{name}.py"
        script.write_text(code)
        return load("steps").Step(name, (script,), options.pop("minutes", 1), **options)

    return make_step


@pytest.fixture
def journal(load: Load, tmp_path: Path) -> Any:
    return load("all").Journal.open(tmp_path / "run", small=False)


def test_finished_step_is_not_repeated(load: Load, make: Callable[..., Any], journal: Any) -> None:
    steps = [make("one", WRITE), make("two", WRITE)]
    assert load("all").run_all(steps[:1], journal) == []
    (journal.folder / "one.json").write_text('{"n": 2}')
    assert load("all").run_all(steps, load("all").Journal.open(journal.folder, small=False)) == []
    assert json.loads((journal.folder / "one.json").read_text()) == {"n": 2}
    assert json.loads((journal.folder / "two.json").read_text()) == {"n": 1}
    told = json.loads((journal.folder / "run.json").read_text())
    assert list(told["steps"]) == ["one", "two"]
    assert told["steps"]["two"]["failed"] == ""
    assert told["steps"]["two"]["estimated_minutes"] == 1
    assert "went well" in (journal.folder / "two.log").read_text()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (WRITE + "sys.exit('no such thing')", "it ended with 1: no such thing"),
        ("", "it wrote no figures"),
        (WRITE.replace("{'n': 1}", "[1]"), "its figures are no JSON object"),
        ("import sys\nopen(sys.argv[-1], 'w').write('{')", "its figures are no JSON"),
    ],
)
def test_step_that_fails_is_told_and_the_others_go_on(
    load: Load,
    make: Callable[..., Any],
    journal: Any,
    capsys: pytest.CaptureFixture[str],
    code: str,
    why: str,
) -> None:
    assert load("all").run_all([make("bad", code), make("good", WRITE)], journal) == ["bad"]
    assert not (journal.folder / "bad.json").exists()
    assert (journal.folder / "good.json").exists()
    assert journal.told["steps"]["bad"]["failed"] == why
    assert f"FAILED after 0.0 min, {why}" in capsys.readouterr().err


def test_figures_that_bench_calls_invalid_are_kept(
    load: Load, make: Callable[..., Any], journal: Any
) -> None:
    assert load("all").run_all([make("bench", WRITE + "sys.exit(1)", also=(1,))], journal) == []
    assert (journal.folder / "bench.json").exists()


def test_step_that_takes_too_long_is_ended_with_all_that_it_started(
    load: Load, make: Callable[..., Any], journal: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    everything = load("all")
    monkeypatch.setattr(everything, "LEAST_S", 1.5)
    monkeypatch.setattr(everything, "FAREWELL_S", 0.2)
    child = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(600)"
    code = (
        f"import pathlib, subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"pathlib.Path({str(tmp_path / 'child')!r}).write_text(str(child.pid))\nchild.wait()\n"
    )
    assert everything.run_all([make("endless", code, minutes=0)], journal) == ["endless"]
    assert journal.told["steps"]["endless"]["failed"].startswith("it took over")
    status = Path("/proc", (tmp_path / "child").read_text(), "stat")
    end = time.monotonic() + 10
    while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end, "the step's child is still there"
        time.sleep(0.05)


def test_interruption_keeps_what_was_finished(
    load: Load, make: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = load("all")
    run_step = everything.run_step

    def interrupt(step: Any, folder: Path) -> Any:
        if step.name == "two":
            raise KeyboardInterrupt
        return run_step(step, folder)

    monkeypatch.setattr(everything, "run_step", interrupt)
    monkeypatch.setattr(everything, "list_steps", lambda _: [make("one", WRITE), make("two", WRITE)])
    done = CliRunner().invoke(everything.main, ["--out", str(tmp_path / "run")])
    assert done.exit_code == 130
    assert "the same command goes on from there" in done.output
    assert list(json.loads((tmp_path / "run" / "run.json").read_text())["steps"]) == ["one"]


def test_folder_of_a_run_of_another_length_is_refused(
    load: Load, make: Callable[..., Any], journal: Any
) -> None:
    load("all").run_all([make("one", WRITE)], journal)
    done = CliRunner().invoke(load("all").main, ["--out", str(journal.folder), "--small"])
    assert done.exit_code == 2
    assert "without --small; give another" in done.output


def test_step_that_is_not_there_is_refused(load: Load, tmp_path: Path) -> None:
    done = CliRunner().invoke(load("all").main, ["--out", str(tmp_path), "--only", "nonsense"])
    assert done.exit_code == 2
    assert "no step 'nonsense'; there are: network-cxr, " in done.output


def choices(load: Load, folder: Path) -> list[Any]:
    steps = load("steps")
    weights = str(folder / "densenet.pt"), str(folder / "unet.pt")
    small = steps.Inputs(folder / "xrays", folder / "chest")
    return [steps.Choice(*weights, folder / "networks", sys.executable, each) for each in (None, small)]


def test_commands_are_shown_without_places_of_this_machine(load: Load, tmp_path: Path) -> None:
    for choice in choices(load, tmp_path):
        for step in load("steps").list_steps(choice):
            assert os.sep + str(tmp_path).strip(os.sep) not in step.shown
            assert sys.executable not in step.shown


def test_full_run_takes_an_hour_once_the_networks_are_made(load: Load, tmp_path: Path) -> None:
    steps = load("steps").list_steps(choices(load, tmp_path)[0])
    assert sum(step.minutes for step in steps if step.figures) <= 60


STEADY = {
    "sides": {
        "onnxruntime fp32, in process": {
            "latency": {"hot": {"median_ms": 41.5, "p99_ms": 50, "max_ms": 51, "n": 3, "times_hot": 1.0}},
            "open_ms": 200.0, "first_score_ms": 45.0, "second_score_ms": 42.0,
        }
    },
    "isolation": {"onnxruntime fp32": {"in_process_ms": 30.0, "isolated_ms": 31.0, "costs_ms": 1.0, "ratio": 1.033}},
    "left_out": {"openvino fp16": "it is not installed"},
    "machine": MACHINE,
}  # fmt: skip
GROWTH = {
    "axis": "slices", "complete": True, "machine": MACHINE,
    "curves": [
        {
            "bundle": "ct", "engine": "onnxruntime fp32", "why_not": "",
            "points": [{"slices": 50, "seconds": 2.5, "ms_per_slice": 50.0, "peak_memory_mib": 300.0}],
        },
        {"bundle": "ct", "engine": "openvino fp32", "why_not": "it is not installed", "points": []},
    ],
}  # fmt: skip


def write_run(folder: Path, figures: dict[str, Any], **changes: Any) -> Path:
    step = {
        "command": "python benchmarks/x.py", "estimated_minutes": 1, "begun": "2026-01-01T00:00:00+00:00",
        "minutes": 1.5, "failed": "", "commit": "0123456789abcdef", "changed": True,
    }  # fmt: skip
    folder.mkdir()
    steps = {name: {**step, **changes.get(name.replace("-", "_"), {})} for name in figures}
    (folder / "run.json").write_text(json.dumps({"small": False, "steps": steps}))
    for name, each in figures.items():
        if each is not None:
            (folder / f"{name}.json").write_text(json.dumps(each))
    return folder


def read_page(load: Load, folder: Path) -> str:
    page = folder / "RESULTS.md"
    load("results").write_results(folder, page)
    return page.read_text("utf-8")


def test_page_has_each_table_beside_its_command_and_all_that_is_missing(load: Load, tmp_path: Path) -> None:
    run = make_run([1.0, 2.0, 3.0]).to_json()
    figures = {
        "bench-cxr": run,
        "steady": STEADY,
        "growth-slices": GROWTH,
        "peers-ct": None,
        "network-ct": None,
    }
    failures = {
        "peers_ct": {"failed": "it ended with 1: no"},
        "network_ct": {"failed": "it ended with 2: no"},
    }
    page = read_page(load, write_run(tmp_path / "run", figures, **failures))
    assert "Some CPU, 2 cores, 2 GiB, avx2; 2 threads; Linux, Python 3.11.0." in page
    assert "`python benchmarks/x.py`" in page
    assert "2026-01-01T00:00:00+00:00, 1.5 min, commit 0123456789ab with changes." in page
    assert "| onnxruntime fp32, in process | hot | 41.5 | 50.0 | 51.0 | 3 | 1.00 |" in page
    assert "Left out: openvino fp16, it is not installed." in page
    assert "| 50 | 2500.0 | 50.00 | 300 |" in page
    assert "| single-stream (short) | 3 | 2.0 | 3.0 | 3.0 | - | 500.00 | bedside |" in page
    assert "**FAILED: it ended with 1: no.**" in page
    assert "**network-ct FAILED: it ended with 2: no**" in page
    assert "Not run: bench-cxr-fp16, " in page
    assert "several commits" not in page


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"machine": {**MACHINE, "throttled": True, "throttled_by": ["heat"]}},
            "the machine throttled (heat)",
        ),
        ({"complete": False}, "it was cut short"),
        ({"valid": False, "reasons": ["parity failed"]}, "parity failed"),
    ],
)
def test_figures_that_are_not_to_be_used_are_marked(
    load: Load, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    page = read_page(load, write_run(tmp_path / "run", {"steady": {**STEADY, **changes}}))
    assert f"**INVALID: {told}" in page
    assert "INVALID" not in read_page(load, write_run(tmp_path / "good", {"steady": STEADY}))


@pytest.mark.parametrize(("share", "told"), [(0.02, False), (0.4, True), (None, False)])
def test_machine_that_was_not_quiet_is_marked(
    load: Load, tmp_path: Path, share: float | None, *, told: bool
) -> None:
    folder = write_run(tmp_path / "run", {"steady": STEADY}, steady={"busy_before": 0.0, "busy_after": share})
    line = "INVALID: the machine was not quiet: 40% of it was at work on something else after the step"
    assert (line in read_page(load, folder)) == told


def test_what_else_runs_is_looked_at(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = load("all")
    ticks = iter([[10, 0, 10, 100, 0, 0, 0, 0], [40, 0, 20, 150, 10, 0, 0, 0]])
    monkeypatch.setattr(everything, "_read_ticks", lambda: next(ticks))
    assert everything.measure_others() == 0.4


def test_damaged_figures_are_told(load: Load, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"steady": STEADY})
    (folder / "steady.json").write_text("{")
    assert "**Its figures are missing or damaged.**" in read_page(load, folder)


def test_folder_without_a_run_is_refused(load: Load, tmp_path: Path) -> None:
    done = CliRunner().invoke(load("results").main, [str(tmp_path)])
    assert done.exit_code == 2
    assert "holds no run of all.py" in done.output
