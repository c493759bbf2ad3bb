"""One axis of a grid of tiles: where they start, how they are weighted, and what each adds to the mean so far.

Overlapping answers are joined as a running weighted mean: each tile moves the mean of the tiles before it by
``share * (answer - mean)``, where the share is its weight over the sum of the weights so far (D. H. D. West,
Communications of the ACM 22 (9), 1979). Tiles that agree then leave the mean as it is, to the last bit, which
a sum of products divided by a sum of weights does not; and no division is left for the end.

With separable weights ``w(z) w(y) w(x)`` on a full grid, merged in raster order, the sum so far is
``before(z) total(y) total(x) + w(z) (before(y) total(x) + w(y) (before(x) + w(x)))``, from 1-D sums alone: no
count volume is held. Divided by the tile's own weight it is the inverse of the share, so `Span` keeps these
1-D ratios.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["WEIGHTS", "Span", "lay_starts", "span_axis"]

WEIGHTS: Final = ("gaussian", "flat")
"""How a tile's pixels are weighted against those of its neighbours."""

_SIGMA: Final = 1 / 8
"""Standard deviation of the Gaussian in tile sizes: nnU-Net's ``compute_gaussian`` (sigma_scale) and MONAI's
``compute_importance_map`` (sigma_scale 0.125), which centre it at (size - 1) / 2 as here."""
_FLOOR: Final = 1e-3
"""Least weight along an axis, where the middle's is 1. MONAI's floor, there put on the product of the axes, here on
each factor, so that the product stays separable."""
_ROUNDING: Final = 1e-9
"""What 1 - overlap may be off by as a float, so that 10 * (1 - 0.8) is a step of 2."""

_Float32 = npt.NDArray[np.float32]
_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Span:
    """One tile along one axis. The arrays have a value for each sample of the tile that lies in the picture."""

    image: slice
    """Where it lies in the picture."""
    tile: slice
    """Which part of the tile that is: all of it, but where the picture is smaller and was padded."""
    seen: int
    """Samples, from the first, that tiles before this one cover too."""
    earlier: _Float32
    """Weight of the tiles before this one, over its own."""
    sofar: _Float32
    """Weight of this tile and those before it, over its own."""
    whole: _Float32
    """Weight of all tiles, over its own."""


def lay_starts(size: int, tile: int, overlap: float) -> tuple[int, ...]:
    """Starts of the fewest tiles that cover an axis, evenly spread from its first sample to its last.

    Args:
        size: Samples of the picture.
        tile: Samples of a tile.
        overlap: Least share of a tile that neighbours have in common, in [0, 1). Tiles move by at least one
            sample, even where that is less.

    Returns:
        Ascending; the first 0 and the last ``size - tile``, or a single one at or under 0 that puts a smaller
        picture in the middle of the tile.
    """
    if size <= tile:
        return (-((tile - size) // 2),)
    step = max(1, math.floor(tile * (1 - overlap) + _ROUNDING))
    last = size - tile
    gaps = -(-last // step)
    return tuple((2 * last * index + gaps) // (2 * gaps) for index in range(gaps + 1))


def span_axis(size: int, tile: int, starts: tuple[int, ...], weights: str) -> tuple[Span, ...]:
    """The tiles along one axis, in order.

    Args:
        size: Samples of the picture.
        tile: Samples of a tile.
        starts: As `lay_starts` gives them.
        weights: One of `WEIGHTS`.
    """
    profile = _weigh(tile, weights)
    total = np.zeros(size)
    for start in starts:
        image, inside = _overlap(size, tile, start)
        total[image] += profile[inside]
    spans = []
    before = np.zeros(size)
    end = 0
    for start in starts:
        image, inside = _overlap(size, tile, start)
        own, earlier = profile[inside], before[image]
        ratios = (earlier / own, (earlier + own) / own, total[image] / own)
        spans.append(
            Span(image, inside, max(0, end - image.start), *(each.astype(np.float32) for each in ratios))
        )
        before[image] += own
        end = image.stop
    return tuple(spans)


def _weigh(tile: int, weights: str) -> _Float64:
    if weights == "flat":
        return np.ones(tile)
    distance = np.arange(tile) - (tile - 1) / 2
    bell: _Float64 = np.exp(-0.5 * (distance / (_SIGMA * tile)) ** 2)
    return np.maximum(bell, _FLOOR)


def _overlap(size: int, tile: int, start: int) -> tuple[slice, slice]:
    """What a tile and the picture have in common, in samples of the picture and of the tile."""
    first, stop = max(0, start), min(size, start + tile)
    return slice(first, stop), slice(first - start, stop - start)
