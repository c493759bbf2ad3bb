"""PNG, JPEG and TIFF files as containers: their facts, read first, and their metadata left out.

Pillow writes the text of TIFF and EXIF tags to its debug log, and text can hold a patient's name. So a decoder
is given the file without them; orientation, the one tag that matters, is read here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from bedside.errors import InputError, RefusedError
from bedside.files import check_dimensions

__all__ = ["Container", "find_format", "read_container"]

MAGIC: Final = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
"""First bytes of a file -> its format."""

ORIENTATION: Final = 274
"""TIFF and EXIF tag (TIFF 6.0, page 36)."""

TIFF_SIZES: Final = {1: 1, 3: 2, 4: 4}
"""Types of the integers in a TIFF directory -> bytes: BYTE, SHORT, LONG (TIFF 6.0, page 15)."""

TIFF_KEPT: Final = frozenset(
    {
        256,
        257,
        258,
        259,
        262,
        266,
        273,
        277,
        278,
        279,
        284,
        292,
        293,
        317,
        320,
        322,
        323,
        324,
        325,
        338,
        339,
        347,
    }
    | {512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 532}
)
"""Tags that decoding needs (TIFF 6.0; 347 of the JPEG technical note 2). The others are blanked."""

PNG_COLOURS: Final = {0: "grey", 2: "rgb", 3: "palette", 4: "grey-alpha", 6: "rgb-alpha"}
"""Colour types (PNG, 11.2.1)."""

MIN_IS_WHITE, MIN_IS_BLACK = 0, 1
"""TIFF photometric interpretations (TIFF 6.0, page 37)."""


@dataclass(frozen=True, slots=True)
class Container:
    """A picture file before decoding."""

    format: str
    """``PNG``, ``JPEG`` or ``TIFF``."""
    data: bytes
    """The file without the metadata that a decoder would log. A TIFF's MinIsWhite is given as MinIsBlack."""
    bits: int
    """Bits of a sample."""
    colour: str
    """``grey``, ``rgb``, ``palette``, ...: as the file says it, for the header."""
    orientation: int = 1
    """As in EXIF, 1 to 8; 1 is upright."""
    inverted: bool = False
    """Whether 0 is white (TIFF, MinIsWhite)."""
    significant_bits: int | None = None
    """Of a sample, where a PNG says so (sBIT)."""


def find_format(head: bytes) -> str:
    """``PNG``, ``JPEG`` or ``TIFF`` by a file's first bytes, or an empty string."""
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), "")


def read_container(data: bytes) -> Container:
    """The facts of a picture file.

    Args:
        data: The whole file.

    Raises:
        InputError: ``not-an-image``, ``broken-image``, ``bad-dimensions``.
        RefusedError: ``multi-frame``.
    """
    readers = {"PNG": _read_png, "JPEG": _read_jpeg, "TIFF": _read_tiff}
    kind = find_format(data)
    if kind not in readers:
        raise InputError("not-an-image", "the file is neither DICOM nor PNG, JPEG or TIFF; give one of these")
    try:
        return readers[kind](data)
    except (struct.error, IndexError) as error:
        raise _broken() from error


def _broken() -> InputError:
    return InputError("broken-image", "the picture's header is damaged or cut short; copy the file again")


def _several() -> RefusedError:
    return RefusedError("multi-frame", "the file holds several pictures; give one picture a file")


def _read_png(data: bytes) -> Container:
    if data[12:16] != b"IHDR":
        raise _broken()
    columns, rows, bits, kind = struct.unpack_from(">LLBB", data, 16)
    check_dimensions(rows, columns)
    if kind not in PNG_COLOURS:
        raise _broken()
    orientation, significant = 1, None
    position = 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">L", data, position)
        name = data[position + 4 : position + 8]
        value = position + 8
        if name == b"acTL":
            raise _several()
        if name == b"sBIT" and length:
            significant = data[value]
        elif name == b"eXIf":
            orientation = _read_orientation(data[value : value + length])
        position = value + length + 4
    return Container("PNG", data, bits, PNG_COLOURS[kind], orientation, significant_bits=significant)


