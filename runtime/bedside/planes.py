"""Resampling planes of a scan between pixel grids in mm, as banded matrix products.

Linear where pixels grow denser. Where they grow sparser, the triangle is as wide as the new pixels (or the network
would see aliased noise), as Pillow's and PyTorch's bilinear with ``antialias=True`` have it, so that a network
trained on either sees here what it was trained on. Both are linear and separable: an axis is a matrix of a short
band, and blocks of its rows are dense small products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["Band", "PixelAxis", "plan_band", "resample_planes"]

_BLOCK: Final = 16
"""Output samples of one dense product: wide enough for BLAS, narrow enough to skip most zeros."""
_ONE_THREAD: Final = 1 << 18
"""Multiplications up to which OpenBLAS keeps a product on the calling thread (its SMP_THRESHOLD_MIN times
GEMM_MULTITHREAD_THRESHOLD): its threads would be in the way of the engine's."""

_Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PixelAxis:
    """Where the pixels lie along one axis."""

    size: int
    """Number of pixels."""
    spacing_mm: float
    """Distance between the centres of neighbours, mm."""
    origin_mm: float = 0.0
    """Centre of the first pixel, mm, on a line that both grids of a resampling share."""

    def __post_init__(self) -> None:
        """Check that there are pixels."""
        if self.size < 1 or not 0 < self.spacing_mm < float("inf"):
            raise ValueError("an axis must have a pixel and a spacing over 0")

    def respaced(self, spacing_mm: float) -> PixelAxis:
        """An axis of another spacing about the same middle, of as many pixels as come nearest to the same length."""
        size = max(1, round(self.size * self.spacing_mm / spacing_mm))
        middle = self.origin_mm + (self.size - 1) / 2 * self.spacing_mm
        return PixelAxis(size, spacing_mm, middle - (size - 1) / 2 * spacing_mm)


@dataclass(frozen=True, slots=True)
class Band:
    """One axis' matrix ``(outputs, inputs)``, kept as dense blocks of rows over the inputs that they touch."""

    inputs: int
    """Samples taken."""
    outputs: int
    """Samples given."""
    blocks: tuple[tuple[int, _Float32], ...]
    """(first input, block ``(rows, inputs touched)``), in order of the rows."""
    missing: _Float32
    """What each row falls short of 1, ``(outputs,)``: the share of what lies outside the picture."""


def plan_band(source: PixelAxis, target: PixelAxis, *, antialias: bool = True, clamp: bool = False) -> Band:
    """Matrix that takes the samples of one axis to those of another.

    Args:
        source: The pixels that there are.
        target: The pixels that are wanted.
        antialias: Whether to average where the target's pixels are the wider ones. Without, each is interpolated
            between two neighbours.
        clamp: Whether an average is of those samples in reach that exist, and what is asked for beyond the picture
            is what is on its border. Otherwise, the outside has a value of its own.
    """
    width = max(1.0, target.spacing_mm / source.spacing_mm) if antialias else 1.0
    centres_mm = target.origin_mm - source.origin_mm + np.arange(target.size) * target.spacing_mm
    centres = centres_mm / source.spacing_mm  # in samples of the source
    if clamp:
        centres = (
            np.clip(centres, 0, source.size - 1) if width == 1 else np.clip(centres, -0.5, source.size - 0.5)
        )
    first = np.ceil(centres - width).astype(np.int64)
    columns = first[:, None] + np.arange(int(2 * width) + 2)
    band = np.maximum(0, 1 - np.abs(columns - centres[:, None]) / width)
    outside = (columns < 0) | (columns >= source.size)
    if clamp:
        band[outside] = 0
    band /= band.sum(axis=1, keepdims=True)
    band[outside] = 0
    return Band(source.size, target.size, _blocks(band, columns), (1 - band.sum(axis=1)).astype(np.float32))


def resample_planes(
    planes: npt.NDArray[np.floating], rows: Band, columns: Band, *, outside: float = 0.0
) -> _Float32:
    """Take planes from one grid to another, one after the other: beside the result, no more than a plane is held.

    Args:
        planes: ``(..., Y, X)``.
        rows: Matrix of the axis ``Y``.
        columns: Matrix of the axis ``X``.
        outside: Value of what lies outside the picture, where the bands were not planned to clamp.

    Returns:
        ``(..., rows, columns)`` float32, a new array.

    Raises:
        ValueError: The planes are not of the size that the matrices take.
    """
    if planes.shape[-2:] != (rows.inputs, columns.inputs):
        raise ValueError(f"planes must be (..., {rows.inputs}, {columns.inputs}), not {planes.shape}")
    resampled = np.empty((*planes.shape[:-2], rows.outputs, columns.outputs), np.float32)
    rows_first = (
        rows.outputs < rows.inputs
    )  # the columns' products are the dearer, so they get the fewer rows
    between = np.empty(
        (rows.outputs, columns.inputs) if rows_first else (rows.inputs, columns.outputs), np.float32
    )
    border = _border(rows, columns, outside)
    for index in np.ndindex(*planes.shape[:-2]):
        plane, target = np.asarray(planes[index], np.float32), resampled[index]
        if rows_first:
            _mix_rows(rows, plane, between)
            _mix_columns(columns, between, target)
        else:
            _mix_columns(columns, plane, between)
            _mix_rows(rows, between, target)
        if border is not None:
            target += border
    return resampled


def _blocks(
    band: npt.NDArray[np.float64], columns: npt.NDArray[np.int64]
) -> tuple[tuple[int, _Float32], ...]:
    """Dense blocks of a band whose weights stand in ``columns``, 0 where those are outside the picture."""
    blocks = []
    for first in range(0, len(band), _BLOCK):
        weights, places = band[first : first + _BLOCK], columns[first : first + _BLOCK]
        row, entry = np.nonzero(weights)
        touched = places[row, entry]
        low, high = (int(touched.min()), int(touched.max()) + 1) if touched.size else (0, 1)
        block = np.zeros((len(weights), high - low), np.float32)
        block[row, touched - low] = weights[row, entry]
        block.setflags(write=False)
        blocks.append((low, block))
    return tuple(blocks)


def _border(rows: Band, columns: Band, outside: float) -> _Float32 | None:
    """What the outside adds to each pixel, ``(rows, columns)``; None where that is nothing."""
    if outside == 0 or not (rows.missing.any() or columns.missing.any()):
        return None
    share = 1 - (1 - rows.missing[:, None].astype(np.float64)) * (1 - columns.missing)
    return (outside * share).astype(np.float32)


def _mix_rows(band: Band, source: _Float32, target: _Float32) -> None:
    """Write ``band`` times ``source`` ``(inputs, n)`` into ``target`` ``(outputs, n)``."""
    first = 0
    for low, block in band.blocks:
        count, touched = block.shape
        step = max(1, _ONE_THREAD // block.size)
        for left in range(0, source.shape[1], step):
            part = slice(left, left + step)
            np.matmul(block, source[low : low + touched, part], out=target[first : first + count, part])
        first += count


def _mix_columns(band: Band, source: _Float32, target: _Float32) -> None:
    """Write ``source`` ``(n, inputs)`` times ``band`` transposed into ``target`` ``(n, outputs)``."""
    first = 0
    for low, block in band.blocks:
        count, touched = block.shape
        step = max(1, _ONE_THREAD // block.size)
        for top in range(0, source.shape[0], step):
            part = slice(top, top + step)
            np.matmul(source[part, low : low + touched], block.T, out=target[part, first : first + count])
        first += count
