"""A run as JSON and back, and one run against another."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedside.bench import Comparison, Run, compare_runs, read_run
from bedside.bench.comparison import WORDS
from bedside.bench.figures import Energy, Idle, Search, Settings, Start, StudyEnergy
from bedside.errors import InputError, RefusedError
from bedside.provenance import BundleRef
from made_bench import ENGINE, FAILED, make_run, make_scenario
from schemas import make_validator

VALIDATOR = make_validator("bench-1")
COMPARISON = make_validator("bench-comparison-1")

RICH = make_run(
    search=Search(50.0, "asked for", 12.5, 1.5, confirmed=False),
    energy=Energy(
        True,
        "",
        ("gpu0",),
        10.0,
        None,
        (StudyEnergy("offline", 4, 9.5, 100.0, 1.5, 1.0, 2.0, {"gpu0": 100.0}),),
    ),
    parity=FAILED,
    scenarios=(
        make_scenario((10.0, 20.0)),
        make_scenario(
            (5.0,), "server", rate_per_second=3.0, bound_ms=50.0, over_bound=0, held=True, confirmed=False
        ),
    ),
    starts=(Start("cold engine cache", skipped="this engine keeps nothing"),),
    settings=Settings(latency_bound_ms=50.0, idles=(Idle(60.0, 2),)),
    left_out={"not-an-image": 2},
    reasons=("it was interrupted",),
    complete=False,
    valid=False,
    notes=("one input alone",),
)


def write(path: Path, record: dict[str, Any]) -> Path:
    path.write_text(json.dumps(record), encoding="utf-8")
    return path


@pytest.mark.parametrize("run", [make_run(), RICH], ids=["plain", "rich"])
def test_run_comes_back_from_its_json(run: Run, tmp_path: Path) -> None:
    record = run.to_json()
    VALIDATOR.validate(json.loads(json.dumps(record, allow_nan=False)))
    back = read_run(write(tmp_path / "run.json", record))
    assert back.to_json() == record
    assert back.scenario("single-stream") is not None
    assert back.scenario("offline") is None


def test_small_numbers_keep_their_digits() -> None:
    run = make_run(
        parity=replace(FAILED, differences=(replace(FAILED.differences[0], difference=4.23456e-06),))
    )
    assert run.to_json()["parity"]["differences"][0]["difference"] == 4.235e-06


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schema": "bedside.severity/1"}, "bedside.severity/1"),
        ({"scenarios": None}, "scenarios"),
        ({"further": 1}, "further"),
        ({"valid": 1}, "valid"),
    ],
)
def test_json_that_is_no_run_is_told(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told) as caught:
        read_run(write(tmp_path / "run.json", {**make_run().to_json(), **change}))
    assert caught.value.code == "not-results"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b'{"schema": NaN}'])
def test_damaged_files_are_told(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(text)
    with pytest.raises(InputError) as caught:
        read_run(path)
    assert caught.value.code == ("not-results" if text else "empty-file")


@pytest.mark.parametrize("column", ["latency_ms", "at_ms", "samples"])
def test_columns_of_different_lengths_are_told(column: str, tmp_path: Path) -> None:
    record = make_run().to_json()
    record["scenarios"][0]["queries"][column].pop()
    with pytest.raises(InputError, match="not of one number"):
        read_run(write(tmp_path / "run.json", record))


def test_sample_that_is_not_there_is_told(tmp_path: Path) -> None:
    record = make_run().to_json()
    record["scenarios"][0]["queries"]["samples"][0] = 7
    with pytest.raises(InputError, match="not there"):
        read_run(write(tmp_path / "run.json", record))


def noisy(median: float, *, seed: int, count: int = 200, spread: float = 0.05) -> list[float]:
    values: list[float] = (median * np.random.default_rng(seed).lognormal(0, spread, count)).tolist()
    return values


def verdicts(found: Comparison) -> dict[tuple[str, str], str]:
    return {(each.of, each.quantity): each.verdict for each in found.ratios}


def test_the_same_twice_is_noise() -> None:
    found = compare_runs(make_run(noisy(20.0, seed=1)), make_run(noisy(20.0, seed=2)))
    told = verdicts(found)
    assert told["single-stream", "p50"] == told["single-stream", "inference"] == "noise"
    assert told["cold process", "first result"] == "too few to tell"
    assert set(told.values()) <= set(WORDS)
    assert (found.differs, found.doubts) == ((), ())
    COMPARISON.validate(json.loads(json.dumps(found.to_json(), allow_nan=False)))


@pytest.mark.parametrize(("factor", "word"), [(0.8, "faster"), (1.25, "slower")])
def test_a_difference_is_told_with_an_interval(factor: float, word: str) -> None:
    found = compare_runs(make_run(noisy(20.0, seed=1)), make_run(noisy(20.0 * factor, seed=2)))
    (ratio,) = [each for each in found.ratios if each.quantity == "p50"]
    assert ratio.verdict == word
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low < factor < ratio.high
    assert ratio.high - ratio.low < 0.1


def test_a_small_difference_is_noise_however_sure() -> None:
    found = compare_runs(make_run([20.0] * 500), make_run([20.4] * 500))
    (ratio,) = [each for each in found.ratios if each.quantity == "p50"]
    assert ratio.low == ratio.high == pytest.approx(1.02)
    assert ratio.verdict == "noise"


def test_tails_need_more_queries() -> None:
    few, many = (verdicts(compare_runs(*[make_run(noisy(20.0, seed=1, count=n))] * 2)) for n in (60, 600))
    assert (few["single-stream", "p90"], few["single-stream", "p99"]) == ("noise", "too few to tell")
    assert many["single-stream", "p99"] == "noise"


def test_neighbours_that_are_alike_widen_the_interval() -> None:
    values = noisy(20.0, seed=1, count=400, spread=0.2)
    alike = sorted(values[:200]) + sorted(values[200:])
    widths = []
    for each in (values, alike):
        (ratio,) = [r for r in compare_runs(make_run(each), make_run(each)).ratios if r.quantity == "p50"]
        assert ratio.low is not None
        assert ratio.high is not None
        widths.append(ratio.high - ratio.low)
    assert widths[1] > 1.5 * widths[0]


def test_stages_that_take_nothing_are_not_compared() -> None:
    found = compare_runs(make_run([0.02] * 50), make_run([0.02] * 50))
    assert {each.quantity for each in found.ratios} == {"p50", "p90", "p99", "first result"}


def test_stage_that_took_nothing_and_takes_much_is_told() -> None:
    before, after = make_run([20.0] * 50), make_run([20.0] * 50)
    scenario = before.scenarios[0]
    stages = {**scenario.queries.stages_ms, "write": (0.0,) * 50}
    before = replace(
        before, scenarios=(replace(scenario, queries=replace(scenario.queries, stages_ms=stages)),)
    )
    stages = {**stages, "write": (3.0,) * 50}
    after = replace(
        after, scenarios=(replace(scenario, queries=replace(scenario.queries, stages_ms=stages)),)
    )
    assert verdicts(compare_runs(before, after))["single-stream", "write"] == "slower"


def test_energy_and_rates_have_no_interval() -> None:
    found = compare_runs(RICH, RICH)
    (rate,) = [each for each in found.ratios if each.unit == "a second"]
    (joules,) = [each for each in found.ratios if each.unit == "J"]
    assert (rate.ratio, rate.low, rate.verdict) == (1.0, None, "too few to tell")
    assert (joules.old, joules.ratio) == (1.5, 1.0)


def test_rates_at_other_bounds_are_not_compared() -> None:
    other = replace(RICH, search=Search(80.0, "asked for", 20.0, 1.0, confirmed=True))
    assert not [each for each in compare_runs(RICH, other).ratios if each.unit == "a second"]


def test_what_is_not_the_same_is_told() -> None:
    old = make_run()
    device = replace(old.conditions.device, processor="Another processor", logical_cores=8)
    versions = {**old.conditions.versions, "numpy": "0.1"}
    new = replace(
        old,
        bundle=BundleRef("tiny", "1.0.1", "1" * 64),
        engine=replace(ENGINE, precision="bf16"),
        conditions=replace(old.conditions, device=device, versions=versions),
        watched=True,
        samples=(replace(old.samples[0], shape=(1000, 900)),),
    )
    told = " | ".join(compare_runs(old, new).differs)
    for part in ("machine: A processor, then Another", "cores: 4", "bundle: tiny 1.0.0", "precision: fp32, then bf16",
                 "a process of its own", "96 x 80", "numpy: "):  # fmt: skip
        assert part in told
    assert "driver" not in told


def test_runs_that_are_not_valid_are_doubted() -> None:
    bad = make_run(valid=False, reasons=("the machine held its clocks down",))
    assert compare_runs(make_run(), bad).doubts == (
        "the new run is not valid: the machine held its clocks down",
    )
    assert "not complete" in compare_runs(make_run(complete=False), make_run()).doubts[0]


def test_load_of_others_is_told() -> None:
    old = make_run()
    busy = replace(old, conditions=replace(old.conditions, before=replace(old.conditions.before, load=7.0)))
    assert compare_runs(old, busy).doubts == (
        "the new run: others were at work before the first study: a load of 7.0 on 4 cores",
    )


def test_runs_of_different_tasks_are_refused() -> None:
    with pytest.raises(RefusedError) as caught:
        compare_runs(make_run(), make_run(task="ct-opacity"))
    assert caught.value.code == "not-comparable"


def test_runs_with_nothing_in_common_are_refused() -> None:
    with pytest.raises(RefusedError, match="nothing in common"):
        compare_runs(make_run(scenarios=(), starts=()), make_run())
