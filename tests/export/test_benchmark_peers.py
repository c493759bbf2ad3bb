"""The comparison with peers measures each side alike, keeps what a dying side leaves, and judges in clinical units."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import pytest

from bedside.sample_ct import write_series
from bedside.scan import Grid
from bedside_export.golden import phantom_radiographs

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

Load = Callable[[str], ModuleType]

STEADY = """
import json, sys
# user
print_it = print  # a comment behind code is a part of its line

# a comment
# end user
'''not the user's'''
# user of fast
print_it = print
print_it = print
# end user
for line in sys.stdin:
    print(json.dumps({"seconds": 0.5, "question": line.strip(), "scores": [1.0]}), flush=True)
"""
MORTAL = """
import json, sys
for number, line in enumerate(sys.stdin):
    if number == 2:
        sys.exit(7)
    print(json.dumps({"seconds": 0.25}), flush=True)
"""


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def make(load: Load, tmp_path: Path) -> Callable[..., Any]:
    """A contender that runs some code."""

    def make_contender(name: str, code: str, **more: Any) -> Any:
        script = tmp_path / f"{name}.py"
        script.write_text(code)
        return load("contender").Contender(name, [sys.executable, str(script)], dict(os.environ), (), **more)

    return make_contender


def test_lines_are_those_between_the_comments_and_of_the_mode(make: Callable[..., Any], load: Load) -> None:
    script = Path(make("steady", STEADY).command[1])
    assert load("contender").count_lines(script) == 1
    assert load("contender").count_lines(script, "fast") == 3


@pytest.mark.parametrize("path", sorted((BENCHMARKS / "sides").glob("*_side.py")), ids=lambda path: path.stem)
def test_parts_that_a_person_writes_end_where_they_should(path: Path) -> None:
    marks = [line.strip() for line in path.read_text().splitlines() if line.strip().startswith("# user")]
    ends = [line for line in path.read_text().splitlines() if line.strip() == "# end user"]
    assert len(marks) == len(ends)


def test_sides_alternate_and_a_warm_up_does_not_count(
    make: Callable[..., Any], load: Load, tmp_path: Path
) -> None:
    contenders = [make("one", STEADY), make("other", STEADY)]
    questions = [tmp_path / "a", tmp_path / "b"]
    load("contender").measure_warm(contenders, questions, [tmp_path / "warm"], 3)
    for each in contenders:
        assert each.seconds == [0.5] * 6
        assert [answer["question"] for answer in each.answers] == [str(path) for path in questions]
        assert each.peak_mib > 1
        assert each.describe()["warm"]["median_ms"] == 500


def test_side_that_dies_keeps_its_answers_and_the_others_go_on(
    make: Callable[..., Any], load: Load, tmp_path: Path
) -> None:
    mortal, steady = make("mortal", MORTAL), make("steady", STEADY)
    module = load("contender")
    module.measure_cold([mortal, steady], tmp_path / "cold", 1)
    module.measure_warm([mortal, steady], [tmp_path / "a"], [], 4)
    assert mortal.seconds == [0.25, 0.25]
    assert mortal.died == "it ended with 7 after 2 answers"
    assert steady.seconds == [0.5] * 4
    assert steady.died == ""
    assert len(mortal.cold_s) == len(steady.cold_s) == 1
    json.dumps(mortal.describe(), allow_nan=False)


def test_network_alone_is_asked_once_a_round_for_many_runs(
    make: Callable[..., Any], load: Load, tmp_path: Path
) -> None:
    code = STEADY.replace('"scores"', '"peak_mib": 12.0, "scores"')
    module = load("contender")
    alone = make("alone", code, scope=module.ALONE)
    module.measure_warm([alone], [tmp_path / name for name in "abcdefg"], [tmp_path / "warm"], 2)
    assert alone.seconds == [0.5, 0.5]
    assert alone.answers[0]["question"] == "7"
    assert (alone.p99_s, alone.peak_mib) == (0.5, 12.0)
    assert alone.describe()["lines"] is None


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        ([], {"n": 0}),
        ([0.2], {"n": 1, "median_ms": 200, "p90_ms": 200, "p99_ms": 200, "max_ms": 200}),
        ([0.1, 0.3], {"n": 2, "median_ms": 200, "p90_ms": 280, "p99_ms": 298, "max_ms": 300}),
    ],
)
def test_few_answers_are_summarised(load: Load, seconds: list[float], told: dict[str, float]) -> None:
    assert load("contender").summarise(seconds) == pytest.approx(told)


def test_only_what_is_inside_its_tolerance_counts_as_best(make: Callable[..., Any], load: Load) -> None:
    peers, peer_sides = load("peers"), load("peer_sides")

    def judge(side: Any, _: Any) -> dict[str, Any]:
        return {"inside_tolerance": "wrong" not in side.name, "short": ""}

    speeds = {peer_sides.EAGER: 1.0, "bedside openvino fp32": 0.5, "bedside wrong bf16": 0.1}
    speeds |= {"bedside openvino bf16": 0.2, "torch.compile": 0.05}
    contenders = []
    for number, (name, seconds) in enumerate(speeds.items()):
        contenders.append(make(f"side{number}", STEADY))
        contenders[-1].name, contenders[-1].seconds, contenders[-1].answers = name, [seconds], [{}]
    report = peers.report_on(contenders, judge)
    assert report["bedside_fp32"] == "bedside openvino fp32"
    assert report["bedside_best"] == "bedside openvino bf16"
    assert report["sides"]["bedside openvino bf16"]["times_faster"] == pytest.approx(5)
    assert not report["sides"]["bedside wrong bf16"]["counts"]


def test_side_that_can_not_run_is_left_out_with_the_reason(make: Callable[..., Any], load: Load) -> None:
    peers, peer_sides = load("peers"), load("peer_sides")
    good = make("good", STEADY, limits={"extent": 1.0})
    good.name = peer_sides.EAGER
    missing = make("missing", "import no_such_library", limits={"extent": 1.0})
    unstated = make("unstated", STEADY)
    unwanted = make("unwanted", STEADY, limits={"extent": 1.0})
    there, left_out = peers.keep_runnable([good, missing, unstated, unwanted], ("unwanted",))
    assert there == [good]
    assert left_out == {
        "unwanted": "as asked",
        "missing": "No module named 'no_such_library'",
        "unstated": "the bundle states no tolerance for that precision",
    }


def test_what_is_installed_is_measured_with_all_that_it_needs(load: Load) -> None:
    installed = load("installed")
    numpy, pandas = (installed.installed_mib([name]) for name in ("numpy", "scikit-learn"))
    assert 0 < numpy < pandas
    assert installed.installed_mib(["numpy", "scikit-learn"]) == pytest.approx(pandas)
    assert installed.installed_mib_of(sys.executable, ["numpy"]) == pytest.approx(numpy, rel=0.01)
    assert installed.installed_mib_of(sys.executable, ["no-such-distribution"]) is None


def test_side_to_leave_out_has_to_exist(make: Callable[..., Any], load: Load) -> None:
    with pytest.raises(click.UsageError, match="no side 'other' to leave out; there are: good"):
        load("peers").keep_runnable([make("good", STEADY)], ("other",))


@pytest.mark.slow
def test_comparison_on_x_rays_runs_whole(tmp_path: Path) -> None:
    from PIL import Image

    for number, radiograph in enumerate(phantom_radiographs()[:2]):
        Image.fromarray((radiograph.pixels * 255).astype("uint8")).save(tmp_path / f"{number}.png")
    options = ["--images", tmp_path, "--count", "2", "--engine", "onnxruntime fp32"]
    told = run_peers("cxr", [*options, "--engine", "openvino int8"], tmp_path / "report.json")
    assert "no int8 model" in told["left_out"]["bedside openvino int8"]
    for name in ("torch.compile", "ONNX Runtime, default", "bedside onnxruntime fp32"):
        side = told["sides"].get(name)
        if side is None:
            assert told["left_out"][name]
            continue
        assert side["parity"]["inside_tolerance"], name
        assert side["lines"] > 1
        assert side["installed_mib"] > 10
    assert told["sides"]["benchmark_app fp32"]["warm"]["n"] == 2
    assert told["bedside_fp32"] == "bedside onnxruntime fp32"


@pytest.mark.slow
def test_comparison_on_ct_runs_whole(tmp_path: Path) -> None:
    affine = np.array([[0, 0, 6.25, -197], [0, 6.25, 0, -192], [3.75, 0, 0, -195], [0, 0, 0, 1]], np.float64)
    write_series(tmp_path / "chest", grid=Grid((96, 64, 64), affine))  # with fewer there is no int8 network
    options = ["--series", tmp_path / "chest", "--slices", "4", "--engine", "onnxruntime fp32"]
    told = run_peers("ct", options, tmp_path / "report.json")
    assert told["sides"]["bedside onnxruntime fp32"]["parity"]["inside_tolerance"]
    assert told["sides"]["ONNX Runtime, default"]["parity"]["inside_tolerance"]
    assert ("MONAI" in told["sides"]) != ("MONAI" in told["left_out"])


def run_peers(task: str, options: list[Any], report: Path) -> dict[str, Any]:
    plan = ["--rounds", "2", "--starts", "1", "--threads", "1", "--json", report]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "peers.py", task, *map(str, [*options, *plan])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(report.read_text())
    assert told["complete"]
    return told
