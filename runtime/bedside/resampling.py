"""Resizing with anti-aliasing as two banded matrix products.

Gives the numbers of scikit-image's ``transform.resize`` (order 1, anti-aliasing, ``mode='constant'``, 0.19 and
later), which is what torchxrayvision's ``XRayResizer`` calls: a Gaussian of standard deviation
``(factor - 1) / 2`` cut at four of them, then linear interpolation at pixel centres. Both are linear and
separable, so a row of the composed matrix has a short band, and blocks of rows are dense small products.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["Axis", "plan_axis", "resample"]

_TRUNCATE: Final = 4.0
"""Standard deviations at which scipy.ndimage.gaussian_filter cuts its kernel."""
_BLOCK: Final = 8
"""Output rows of one dense product: wide enough for BLAS, narrow enough to skip most zeros."""
_ONE_THREAD: Final = 1 << 18
"""Multiplications up to which OpenBLAS keeps a product on the calling thread (its SMP_THRESHOLD_MIN times
GEMM_MULTITHREAD_THRESHOLD). Waking threads for products this small costs more than it saves, and they would be
in the way of the engine's."""

_Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis' matrix ``(outputs, inputs)``, kept as dense blocks of rows over the inputs that they touch."""

    blocks: tuple[tuple[int, _Float32], ...]
    """(first input, block ``(rows, inputs touched)`` float32), in order of the rows."""
    sums: _Float32
    """Sum of each row, ``(outputs,)``: under 1 where the band reaches past the picture."""


def plan_axis(picture: int, start: int, length: int, outputs: int) -> Axis:
    """Matrix that resizes part of an axis, or more than it.

    Args:
        picture: Number of samples that exist.
        start: Where the resized stretch begins, in samples; negative where it is padded in front.
        length: Its length in samples; samples that do not exist count as zero.
        outputs: Samples wanted.
    """
    firsts, matrix, sums = _plan_stretch(length, outputs)
    blocks = []
    for row, first in zip(range(0, outputs, _BLOCK), firsts, strict=True):
        low = max(0, first + start)
        high = max(low, min(first + start + matrix.shape[1], picture))
        blocks.append((low, matrix[row : row + _BLOCK, low - first - start : high - first - start]))
    if start < 0 or start + length > picture:
        sums = np.concatenate([block.sum(axis=1) for _, block in blocks])
    return Axis(tuple(blocks), sums)


@lru_cache(maxsize=4)  # a machine's pictures are of one size
def _plan_stretch(length: int, outputs: int) -> tuple[tuple[int, ...], _Float32, _Float32]:
    """The matrix of a stretch that is there in full: first input of each block, rows of blocks, sums of rows."""
    factor = length / outputs
    sigma = max(0.0, (factor - 1) / 2)
    radius = int(_TRUNCATE * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2) if sigma else np.ones(1)
    kernel /= kernel.sum()
    centres = (np.arange(outputs) + 0.5) * factor - 0.5
    floor = np.floor(centres).astype(np.int64)
    share = centres - floor
    band = np.zeros((outputs, 2 * radius + 2))
    for offset, weight in ((0, 1 - share), (1, share)):
        # a point of the filtered stretch that lies outside of it is zero itself, not a filtered value
        inside = (floor + offset >= 0) & (floor + offset < length)
        band[:, offset : offset + kernel.size] += (weight * inside)[:, None] * kernel
    columns = floor[:, None] - radius + np.arange(band.shape[1])
    band[(columns < 0) | (columns >= length)] = 0

    firsts = columns[::_BLOCK, 0]
    within = columns - np.repeat(firsts, _BLOCK)[:outputs, None]
    matrix = np.zeros((outputs, int(within.max()) + 1), np.float32)
    matrix[np.arange(outputs)[:, None], within] = band
    sums = band.sum(axis=1).astype(np.float32)
    for shared in (matrix, sums):
        shared.setflags(write=False)
    return tuple(firsts.tolist()), matrix, sums


def resample(picture: _Float32, rows: Axis, columns: Axis) -> _Float32:
    """Apply a matrix to each axis of ``picture`` ``(H, W)``; returns a new ``(rows, columns)`` array."""
    tall = np.empty((rows.sums.size, picture.shape[1]), np.float32)
    _apply(rows, picture, tall)
    image = np.empty((rows.sums.size, columns.sums.size), np.float32)
    _apply(columns, tall.T, image.T)
    return image


def _apply(axis: Axis, source: _Float32, target: _Float32) -> None:
    """Write ``axis`` times ``source`` ``(inputs, n)`` into ``target`` ``(outputs, n)``, in products of one thread."""
    first = 0
    for low, block in axis.blocks:
        rows, touched = block.shape
        step = max(1, _ONE_THREAD // max(1, block.size))
        for left in range(0, source.shape[1], step):
            part = np.s_[left : left + step]
            np.matmul(block, source[low : low + touched, part], out=target[first : first + rows, part])
        first += rows
