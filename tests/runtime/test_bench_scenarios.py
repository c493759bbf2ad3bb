from __future__ import annotations

from collections.abc import Callable

import pytest

from bedside.bench.figures import Scenario
from bedside.bench.scenarios import (
    OFFLINE,
    SERVER,
    STREAM,
    Tally,
    allowed_over,
    search_rate,
    serve,
    sum_up,
)
from bedside.bench.tail import percentile
from bedside.bench.traffic import Load, OfflineTraffic, ServerTraffic, StreamTraffic, Traffic
from bedside.errors import BackendError
from made_bench import MadeClock, MadeSubject

OURS: dict[str, Callable[[Load, MadeClock], Traffic]] = {
    STREAM: StreamTraffic,
    OFFLINE: OfflineTraffic,
    SERVER: ServerTraffic,
}


def run(
    name: str, load: Load, times_ms: tuple[float, ...] = (10.0,), *, give_up: int | None = None
) -> Scenario:
    clock = MadeClock()
    subject = MadeSubject(times_ms, clock)
    traffic = OURS[name](load, clock)
    tally = Tally(name, traffic, load, range(load.samples))
    complete = serve(subject, traffic, tally, report=lambda _: None, give_up=give_up)
    return tally.scenario(complete=complete)


def test_single_stream_tells_what_studies_take() -> None:
    found = run(STREAM, Load(2, 100, 0.0, 0, 10.0), tuple(float(number) for number in range(1, 101)))
    assert found.latency is not None
    assert (found.latency.p50_ms, found.latency.p90_ms, found.latency.p99_ms) == (51.0, 91.0, 100.0)
    assert found.latency.p90_early_ms == 98.0  # of 100 queries, 3 may be slower
    assert found.latency.p99_early_ms is None
    assert found.latency.mean_ms == pytest.approx(50.5)
    assert found.seconds == pytest.approx(5.05)
    assert found.per_second == pytest.approx(100 / 5.05)
    assert (found.complete, found.full_length, found.held) == (True, False, None)
    assert all(len(column) == 100 for column in found.queries.stages_ms.values())


def test_offline_waits_in_a_queue() -> None:
    found = run(OFFLINE, Load(1, 10, 0.0, 0, 10.0))
    assert found.queries.latency_ms == pytest.approx([10.0 * number for number in range(1, 11)])
    assert set(found.queries.service_ms) == {10.0}
    assert found.per_second == pytest.approx(100.0)


@pytest.mark.parametrize(("rate", "held"), [(20.0, True), (99.0, False)])
def test_server_holds_its_bound_or_not(rate: float, held: bool) -> None:
    load = Load(1, 2000, 0.0, 7, 10.0, rate_per_second=rate, bound_ms=40.0)
    found = run(SERVER, load)
    assert found.held is held
    assert found.latency is not None
    assert (found.latency.p99_ms <= 40.0) is held
    assert found.over_bound == sum(value > 40.0 for value in found.queries.latency_ms)
    assert found.confirmed is held


def test_mean_wait_of_a_server_is_that_of_queueing_theory() -> None:
    # M/D/1 (Pollaczek-Khinchine): a study of 10 ms at half its capacity waits 10 * 0.5 / (2 * (1 - 0.5)) = 5 ms
    found = run(SERVER, Load(1, 10_000, 0.0, 11, 10.0, rate_per_second=50.0, bound_ms=1e6))
    assert found.latency is not None
    assert found.latency.mean_ms == pytest.approx(15.0, rel=0.08)


def test_a_server_that_is_lost_is_given_up() -> None:
    load = Load(1, 5000, 0.0, 7, 10.0, rate_per_second=200.0, bound_ms=40.0)
    found = run(SERVER, load, give_up=allowed_over(load.planned))
    assert len(found.queries.samples) < 1000
    assert (found.complete, found.held, found.confirmed) == (False, False, False)


@pytest.mark.parametrize("count", [1, 9, 99, 100, 101, 662, 1000])
def test_as_many_may_be_late_as_the_percentile_leaves(count: int) -> None:
    late = allowed_over(count)
    assert percentile([0.0] * (count - late) + [1.0] * late, 0.99) == 0.0
    assert percentile([0.0] * (count - late - 1) + [1.0] * (late + 1), 0.99) == 1.0


def test_search_finds_the_highest_rate_that_is_held() -> None:
    def trial(rate: float, repeat: int) -> Scenario:
        load = Load(1, 3000, 0.0, repeat, 10.0, rate_per_second=rate, bound_ms=50.0)
        return run(SERVER, load, give_up=allowed_over(load.planned))

    best, step, confirmed = search_rate(trial, 100.0, 6)
    assert best is not None
    assert step == pytest.approx(100 / 2**6)
    assert confirmed
    assert 40.0 < best < 95.0
    assert not trial(99.0, 0).held


def test_search_finds_nothing_where_nothing_is_held() -> None:
    seen = []

    def trial(rate: float, repeat: int) -> Scenario:
        seen.append((rate, repeat))
        return run(SERVER, Load(1, 10, 0.0, 0, 10.0, rate_per_second=rate, bound_ms=1.0))

    assert search_rate(trial, 100.0, 3) == (None, 12.5, False)
    assert [rate for rate, _ in seen] == [50.0, 25.0, 12.5]


def test_a_rate_that_was_luck_is_lowered() -> None:
    def trial(rate: float, repeat: int) -> Scenario:
        bound = 1e6 if repeat == 0 or rate <= 75.0 else 1.0
        return run(SERVER, Load(1, 10, 0.0, 0, 10.0, rate_per_second=rate, bound_ms=bound))

    assert search_rate(trial, 100.0, 3)[0] == 75.0  # found 87.5


def test_what_was_answered_outlives_what_breaks() -> None:
    def fail(number: int) -> None:
        if number == 3:
            raise BackendError("engine-crashed", "it died; try another")

    clock = MadeClock()
    subject = MadeSubject((10.0,), clock, fail=fail)
    traffic = StreamTraffic(Load(1, 10, 0.0, 0, 10.0), clock)
    tally = Tally(STREAM, traffic, Load(1, 10, 0.0, 0, 10.0), [0])
    with pytest.raises(BackendError):
        serve(subject, traffic, tally, report=lambda _: None)
    found = tally.scenario(complete=False)
    assert (len(found.queries.samples), found.complete) == (3, False)


def test_a_run_without_an_answer_has_no_latency() -> None:
    load = Load(1, 10, 0.0, 0, 10.0)
    found = Tally(SERVER, ServerTraffic(load, MadeClock()), load, [0]).scenario(complete=False)
    assert (found.latency, found.per_second, found.held) == (None, None, False)


@pytest.mark.parametrize(("study_ms", "full"), [(10_000.0, False), (9_000.0, True)])
def test_full_length_is_mlperfs(study_ms: float, full: bool) -> None:
    # 600 s give 60 queries, too few for the estimate, or 67
    assert run(STREAM, Load(1, 1, 600.0, 0, 1e4), (study_ms,)).full_length is full


def test_one_latency_is_summed_up() -> None:
    found = sum_up((5.0,))
    assert (found.p50_ms, found.p99_ms, found.max_ms, found.p90_early_ms) == (5.0, 5.0, 5.0, None)
    assert (found.p90_needs, found.p99_needs) == (64, 662)