def _read_jpeg(data: bytes) -> Container:
    """Keeps APP0 and APP14, which say how colours are stored, and drops all other APPn and comments."""
    kept = [data[:2]]
    orientation, frame = 1, None
    position = 2
    while True:
        while data[position] == 0xFF and data[position + 1] == 0xFF:
            position += 1
        if data[position] != 0xFF:
            raise _broken()
        marker = data[position + 1]
        if marker == 0xDA:
            break
        (length,) = struct.unpack_from(">H", data, position + 2)
        segment = data[position : position + 2 + length]
        if len(segment) < 2 + length or length < 2:
            raise _broken()
        if marker == 0xE1 and segment[4:10] == b"Exif\0\0":
            orientation = _read_orientation(segment[10:])
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            frame = struct.unpack_from(">BHHB", segment, 4)
        if marker in {0xE0, 0xEE} or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(segment)
        position += 2 + length
    if frame is None:
        raise _broken()
    bits, rows, columns, components = frame
    check_dimensions(rows, columns)
    colour = {1: "grey", 3: "rgb"}.get(components, "cmyk")
    return Container("JPEG", b"".join([*kept, data[position:]]), bits, colour, orientation)


def _read_tiff(data: bytes) -> Container:
    directory = _Directory(data)
    if directory.next_offset:
        raise _several()
    rows, columns = directory.integer(257), directory.integer(256)
    if rows is None or columns is None:
        raise _broken()
    check_dimensions(rows, columns)
    samples, photometric = directory.integer(277, 1), directory.integer(262, MIN_IS_BLACK)
    colour = "palette" if photometric == 3 else "grey" if samples in {1, 2} else "rgb"
    return Container(
        "TIFF",
        directory.blanked(),
        directory.integer(258, 1) or 1,
        colour,
        directory.orientation,
        inverted=photometric == MIN_IS_WHITE,
    )


def _read_orientation(exif: bytes) -> int:
    """The orientation in an EXIF block, 1 where it holds none: a damaged block is no reason to refuse."""
    try:
        return _Directory(exif).orientation
    except (struct.error, IndexError, InputError):
        return 1


class _Directory:
    """The first directory of a TIFF file or an EXIF block (TIFF 6.0, pages 13 to 16)."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._order = {b"II": "<", b"MM": ">"}.get(data[:2], "")
        if not self._order:
            raise _broken()
        (offset,) = struct.unpack_from(self._order + "L", data, 4)
        (count,) = struct.unpack_from(self._order + "H", data, offset)
        self._positions = [offset + 2 + 12 * index for index in range(count)]
        (self.next_offset,) = struct.unpack_from(self._order + "L", data, offset + 2 + 12 * count)

    def integer(self, tag: int, default: int | None = None) -> int | None:
        """The first value of an integer tag."""
        for position in self._positions:
            found, kind, count = struct.unpack_from(self._order + "HHL", self._data, position)
            if found == tag and kind in TIFF_SIZES and count:
                inline = count * TIFF_SIZES[kind] <= 4
                (offset,) = struct.unpack_from(self._order + "L", self._data, position + 8)
                start = position + 8 if inline else offset
                (value,) = struct.unpack_from(self._order + {1: "B", 3: "H", 4: "L"}[kind], self._data, start)
                return int(value)
        return default

    @property
    def orientation(self) -> int:
        """1 to 8; 1 where there is none, or none of these."""
        found = self.integer(ORIENTATION)
        return found if found is not None and 1 <= found <= 8 else 1

    def blanked(self) -> bytes:
        """The file with every tag that decoding doesn't need turned into an empty private one."""
        data = bytearray(self._data)
        for position in self._positions:
            (tag,) = struct.unpack_from(self._order + "H", data, position)
            if tag not in TIFF_KEPT:
                struct.pack_into(self._order + "HHLL", data, position, 0xFFFE, 4, 1, 0)
            elif tag == 262 and self.integer(tag) == MIN_IS_WHITE:
                struct.pack_into(self._order + "HHLHH", data, position, tag, 3, 1, MIN_IS_BLACK, 0)
        return bytes(data)
