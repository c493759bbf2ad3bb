"""An engine with another one behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.backends.base import Arrays, Backend, EngineInfo
from bedside.errors import BackendError
from bedside.fitness import Telling
from bedside.radiograph import Finding

__all__ = ["Guard", "GuardedBackend"]

_FAILURES: Final = frozenset({"engine-crashed", "engine-hung", "engine-failed"})
"""Codes of an engine that broke. One that is not here, or a bundle that it can't have, is no reason for another one."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What happens where an engine crashes or hangs."""

    watchdog_s: float | None = None
    """Seconds after which an engine without an answer counts as hung and is stopped. It then runs in a process of its
    own, so that it can be. None: it runs in this process, for as long as it takes."""
    fallback: bool = False
    """Go on with the reference engine where this one crashes, hangs or fails; the results say so. The reference has
    none behind it. False: they fail."""


class GuardedBackend:
    """Runs an engine until it breaks, and from then on another one; see `bedside.backends.base.Backend`.

    The input on which it broke is run again on the other one. An engine that is not installed, or does not have what
    was asked for, is an error here as without a guard.

    Args:
        open_first: Opens the engine.
        open_fallback: Opens the other one, when it is needed; called once at most.

    Raises:
        BedsideError: Whatever either raises, but for what the fallback is for: ``engine-crashed``, ``engine-hung`` and
            ``engine-failed`` of the first.
    """

    def __init__(self, open_first: Callable[[], Backend], open_fallback: Callable[[], Backend]) -> None:
        self._open_fallback = open_fallback
        self._failure: BackendError | None = None
        self._told: tuple[Finding, ...] = ()
        self._closed = False
        try:
            self._engine = open_first()
        except BackendError as error:
            if error.code not in _FAILURES:
                raise
            self._engine = open_fallback()
            self._failure = _alone(error)

    @property
    def info(self) -> EngineInfo:
        """What runs here now."""
        info = self._engine.info
        return info if self._failure is None else replace(info, chosen="fallback")

    @property
    def findings(self) -> tuple[Finding, ...]:
        """That the engine was replaced and why, if it was, with what the engines tell themselves."""
        told = self._engine.findings if isinstance(self._engine, Telling) else ()
        if self._failure is None:
            return told
        what, info = self._failure.message.partition(";")[0], self._engine.info
        text = f"{what} [{self._failure.code}]; {info.backend} {info.precision} runs instead from there on"
        return (*self._told, Finding("engine-replaced", text), *told)

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> Arrays:
        """Run the network once; see `bedside.backends.base.Backend.run`.

        Raises:
            BackendError: The fallback's, where the engine was replaced.
        """
        try:
            return self._engine.run(inputs)
        except BackendError as error:
            if self._closed or self._failure is not None or error.code not in _FAILURES:
                raise
            broken, fallback = self._engine, self._open_fallback()
            self._told = broken.findings if isinstance(broken, Telling) else ()
            self._engine, self._failure = fallback, _alone(error)
            broken.close()
        return self._engine.run(inputs)

    def close(self) -> None:
        """Free the engine."""
        self._closed = True
        self._engine.close()


def _alone(error: BackendError) -> BackendError:
    """The error without the frames of its traceback, which hold the picture."""
    return BackendError(error.code, error.message)
