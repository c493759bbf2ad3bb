"""Tuning: what could run is tried in processes of its own; what is wrong is refused; the best of the rest is named."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bedside.backends import Tuning
from bedside.bundle import Bundle
from bedside.errors import BackendError
from bedside.isolation import Limits
from bedside.tuning import Candidate, Choice, Outcome, Plans, Report, Request, keep, tune
from bedside.tuning.bench import Bench, make_input
from schemas import make_validator
from tiny_bundle import SIDE, make_bundle, seal
from tiny_ct_bundle import make_ct_bundle
from tuned_engines import opener_of

VALIDATOR = make_validator("tuning-1")
FP32 = ("onnxruntime", "fp32")
OTHER = ("openvino", "fp32")
HALF = ("openvino", "bf16")
NO_HALF = ("onnxruntime", "bf16")


@pytest.fixture(autouse=True)
def engines() -> None:
    for name in ("onnxruntime", "openvino"):
        pytest.importorskip(name)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(make_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


def tuned(
    bundle: Bundle,
    plans: Plans,
    names: Mapping[tuple[str, str], str],
    *,
    request: Request | None = None,
    limits: Limits | None = None,
) -> Report:
    given = request or Request(Choice(("onnxruntime", "openvino")), rounds=2)
    every = {**dict.fromkeys((FP32, OTHER, HALF, NO_HALF), "lacks"), **names}
    return tune(bundle, given, plans=plans, opener=opener_of(bundle, every, limits))


def outcome_of(report: Report, what: tuple[str, str]) -> Outcome:
    return next(
        each for each in report.outcomes if (each.candidate.backend, each.candidate.precision) == what
    )


def test_what_is_wrong_or_broken_costs_a_line_and_the_best_of_the_rest_is_named(
    bundle: Bundle, tmp_path: Path
) -> None:
    report = tuned(bundle, Plans(tmp_path), {FP32: "slow", OTHER: "crashes", HALF: "right", NO_HALF: "wrong"})
    assert {str(each.candidate): each.word for each in report.outcomes} == {
        "onnxruntime fp32": "passed",
        "openvino fp32": "crashed",
        "onnxruntime bf16": "out of tolerance",
        "openvino bf16": "passed",
    }
    assert [str(each.candidate) for each in report.ranking] == ["openvino bf16", "onnxruntime fp32"]
    crashed = outcome_of(report, OTHER).error
    assert crashed is not None
    assert "SIGSEGV" in crashed.message
    worst = outcome_of(report, NO_HALF).worst
    assert worst is not None
    assert worst.difference == pytest.approx(0.5)
    for each in report.ranking:
        assert each.open_s is not None
        assert each.peak_bytes is not None
        assert each.median_ms is not None
        assert each.open_s > 0
        assert each.peak_bytes > 1 << 20
        assert len(each.times_ms) >= report.rounds
        assert each.median_ms <= (each.p90_ms or 0)


def test_what_hangs_is_stopped_in_its_time(bundle: Bundle, tmp_path: Path) -> None:
    report = tuned(bundle, Plans(tmp_path), {OTHER: "hangs"}, limits=Limits(3, 3))
    assert outcome_of(report, OTHER).word == "hung"
    assert report.ranking == ()


def test_what_breaks_while_it_is_timed_is_out(bundle: Bundle, tmp_path: Path) -> None:
    report = tuned(bundle, Plans(tmp_path), {FP32: "right", OTHER: "tires"})
    tired = outcome_of(report, OTHER)
    assert (tired.word, tired.times_ms) == ("crashed", ())
    assert [each.candidate.backend for each in report.ranking] == ["onnxruntime"]


def test_what_is_not_finite_is_out_of_tolerance_and_no_infinity_is_in_the_json(
    bundle: Bundle, tmp_path: Path
) -> None:
    report = tuned(bundle, Plans(tmp_path), {OTHER: "infinite"})
    overflowed = outcome_of(report, OTHER)
    assert overflowed.worst is not None
    assert math.isinf(overflowed.worst.difference)
    assert overflowed.word == "out of tolerance"
    record = json.loads(json.dumps(report.to_json(None), allow_nan=False))
    assert [each["difference"] for each in record["candidates"][1]["differences"]] == [None, None]


def test_what_left_its_tolerance_at_export_is_unfit_though_the_golden_inputs_pass(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b")
    parity = {"engines": [{"backend": "stand-in", "precision": "bf16", "status": "failed"}]}
    (folder / "parity.json").write_text(json.dumps(parity), encoding="utf-8")
    report = tuned(Bundle.open(seal(folder)), Plans(tmp_path / "c"), {FP32: "slow", HALF: "right"})
    doubted = outcome_of(report, HALF)
    assert doubted.word == "unfit"
    assert doubted.verdict is not None
    assert doubted.verdict.passed
    assert [each.candidate.precision for each in report.ranking] == ["fp32"]


def test_progress_tells_trials_builds_and_rounds(bundle: Bundle, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    names = dict.fromkeys((FP32, OTHER, HALF, NO_HALF), "lacks") | {FP32: "builds"}
    tune(
        bundle,
        Request(Choice(("onnxruntime", "openvino")), rounds=2),
        plans=Plans(tmp_path),
        progress=lambda *step: steps.append(step),
        opener=opener_of(bundle, names),
    )
    assert steps == [
        ("trying onnxruntime fp32", 0, 4),
        ("onnxruntime fp32: compiling layers", 1, 2),
        ("trying openvino fp32", 1, 4),
        ("trying onnxruntime bf16", 2, 4),
        ("trying openvino bf16", 3, 4),
        ("timing", 0, 2),
        ("timing", 1, 2),
        ("timing", 2, 2),
    ]


def test_no_engine_s_process_outlives_a_tuning(bundle: Bundle, tmp_path: Path) -> None:
    def children() -> set[str]:
        return set(Path("/proc/thread-self/children").read_text(encoding="ascii").split())

    before = children()
    tuned(bundle, Plans(tmp_path), {FP32: "right", OTHER: "crashes", HALF: "wrong"})
    assert children() == before


def test_interrupt_ends_the_engines_and_leaves_no_folder(bundle: Bundle, tmp_path: Path) -> None:
    def interrupt(phase: str, done: int, _total: int) -> None:
        if phase == "timing" and done == 1:
            raise KeyboardInterrupt

    names = dict.fromkeys((FP32, OTHER, HALF, NO_HALF), "builds")
    with pytest.raises(KeyboardInterrupt):
        tune(
            bundle,
            Request(Choice(("onnxruntime", "openvino")), rounds=2),
            plans=Plans(tmp_path),
            progress=interrupt,
            opener=opener_of(bundle, names),
        )
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_rounds_are_at_least_one() -> None:
    with pytest.raises(BackendError):
        Request(rounds=0)


# The real engines


def test_real_engines_are_tuned_and_none_is_loaded_here(tmp_path: Path) -> None:
    bundle = Bundle.open(make_ct_bundle(tmp_path / "ct"))
    report = tune(bundle, Request(Choice(precisions=("fp32",)), rounds=1), plans=Plans(tmp_path / "cache"))
    assert {each.candidate.backend for each in report.ranking} >= {"onnxruntime", "openvino"}
    VALIDATOR.validate(json.loads(json.dumps(report.to_json("plan.json"), allow_nan=False)))
    assert keep(report, Plans(tmp_path / "cache")) is not None


# What is timed


def test_first_golden_input_is_timed_as_often_as_the_batch_has_it(bundle: Bundle) -> None:
    assert make_input(bundle, Tuning())["image"].shape == (1, 1, SIDE, SIDE)
    three = make_input(bundle, Tuning(batch=3))["image"]
    assert three.shape == (3, 1, SIDE, SIDE)
    assert (three[0] == three[2]).all()


def test_tile_that_was_asked_for_is_timed(tmp_path: Path) -> None:
    bundle = Bundle.open(make_ct_bundle(tmp_path / "ct"))
    name = bundle.manifest.input.name
    sides = make_input(bundle, Tuning())[name].shape[2:]
    for wanted in ((sides[0] * 2, sides[1] // 2), (sides[0] // 2, sides[1] * 3)):
        assert make_input(bundle, Tuning(tile=wanted))[name].shape[2:] == wanted


# Memory


def test_engines_that_memory_would_not_hold_together_take_turns(bundle: Bundle) -> None:
    opener = opener_of(bundle, dict.fromkeys((FP32, OTHER, HALF), "right"))
    first, second, third = (Candidate(*what) for what in (FP32, OTHER, HALF))
    with Bench(opener, budget_bytes=300) as bench:
        for candidate in (first, second, third):
            bench.take(candidate, Tuning(), 100)
        assert bench.held == (first, second, third)
        bench.take(first, Tuning(), 100)
        assert bench.held == (second, third, first)
    with Bench(opener, budget_bytes=200) as bench:
        for candidate in (first, second, third):
            bench.take(candidate, Tuning(), 100)
        assert bench.held == (second, third)
    with Bench(opener, budget_bytes=0) as bench:
        for candidate in (first, second, first):
            bench.take(candidate, Tuning(), 100)
            assert bench.held == (candidate,)
    assert bench.held == ()


# JSON


def test_report_keeps_to_the_schema(bundle: Bundle, tmp_path: Path) -> None:
    report = tuned(bundle, Plans(tmp_path), {FP32: "right", OTHER: "crashes", HALF: "wrong"})
    for kept in (None, "plans/plan.json"):
        VALIDATOR.validate(json.loads(json.dumps(report.to_json(kept), allow_nan=False)))
    record = report.to_json(None)
    spoils: list[Callable[[dict[str, Any]], object]] = [
        lambda r: r.update(extra=1),
        lambda r: r.pop("notice"),
        lambda r: r["key"].pop("engines"),
        lambda r: r["candidates"][0].update(rank=None),
        lambda r: r["candidates"][0].update(verdict="fine"),
        lambda r: r["candidates"][1].update(error=None),
        lambda r: r["candidates"][1].update(rank=2),
        lambda r: r["candidates"][0]["differences"][0].update(tolerance=0),
    ]
    for spoil in spoils:
        spoiled = json.loads(json.dumps(record))
        spoil(spoiled)
        assert not VALIDATOR.is_valid(spoiled)
