"""From slices of HU to labels, with one bundle on one engine: the network's grid, its tiles, and back.

fit_grid       on how many pixels the network sees a slice
Segmentor      a plan for one scan: `load` prepares slices, `predict` runs the network, `decide` makes labels
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.backends import Backend
from bedside.contract import Input, Tiling
from bedside.ct import normalise
from bedside.errors import BackendError
from bedside.manifest import Manifest
from bedside.planes import Band, PixelAxis, plan_band, resample_planes
from bedside.scan import AIR_HU, Grid
from bedside.tiles import Blender, Network, TilePlan, plan

__all__ = ["Segmentor", "fit_grid", "list_tiles"]

SNAP: Final = 0.04
"""Share by which the network's pixels may differ from the spacing that it was trained at, where that makes a slice a
whole number of tiles: far under what augmentation trains for, and it can save most of a padded tile."""
MAX_WHOLE: Final = 2.0
"""A slice goes in as one tile up to this many times the area of the tile that export tried: what lies above is left
to tiles, for the engine's memory."""
BATCH: Final = 1
"""Tiles at once: on a CPU more only cost memory."""

_BLOCK: Final = 16
"""Pixels that the edges of what is interpolated are rounded to, so that few matrices serve all slices."""

_Float32 = npt.NDArray[np.float32]


def fit_grid(grid: Grid, spec: Input, tiling: Tiling) -> tuple[int, int]:
    """Rows and columns that the network sees of a slice.

    They follow the spacing that it was trained at, up to `SNAP`, and are a multiple of what it takes where they can.
    """
    if spec.spacing_mm is None:
        return grid.shape[1:]
    wanted = [
        max(1, round(size * mm / trained))
        for size, mm, trained in zip(grid.shape[1:], grid.spacing_mm[1:], spec.spacing_mm, strict=True)
    ]
    rows, columns = (
        _snap(size, side if fixed is not None else tiling.multiple)
        for size, side, fixed in zip(wanted, tiling.size[-2:], spec.shape[-2:], strict=True)
    )
    return rows, columns


def _snap(size: int, multiple: int) -> int:
    near = max(1, round(size / multiple)) * multiple
    return near if abs(near - size) <= SNAP * size else size


def list_tiles(size: tuple[int, int], spec: Input, tiling: Tiling) -> list[tuple[int, ...]]:
    """Tiles that the network can take, the best first: a whole slice, then what export tried, then smaller ones.

    Args:
        size: Rows and columns that the network sees of a slice.
        spec: The bundle's input.
        tiling: The bundle's tiling.
    """
    *depth, height, width = tiling.size
    if None not in spec.shape[-2:]:
        return [tiling.size]
    multiple, least = tiling.multiple, max(tiling.smallest, tiling.multiple)
    whole = tuple(max(least, math.ceil(side / multiple) * multiple) for side in size)
    sides = [whole] if whole[0] * whole[1] <= MAX_WHOLE * height * width else []
    tile = height, width
    while min(tile) >= least:
        if tile[0] < whole[0] or tile[1] < whole[1]:
            sides.append((min(tile[0], whole[0]), min(tile[1], whole[1])))
        tile = tile[0] // 2 // multiple * multiple, tile[1] // 2 // multiple * multiple
    return [(*depth, *pair) for pair in dict.fromkeys(sides)] or [tiling.size]


