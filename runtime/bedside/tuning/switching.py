"""Build, qualify, then switch: a service answers on the fallback while a better engine is made ready.

SwitchingBackend   what answers: the first engine, then the better one
Preparation        what makes that ready; `bedside.tuning.background` has the real one
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from bedside.backends import Backend, EngineInfo
from bedside.backends.base import Arrays
from bedside.errors import BedsideError, InternalError
from bedside.fitness import Telling
from bedside.radiograph import Finding

__all__ = ["Preparation", "SwitchingBackend"]

_JOIN_S: Final = 60.0
"""Patience with an engine that is just being loaded into this process, which nothing can stop, in closing."""


class Preparation(Protocol):
    """Makes an engine ready, in a thread of its own."""

    def run(self) -> Backend | None:
        """Make it ready.

        Returns:
            The engine; None if `stop` came first.

        Raises:
            BedsideError: There will be none.
        """

    def stop(self) -> None:
        """Have `run` return soon, and leave nothing behind. Called from another thread, at any time, perhaps twice."""


class SwitchingBackend:
    """Answers at once on one engine, and on a better one once that is ready; see `bedside.backends.base.Backend`.

    It switches between two runs, and not inside a `hold`. If the better one never comes, the first stays, and
    `findings` says why.

    Args:
        first: What answers until then; closed with this.
        preparation: Makes the better one ready; started at once.
    """

    def __init__(self, first: Backend, preparation: Preparation) -> None:
        self._current = first
        self._preparation = preparation
        self._ready: Backend | None = None
        self._failures: tuple[Finding, ...] = ()
        self._lock = threading.Lock()
        self._held = 0
        self._closed = False
        self._thread = threading.Thread(target=self._prepare, name="bedside-tuning", daemon=True)
        self._thread.start()

    @property
    def info(self) -> EngineInfo:
        """What runs here now."""
        return self._current.info

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What a result must tell of the engine."""
        told = self._current.findings if isinstance(self._current, Telling) else ()
        return (*told, *self._failures)

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> Arrays:
        """Run the network once; see `bedside.backends.base.Backend.run`."""
        self._switch()
        return self._current.run(inputs)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Switch now if there is something to switch to, and not again inside the ``with`` block.

        A scan has many runs, and its result names one engine.
        """
        self._switch()
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing is made ready any more; the next run is on the better engine, if there is one.

        Returns:
            False if the time was over first.
        """
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Stop what is made ready, and free the engines."""
        with self._lock:
            self._closed = True
        self._preparation.stop()
        self._thread.join(_JOIN_S)
        with self._lock:
            ready, self._ready = self._ready, None
        if ready is not None:
            ready.close()
        self._current.close()

    def __enter__(self) -> SwitchingBackend:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop and free."""
        self.close()

    def _switch(self) -> None:
        if self._held:
            return
        with self._lock:
            ready, self._ready = self._ready, None
        if ready is not None:
            before, self._current = self._current, ready
            before.close()

    def _prepare(self) -> None:
        try:
            opened = self._preparation.run()
        except Exception as problem:  # noqa: BLE001 -- whatever it is, the first engine goes on
            error = problem if isinstance(problem, BedsideError) else InternalError.of(problem)
            self._failures = (Finding("tuning-failed", f"tuning failed ({error.message}) [{error.code}]"),)
            return
        if opened is None:
            return
        with self._lock:
            if not self._closed:
                self._ready = opened
                return
        opened.close()
