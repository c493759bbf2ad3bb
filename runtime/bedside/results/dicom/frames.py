"""The frames of a segmentation, kept small while a scan is segmented: packed and deflated, slice by slice.

Slices come in any order, as the network takes them. What is held is far less than the labels: a few kilobytes each.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from bedside.dicom.geometry import Axes
from bedside.results.dicom.placement import turn_back
from bedside.results.dicom.segments import Plan
from bedside.segmentation import UNREAD

__all__ = ["BinaryFrames", "LabelFrames"]

_Labels = npt.NDArray[np.uint8]


class _Frames:
    """Frames by the number of their plan and the index of their slice.

    Args:
        axes: From the pixels as stored to those of the labels.
        pixels: Number of a frame.
    """

    bits: int
    """Of a pixel."""

    def __init__(self, axes: Axes, pixels: int) -> None:
        self._axes = axes
        self._pixels = pixels
        self._packed: dict[tuple[int, int], bytes] = {}
        self._seen: set[int] = set()
        self._empty = zlib.compress(bytes(-(-pixels * self.bits // 8)), 1)

    @property
    def keys(self) -> list[tuple[int, int]]:
        """Number of the plan and index of the slice of each frame, in the order of the frames.

        From the first to the last slice that has any of it, no slice that was read is left out: readers that make a
        volume of the frames, as ITK does, count on their distances.
        """
        spans: dict[int, tuple[int, int]] = {}
        for plan, index in sorted(self._packed):
            first, _ = spans.get(plan, (index, index))
            spans[plan] = (first, index)
        return [
            (plan, index)
            for plan, (first, last) in spans.items()
            for index in range(first, last + 1)
            if index in self._seen
        ]

    @property
    def n_bytes(self) -> int:
        """Size of all the frames."""
        return -(-len(self.keys) * self._pixels * self.bits // 8)

    def _frame(self, key: tuple[int, int]) -> bytes:
        return zlib.decompress(self._packed.get(key, self._empty))


class BinaryFrames(_Frames):
    """One frame of one bit a pixel for each segment, in the slices that it extends over.

    Args:
        plans: The segments.
        axes: From the pixels as stored to those of the labels.
        pixels: Number of a frame.
    """

    bits = 1

    def __init__(self, plans: Sequence[Plan], axes: Axes, pixels: int) -> None:
        super().__init__(axes, pixels)
        self._marks = np.zeros((-(-len(plans) // 8), 256), np.uint8)
        for number, plan in enumerate(plans):
            self._marks[number // 8, list(plan.labels)] |= 1 << number % 8

    def put(self, index: int, labels: _Labels) -> None:
        """Take the labels of a slice, ``(Y, X)`` uint8 in canonical order."""
        self._seen.add(index)
        stored = np.ascontiguousarray(turn_back(self._axes, labels)).ravel()
        for eight, marks in enumerate(self._marks):
            marked = marks[stored]  # a bit for each of eight segments
            present = int(np.bitwise_or.reduce(marked))
            for bit in range(8):
                if present >> bit & 1:
                    packed = np.packbits(
                        marked & (1 << bit), bitorder="little"
                    )  # PS3.5, 8.1.1: first pixel lowest
                    self._packed[8 * eight + bit, index] = zlib.compress(packed.tobytes(), 1)

    def data(self) -> Iterator[bytes]:
        """Pixel Data, bit upon bit without gaps between frames (PS3.5, 8.1.1), in pieces."""
        aligned = self._pixels % 8 == 0
        keys = self.keys
        step = 1 if aligned else 8  # eight frames end at a byte, whatever their size
        for first in range(0, len(keys), step):
            pieces = [self._frame(key) for key in keys[first : first + step]]
            if aligned:
                yield pieces[0]
                continue
            bits = [
                np.unpackbits(np.frombuffer(piece, np.uint8), count=self._pixels, bitorder="little")
                for piece in pieces
            ]
            yield np.packbits(np.concatenate(bits), bitorder="little").tobytes()


class LabelFrames(_Frames):
    """One frame of a byte a pixel for each slice that was read, from the first to the last that is not all background.

    Args:
        axes: From the pixels as stored to those of the labels.
        pixels: Number of a frame.
    """

    bits = 8

    def put(self, index: int, labels: _Labels) -> None:
        """Take the labels of a slice, ``(Y, X)`` uint8 in canonical order."""
        if (labels == UNREAD).all():
            return
        self._seen.add(index)
        if labels.any():
            stored = np.ascontiguousarray(turn_back(self._axes, labels))
            self._packed[0, index] = zlib.compress(stored.tobytes(), 1)

    def data(self) -> Iterator[bytes]:
        """Pixel Data, in pieces."""
        for key in self.keys:
            yield self._frame(key)
