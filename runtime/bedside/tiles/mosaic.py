"""The tiles of some slices: cut, predicted in batches, and joined one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside.tiles.plan import TilePlan
from bedside.tiles.spans import Span, span_axis

__all__ = ["Mosaic", "Predict", "Tally"]

_Float32 = npt.NDArray[np.float32]
_Answer = npt.NDArray[np.floating[Any]]
_Mask = npt.NDArray[np.bool_]
_Place = tuple[Span, Span, Span]

_CACHED: Final = 1 << 14
"""Pixels that are blended at once: few enough that what they need stays in a core's cache (4 x 64 KiB)."""

Predict = Callable[[_Float32], _Answer]
"""``(N, inputs, h, w)`` float32 -> ``(N, classes, h, w)`` of any float, with a depth before ``h`` where tiles are 3-D.
N is at most the plan's batch. What it is given is filled again for the next call; what it returns must not be."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the tiles so far."""

    predicted: int = 0
    """Went through the network."""
    constant: int = 0
    """Left out: every value the same."""
    outside: int = 0
    """Left out: no voxel of the body in it."""


class Mosaic:
    """Blends planes that are at hand.

    A place is a tile's spans ``(rows, columns, depth)``; a 2-D tile is one that is one plane deep.

    Args:
        plan: The plan.
        predict: The network.
        pad: Value around a scan that is smaller than a tile.
        background: ``(classes,)`` for tiles that are left out; None to predict every tile.
    """

    def __init__(self, plan: TilePlan, predict: Predict, pad: float, background: _Float32 | None) -> None:
        self._plan = plan
        self._predict = predict
        self._pad = pad
        self._skips = background is not None
        classes = np.zeros(plan.network.classes, np.float32) if background is None else background
        spread = classes.reshape(-1, *(1 for _ in plan.tile))
        self._left_out = np.broadcast_to(spread, (plan.network.classes, *plan.tile))
        self._rows, self._columns = (
            span_axis(size, tile, starts, plan.weights)
            for size, tile, starts in zip(plan.shape[1:], plan.tile[-2:], plan.starts[-2:], strict=True)
        )
        self._step = np.empty(max(_CACHED, plan.tile[-1]), np.float32)
        self._predicted = self._constant = self._outside = 0

    @property
    def tally(self) -> Tally:
        """What became of the tiles so far."""
        return Tally(self._predicted, self._constant, self._outside)

    def blend(
        self,
        inputs: Sequence[npt.NDArray[Any]],
        means: Sequence[_Float32],
        bodies: Sequence[_Mask] | None,
        depths: Sequence[Span],
    ) -> None:
        """Predict every tile of some depths, and join the answers into ``means``.

        Args:
            inputs: Planes ``(inputs, Y, X)``.
            means: Planes ``(classes, Y, X)``, written to; those that a span says were seen hold the mean so far.
            bodies: Planes ``(Y, X)``.
            depths: Where the tiles lie among the planes, in order.
        """
        places = [
            (rows, columns, depth) for rows in self._rows for columns in self._columns for depth in depths
        ]
        share = np.empty((0, 0), np.float32)
        at: tuple[Span, Span] | None = None
        for place, answer in self._answer(places, inputs, bodies):
            rows, columns, _ = place
            if at is None or at[0] is not rows or at[1] is not columns:
                at = rows, columns
                share = np.reciprocal(columns.sofar + rows.earlier[:, None] * columns.whole)
            self._join(means, answer, place, share)
            del answer  # it holds its whole batch, and the next is on its way

    def predict_whole(self, images: npt.NDArray[Any], bodies: Sequence[_Mask] | None) -> _Float32 | None:
        """The answers where a tile is a slice, uncut and unblended; None where one of them may be left out."""
        plan = self._plan
        if self._skips:
            for layer, image in enumerate(images):
                if _is_constant(image) or (bodies is not None and not bodies[layer].any()):
                    return None
        if len(images) <= plan.batch:
            return np.asarray(self._ask(np.ascontiguousarray(images, np.float32)), np.float32)
        joined = np.empty((len(images), plan.network.classes, *plan.tile), np.float32)
        for first in range(0, len(images), plan.batch):
            part = slice(first, first + plan.batch)
            joined[part] = self._ask(np.ascontiguousarray(images[part], np.float32))
        return joined

    def _answer(
        self, places: Sequence[_Place], inputs: Sequence[npt.NDArray[Any]], bodies: Sequence[_Mask] | None
    ) -> Iterator[tuple[_Place, _Answer]]:
        """Each place with its answer, in order: the shares hold for raster order alone."""
        plan = self._plan
        # an axis that is padded has one tile, so that the padding of a buffer is filled in once
        tiles = np.full(
            (min(plan.batch, len(places)), plan.network.inputs, *plan.tile), self._pad, np.float32
        )
        waiting: list[tuple[_Place, int | None]] = []
        filled = 0
        for place in places:
            taken = self._cut(tiles[filled], place, inputs, bodies)
            waiting.append((place, filled if taken else None))
            filled += taken
            if filled == len(tiles):
                yield from self._flush(tiles, waiting)
                waiting, filled = [], 0
        yield from self._flush(tiles[:filled], waiting)

    def _cut(
        self,
        tile: _Float32,
        place: _Place,
        inputs: Sequence[npt.NDArray[Any]],
        bodies: Sequence[_Mask] | None,
    ) -> bool:
        """Fill ``tile``; False where it need not be predicted."""
        rows, columns, depth = place
        picture, inside = (rows.image, columns.image), (rows.tile, columns.tile)
        planes = range(depth.image.start, depth.image.stop)
        if self._skips and bodies is not None and not any(bodies[plane][picture].any() for plane in planes):
            self._outside += 1
            return False
        layers = tile if self._plan.volumetric else tile[:, None]  # (C, d, h, w)
        for layer, plane in enumerate(planes, depth.tile.start):
            layers[(slice(None), layer, *inside)] = inputs[plane][(slice(None), *picture)]
        if self._skips and _is_constant(tile):
            self._constant += 1
            return False
        return True

    def _flush(
        self, tiles: _Float32, waiting: list[tuple[_Place, int | None]]
    ) -> Iterator[tuple[_Place, _Answer]]:
        answers = self._ask(tiles) if len(tiles) else np.empty(0, np.float32)
        for place, index in waiting:
            yield place, self._left_out if index is None else answers[index]

    def _ask(self, tiles: _Float32) -> _Answer:
        answers = self._predict(tiles)
        wanted = (len(tiles), self._plan.network.classes, *self._plan.tile)
        if answers.shape != wanted:
            raise ValueError(f"the network answered {answers.shape} where the plan says {wanted}")
        self._predicted += len(tiles)
        return answers

    def _join(self, means: Sequence[_Float32], answer: _Answer, place: _Place, share: _Float32) -> None:
        """Join one tile's answer; ``share`` ``(h, w)`` is its own where no tile lies before it in depth."""
        rows, columns, depth = place
        layers = answer if self._plan.volumetric else answer[:, None]
        layers = layers[:, depth.tile, rows.tile, columns.tile]  # (K, d, h, w)
        top, left = rows.seen, columns.seen
        for layer, plane in enumerate(range(depth.image.start, depth.image.stop)):
            mean, part = means[plane][:, rows.image, columns.image], layers[:, layer]
            if layer < depth.seen:
                before = depth.earlier[layer] * rows.whole[:, None] * columns.whole
                self._move(mean, part, share / (1 + before * share))
                continue
            if top:
                self._move(mean[:, :top], part[:, :top], share[:top])
            if left:
                self._move(mean[:, top:, :left], part[:, top:, :left], share[top:, :left])
            mean[:, top:, left:] = part[:, top:, left:]

    def _move(self, mean: _Float32, part: _Answer, share: _Float32) -> None:
        """Move ``mean`` towards ``part`` by ``share``."""
        height, width = share.shape
        rows = max(1, _CACHED // width)
        for top in range(0, height, rows):
            some = slice(top, top + rows)
            for channel, answer in zip(mean[:, some], part[:, some], strict=True):
                step = self._step[: channel.size].reshape(channel.shape)
                np.subtract(answer, channel, out=step, casting="same_kind")
                step *= share[some]
                np.add(channel, step, out=channel)


def _is_constant(tile: npt.NDArray[Any]) -> bool:
    return bool((tile == tile.flat[0]).all())
