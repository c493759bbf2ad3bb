"""MLPerf's own load generator, where ``mlcommons-loadgen`` is installed, in a process of its own.

It is C++ that can't be stopped half-way, and ends the process where a callback raises; so it is asked from outside, and
killed where a run ends early. What passes between costs a query some 0.1 ms.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from bedside.bench.figures import Generator
from bedside.bench.traffic import Arrival, Load
from bedside.errors import BackendError
from bedside.isolation.process import EngineProcess, ProcessEndedError

__all__ = ["LoadgenTraffic", "find_loadgen"]

PACKAGE: Final = "mlperf_loadgen"
DISTRIBUTION: Final = "mlcommons-loadgen"
MODULE: Final = "bedside.bench.loadgen_worker"
LISTEN_S: Final = 0.2
"""Longest wait at a time, so that Ctrl-C is heard."""


def find_loadgen() -> Generator | None:
    """The installed generator; None without one. Nothing is imported."""
    if find_spec(PACKAGE) is None:
        return None
    try:
        return Generator(DISTRIBUTION, metadata.version(DISTRIBUTION))
    except metadata.PackageNotFoundError:  # built from source
        return Generator(DISTRIBUTION, "unknown")


class LoadgenTraffic:
    """Queries of MLPerf's load generator; see `bedside.bench.traffic.Traffic`.

    Args:
        scenario: ``SingleStream``, ``Offline`` or ``Server``.
        load: How much of it.
        logs: Folder for its logs, which exists.
        check: Called while it waits; what it raises ends the wait.

    Raises:
        BackendError: ``engine-crashed`` if the generator dies.
    """

    def __init__(
        self, scenario: str, load: Load, logs: Path, check: Callable[[], None] = lambda: None
    ) -> None:
        self.generator = find_loadgen() or Generator(DISTRIBUTION, "unknown")
        """What makes the queries."""
        self._check = check
        self._arrived: deque[Arrival] = deque()
        self._process = EngineProcess(module=MODULE)
        self._send(
            {
                "scenario": scenario,
                "samples": load.samples,
                "queries": load.queries if scenario == "SingleStream" else load.planned,
                "duration_ms": 0 if scenario == "Offline" else round(load.duration_s * 1e3),
                "seed": load.seed,
                "expected_ns": max(1, round(load.expected_ms * 1e6)),
                "rate": load.rate_per_second,
                "bound_ns": max(1, round(load.bound_ms * 1e6)),
                "logs": str(logs),
            }
        )

    def next(self) -> Arrival | None:
        """The next query, as soon as it has come; None where there are no more."""
        while not self._arrived:
            try:
                message = self._process.receive(time.monotonic() + LISTEN_S)
            except TimeoutError:
                self._check()
                continue
            except ProcessEndedError as error:
                raise self._broken() from error
            if "over" in message:
                return None
            self._arrived.extend(
                Arrival(sample, message["at_ns"], ticket) for ticket, sample in message["issued"]
            )
        return self._arrived.popleft()

    def done(self, arrival: Arrival) -> None:
        """Say that it was answered."""
        self._send({"done": arrival.ticket})

    def close(self) -> None:
        """End it: it may be in the middle of a run."""
        self._process.kill()

    def _send(self, message: Mapping[str, object]) -> None:
        try:
            self._process.send(message)
        except ProcessEndedError as error:
            raise self._broken() from error

    def _broken(self) -> BackendError:
        self._process.end()
        return BackendError(
            "engine-crashed",
            f"the load generator {self._process.describe_end()}{self._process.last_words([])}; uninstall "
            f"{DISTRIBUTION} to measure with bedside's own",
        )
