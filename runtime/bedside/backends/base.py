"""The seam between our code and vendor engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from bedside.bundle import Input
from bedside.contract import RUNS
from bedside.errors import BackendError

__all__ = [
    "CHOICES",
    "HINTS",
    "MAX_THREADS",
    "PRECISIONS",
    "Arrays",
    "Backend",
    "EngineInfo",
    "Progress",
    "Tuning",
    "check_inputs",
    "check_threads",
]

PRECISIONS: Final = tuple(RUNS)
"""Every precision that can be asked for; see `bedside.contract.RUNS`."""
HINTS: Final = ("latency", "throughput")
"""What an engine is set up for: the shortest single answer, or the most answers a second from batches."""
MAX_THREADS: Final = 1024
"""Most threads inside one inference. No network here gains from as many; of far more, some engines start each, and take
the machine with them."""
CHOICES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "asked": "",
        "plan": "auto: by the tuned plan",
        "default": "auto: no tuned plan",
        "fallback": "stands in for another engine",
    }
)
"""Why an engine runs -> the same for people. It was asked for; ``auto`` found a tuned plan; ``auto`` found none;
another one failed."""

Arrays = dict[str, npt.NDArray[Any]]
"""Output name -> array."""


Progress = Callable[[str, int, int], None]
"""Told while an engine is built: the phase, its steps done, and its steps in all."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How an engine is set up, beyond its precision and threads. Leaves ignore what does not concern them."""

    hint: str = "latency"
    """One of `HINTS`."""
    batch: int = 1
    """Most pictures or tiles in one run that the engine is set up for."""
    tile: tuple[int, ...] | None = None
    """Sides ``(H, W)`` or ``(D, H, W)`` that it is set up for, where the manifest leaves them open; None for those of
    `bedside.contract.Tiling.size`."""
    pinned: bool | None = None
    """Whether threads are tied to cores; None leaves it to the engine, ONNX Runtime's on a CPU to
    `bedside.backends.onnxruntime`."""
    cache: Path | None = None
    """Folder for what the engine compiles; None keeps nothing."""
    workspace_bytes: int | None = None
    """Most scratch memory that a built engine may take on its device; None leaves it to the engine."""
    dla: int | None = None
    """Core of the deep learning accelerator (Jetson) to build for; what it can't run falls to the GPU."""
    progress: Progress | None = field(default=None, compare=False, repr=False)
    """Told of the steps of a build that takes long."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.hint not in HINTS:
            raise BackendError(
                "engine-unsupported", f"no hint {self.hint!r}; choose from: {', '.join(HINTS)}"
            )
        if self.batch < 1:
            raise BackendError("engine-unsupported", f"batch must be at least 1, not {self.batch}")


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
    chosen: str = "asked"
    """Why it runs, one of `CHOICES`."""

    @property
    def line(self) -> str:
        """All of it on one line for people."""
        threads = f", {self.threads} thread{'s' * (self.threads > 1)}" if self.threads else ""
        why = f" ({CHOICES[self.chosen]})" if CHOICES[self.chosen] else ""
        return f"{self.backend} {self.version}, {self.precision}, {self.device}{threads}{why}"


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


def check_threads(threads: int | None) -> None:
    """Refuse a number of threads that no engine should be asked for.

    Raises:
        BackendError: ``engine-unsupported``.
    """
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise BackendError("engine-unsupported", f"threads must be from 1 to {MAX_THREADS}, not {threads}")


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
