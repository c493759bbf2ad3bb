"""What a study costs in numbers that are the same on every machine: runs of the network, files, copies, threads.

    seam = Seam(engine)                     stands where the engine stood
    count_study(seam, run, Places(...))     name -> number

Each is counted while one warm study runs, and is the same each time it does.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from arrays import watch_arrays

from bedside.backends import Backend, EngineInfo

__all__ = ["PEAK", "Places", "Seam", "count_study"]

PEAK: Final = "most bytes of Python and numpy held at once"
"""The one count that is not exact: threads that overlap do so a little differently each time."""
_FURTHER: Final = re.compile(r"_[1-9]\d*$")
"""End of the names of a pool's threads but the first: how many it has hangs on the processors."""

Arrays = Mapping[str, npt.NDArray[Any]]
_Listener = Callable[[str, tuple[Any, ...]], None]
_listeners: list[_Listener] = []
"""Called by the one hook of `_set_hook`."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a study reads and writes."""

    source: Path
    """Its file, or its folder of slices."""
    results: Path
    """Folder, with those in it."""
    picture_bytes: int
    """Of one stored picture or slice: arrays from this size on count as large."""


class Seam:
    """An engine, and a look at what passes between it and bedside: a `bedside.backends.Backend`."""

    def __init__(self, engine: Backend) -> None:
        self.engine = engine
        """The engine itself."""
        self.passed: list[dict[str, int]] = []
        """Bytes of each run: given, of those copied by the engine, and answered."""
        self._kept: list[tuple[Arrays, Arrays]] | None = None
        self._answers: Iterator[Arrays] | None = None

    @property
    def info(self) -> EngineInfo:
        """What runs."""
        return self.engine.info

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, npt.NDArray[Any]]:
        """Run the network, or answer as it did; see `keep` and `replay`."""
        if self._answers is not None:
            return {name: array.copy() for name, array in next(self._answers).items()}
        outputs = self.engine.run(inputs)
        given = inputs.values()
        self.passed.append(
            {
                "given": sum(array.nbytes for array in given),
                "copied": sum(array.nbytes for array in given if not array.flags.c_contiguous),
                "answered": sum(array.nbytes for array in outputs.values()),
            }
        )
        if self._kept is not None:
            self._kept.append(({name: array.copy() for name, array in inputs.items()}, dict(outputs)))
        return outputs

    def close(self) -> None:
        """Free the engine."""
        self.engine.close()

    @contextmanager
    def keep(self) -> Iterator[list[tuple[Arrays, Arrays]]]:
        """Keep the inputs and outputs of each run in the ``with`` block."""
        self._kept = []
        try:
            yield self._kept
        finally:
            self._kept = None

    @contextmanager
    def replay(self, answers: list[Arrays]) -> Iterator[None]:
        """Run nothing in the ``with`` block, and give these answers in turn, each new: what is left is the rest."""
        self._answers = iter(answers)
        try:
            yield
        finally:
            self._answers = None


def count_study(seam: Seam, run: Callable[[], object], places: Places) -> dict[str, int]:
    """Run a warm study, and count.

    Args:
        seam: Stands in the study's engine.
        run: Does the study.
        places: Where it reads and writes.
    """
    seam.passed.clear()
    with ExitStack() as stack:
        files = stack.enter_context(_watch_files(places))
        waits = stack.enter_context(_watch_waits())
        threads = stack.enter_context(_watch_threads())
        large = stack.enter_context(watch_arrays(places.picture_bytes))
        held = stack.enter_context(_watch_memory())
        run()
    return {
        "runs of the network": len(seam.passed),
        "bytes given to the network": sum(each["given"] for each in seam.passed),
        "bytes of these that it has to copy, as they do not lie in order": sum(
            each["copied"] for each in seam.passed
        ),
        "bytes that it answers": sum(each["answered"] for each in seam.passed),
        "input files opened": files.count("input"),
        "input folders listed": files.count("folder"),
        "files and folders opened to write the results": files.count("result"),
        "waits for the disk to have what was written": waits.count("fsync"),
        "waits of a set time": waits.count("sleep"),
        "processes started": files.count("process"),
        "threads and pools of threads started": len(threads),
        "arrays as large as a stored picture made": len(large),
        "bytes of these arrays": sum(large),
        PEAK: held[0],
    }


@contextmanager
def _watch_files(places: Places) -> Iterator[list[str]]:
    """Note what is opened, listed and started in the ``with`` block, by Python in any thread.

    Yields:
        A list that grows: ``input``, ``folder`` (of the input), ``result`` or ``process``.
    """
    seen: list[str] = []
    source, results = os.path.realpath(places.source), os.path.realpath(places.results)

    def listen(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen":
            seen.append("process")
        if event not in ("open", "os.scandir", "os.listdir") or not isinstance(arguments[0], str | Path):
            return
        path = os.path.realpath(arguments[0])
        if path == source or path.startswith(source + os.sep):
            seen.append("input" if event == "open" else "folder")
        elif event == "open" and path.startswith(results):
            seen.append("result")

    _set_hook()
    _listeners.append(listen)
    try:
        yield seen
    finally:
        _listeners.remove(listen)


@cache
def _set_hook() -> None:
    """Once: a hook of this kind stays to the process' end."""

    def tell(event: str, arguments: tuple[Any, ...]) -> None:
        for listener in _listeners:
            listener(event, arguments)

    sys.addaudithook(tell)


@contextmanager
def _watch_threads() -> Iterator[list[str]]:
    """Note the names of threads that are started in the ``with`` block; of a pool, its first."""
    names: list[str] = []
    start = threading.Thread.start

    def note(self: threading.Thread) -> None:
        if not _FURTHER.search(self.name):
            names.append(self.name)
        start(self)

    threading.Thread.start = note  # type: ignore[method-assign]  # counted, and put back below
    try:
        yield names
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]  # as it was


@contextmanager
def _watch_waits() -> Iterator[list[str]]:
    """Note each ``fsync`` and each ``sleep`` in the ``with`` block: no processor time tells of them."""
    seen: list[str] = []
    fsync, sleep = os.fsync, time.sleep

    def note_fsync(file: int) -> None:
        seen.append("fsync")
        fsync(file)

    def note_sleep(seconds: float) -> None:
        seen.append("sleep")
        sleep(seconds)

    os.fsync, time.sleep = note_fsync, note_sleep  # type: ignore[assignment]  # counted, and put back below
    try:
        yield seen
    finally:
        os.fsync, time.sleep = fsync, sleep


@contextmanager
def _watch_memory() -> Iterator[list[int]]:
    """After the ``with`` block: the most bytes that were held in it, beyond those before."""
    held: list[int] = []
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        yield held
        held.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
