"""An engine without an engine, for tests and for trying the wiring of an integration."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from bedside.backends.base import Arrays, EngineInfo
from bedside.errors import BackendError

__all__ = ["FakeBackend"]


class FakeBackend:
    """Answers with what ``respond`` makes of the inputs, and remembers what it was asked.

    Its results say ``fake`` as their backend, so that none can be taken for a network's.

    Args:
        respond: Called with the inputs of `run`; returns the outputs.
        precision: What `info` says.
    """

    def __init__(
        self, respond: Callable[[Mapping[str, npt.NDArray[np.float32]]], Arrays], precision: str = "fp32"
    ) -> None:
        self._respond = respond
        self._info = EngineInfo("fake", "0", precision, "none", None)
        self.calls: list[dict[str, npt.NDArray[np.float32]]] = []
        """The inputs of each run, in order."""
        self.closed = False
        """True after `close`."""

    @property
    def info(self) -> EngineInfo:
        """Says ``fake``."""
        return self._info

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> Arrays:
        """Record the inputs and respond."""
        if self.closed:
            raise BackendError("engine-failed", "the engine is closed; open it again")
        self.calls.append(dict(inputs))
        return self._respond(inputs)

    def close(self) -> None:
        """Refuse all later runs."""
        self.closed = True
