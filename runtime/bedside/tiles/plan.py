"""Where the tiles of a scan lie, and how much goes at once so that a budget of memory holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from bedside.errors import LimitError
from bedside.tiles.spans import WEIGHTS, lay_starts

__all__ = ["Network", "TilePlan", "least_memory", "plan"]

_SLAB: Final = 4
"""Slices of a slab where memory allows, if that fills a batch: more gain nothing, and answers on 512 x 512 pixels then
stay under the 32 MiB from which glibc returns memory to the system, to be zeroed anew for each slab."""
_FLOAT32: Final = 4
"""Bytes of a float32."""
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Network:
    """What a network takes and gives, as far as its tiles go."""

    classes: int
    """Channels of its answer."""
    channels: int = 1
    """Channels of one slice."""
    context: int = 0
    """Neighbouring slices on each side that it sees as further channels (2.5-D); 0 for 2-D and 3-D tiles."""
    batch: int = 4
    """Most tiles that it takes at once."""

    def __post_init__(self) -> None:
        """Check the counts."""
        if min(self.classes, self.channels, self.batch) < 1 or self.context < 0:
            raise ValueError("classes, channels and batch must be at least 1, and context at least 0")

    @property
    def inputs(self) -> int:
        """Channels of a tile: those of the slice and of its neighbours."""
        return self.channels * (2 * self.context + 1)


@dataclass(frozen=True, slots=True)
class TilePlan:
    """A grid of tiles over a scan, and how it is worked through. Made by `plan`."""

    shape: tuple[int, int, int]
    """Voxels of the scan, ``(Z, Y, X)``."""
    tile: tuple[int, ...]
    """Voxels of a tile: ``(h, w)``, or ``(d, h, w)`` for a network of volumes."""
    starts: tuple[tuple[int, ...], ...]
    """First index of the tiles along each axis of `tile`; under 0 where the scan is smaller and is padded."""
    weights: str
    """One of `WEIGHTS`."""
    network: Network
    """What the network takes and gives."""
    batch: int
    """Tiles that are predicted at once; at most the network's."""
    slab: int
    """Slices that are handed in and out at once. The promise on memory holds for slabs of at most this."""

    @property
    def volumetric(self) -> bool:
        """Whether tiles are 3-D."""
        return len(self.tile) == 3

    @property
    def whole(self) -> bool:
        """Whether one tile is exactly one slice: nothing is cut and nothing blended."""
        return self.tile == self.shape[1:]

    @property
    def count(self) -> int:
        """Tiles of the whole scan, before any is skipped."""
        return math.prod(map(len, self.starts)) * (1 if self.volumetric else self.shape[0])

    @property
    def memory(self) -> int:
        """Most bytes held at once by slices, tiles, answers and means; the network's own come on top.

        Counts what the caller holds of them: the slab handed in and the one it makes next, and the joined answers
        that it has while the next are made.
        """
        return _count_bytes(self.shape, self.tile, self.network, self.batch, self.slab)


def plan(
    shape: tuple[int, int, int],
    tile: tuple[int, ...],
    overlap: float,
    *,
    network: Network,
    memory: int | None = None,
    weights: str = "gaussian",
) -> TilePlan:
    """Lay tiles over a scan.

    Args:
        shape: Voxels of the scan, ``(Z, Y, X)``.
        tile: ``(h, w)`` or ``(d, h, w)``, voxels. An axis of the scan that is smaller is padded.
        overlap: Least share of a tile that neighbours have in common along each axis, in [0, 1).
        network: What the network takes and gives.
        memory: Bytes that `TilePlan.memory` may reach; None for no limit. The batch is kept where it can be, and
            slabs shrink first. For 3-D tiles it does not grow with the number of slices: only the planes that a
            later tile still touches are held.
        weights: One of `WEIGHTS`.

    Raises:
        ValueError: An argument is out of its range.
        LimitError: ``memory-too-small``; the message names the least that works, as `least_memory` gives it.
    """
    if len(tile) not in (2, 3) or min(*shape, *tile) < 1:
        raise ValueError(f"shape must be (Z, Y, X) and tile (h, w) or (d, h, w), not {shape} and {tile}")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap must be at least 0 and under 1, not {overlap}")
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be one of {', '.join(WEIGHTS)}, not {weights!r}")
    if network.context and len(tile) == 3:
        raise ValueError("context is for 2-D tiles; a 3-D tile has its neighbouring slices in it")
    starts = tuple(
        lay_starts(size, side, overlap) for size, side in zip(shape[-len(tile) :], tile, strict=True)
    )
    together = math.prod(map(len, starts[-2:])) * (1 if len(tile) == 3 else shape[0])
    for batch in range(min(network.batch, together), 0, -1):
        least, most = _bound_slab(shape, tile, starts, batch)
        for slab in range(most, least - 1, -1):
            if memory is None or _count_bytes(shape, tile, network, batch, slab) <= memory:
                return TilePlan(shape, tile, starts, weights, network, batch, slab)
    needed = least_memory(shape, tile, network)
    raise LimitError(
        "memory-too-small",
        f"tiles of {' x '.join(map(str, tile))} need at least {math.ceil(needed / _MIB)} MiB beside the engine; "
        f"give more memory",
    )


def least_memory(shape: tuple[int, int, int], tile: tuple[int, ...], network: Network) -> int:
    """The smallest ``memory`` that `plan` takes, in bytes."""
    return _count_bytes(shape, tile, network, 1, 1)


def _bound_slab(
    shape: tuple[int, int, int], tile: tuple[int, ...], starts: tuple[tuple[int, ...], ...], batch: int
) -> tuple[int, int]:
    """Slices of a slab: the fewest that fill a batch, and as many as are of use."""
    if len(tile) == 3:
        return 1, min(shape[0], _SLAB)
    if tile == shape[1:]:  # what the network gives for a batch is handed out as a slab, with no copy
        return min(shape[0], batch), min(shape[0], batch)
    fill = min(shape[0], math.ceil(batch / math.prod(map(len, starts))))
    return fill, max(fill, min(shape[0], _SLAB))


def _count_bytes(
    shape: tuple[int, int, int], tile: tuple[int, ...], network: Network, batch: int, slab: int
) -> int:
    plane = shape[1] * shape[2]
    kept = 2 * network.context  # neighbours: a slab's own, and a copy of the last ones for the next slab
    window = min(tile[0], shape[0]) if len(tile) == 3 else (slab + 2 * kept if kept else 0)
    means = window if len(tile) == 3 else 0
    slices = (2 * slab + window) * network.channels * plane
    answers = (2 * slab + means) * network.classes * plane
    tiles = batch * (network.inputs + network.classes) * math.prod(tile)
    moves = 5 * tile[-2] * tile[-1]  # shares, and what is on the way to becoming one
    flags = (2 * slab + window) * plane + network.inputs * math.prod(tile)
    return _FLOAT32 * (slices + answers + tiles + moves) + flags
