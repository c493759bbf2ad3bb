"""How long the stages of a job take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Stages"]


class Stages:
    """Wall time of each stage, in ms. Stages may run in several threads, each stage in one at a time."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._spent: dict[str, float] = {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time of the ``with`` block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._spent[stage] = self._spent.get(stage, 0.0) + (time.perf_counter() - start) * 1e3

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def finish(self) -> dict[str, float]:
        """Stage -> ms, and ``total`` since the start: less than their sum where they overlapped."""
        return {**self._spent, "total": self.elapsed_s * 1e3}
