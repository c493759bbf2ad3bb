"""A node that is killed at any point has lost nothing, and does nothing twice, after its next start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="needs the extra node")

SCRIPT = Path(__file__).parents[1] / "killed_node.py"
WHOLE: dict[str, Any] = {
    "again": 0,
    "states": {"1.2.1.1.1": "sent", "1.2.2.1.1": "sent", "1.3.1": "sent"},
    "instances": {"1.2.1.1.1": 1, "1.2.2.1.1": 1, "1.3.1": 3},
    "results": {"1.2.1.1.1": 1, "1.2.2.1.1": 1, "1.3.1": 1},
    "pacs": ["heatmap"] * 3 + ["report"] * 3,
    "left": 0,
    "incoming": 0,
    "stray": 0,
    "missing": 0,
    "cut": 0,
    "audit": True,
}
"""What is to be there in the end: each study with one result, at the destination once, and nothing else."""


def twice(*studies: str) -> dict[str, Any]:
    """The same where these were answered once more, when what was cut of them was whole."""
    results = {study: 1 + (study in studies) for study in WHOLE["states"]}
    count = sum(results.values())
    return WHOLE | {"results": results, "pacs": ["heatmap"] * count + ["report"] * count}


def run(*arguments: object) -> list[dict[str, Any]]:
    boot = (
        "import sys, runpy; sys.path[:] = sys.argv[2:]; script = sys.argv[1]; sys.argv = ARGUMENTS; "
        "runpy.run_path(script, run_name='__main__')"
    )
    given = [str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(
        [sys.executable, "-c", boot.replace("ARGUMENTS", repr(given)), str(SCRIPT), *sys.path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("how", "points", "whole"), [("once", 180, WHOLE), ("replaced", 80, twice("1.2.2.1.1", "1.3.1"))]
)
def test_killed_once_at_every_point(tmp_path: Path, how: str, points: int, whole: dict[str, Any]) -> None:
    lines = run(tmp_path, how)
    assert len(lines) > points
    assert [line["code"] for line in lines] == [-9] * (len(lines) - 1) + [0]
    for line in lines:
        found = {name: line[name] for name in whole}
        assert found == whole, f"killed at point {line['point']}"
    assert (
        max(line["most_sendings"] for line in lines) == 2
    )  # a sending that was cut is repeated, under the same UID
    assert lines[-1]["most_sendings"] == 1


@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again(tmp_path: Path, seed: int) -> None:
    (line,) = run(tmp_path, seed)
    assert line["kills"] > 3
    whole = twice("1.2.2.1.1")
    assert {name: line[name] for name in whole} == whole
