"""The first run of an engine, before anybody waits for its answer.

Engines compile, load kernels and take their memory when a shape comes for the first time; the second run is the steady
one.
"""

from __future__ import annotations

import numpy as np

from bedside.backends.base import Backend
from bedside.contract import Input

__all__ = ["usual_shape", "warm_up"]


def usual_shape(spec: Input) -> tuple[int, ...] | None:
    """The shape of one picture, ``(1, C, H, W)``; None where the bundle leaves a side open, as for CT."""
    batch, *picture = spec.shape
    sides = [side for side in picture if side is not None]
    return (batch or 1, *sides) if len(sides) == len(picture) else None


def warm_up(backend: Backend, spec: Input, shape: tuple[int, ...] | None) -> None:
    """Run an engine once on nothing but black.

    Args:
        backend: The engine.
        spec: Its bundle's input.
        shape: Of what it is to be warm for; None for nothing, which does nothing.

    Raises:
        BackendError: As `bedside.backends.base.Backend.run`.
    """
    if shape is not None:
        backend.run({spec.name: np.full(shape, spec.low, np.float32)})
