"""Where candidates are built and run: each in a process of its own, as many at once as memory allows."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from bedside.backends import Backend, Tuning
from bedside.bundle import Bundle
from bedside.golden import load_golden, load_tissue_golden
from bedside.isolation import IsolatedBackend, Limits
from bedside.tuning.candidates import Candidate

__all__ = ["Bench", "Engine", "Opener", "isolate", "make_input"]

SLICE_S: Final = 0.25
"""How long a candidate runs when it has its turn, and at least once: long against what starts and stops it."""
MAX_RUNS: Final = 50
"""Most runs in one turn."""
_PEAK: Final = re.compile(r"^VmHWM:\s*(\d+) kB$", re.MULTILINE)
"""Peak resident size in /proc/PID/status (proc_pid_status(5))."""
_AVAILABLE: Final = re.compile(r"^MemAvailable:\s*(\d+) kB$", re.MULTILINE)
"""What can be had without swapping, in /proc/meminfo (proc_meminfo(5))."""
_SHARE: Final = 2
"""Engines are held open together up to this part of the memory that is available."""

Inputs = Mapping[str, npt.NDArray[np.float32]]


class Engine(Backend, Protocol):
    """An engine in another process."""

    @property
    def process(self) -> int | None:
        """Number of its process; None while there is none."""


Opener = Callable[[Candidate, Tuning], Engine]
"""Builds a candidate in a process of its own."""


def isolate(bundle: Bundle, limits: Limits) -> Opener:
    """The opener of real candidates."""

    def opener(candidate: Candidate, tuning: Tuning) -> Engine:
        return IsolatedBackend(
            candidate.backend,
            bundle,
            precision=candidate.precision,
            threads=candidate.threads,
            tuning=tuning,
            limits=limits,
        )

    return opener


@dataclass(slots=True)
class _Place:
    engine: Engine
    bytes: int


class Bench:
    """Opens candidates, and closes those that were idle longest where memory would not hold all.

    Args:
        opener: Builds one.
        budget_bytes: What all processes together may hold; None for half of what is available.
    """

    def __init__(self, opener: Opener, budget_bytes: int | None = None) -> None:
        self._opener = opener
        self._before = _available() if budget_bytes is None else 0
        self._budget = self._before // _SHARE if budget_bytes is None else budget_bytes
        self._places: dict[Candidate, _Place] = {}  # the one that was idle longest first

    @property
    def held(self) -> tuple[Candidate, ...]:
        """What is open now, the one that was idle longest first."""
        return tuple(self._places)

    def take(self, candidate: Candidate, tuning: Tuning, expected_bytes: int = 0) -> Engine:
        """A candidate's engine, which stays this object's.

        Args:
            candidate: What is wanted.
            tuning: How it is set up, if it is not open.
            expected_bytes: What its process is known to hold.

        Raises:
            BedsideError: Whatever keeps it from opening.
        """
        place = self._places.pop(candidate, None)
        if place is None:
            while self._places and self._held_bytes() + expected_bytes > self._budget:
                self.drop(next(iter(self._places)))
            place = _Place(self._opener(candidate, tuning), expected_bytes)
        self._places[candidate] = place
        return place.engine

    def weigh(self, candidate: Candidate) -> int | None:
        """Most bytes that a candidate's process has held so far; None where the system does not tell."""
        place = self._places[candidate]
        peak = _peak_bytes(place.engine.process)
        place.bytes = max(place.bytes, peak or 0)
        return peak

    def run(self, candidate: Candidate, inputs: Inputs) -> list[float]:
        """Give an open candidate its turn: a run that does not count, then some that do.

        Returns:
            Time of each, ms, with what it takes to cross between processes, which all pay alike.
        """
        engine = self._places[candidate].engine
        first = _timed(engine, inputs)
        runs = max(1, min(MAX_RUNS, round(SLICE_S * 1e3 / first)))
        return [_timed(engine, inputs) for _ in range(runs)]

    def drop(self, candidate: Candidate) -> None:
        """Close a candidate, if it is open."""
        place = self._places.pop(candidate, None)
        if place is not None:
            place.engine.close()

    def close(self) -> None:
        """Close all."""
        for candidate in self.held:
            self.drop(candidate)

    def __enter__(self) -> Bench:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close all."""
        self.close()

    def _held_bytes(self) -> int:
        """What the processes were seen to hold, or what has gone since the start where that is more.

        On a Jetson the GPU's memory is taken from the same, and is no process's.
        """
        told = sum(place.bytes for place in self._places.values())
        return max(told, self._before - _available()) if self._before else told


def make_input(bundle: Bundle, tuning: Tuning) -> dict[str, npt.NDArray[np.float32]]:
    """What is timed: the bundle's first golden input, as often as a batch has it, and of the tile's size.

    Raises:
        BundleError: As `bedside.golden.load_golden`.
    """
    manifest = bundle.manifest
    load = load_tissue_golden if manifest.task == "ct-opacity" else load_golden
    image: npt.NDArray[np.float32] = load(bundle).images[:1]
    if tuning.tile is not None:
        sides = tuple(
            fixed or wanted for fixed, wanted in zip(manifest.input.shape[2:], tuning.tile, strict=True)
        )
        for axis, side in enumerate(sides, 2):
            image = image.take(range(min(side, image.shape[axis])), axis=axis)
        more = [(0, side - size) for side, size in zip(sides, image.shape[2:], strict=True)]
        image = np.pad(image, [(0, 0), (0, 0), *more], mode="wrap")
    batch = tuning.batch if manifest.input.shape[0] is None else 1
    return {manifest.input.name: np.ascontiguousarray(np.repeat(image, batch, axis=0))}


def _timed(engine: Engine, inputs: Inputs) -> float:
    start = time.perf_counter()
    engine.run(inputs)
    return (time.perf_counter() - start) * 1e3


def _peak_bytes(process: int | None) -> int | None:
    if process is not None:
        with suppress(OSError):
            return _kib(_PEAK, Path(f"/proc/{process}/status"))
    return None


def _available() -> int:
    with suppress(OSError):
        return _kib(_AVAILABLE, Path("/proc/meminfo")) or 0
    return 0


def _kib(pattern: re.Pattern[str], path: Path) -> int | None:
    found = pattern.search(path.read_text())
    return None if found is None else int(found[1]) << 10
