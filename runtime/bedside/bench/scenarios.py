"""MLPerf's scenarios, from arrivals to what is told of them.

Tally         collects what was answered, so that what is finished outlives what breaks
serve         answers queries as they come, one at a time
search_rate   the highest rate of arrivals that stays within a bound
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from bedside.bench.figures import Latency, Queries, Scenario
from bedside.bench.study import Answer
from bedside.bench.subject import Subject
from bedside.bench.tail import confirms, early_estimate, fewest_queries, percentile
from bedside.bench.traffic import Arrival, Load, Traffic

__all__ = ["FULL_S", "OFFLINE", "SERVER", "STREAM", "Tally", "allowed_over", "search_rate", "serve", "sum_up"]

STREAM: Final = "single-stream"
OFFLINE: Final = "offline"
SERVER: Final = "server"
FULL_S: Final = 600.0
"""MLPerf's shortest run (inference_rules.adoc, "Scenarios")."""
FULL_OFFLINE: Final = 24_576
"""MLPerf's fewest samples of an offline run (the same)."""
TAIL: Final = 0.99
"""Share of the queries of a server run that has to stay within the bound: MLPerf's for pictures."""
REPEATS: Final = 8
"""How often a rate is run again with other arrivals, each time lower, until it is held: near its capacity, a server's
queue is a matter of luck for long."""
LOWER: Final = 0.05
"""Share by which it is lowered, at least by a step of the search."""


class Tally:
    """What was answered so far.

    Args:
        name: `STREAM`, `OFFLINE` or `SERVER`.
        traffic: What issues the queries.
        load: How much was asked for.
        numbers: What the subject calls each sample of the traffic.
    """

    def __init__(self, name: str, traffic: Traffic, load: Load, numbers: Sequence[int]) -> None:
        self._name = name
        self._generator = traffic.generator
        self._load = load
        self.numbers = numbers
        """What the subject calls each sample of the traffic."""
        self._answered: list[tuple[Arrival, Answer]] = []
        self.over_bound = 0
        """Queries that took longer than the bound of the load."""

    @property
    def count(self) -> int:
        """Queries that were answered."""
        return len(self._answered)

    def add(self, arrival: Arrival, answer: Answer) -> None:
        """Take an answered query."""
        self._answered.append((arrival, answer))
        self.over_bound += (answer.done_ns - arrival.at_ns) / 1e6 > self._load.bound_ms

    def scenario(self, *, complete: bool) -> Scenario:
        """What is told of it.

        Args:
            complete: Whether it ran to its end.
        """
        begin = min((arrival.at_ns for arrival, _ in self._answered), default=0)
        end = max((answer.done_ns for _, answer in self._answered), default=0)
        seconds = (end - begin) / 1e9
        queries = _columns(self._answered, begin)
        latency = sum_up(queries.latency_ms) if self.count else None
        scenario = Scenario(
            name=self._name,
            generator=self._generator,
            seconds=seconds,
            queries=queries,
            latency=latency,
            per_second=self.count / seconds if seconds > 0 else None,
            complete=complete,
            full_length=complete and seconds >= FULL_S and self._enough(latency),
        )
        if self._name != SERVER:
            return scenario
        return replace(
            scenario,
            rate_per_second=self._load.rate_per_second,
            bound_ms=self._load.bound_ms,
            over_bound=self.over_bound,
            held=complete and latency is not None and latency.p99_ms <= self._load.bound_ms,
            confirmed=complete and confirms(self.count, self.over_bound, TAIL),
        )

    def _enough(self, latency: Latency | None) -> bool:
        if latency is None:
            return False
        if self._name == OFFLINE:
            return self.count >= FULL_OFFLINE
        if self._name == SERVER:
            return confirms(self.count, self.over_bound, TAIL)
        return latency.p90_early_ms is not None


def serve(
    subject: Subject,
    traffic: Traffic,
    tally: Tally,
    *,
    report: Callable[[int], None],
    give_up: int | None = None,
) -> bool:
    """Answer queries as they come, until there are no more.

    Args:
        subject: What does the studies.
        traffic: What comes; closed at the end, also where something breaks.
        tally: Takes every answer.
        report: Told after each how many were answered; what it raises ends the run.
        give_up: End early where more queries than this are over the bound.

    Returns:
        Whether it came to its end.

    Raises:
        BedsideError: What a study could not do; those before it are in the tally.
    """
    try:
        while (arrival := traffic.next()) is not None:
            answer = subject.run(tally.numbers[arrival.sample])
            tally.add(arrival, answer)
            report(tally.count)  # before the generator goes on: no latency holds it
            traffic.done(arrival)
            if give_up is not None and tally.over_bound > give_up:
                return False
    finally:
        traffic.close()
    return True


def allowed_over(planned: int) -> int:
    """Queries that may be over the bound, of so many, with the percentile still within it."""
    return planned - min(planned - 1, int(planned * TAIL)) - 1


def search_rate(
    trial: Callable[[float, int], Scenario], capacity: float, steps: int
) -> tuple[float | None, float, bool]:
    """The highest rate of arrivals that is held: by halving, then run again with other arrivals, as MLPerf has it.

    Args:
        trial: Runs a rate, in arrivals a second, with a seed of its own.
        capacity: Rate that can't be exceeded: one over the time of a study.
        steps: Halvings.

    Returns:
        The rate, or None if none was held; how finely it was searched; and whether early stopping confirms it.
    """
    low, high = 0.0, capacity
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if trial(middle, 0).held else (low, middle)
    step, rate = high - low, low
    for repeat in range(1, REPEATS + 1):
        if rate < step / 2:
            break
        again = trial(rate, repeat)
        if again.held:
            return rate, step, bool(again.confirmed)
        rate -= max(step, LOWER * rate)
    return None, step, False


def sum_up(latencies_ms: tuple[float, ...]) -> Latency:
    """Latencies in short.

    Args:
        latencies_ms: At least one.
    """
    ordered = sorted(latencies_ms)
    return Latency(
        mean_ms=sum(ordered) / len(ordered),
        p50_ms=percentile(ordered, 0.5),
        p90_ms=percentile(ordered, 0.9),
        p99_ms=percentile(ordered, 0.99),
        max_ms=ordered[-1],
        p90_early_ms=early_estimate(ordered, 0.9),
        p99_early_ms=early_estimate(ordered, 0.99),
        p90_needs=fewest_queries(0.9),
        p99_needs=fewest_queries(0.99),
    )


def _columns(answered: list[tuple[Arrival, Answer]], begin_ns: int) -> Queries:
    stages = dict.fromkeys(stage for _, answer in answered for stage in answer.stages_ms)
    return Queries(
        samples=tuple(arrival.sample for arrival, _ in answered),
        at_ms=tuple((arrival.at_ns - begin_ns) / 1e6 for arrival, _ in answered),
        latency_ms=tuple((answer.done_ns - arrival.at_ns) / 1e6 for arrival, answer in answered),
        service_ms=tuple(answer.service_ms for _, answer in answered),
        stages_ms={
            stage: tuple(answer.stages_ms.get(stage, 0.0) for _, answer in answered) for stage in stages
        },
    )
