"""Arrivals: ours by MLPerf's rules, and those of MLPerf's own generator."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from bedside.bench.generators import CHOICES, Generators
from bedside.bench.loadgen import LoadgenTraffic, find_loadgen
from bedside.bench.scenarios import OFFLINE, SERVER, STREAM
from bedside.bench.tail import early_estimate
from bedside.bench.traffic import (
    OWN,
    Arrival,
    Clock,
    Load,
    OfflineTraffic,
    ServerTraffic,
    StreamTraffic,
    Traffic,
)
from bedside.cli.bench import GENERATORS
from bedside.errors import BackendError, MissingExtraError
from made_bench import MadeClock

LOAD = Load(
    samples=5, queries=100, duration_s=2.0, seed=3, expected_ms=10.0, rate_per_second=50.0, bound_ms=100.0
)
SHORT = Load(
    samples=5, queries=80, duration_s=0.2, seed=3, expected_ms=0.5, rate_per_second=400.0, bound_ms=50.0
)

needs_loadgen = pytest.mark.skipif(find_loadgen() is None, reason="needs mlcommons-loadgen")


def play(traffic: Traffic, clock: MadeClock, study_ms: float) -> list[Arrival]:
    """Answer all, each in ``study_ms``."""
    arrivals = []
    while (arrival := traffic.next()) is not None:
        arrivals.append(arrival)
        clock.at_ns += round(study_ms * 1e6)
        traffic.done(arrival)
    traffic.close()
    return arrivals


@pytest.mark.parametrize(("study_ms", "count"), [(10.0, 200), (50.0, 100)])
def test_single_stream_goes_on_until_time_and_queries_are_enough(study_ms: float, count: int) -> None:
    clock = MadeClock()
    arrivals = play(StreamTraffic(LOAD, clock), clock, study_ms)
    assert len(arrivals) == count
    gaps = {second.at_ns - first.at_ns for first, second in pairwise(arrivals)}
    assert gaps == {round(study_ms * 1e6)}  # the next comes when the last is done


def test_offline_comes_at_once() -> None:
    clock = MadeClock()
    arrivals = play(OfflineTraffic(LOAD, clock), clock, 10.0)
    assert len(arrivals) == LOAD.planned == 100
    assert len({arrival.at_ns for arrival in arrivals}) == 1


def test_server_arrives_at_random_whatever_studies_take() -> None:
    load = Load(5, 20_000, 0.0, 1, 10.0, rate_per_second=50.0, bound_ms=100.0)
    fast, slow = (
        play(ServerTraffic(load, clock), clock, ms) for clock, ms in ((MadeClock(), 1.0), (MadeClock(), 30.0))
    )
    assert [each.at_ns for each in fast] == [each.at_ns for each in slow]
    gaps = [(b.at_ns - a.at_ns) / 1e9 for a, b in pairwise(fast)]
    mean, spread = statistics.mean(gaps), statistics.stdev(gaps)
    # exponential: mean and standard deviation are alike; 5 standard errors of 20,000
    assert mean == pytest.approx(1 / 50, rel=5 / 20_000**0.5)
    assert spread == pytest.approx(mean, rel=0.05)


@pytest.mark.parametrize("kind", [StreamTraffic, OfflineTraffic, ServerTraffic])
def test_samples_are_drawn_evenly_and_by_the_seed(kind: Callable[[Load, Clock], Traffic]) -> None:
    def draw(seed: int) -> list[int]:
        clock = MadeClock()
        return [each.sample for each in play(kind(Load(4, 4000, 0.0, seed, 1.0), clock), clock, 1.0)]

    samples = draw(0)
    assert samples == draw(0) != draw(1)
    assert all(900 < samples.count(each) < 1100 for each in range(4))


def test_wall_clock_that_jumps_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(jumps)))
    monkeypatch.setattr(time, "time_ns", lambda: next(jumps) * 10**9)
    load = Load(1, 5, 0.02, 0, 1.0, rate_per_second=200.0)
    for kind in (StreamTraffic, OfflineTraffic, ServerTraffic):
        traffic = kind(load, Clock())
        times = []
        while (arrival := traffic.next()) is not None:
            times.append(arrival.at_ns)
            time.sleep(0.001)
        assert times == sorted(times)
        assert times[-1] - times[0] < 60e9


def test_waiting_hears_ctrl_c() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Clock(interrupt).pause(60.0)


def test_generators_are_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert GENERATORS == CHOICES
    own = Generators("bedside", tmp_path, lambda: None)
    assert {own.make(name, LOAD).generator for name in (STREAM, OFFLINE, SERVER)} == {OWN}
    monkeypatch.setattr("bedside.bench.generators.find_loadgen", lambda: None)
    assert Generators("auto", tmp_path, lambda: None).make(STREAM, LOAD).generator == OWN
    with pytest.raises(MissingExtraError, match=r"bedside\[bench\]"):
        Generators("loadgen", tmp_path, lambda: None)


@needs_loadgen
@pytest.mark.parametrize(
    ("name", "scenario"), [(STREAM, "SingleStream"), (OFFLINE, "Offline"), (SERVER, "Server")]
)
def test_loadgen_issues_as_many_as_its_rules_say(name: str, scenario: str, tmp_path: Path) -> None:
    traffic = Generators("loadgen", tmp_path, lambda: None).make(name, SHORT)
    arrivals = []
    begin = time.monotonic_ns()
    while (arrival := traffic.next()) is not None:
        arrivals.append(arrival)
        time.sleep(0.0005)
        traffic.done(arrival)
    traffic.close()
    assert traffic.generator == find_loadgen()
    assert len(arrivals) >= SHORT.queries
    assert {arrival.sample for arrival in arrivals} == set(range(5))
    assert all(begin < arrival.at_ns < time.monotonic_ns() for arrival in arrivals)
    if name == OFFLINE:
        assert len(arrivals) == SHORT.planned
        assert len({arrival.at_ns for arrival in arrivals}) == 1
    summary = (tmp_path / "loadgen-1" / "mlperf_log_summary.txt").read_text()
    assert f"Scenario : {scenario}" in summary
    assert "Min queries satisfied : Yes" in summary


@needs_loadgen
def test_loadgen_arrives_at_the_same_rate_as_ours(tmp_path: Path) -> None:
    load = Load(3, 300, 0.0, 5, 1.0, rate_per_second=500.0, bound_ms=1000.0)
    traffic = LoadgenTraffic("Server", load, tmp_path)
    theirs = []
    while (arrival := traffic.next()) is not None:
        theirs.append(arrival.at_ns / 1e9)
        traffic.done(arrival)
    traffic.close()
    clock = MadeClock()
    ours = [each.at_ns / 1e9 for each in play(ServerTraffic(load, clock), clock, 1.0)]
    for times in (theirs, ours):
        rate = (len(times) - 1) / (times[-1] - times[0])
        assert rate == pytest.approx(500.0, rel=6 / 300**0.5)


@needs_loadgen
def test_our_estimate_is_loadgens(tmp_path: Path) -> None:
    load = Load(2, 700, 0.0, 0, 0.1)
    traffic = LoadgenTraffic("SingleStream", load, tmp_path)
    count = 0
    while (arrival := traffic.next()) is not None:
        count += 1
        traffic.done(arrival)
    traffic.close()
    summary = (tmp_path / "mlperf_log_summary.txt").read_text()
    found = re.search(r"Would discard (\d+) highest", summary)
    assert found is not None
    place = early_estimate([float(each) for each in range(count)], 0.9)
    assert place is not None
    assert count - 1 - int(place) == int(found[1])


@needs_loadgen
def test_loadgen_that_dies_is_told(tmp_path: Path) -> None:
    traffic = LoadgenTraffic("SingleStream", LOAD, tmp_path)
    first = traffic.next()
    assert first is not None
    traffic._process.kill()
    with pytest.raises((BackendError, OSError, ValueError)):
        traffic.done(first)


@needs_loadgen
def test_loadgen_is_left_in_the_middle(tmp_path: Path) -> None:
    traffic = LoadgenTraffic("Server", LOAD, tmp_path)
    assert traffic.next() is not None
    traffic.close()
    assert traffic._process.describe_end().startswith("was killed")
