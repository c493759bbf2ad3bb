"""How large the tiles and slabs of a scan may be, so that a budget of memory holds.

What the engine takes is measured, not assumed: it runs its smallest tile, and what a larger one would take is
foretold from that, in proportion to the tile's voxels, before it is tried.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from bedside.backends import Backend, EngineInfo
from bedside.errors import LimitError
from bedside.manifest import Manifest
from bedside.memory import MIB, held_bytes
from bedside.scan import Grid
from bedside.segmentation.network import Segmentor, fit_grid, list_tiles
from bedside.warmup import warm_up

__all__ = ["Fit", "Warm", "fit_memory"]

SLAB: Final = 8
"""Slices of a slab where memory allows: enough to decode in parallel, and more gains nothing."""
MARGIN: Final = 1.15
"""What is counted is taken this much larger, for what an allocator keeps between pieces."""
FIXED: Final = 40 * MIB
"""For what is not counted: modules that are imported late, headers, deflated labels, threads' stacks."""
PAGE: Final = 32 * MIB
"""What drawing a report takes beside its pictures (`bedside.report.page`)."""

Warm = set[tuple[EngineInfo, tuple[int, ...]]]
"""Engines, each with a tile that it has run."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How a scan is worked through."""

    segmentor: Segmentor
    """With its tiles laid."""
    slab: int
    """Most slices at once."""
    predicted_bytes: int
    """Most that this process and its children will hold, proportional set size."""


def fit_memory(
    manifest: Manifest,
    backend: Backend,
    grid: Grid,
    *,
    limit: int | None,
    pictures: int = 0,
    warm: Warm | None = None,
) -> Fit:
    """Choose the largest tile and slab that a budget takes.

    Args:
        manifest: Of the bundle.
        backend: An engine that holds its model; it is run once or twice, if it is not warm.
        grid: Of the scan.
        limit: The budget, bytes of proportional set size; None for none.
        pictures: How many slices are drawn in the end.
        warm: What ran before, which need not be run again where no budget is to be kept; added to.

    Raises:
        LimitError: ``memory-too-small``; the message names the smallest budget that works.
        BackendError: The engine fails.
    """
    tiling = manifest.tiling
    if tiling is None:
        raise ValueError("the bundle has no tiling: it is not for CT")
    size = fit_grid(grid, manifest.input, tiling)
    tiles = list_tiles(size, manifest.input, tiling)
    if limit is None:
        ran = (backend.info, tiles[0])
        if warm is None or ran not in warm:
            _warm_up(manifest, backend, tiles[0])
        if warm is not None:
            warm.add(ran)
        return _fit(Segmentor(manifest, backend, grid, tiles[0]), held_bytes(), None, pictures)
    before = held_bytes()
    _warm_up(manifest, backend, tiles[-1])
    after = held_bytes()
    for tile in tiles:
        foretold = after + (after - before) * (math.prod(tile) / math.prod(tiles[-1]) - 1)
        segmentor = Segmentor(manifest, backend, grid, tile)
        if tile != tiles[-1]:
            if foretold + _count(segmentor, 1, pictures) > limit:
                continue
            _warm_up(manifest, backend, tile)
        held = held_bytes()
        if held + _count(segmentor, 1, pictures) <= limit:
            return _fit(segmentor, held, limit, pictures)
    least = math.ceil(
        (held_bytes() + _count(Segmentor(manifest, backend, grid, tiles[-1]), 1, pictures)) / MIB
    )
    raise LimitError(
        "memory-too-small",
        f"this scan needs at least {least} MiB with this bundle and engine, and {limit // MIB} MiB were given; "
        f"give --memory {least}MiB or more",
    )


def _fit(segmentor: Segmentor, held: int, limit: int | None, pictures: int) -> Fit:
    slab = SLAB
    while slab > 1 and limit is not None and held + _count(segmentor, slab, pictures) > limit:
        slab -= 1
    return Fit(segmentor, slab, held + _count(segmentor, slab, pictures))


def _count(segmentor: Segmentor, slab: int, pictures: int) -> int:
    """Bytes beside the engine.

    Three slabs are on their way at once, in reading, in the network, in measuring. Pictures come after those.
    """
    slices, rows, columns = segmentor.grid.shape
    height, width = segmentor.size
    pixels, small, kinds = rows * columns, height * width, segmentor.kinds
    channels = 2 * segmentor.context + 1
    a_slice = 4 * pixels * (3 + 2 * channels) + 4 * small * (2 * channels + 2 * kinds)
    one = pixels * (4 * kinds + 64)  # interpolated probabilities, and the lists of a slice's voxels
    window = segmentor.plan.memory if segmentor.plan.volumetric or not segmentor.plan.whole else 0
    tally = slices * (columns // 4 + 1) * 4 * (3 * kinds + 1)
    report = pictures * pixels * 5 + PAGE if pictures else 0
    return FIXED + int(MARGIN * (max(slab * a_slice + one + window, report) + tally))


def _warm_up(manifest: Manifest, backend: Backend, tile: tuple[int, ...]) -> None:
    warm_up(backend, manifest.input, (1, manifest.input.shape[1] or 1, *tile))
