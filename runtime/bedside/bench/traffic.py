"""What comes when: queries by MLPerf's rules, where its own generator is not installed.

Samples are drawn at random, with replacement, by a seed (inference_rules.adoc, "LoadGen Operation"). All times are of
`Clock`, which only goes forward: that somebody sets the wall's clock changes nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from bedside.bench.figures import Generator
from bedside.version import __version__

__all__ = ["OWN", "Arrival", "Clock", "Load", "OfflineTraffic", "ServerTraffic", "StreamTraffic", "Traffic"]

OWN: Final = Generator("bedside", __version__)
"""The generators of this module."""
NAP_S: Final = 0.2
"""Longest sleep at a time, so that Ctrl-C is heard."""


class Clock:
    """Time that only goes forward, and waiting for it."""

    def __init__(self, check: Callable[[], None] = lambda: None) -> None:
        self._check = check

    def now_ns(self) -> int:
        """Nanoseconds since some time."""
        return time.monotonic_ns()

    def wait_until(self, at_ns: int) -> None:
        """Sleep. What ``check`` raises ends it."""
        while (left := (at_ns - self.now_ns()) / 1e9) > 0:
            self._check()
            time.sleep(min(left, NAP_S))

    def pause(self, seconds: float) -> None:
        """Sleep for some time."""
        self.wait_until(self.now_ns() + round(seconds * 1e9))


@dataclass(frozen=True, slots=True)
class Load:
    """How much of it."""

    samples: int
    """How many different ones there are."""
    queries: int
    """Fewest queries."""
    duration_s: float
    """Shortest time over which they come."""
    seed: int
    """Of their order, and of their arrivals."""
    expected_ms: float
    """What a study takes, about: a run that is planned ahead is planned with it."""
    rate_per_second: float = 1.0
    """Of a server run: arrivals a second, on average."""
    bound_ms: float = 0.0
    """Of a server run: what most queries have to stay below."""

    @property
    def planned(self) -> int:
        """Queries of a run that is planned ahead, offline or server."""
        return max(self.queries, round(self.duration_s * self.rate_per_second))


@dataclass(frozen=True, slots=True)
class Arrival:
    """A query."""

    sample: int
    """Which sample."""
    at_ns: int
    """When it came, or was to come."""
    ticket: int = 0
    """The generator's own number for it."""


class Traffic(Protocol):
    """Queries, one after the other, to one server."""

    @property
    def generator(self) -> Generator:
        """What makes them."""

    def next(self) -> Arrival | None:
        """The next query, as soon as it has come; None where there are no more."""

    def done(self, arrival: Arrival) -> None:
        """Say that it was answered."""

    def close(self) -> None:
        """End it, also before its end."""


class _Own:
    """What all of ours have in common."""

    generator: Generator = OWN

    def __init__(self, load: Load, clock: Clock) -> None:
        self._load = load
        self._clock = clock
        self._random = np.random.default_rng(load.seed)

    def done(self, arrival: Arrival) -> None:
        """Nothing waits for it."""

    def close(self) -> None:
        """Nothing is open."""

    def _draw(self) -> int:
        return int(self._random.integers(self._load.samples))


class StreamTraffic(_Own):
    """Single stream: the next comes when the last is done, until both the time and the queries are enough."""

    def __init__(self, load: Load, clock: Clock) -> None:
        super().__init__(load, clock)
        self._begin_ns: int | None = None
        self._count = 0

    def next(self) -> Arrival | None:
        """The next query, which comes now."""
        now = self._clock.now_ns()
        begin = self._begin_ns = now if self._begin_ns is None else self._begin_ns
        if self._count >= self._load.queries and (now - begin) / 1e9 >= self._load.duration_s:
            return None
        self._count += 1
        sample = self._draw()
        return Arrival(sample, self._clock.now_ns())


class OfflineTraffic(_Own):
    """Offline: all come at once."""

    def __init__(self, load: Load, clock: Clock) -> None:
        super().__init__(load, clock)
        self._left: deque[Arrival] | None = None

    def next(self) -> Arrival | None:
        """The next of them."""
        if self._left is None:
            samples = [self._draw() for _ in range(self._load.planned)]
            now = self._clock.now_ns()
            self._left = deque(Arrival(sample, now) for sample in samples)
        return self._left.popleft() if self._left else None


class ServerTraffic(_Own):
    """Server: queries come at random times, independent of each other, at an average rate (a Poisson process)."""

    def __init__(self, load: Load, clock: Clock) -> None:
        super().__init__(load, clock)
        self._left: deque[Arrival] | None = None

    def next(self) -> Arrival | None:
        """The next query, when its time has come; at once where that was while another was served."""
        if self._left is None:
            waits = self._random.exponential(1e9 / self._load.rate_per_second, self._load.planned)
            samples = [self._draw() for _ in range(self._load.planned)]
            begin = self._clock.now_ns()
            times = (begin + np.cumsum(waits)).astype(np.int64).tolist()
            self._left = deque(Arrival(sample, at) for sample, at in zip(samples, times, strict=True))
        if not self._left:
            return None
        arrival = self._left.popleft()
        self._clock.wait_until(arrival.at_ns)
        return arrival
