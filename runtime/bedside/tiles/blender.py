"""From slices to joined answers: tiles are cut, predicted in batches, and blended as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice, repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from bedside.tiles.mosaic import Mosaic, Predict, Tally
from bedside.tiles.plan import TilePlan
from bedside.tiles.spans import Span, span_axis

__all__ = ["Blender"]

_Float32 = npt.NDArray[np.float32]
_Mask = npt.NDArray[np.bool_]
_Piece = tuple[npt.NDArray[Any], "_Mask | None"]

_NONE = np.zeros(1, np.float32)
_OWN = np.ones(1, np.float32)


class Blender:
    """Works through a plan. Use it from one thread at a time.

    Answers are joined in float32, whatever float the network gives; see `bedside.tiles.spans` for how.

    Args:
        plan: The plan.
        predict: The network.
        pad: Value around a scan that is smaller than a tile, on the scale of the slices.
        background: Answer ``(classes,)`` for a tile that is left out: one of a single value, or without a voxel of
            the body. None to predict every tile.

    Raises:
        ValueError: ``background`` is not of the plan's classes.
    """

    def __init__(
        self,
        plan: TilePlan,
        predict: Predict,
        *,
        pad: float = 0.0,
        background: npt.ArrayLike | None = None,
    ) -> None:
        values = None if background is None else np.asarray(background, np.float32)
        if values is not None and values.shape != (plan.network.classes,):
            raise ValueError(f"background must have {plan.network.classes} values, one for each class")
        self.plan = plan
        self._mosaic = Mosaic(plan, predict, pad, values)

    @property
    def tally(self) -> Tally:
        """What became of the tiles so far, of all that this blender has worked on."""
        return self._mosaic.tally

    def run(
        self, slabs: Iterable[npt.NDArray[Any]], bodies: Iterable[_Mask] | None = None
    ) -> Iterator[_Float32]:
        """Blend a whole scan, as its slices come.

        Args:
            slabs: Slices in order, ``(n, channels, Y, X)`` of any n; those of the plan's slab fill batches best.
            bodies: For each slab, ``(n, Y, X)``: True where the body is. Looked at only with a background.

        Yields:
            Joined answers in order, ``(n, classes, Y, X)`` float32, n up to the plan's slab; new arrays, but that
            of a plan of whole slices is what ``predict`` returned.

        Raises:
            ValueError: The slabs are not the plan's in shape or number.
        """
        pieces = self._pieces(slabs, bodies)
        return self._run_volumes(pieces) if self.plan.volumetric else self._run_slices(pieces)

    def predict_slices(self, images: npt.NDArray[Any], body: _Mask | None = None) -> _Float32:
        """Blend slices in any order, for 2-D and 2.5-D plans.

        Args:
            images: ``(n, inputs, Y, X)``: each slice with its neighbours as channels, lowest first; where there is
                none, the outermost slice stands for it.
            body: ``(n, Y, X)``: True where the body is.

        Returns:
            ``(n, classes, Y, X)`` float32; what ``predict`` returned, where a tile is a slice and n a batch.

        Raises:
            ValueError: The images are not the plan's, or its tiles are 3-D.
        """
        plan = self.plan
        if plan.volumetric:
            raise ValueError("a slice alone can't be predicted with 3-D tiles; use run")
        if images.ndim != 4 or images.shape[1:] != (plan.network.inputs, *plan.shape[1:]):
            wanted = (plan.network.inputs, *plan.shape[1:])
            raise ValueError(f"images must be (n, {', '.join(map(str, wanted))}), not {images.shape}")
        bodies = None if body is None else list(body)
        if plan.whole and len(images):
            answers = self._mosaic.predict_whole(images, bodies)
            if answers is not None:
                return answers
        means = np.empty((len(images), plan.network.classes, *plan.shape[1:]), np.float32)
        self._mosaic.blend(list(images), list(means), bodies, [_layer(index) for index in range(len(images))])
        return means

    def _pieces(self, slabs: Iterable[npt.NDArray[Any]], bodies: Iterable[_Mask] | None) -> Iterator[_Piece]:
        """Slabs of at most the plan's slices, checked."""
        plan, count = self.plan, 0
        wanted = (plan.network.channels, *plan.shape[1:])
        pairs: Iterable[_Piece]
        pairs = zip(slabs, repeat(None)) if bodies is None else zip(slabs, bodies, strict=True)
        for slab, body in pairs:
            if slab.ndim != 4 or slab.shape[1:] != wanted:
                raise ValueError(f"slabs must be (n, {', '.join(map(str, wanted))}), not {slab.shape}")
            if body is not None and body.shape != (len(slab), *wanted[1:]):
                raise ValueError(f"a body must be {(len(slab), *wanted[1:])} as its slab, not {body.shape}")
            count += len(slab)
            if count > plan.shape[0]:
                break
            for first in range(0, len(slab), plan.slab):
                part = slice(first, first + plan.slab)
                yield slab[part], None if body is None else body[part]
        if count != plan.shape[0]:
            more = "more" if count > plan.shape[0] else f"{count}"
            raise ValueError(f"the plan is for {plan.shape[0]} slices, and {more} came")

    def _run_slices(self, pieces: Iterator[_Piece]) -> Iterator[_Float32]:
        context, slab = self.plan.network.context, self.plan.slab
        if not context:
            for slices, body in pieces:
                yield self.predict_slices(slices, body)
            return
        held: npt.NDArray[Any] | None = None
        masks: list[_Mask] = []
        for slices, body in pieces:
            held = np.concatenate([slices[:1].repeat(context, axis=0) if held is None else held, slices])
            masks += [] if body is None else list(body)
            ready = len(held) - 2 * context
            if ready > 0:
                yield self.predict_slices(_with_neighbours(held, context), _take(masks, ready))
                held = held[ready:].copy()
        if held is not None:
            held = np.concatenate([held, held[-1:].repeat(context, axis=0)])
            for first in range(0, len(held) - 2 * context, slab):
                images = _with_neighbours(held[first : first + slab + 2 * context], context)
                yield self.predict_slices(images, _take(masks, len(images)))

    def _run_volumes(self, pieces: Iterator[_Piece]) -> Iterator[_Float32]:
        plan = self.plan
        depths = span_axis(plan.shape[0], plan.tile[0], plan.starts[0], plan.weights)
        inputs: list[_Float32] = []
        masks: list[_Mask] = []
        means: list[_Float32] = []
        source = ((plane, body, at) for plane, body in pieces for at in range(len(plane)))
        first = 0  # of the planes that are held
        following = chain((span.image.start for span in depths[1:]), (plan.shape[0],))
        for span, next_first in zip(depths, following, strict=True):
            for slices, body, at in islice(source, span.image.stop - first - len(inputs)):
                inputs.append(slices[at].astype(np.float32))
                masks += [] if body is None else [body[at]]
                means.append(np.empty((plan.network.classes, *plan.shape[1:]), np.float32))
            depth = replace(span, image=slice(span.image.start - first, span.image.stop - first))
            self._mosaic.blend(inputs, means, masks or None, [depth])
            done = next_first - first
            del inputs[:done], masks[:done]
            for start in range(0, done, plan.slab):
                count = min(plan.slab, done - start)
                joined = np.stack(means[:count])
                del means[:count]
                yield joined
            first = next_first
        for _ in source:  # raises where more slices come than were planned
            pass


def _layer(index: int) -> Span:
    """The depth of a 2-D tile: one plane, that no tile before it covers."""
    return Span(slice(index, index + 1), slice(0, 1), 0, _NONE, _OWN, _OWN)


def _with_neighbours(slices: npt.NDArray[Any], context: int) -> npt.NDArray[Any]:
    """Slices ``(n + 2 context, C, Y, X)`` -> ``(n, (2 context + 1) C, Y, X)``, a view."""
    windows = np.lib.stride_tricks.sliding_window_view(slices, 2 * context + 1, axis=0)
    return np.moveaxis(windows, -1, 1).reshape(len(windows), -1, *slices.shape[2:])


def _take(masks: list[_Mask], count: int) -> _Mask | None:
    """Take the first masks off the list; None where there are none."""
    taken = masks[:count]
    del masks[:count]
    return np.stack(taken) if taken else None
