"""Inputs that no scanner makes, and on which a network must still answer with numbers."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.contract import Input

__all__ = ["NAMES", "extreme_inputs"]

NAMES: Final = (
    "all at the lower end",
    "all at the upper end",
    "all in the middle",
    "checkerboard of single pixels",
    "checkerboard of blocks",
    "one white pixel in black",
    "one black pixel in white",
    "noise of black and white",
    "noise of all values",
    "left half black, right half white",
    "ramp",
)
"""What each is."""
_BLOCK: Final = 32


def extreme_inputs(spec: Input, size: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """One input for each of `NAMES`, on the network's own scale.

    The lower end is black, or air; the upper end is white, or whatever is as dense as the end of the window, metal.

    Args:
        spec: The bundle's input.
        size: ``(H, W)``, or ``(D, H, W)``.

    Returns:
        ``(N, C, *size)`` float32; the same for the same arguments.
    """
    random = np.random.Generator(np.random.PCG64(7))
    grid = np.indices(size)
    middle = tuple(side // 2 for side in size)
    spike = np.zeros(size)
    spike[middle] = 1
    pictures = (
        np.zeros(size),
        np.ones(size),
        np.full(size, 0.5),
        grid.sum(axis=0) % 2,
        (grid // _BLOCK).sum(axis=0) % 2,
        spike,
        1 - spike,
        random.integers(0, 2, size),
        random.uniform(0, 1, size),
        grid[-1] >= size[-1] // 2,
        grid[-1] / max(1, size[-1] - 1),
    )
    scaled = spec.low + (spec.high - spec.low) * np.stack(pictures)  # (N, *size)
    channels = int(spec.shape[1] or 1)
    return np.repeat(scaled[:, None], channels, axis=1).astype(np.float32)
