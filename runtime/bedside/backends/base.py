"""The seam between our code and vendor engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from bedside.bundle import Input
from bedside.errors import BackendError

__all__ = ["PRECISIONS", "Arrays", "Backend", "EngineInfo", "check_inputs"]

PRECISIONS: Final = ("fp32", "bf16", "fp16", "int8")
"""Every precision that can be asked for."""

Arrays = dict[str, npt.NDArray[Any]]
"""Output name -> array."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What ran, for the result."""

    backend: str
    """Name of the backend, e.g. ``onnxruntime``."""
    version: str
    """Version of the engine's library."""
    precision: str
    """One of `PRECISIONS`: what was asked for, and is what runs."""
    device: str
    """Where it runs, e.g. ``CPU``."""
    threads: int | None
    """Threads inside one inference; None where left to the engine."""


class Backend(Protocol):
    """An engine that holds one model, ready to run.

    Arrays cross this seam as the graph's own types (float32 at the borders). One instance serves one thread
    at a time.
    """

    @property
    def info(self) -> EngineInfo:
        """What runs here."""

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> Arrays:
        """Run the network once.

        Args:
            inputs: Input name -> float32 array of the graph's input shape.

        Returns:
            Output name -> array, owned by the caller.

        Raises:
            BackendError: ``engine-failed`` if the inputs are not the graph's, or the engine breaks.
        """

    def close(self) -> None:
        """Free the engine. Closing twice is harmless; running after it raises BackendError."""


def check_inputs(inputs: Mapping[str, npt.NDArray[np.float32]], spec: Input) -> None:
    """Refuse inputs that are not the graph's, for leaves to call first.

    An engine need not: OpenVINO answers on an input that is missing or too small with what its memory still
    holds of the picture before.

    Raises:
        BackendError: ``engine-failed`` if a name, dtype or shape is not as ``spec`` says, or the batch is empty.
    """
    if set(inputs) != {spec.name}:
        raise BackendError(
            "engine-failed", f"the network takes the input {spec.name!r} and no other; give that"
        )
    array: object = inputs[spec.name]
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        raise BackendError("engine-failed", f"the input {spec.name!r} must be a float32 array; convert it")
    fits = array.ndim == len(spec.shape) and all(
        size == wanted or (wanted is None and size > 0)
        for size, wanted in zip(array.shape, spec.shape, strict=True)
    )
    if not fits:
        raise BackendError("engine-failed", f"the input {spec.name!r} is {array.shape}, not {spec.shape}")