class Segmentor:
    """Segments the slices of one scan.

    Args:
        manifest: Of the bundle.
        backend: An engine that holds its model.
        grid: Of the scan.
        tile: One of `list_tiles`.
    """

    def __init__(self, manifest: Manifest, backend: Backend, grid: Grid, tile: tuple[int, ...]) -> None:
        tiling = _tiling(manifest)
        self._manifest = manifest
        self._backend = backend
        self.grid = grid
        self.size = fit_grid(grid, manifest.input, tiling)
        """``(h, w)`` that the network sees of a slice."""
        self.context = tiling.context
        """Neighbours on each side that go in with a slice."""
        self._stride = _stride(tiling, grid)
        self.kinds = len(manifest.tissues)
        """Number of tissues."""
        self._output = next(each.name for each in manifest.outputs if each.meaning == "tissues")
        self.plan: TilePlan = plan(
            (grid.shape[0], *self.size),
            tile,
            tiling.overlap,
            network=Network(self.kinds, context=tiling.context, batch=BATCH),
            weights=tiling.weights,
        )
        background = np.zeros(self.kinds, np.float32)
        background[0] = 1
        air = float(normalise(np.full(1, AIR_HU, np.float32), manifest.input)[0])
        self._blender = Blender(self.plan, self._ask, pad=air, background=background)
        self._same = self.size == grid.shape[1:]
        self._body = tiling.skip == "body"

    def neighbours(self, index: int) -> list[int]:
        """The slice with those that go in with it, lowest first; the outermost stands for what is beyond.

        Which those are is a question of `bedside.contract.Tiling.context_mm`.
        """
        last = self.grid.shape[0] - 1
        away = range(-self.context, self.context + 1)
        return [min(max(index + self._stride * each, 0), last) for each in away]

    def prepare(self, hu: _Float32) -> _Float32:
        """What the network sees of slices: ``(n, Y, X)`` HU -> ``(n, h, w)`` on its own scale."""
        if self._same:
            return normalise(hu.copy(), self._manifest.input)
        rows, columns = (
            _band(0, there, there, wanted)[0]
            for there, wanted in zip(self.grid.shape[1:], self.size, strict=True)
        )
        return normalise(resample_planes(hu, rows, columns), self._manifest.input)

    def predict(self, images: _Float32) -> _Float32:
        """Run the network on slices: ``(n, C, h, w)`` -> ``(n, K, h, w)`` float32 probabilities.

        Raises:
            BackendError: ``engine-failed``; ``not-finite``.
        """
        return self._blender.predict_slices(images, self.find_body(images) if self._body else None)

    def stream(self, slabs: Iterable[_Float32]) -> Iterator[_Float32]:
        """The same for a network of volumes, over all slices in order: ``(n, 1, h, w)`` -> ``(n, K, h, w)``."""
        return self._blender.run(slabs)

    def find_body(self, images: _Float32) -> npt.NDArray[np.bool_]:
        """Where the body is, generously: ``(n, C, h, w)`` -> ``(n, h, w)``.

        The rows and columns between the first and the last voxel over the middle of the window.
        """
        middle = (self._manifest.input.low + self._manifest.input.high) / 2
        dense = images[:, self.context] > middle
        rows = np.asarray(dense.any(axis=2))
        columns = np.asarray(dense.any(axis=1))
        return _between(rows)[:, :, None] & _between(columns)[:, None, :]

    def decide(self, probabilities: _Float32) -> npt.NDArray[np.uint8]:
        """The most probable tissue of each voxel of a slice, on the scan's own grid: ``(K, h, w)`` -> ``(Y, X)``.

        Probabilities are interpolated linearly, and only around what is not background: between pixels where the
        background is the most probable, it stays so.
        """
        inside = _most_probable(probabilities)
        if self._same:
            return inside
        labels = np.zeros(self.grid.shape[1:], np.uint8)
        height = np.asarray(inside.any(axis=1))
        width = np.asarray(inside.any(axis=0))
        if not height.any():
            return labels
        first, stop = _around(height, self.grid.shape[1])
        start, end = _around(width, self.grid.shape[2])
        rows, place = _band(first, stop, self.size[0], self.grid.shape[1])
        columns, across = _band(start, end, self.size[1], self.grid.shape[2])
        labels[place, across] = _most_probable(
            resample_planes(probabilities[:, first:stop, start:end], rows, columns)
        )
        return labels

    def spread(self, probabilities: _Float32) -> _Float32:
        """Probabilities on the scan's own grid: ``(K, h, w)`` -> ``(K, Y, X)``."""
        if self._same:
            return probabilities
        rows, columns = (
            _band(0, there, there, wanted)[0]
            for there, wanted in zip(self.size, self.grid.shape[1:], strict=True)
        )
        return resample_planes(probabilities, rows, columns)

    def _ask(self, tiles: _Float32) -> _Float32:
        answer: _Float32 = self._backend.run({self._manifest.input.name: tiles})[self._output]
        if not np.isfinite(answer).all():
            raise BackendError("not-finite", "the network answered with NaN or infinity; there is no result")
        return answer


def _stride(tiling: Tiling, grid: Grid) -> int:
    """How many slices lie from one of a context to the next; 0 where none is near enough."""
    if not tiling.context_mm:
        return 1
    gap = grid.slice_gap_mm
    stride = max(1, round(tiling.context_mm / gap))
    return stride if abs(stride * gap - tiling.context_mm) <= tiling.context_mm / 2 else 0


def _most_probable(probabilities: _Float32) -> npt.NDArray[np.uint8]:
    """The first of the most probable tissues, ``(K, h, w)`` -> ``(h, w)``: as argmax, several times faster."""
    labels = np.zeros(probabilities.shape[1:], np.uint8)
    best = probabilities[0].copy()
    for label, probability in enumerate(probabilities[1:], 1):
        np.copyto(labels, label, where=probability > best)
        np.maximum(best, probability, out=best)
    return labels


def _between(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Set whatever lies between the first and the last flag of each row: ``(n, m)`` -> ``(n, m)``."""
    counts = flags.cumsum(axis=1)
    after: npt.NDArray[np.bool_] = counts > 0
    return after & ((counts < counts[:, -1:]) | flags)


def _around(line: npt.NDArray[np.bool_], wanted: int) -> tuple[int, int]:
    """The pixels that are set, with all that is mixed with them into any of ``wanted`` pixels: ``(first, stop)``.

    A wanted pixel mixes what lies nearer than its reach: so two reaches from those that are set, out to whole blocks.
    """
    margin = math.ceil(2 * _reach(len(line), wanted)) - 1
    places = np.flatnonzero(line)
    first, stop = int(places[0]) - margin, int(places[-1]) + 1 + margin
    return max(0, first // _BLOCK * _BLOCK), min(len(line), -(-stop // _BLOCK) * _BLOCK)


def _reach(there: int, wanted: int) -> float:
    """How far from its centre a wanted pixel mixes, in pixels that are there: as `bedside.planes` has it."""
    return max(1.0, there / wanted)


@lru_cache(maxsize=256)
def _band(first: int, stop: int, there: int, wanted: int) -> tuple[Band, slice]:
    """Between grids of one field, the matrix of those wanted pixels that lie between some pixels, and which they are.

    Args:
        first: Of the pixels that are taken.
        stop: Of the pixels that are taken.
        there: Pixels of the whole field.
        wanted: The same on the other grid.
    """
    centres = (np.arange(wanted) + 0.5) * there / wanted - 0.5
    inner = _reach(there, wanted) - 1
    low = first + inner if first > 0 else -1
    high = stop - 1 - inner if stop < there else there
    inside = np.flatnonzero((centres >= low) & (centres <= high))
    part = slice(int(inside[0]), int(inside[-1]) + 1)
    source = PixelAxis(stop - first, 1.0, float(first))
    target = PixelAxis(len(inside), there / wanted, float(centres[inside[0]]))
    return plan_band(source, target, clamp=True), part


def _tiling(manifest: Manifest) -> Tiling:
    if manifest.tiling is None:
        raise ValueError("the bundle has no tiling: it is not for CT")
    return manifest.tiling
