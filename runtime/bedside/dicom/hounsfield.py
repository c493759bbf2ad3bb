"""From the files to Hounsfield units, slice by slice."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.dicom.archive import Archive
from bedside.dicom.layout import Layout
from bedside.dicom.pixels import StoredPixels, read_pixels
from bedside.dicom.slices import Rescale, Slice
from bedside.dicom.source import DEFLATED_LITTLE, find_size, read_source
from bedside.errors import InputError, RefusedError
from bedside.scan import AIR_HU

__all__ = ["LOWEST_HU", "is_padding_credible", "read_hu", "show_same", "to_hu"]

LOWEST_HU: Final = -1024.0
"""What lies below is outside of the picture and reads as air. It is the floor of the 12-bit scale of CT; nothing
attenuates less than nothing (-1000 HU), and what scanners put around the circle of reconstruction, -2000 and
-3024 among it, lies far below."""
TISSUE_HU: Final = (-900.0, 3071.0)
"""Values that occur in a body, up to the top of the 12-bit scale: a padding value among them is a mistake."""
BLOCK: Final = 1 << 15
"""Pixels looked up at once: numpy widens indices to 64 bits, which then stay in the processor's cache."""
MAX_COMPARED: Final = 1 << 24
"""Largest file, in bytes, of which the stored pixels are compared before any is decoded."""

Picture = npt.NDArray[np.float32]


def read_hu(archive: Archive, item: Slice, target: Picture) -> None:
    """Decode one slice.

    Args:
        archive: Holds its file.
        item: The slice.
        target: ``(rows, columns)`` float32, contiguous, in the order in which pixels are stored; overwritten.

    Raises:
        InputError: It can't be decoded.
        RefusedError: ``colour``.
        MissingExtraError: The decoder is in the ``codecs`` extra.
    """
    if item.layout is None or item.rescale is None:
        raise InputError("broken-dicom", item.problem)
    with archive.open(item.file) as stream:
        source = item.source
        if source.transfer_syntax_uid == DEFLATED_LITTLE:
            source = read_source(stream)  # its body is not held
        stored = read_pixels(stream, source, item.layout, frame=item.frame)
    to_hu(stored, item.layout, item.rescale, target)


def show_same(archive: Archive, one: Slice, other: Slice) -> bool:
    """Whether two slices show the same, HU for HU; False where one of them can't be decoded."""
    try:
        if _read_stored(archive, one) == _read_stored(archive, other):
            return True
        first, second = (_read_alone(archive, item) for item in (one, other))
    except (InputError, RefusedError):
        return False
    return bool(np.array_equal(first, second))


def _read_alone(archive: Archive, item: Slice) -> Picture:
    if item.layout is None:
        raise InputError("broken-dicom", item.problem)
    picture = np.empty((item.layout.rows, item.layout.columns), np.float32)
    read_hu(archive, item, picture)
    return picture


def _read_stored(archive: Archive, item: Slice) -> tuple[object, ...]:
    """What a slice's HU follow from, undecoded; never the same twice where it can't be told so cheaply."""
    pixels = item.source.dataset.pixels
    if pixels is None or item.layout is None or item.frame is not None:
        return (object(),)
    with archive.open(item.file) as stream:
        if item.source.transfer_syntax_uid == DEFLATED_LITTLE or find_size(stream) > MAX_COMPARED:
            return (object(),)
        stream.seek(pixels.offset)
        return item.source.transfer_syntax_uid, item.layout, item.rescale, pixels.vr, stream.read()


def to_hu(stored: StoredPixels, layout: Layout, rescale: Rescale, out: npt.NDArray[np.float32]) -> None:
    """Put HU into ``out``, ``(rows, columns)`` float32, contiguous; padding becomes `AIR_HU`.

    Args:
        stored: The stored values as bit patterns.
        layout: Whether they are signed.
        rescale: Of the slice.
        out: Is overwritten.
    """
    padding = rescale.padding if is_padding_credible(rescale) else None
    table = _make_table(stored.bits, layout.signed, (rescale.slope, rescale.intercept), padding)
    patterns, hu = stored.patterns.reshape(-1), out.reshape(-1)
    for start in range(0, patterns.size, BLOCK):
        block = slice(start, start + BLOCK)
        np.take(table, patterns[block], out=hu[block], mode="clip")


def is_padding_credible(rescale: Rescale) -> bool:
    """Whether the values named as padding lie outside of what a body can hold; True where none is named."""
    if rescale.padding is None:
        return True
    ends = [rescale.slope * end + rescale.intercept for end in rescale.padding]
    return max(ends) < TISSUE_HU[0] or min(ends) > TISSUE_HU[1]


@lru_cache(maxsize=16)
def _make_table(
    bits: int,
    signed: bool,  # noqa: FBT001 - cached by place
    scale: tuple[float, float],
    padding: tuple[int, int] | None,
) -> npt.NDArray[np.float32]:
    """HU of each bit pattern, ``(2^bits,)``."""
    values = np.arange(1 << bits, dtype=np.int32)
    if signed:
        values[1 << (bits - 1) :] -= 1 << bits
    hu = values * scale[0] + scale[1]
    hu[hu < LOWEST_HU] = AIR_HU
    if padding is not None:
        hu[(values >= padding[0]) & (values <= padding[1])] = AIR_HU
    table = hu.astype(np.float32)
    table.flags.writeable = False
    return table
