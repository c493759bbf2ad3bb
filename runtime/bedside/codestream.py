"""What a JPEG, JPEG-LS or JPEG 2000 codestream says of itself, read before any decoder sees it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from bedside.errors import InputError

__all__ = ["Codestream", "read_codestream"]

JPEG_START: Final = b"\xff\xd8"
JPEG_2000_START: Final = b"\xff\x4f\xff\x51"
JPEG_2000_BOX: Final = b"\x00\x00\x00\x0cjP  "
"""Opens a JP2 file, which some writers put in place of the bare codestream (PS3.5, A.4.4)."""

FRAME_HEADERS: Final = {
    0xC0: "dct",
    0xC1: "dct",
    0xC2: "dct",
    0xC3: "lossless",
    0xF7: "jpeg-ls",
}
"""Start-of-frame markers and the processes they open (ITU-T T.81, table B.1; T.87, C.2.2): baseline,
extended and progressive DCT with Huffman codes, lossless with Huffman codes, and JPEG-LS."""

STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
"""Markers without a length (T.81, table B.1)."""


@dataclass(frozen=True, slots=True)
class Codestream:
    """The frame header of a codestream."""

    process: str
    """``dct``, ``lossless``, ``jpeg-ls`` or ``jpeg-2000``."""
    rows: int
    """Height in pixels."""
    columns: int
    """Width in pixels."""
    components: int
    """1 is grey."""
    precision: int
    """Bits of a sample."""
    signed: bool = False
    """Whether samples are signed; JPEG 2000 alone can tell."""


def read_codestream(frame: bytes) -> Codestream:
    """The frame header of ``frame``.

    Args:
        frame: A whole codestream.

    Raises:
        InputError: ``broken-pixels`` where there is none; ``truncated-pixels`` where it has no end.
    """
    if frame.startswith(JPEG_START):
        found = _read_jpeg(frame)
        end = b"\xff\xd9"
    elif frame.startswith((JPEG_2000_START, JPEG_2000_BOX)):
        found = _read_jpeg_2000(frame)
        end = b"\xff\xd9"
    else:
        raise InputError("broken-pixels", "the compressed pixel data is not what its transfer syntax says")
    if frame.rfind(end, max(0, len(frame) - 4096)) < 0:
        raise InputError("truncated-pixels", "the compressed pixel data has no end; the file is cut short")
    return found


def _read_jpeg(frame: bytes) -> Codestream:
    position = len(JPEG_START)
    while position + 4 <= len(frame):
        if frame[position] != 0xFF:
            break
        marker = frame[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        position += 2
        if marker in STANDALONE:
            continue
        (length,) = struct.unpack_from(">H", frame, position)
        if marker in FRAME_HEADERS and position + 8 <= len(frame):
            precision, rows, columns, components = struct.unpack_from(">BHHB", frame, position + 2)
            return Codestream(FRAME_HEADERS[marker], rows, columns, components, precision)
        if marker == 0xDA or length < 2:
            break
        position += length
    raise InputError("broken-pixels", "the compressed pixel data has no readable JPEG header")


def _read_jpeg_2000(frame: bytes) -> Codestream:
    start = frame.find(JPEG_2000_START)
    if start < 0 or len(frame) < start + 43:
        raise InputError("broken-pixels", "the compressed pixel data has no readable JPEG 2000 header")
    # SIZ marker segment: ISO/IEC 15444-1, A.5.1
    right, bottom, left, top = struct.unpack_from(">4L", frame, start + 8)
    (components,) = struct.unpack_from(">H", frame, start + 40)
    depth = frame[start + 42]
    return Codestream(
        "jpeg-2000", bottom - top, right - left, components, (depth & 0x7F) + 1, bool(depth & 0x80)
    )
