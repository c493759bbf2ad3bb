"""Where the frames of a multi-frame file lie (PS3.5, A.4, and PS3.3, C.7.6.3.1.8); none is decoded here."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import BinaryIO, Final

from bedside.dicom.elements import PixelElement
from bedside.dicom.layout import Layout
from bedside.dicom.source import Source, find_size
from bedside.dicom.tags import Tag
from bedside.errors import InputError

__all__ = ["Frame", "find_frames"]

ITEM: Final = (0xFFFE, 0xE000)
SEQUENCE_END: Final = (0xFFFE, 0xE0DD)
UNDEFINED: Final = 0xFFFFFFFF
STARTS: Final = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")
"""First bytes of a JPEG or JPEG-LS codestream, of JPEG 2000, and of a JP2 file."""

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Frame:
    """The bytes of one frame."""

    spans: tuple[Span, ...]
    """Offset in the (inflated) file and length of each piece, in bytes; one piece where uncompressed."""

    def read(self, stream: BinaryIO, *, limit: int) -> bytes:
        """The pieces, joined.

        Raises:
            InputError: ``excess-pixels`` over ``limit`` bytes; ``truncated-pixels``.
        """
        if sum(length for _, length in self.spans) > limit:
            raise InputError("excess-pixels", "far more compressed pixel data than one such picture can hold")
        pieces = []
        for offset, length in self.spans:
            stream.seek(offset)
            pieces.append(stream.read(length))
            if len(pieces[-1]) < length:
                raise InputError(
                    "truncated-pixels",
                    "the pixel data ends early; the file is cut short: copy or export it again",
                )
        return b"".join(pieces)


def find_frames(stream: BinaryIO, source: Source, layout: Layout, count: int) -> list[Frame]:
    """Where each of ``count`` frames lies.

    Raises:
        InputError: ``excess-pixels`` or ``broken-pixels`` where the pixel data can't be parted into so many
            frames. Frames that the file is too short for are found where they should be.
    """
    pixels = source.dataset.pixels
    if pixels is None:
        raise InputError("no-pixels", "the DICOM file holds no pixel data")
    if source.native:
        return _find_native(pixels, layout, count)
    if pixels.length is not None:
        raise InputError("broken-pixels", "the pixel data isn't encapsulated, as its transfer syntax says")
    (table, *fragments) = _walk_fragments(stream, pixels.offset) or [(0, 0)]
    if len(fragments) == count:
        return [Frame((fragment,)) for fragment in fragments]
    starts = _read_starts(stream, source, table, fragments)
    if len(starts) != count:
        raise InputError(
            "broken-pixels", f"the pixel data does not hold the {count} frames that its header names"
        )
    return [Frame(tuple(fragments[first:last])) for first, last in pairwise([*starts, len(fragments)])]


def _find_native(pixels: PixelElement, layout: Layout, count: int) -> list[Frame]:
    if pixels.length is None:
        raise InputError("broken-dicom", "uncompressed pixel data of undefined length; the file is damaged")
    whole = layout.n_bytes * count
    if not whole <= pixels.length <= whole + whole % 2:
        code = "excess-pixels" if pixels.length > whole else "truncated-pixels"
        raise InputError(
            code,
            f"{pixels.length} bytes of pixel data where {count} frames need {whole}; one of them is wrong: "
            "export the image again",
        )
    offsets = accumulate([layout.n_bytes] * (count - 1), initial=pixels.offset)
    return [Frame(((offset, layout.n_bytes),)) for offset in offsets]


def _walk_fragments(stream: BinaryIO, position: int) -> list[Span]:
    """The offset table and all fragments, their headings alone being read."""
    spans = []
    size = find_size(stream)
    while position + 8 <= size:
        stream.seek(position)
        group, element, length = struct.unpack("<HHL", stream.read(8))
        position += 8
        if (group, element) == SEQUENCE_END:
            break
        if (group, element) != ITEM or length == UNDEFINED:
            raise InputError("broken-pixels", "the fragments of the compressed pixel data are damaged")
        spans.append((position, length))
        position += length
    return spans


def _read_starts(stream: BinaryIO, source: Source, table: Span, fragments: list[Span]) -> list[int]:
    """The first fragment of each frame: by an offset table, else by how codestreams begin."""
    extended = source.dataset.elements.get(Tag.EXTENDED_OFFSET_TABLE)
    stream.seek(table[0])
    basic = stream.read(table[1])
    if extended is not None:
        offsets = struct.unpack_from(f"<{len(extended.value) // 8}Q", extended.value)
    else:
        offsets = struct.unpack_from(f"<{len(basic) // 4}L", basic)
    if not offsets:
        return list(_find_codestreams(stream, fragments))
    first = table[0] + table[1]
    numbers = {start - 8 - first: number for number, (start, _) in enumerate(fragments)}
    if any(offset not in numbers for offset in offsets) or sorted(set(offsets)) != list(offsets):
        raise InputError("broken-pixels", "the offset table of the compressed pixel data is damaged")
    return [numbers[offset] for offset in offsets]


def _find_codestreams(stream: BinaryIO, fragments: list[Span]) -> Iterator[int]:
    for number, (start, length) in enumerate(fragments):
        stream.seek(start)
        if stream.read(min(length, 8)).startswith(STARTS):
            yield number
