"""Joules a study: what the meters tell over a run, less what the machine takes when it is left alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from bedside.bench.figures import Energy, StudyEnergy
from bedside.bench.meters import Meter

__all__ = ["Recorder", "Window", "account"]

PERIOD_S: Final = 0.1
"""How often meters are looked at: power sensors are added up over time, and counters begin anew after minutes."""


@dataclass(frozen=True, slots=True)
class Window:
    """Some time, and the energy that went in it."""

    seconds: float
    """How long it was."""
    total_j: float
    """Of the domains that are counted."""
    domains_j: dict[str, float]
    """Of each domain."""

    @property
    def watts(self) -> float:
        """Mean power."""
        return self.total_j / self.seconds if self.seconds > 0 else 0.0


class Recorder:
    """Looks at meters while the ``with`` block runs.

    Args:
        meters: What tells energy.
        clock: Seconds that only grow; for tests.
    """

    def __init__(self, meters: Sequence[Meter], clock: Callable[[], float] = time.monotonic) -> None:
        self._meters = meters
        self._clock = clock
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="bedside-energy", daemon=True)
        self.counted = tuple(domain for meter in meters for domain in meter.counted)
        """Domains whose sum is counted."""

    def mark(self) -> tuple[float, dict[str, float]]:
        """Look now; the time, and the energy of each domain so far."""
        with self._lock:
            now = self._clock()
            for meter in self._meters:
                meter.read(now)
            return now, {domain: spent for meter in self._meters for domain, spent in meter.joules.items()}

    def since(self, mark: tuple[float, dict[str, float]]) -> Window:
        """What went since a mark."""
        begin_s, before = mark
        end_s, after = self.mark()
        spent = {domain: after[domain] - before[domain] for domain in after}
        return Window(end_s - begin_s, sum(spent[domain] for domain in self.counted), spent)

    def __enter__(self) -> Recorder:
        """Start to look."""
        self.mark()
        if self._meters:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(PERIOD_S):
            self.mark()


def account(
    idle: tuple[Window | None, Window | None],
    runs: Sequence[tuple[str, int, Window]],
    counted: tuple[str, ...],
) -> Energy:
    """Energy a study.

    Args:
        idle: The machine left alone, before and after; None where it did not come to that.
        runs: Scenario, its studies, and the energy that went meanwhile.
        counted: Domains whose sum is counted.
    """
    before, after = idle
    known = [window.watts for window in idle if window is not None]
    if not known:
        return Energy(False, "idle power was not measured", counted)
    studies = []
    for scenario, count, window in runs:
        if count:
            mean, low, high = (
                (window.total_j - watts * window.seconds) / count
                for watts in (sum(known) / len(known), max(known), min(known))
            )
            studies.append(
                StudyEnergy(
                    scenario, count, window.seconds, window.total_j, mean, low, high, window.domains_j
                )
            )
    return Energy(
        measured=bool(studies),
        reason="" if studies else "no study was measured",
        counted=counted,
        idle_before_w=None if before is None else before.watts,
        idle_after_w=None if after is None else after.watts,
        studies=tuple(studies),
    )
