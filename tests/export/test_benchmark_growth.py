"""Curves of growth have a point for each process, and the phantoms are as large as asked."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bedside.reading import read_radiograph

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

Load = Callable[[str], ModuleType]

SIDE = """
import json, sys
for line in sys.stdin:
    print(json.dumps({"runs": [float(sys.argv[1]), float(line)], "stages_ms": {"read": 2.0}}), flush=True)
"""


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def make_commands(code: str, values: list[int]) -> dict[int, list[str]]:
    return {value: [sys.executable, "-c", code, str(value)] for value in values}


def test_each_point_is_a_process_whose_runs_all_count(load: Load) -> None:
    curve = load("curves").draw_curve(
        "threads", make_commands(SIDE, [1, 4]), lambda value: f"{value}", rounds=2
    )
    assert curve["why_not"] == ""
    assert [point["threads"] for point in curve["points"]] == [1, 4]
    assert [point["median_ms"] for point in curve["points"]] == [1000, 4000]
    assert curve["points"][0]["seconds"] == [1.0] * 4
    assert curve["points"][0]["stages_ms"] == {"read": 2.0}
    assert all(point["peak_memory_mib"] > 1 for point in curve["points"])


def test_curve_of_what_can_not_run_tells_why(load: Load) -> None:
    commands = make_commands("import no_such_engine", [1])
    curve = load("curves").draw_curve("threads", commands, lambda _: "1", rounds=1)
    assert curve == {"points": [], "why_not": "No module named 'no_such_engine'"}


def test_curve_whose_side_dies_keeps_its_other_points(load: Load) -> None:
    code = SIDE.replace("for line in", "for number, line in enumerate(").replace("sys.stdin:", "sys.stdin):")
    code = code.replace("    print", "    if sys.argv[1] == '4' and number:\n        sys.exit(1)\n    print")
    curve = load("curves").draw_curve("threads", make_commands(code, [4, 1]), lambda _: "1", rounds=1)
    assert [point["threads"] for point in curve["points"]] == [1]
    assert "died" in curve["why_not"]


def test_phantoms_have_the_size_asked_for_and_read_the_same_twice(load: Load, tmp_path: Path) -> None:
    draw = load("pictures").draw_sizes
    first, second = (tmp_path / name for name in ("first", "second"))
    first.mkdir()
    second.mkdir()
    files = draw([0.5, 2.0], first)
    for file, pixels in zip(files, (0.5e6, 2e6), strict=True):
        radiograph = read_radiograph(file)
        assert radiograph.pixels.size == pytest.approx(pixels, rel=0.01)
    again = read_radiograph(draw([0.5], second)[0])
    assert np.array_equal(read_radiograph(files[0]).pixels, again.pixels)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "axis", "values"),
    [
        (["batch", "--batch", "1", "--batch", "3"], "pictures", [1, 3]),
        (["threads", "--threads", "1"], "threads", [1]),
        (["slices", "--slices", "24", "--slices", "40"], "slices", [24, 40]),
        (["size", "--megapixels", "0.5", "--megapixels", "1"], "megapixels", [0.5, 1]),
    ],
)
def test_growth_is_measured_from_end_to_end(
    tmp_path: Path, options: list[str], axis: str, values: list[float]
) -> None:
    report = tmp_path / "growth.json"
    more = ["--engine", "onnxruntime fp32", "--json", str(report)]
    more += [] if axis == "slices" else ["--rounds", "1"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "growth.py"), *options, *more],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(report.read_text())
    assert told["complete"]
    assert told["of"] == options[0]
    for curve in told["curves"]:
        assert curve["why_not"] == ""
        assert [point[axis] for point in curve["points"]] == values
        assert all(point["peak_memory_mib"] > 10 for point in curve["points"])
