"""DICOM data elements, read without side effects (PS3.5, chapter 7).

Why not pydicom here: its parser tells of defects through ``warnings`` and ``logging``, with values and the
file's name in the text, and nothing silences that for one call without altering the host application's
filters, which isn't safe between threads. It also inflates deflated files without a bound. This one keeps
only the attributes of `Tag`, so no patient's name is ever held, and what it refuses it refuses by code.
The tests hold it against pydicom, file by file.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from bedside.dicom.tags import PIXEL_TAGS, SEQUENCES, Tag
from bedside.errors import InputError

__all__ = ["DataSet", "Element", "Encoding", "IncompleteError", "PixelElement", "parse"]

WANTED: Final = frozenset(int(tag) for tag in Tag)
"""Attributes that are kept."""

MAX_DEPTH: Final = 16
"""Sequences nested deeper than this are refused: no X-ray needs them, and recursion must end."""

UNDEFINED: Final = 0xFFFFFFFF
ITEM: Final = 0xFFFEE000
ITEM_END: Final = 0xFFFEE00D
SEQUENCE_END: Final = 0xFFFEE0DD

LONG_VRS: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
"""Value representations with a 32-bit length (PS3.5, table 7.1-1)."""

NUMBER_FORMATS: Final = {
    "US": "u2",
    "SS": "i2",
    "UL": "u4",
    "SL": "i4",
    "OW": "u2",
    "OB": "u1",
    "FL": "f4",
    "FD": "f8",
}
"""Binary value representations as numpy types, byte order to be put in front."""


class IncompleteError(Exception):
    """The bytes end in the middle of an element: there may be more in the file."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How elements are laid out."""

    explicit: bool
    """Whether each element names its value representation."""
    little_endian: bool = True
    """Byte order."""


@dataclass(frozen=True, slots=True)
class Element:
    """One attribute of a `DataSet`, as stored."""

    vr: str
    """Value representation, e.g. ``US``; empty where the encoding is implicit."""
    little_endian: bool
    """Byte order of the value."""
    value: bytes
    """The value; empty for a sequence."""
    items: tuple[DataSet, ...] = ()
    """The items of a sequence."""

    def numbers(self, vr: str) -> list[float]:
        """The binary numbers of the value, read as ``vr`` where the element doesn't say."""
        own = self.vr if self.vr in NUMBER_FORMATS else vr
        kind = np.dtype(("<" if self.little_endian else ">") + NUMBER_FORMATS[own])
        whole = len(self.value) // kind.itemsize * kind.itemsize
        return np.frombuffer(self.value[:whole], kind).tolist()  # type: ignore[no-any-return]  # numpy types tolist() as Any


@dataclass(frozen=True, slots=True)
class PixelElement:
    """Where the pixel data lies; its value is not read here."""

    tag: int
    """`Tag.PIXEL_DATA`, or one of the floating-point kinds."""
    vr: str
    """``OB`` or ``OW``; empty where the encoding is implicit."""
    offset: int
    """Of the value, in bytes from the start of what was parsed."""
    length: int | None
    """In bytes; None where undefined, as it is for encapsulated data."""
    little_endian: bool
    """Byte order of the value."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """The attributes of `Tag` that a file, or an item of a sequence, holds."""

    elements: Mapping[int, Element]
    """By tag."""
    pixels: PixelElement | None = None
    """The pixel data, at the top level only."""

    def texts(self, tag: Tag) -> list[str]:
        """The values of a text attribute, stripped; no value at all where it is absent or empty."""
        element = self.elements.get(tag)
        if element is None:
            return []
        text = element.value.decode("ascii", "replace").strip(" \0")
        return [part.strip(" \0") for part in text.split("\\")] if text else []

    def text(self, tag: Tag) -> str:
        """The first value of a text attribute, or an empty string."""
        return next(iter(self.texts(tag)), "")

    def decimals(self, tag: Tag) -> list[float]:
        """The values of a decimal attribute; NaN for each that is not a number."""
        element = self.elements.get(tag)
        if element is not None and element.vr in {"FL", "FD"}:
            return element.numbers(element.vr)
        return [_decimal(text) for text in self.texts(tag)]

    def integers(self, tag: Tag, *, signed: bool = False) -> list[int]:
        """The values of a binary integer attribute; ``signed`` where the encoding doesn't say."""
        element = self.elements.get(tag)
        return [] if element is None else [int(value) for value in element.numbers("SS" if signed else "US")]

    def items(self, tag: Tag) -> tuple[DataSet, ...]:
        """The items of a sequence; none where it is absent."""
        element = self.elements.get(tag)
        return () if element is None else element.items


def _decimal(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def parse(
    data: bytes,
    start: int,
    encoding: Encoding,
    *,
    group: int | None = None,
    whole: bool = True,
    also: frozenset[int] = frozenset(),
) -> tuple[DataSet, int]:
    """Read elements from ``data`` up to the pixel data, the end, or the end of ``group``.

    Args:
        data: The file, or its beginning.
        start: Where the first element begins, in bytes.
        encoding: How the elements are laid out.
        group: Read elements of this group only, and stop at the first other one.
        whole: Whether ``data`` goes to the end of the file.
        also: Attributes to keep beside those of `Tag`.

    Returns:
        The data set, and where reading stopped, in bytes.

    Raises:
        IncompleteError: ``data`` ends before the pixel data, and is not the whole.
        InputError: ``broken-dicom``.
    """
    parser = _Parser(data, group, WANTED | also)
    try:
        dataset, position = parser.read_elements(start, len(data), encoding, depth=0)
    except (IncompleteError, struct.error) as error:
        if not whole:
            raise IncompleteError from error
        raise _cut_short() from error
    if whole and group is None and dataset.pixels is None and data[position:].strip(b"\0"):
        raise _cut_short()  # too few bytes for another heading, and no padding
    if not whole and dataset.pixels is None and (group is None or position + 8 > len(data)):
        raise IncompleteError
    return dataset, position


def _cut_short() -> InputError:
    return InputError(
        "broken-dicom", "the data set ends in the middle of an element; the file is cut short or damaged"
    )


class _Heading(NamedTuple):
    """Tag, VR and length of an element, and where its value begins."""

    tag: int
    vr: bytes
    length: int
    start: int


class _Parser:
    """One pass over ``data``."""

    def __init__(self, data: bytes, group: int | None, wanted: frozenset[int]) -> None:
        self._data = data
        self._group = group
        self._wanted = wanted

    def read_elements(self, position: int, end: int, encoding: Encoding, depth: int) -> tuple[DataSet, int]:
        """The elements between ``position`` and ``end``, or up to an item's own end."""
        if depth > MAX_DEPTH:
            raise InputError("broken-dicom", f"sequences nest deeper than {MAX_DEPTH}; the file is damaged")
        found: dict[int, Element] = {}
        while position + 8 <= end:
            heading = self._read_heading(position, encoding)
            if heading.tag == ITEM_END and depth:
                return DataSet(found), heading.start
            if self._group is not None and heading.tag >> 16 != self._group:
                break
            if heading.tag in PIXEL_TAGS and not depth:
                length = None if heading.length == UNDEFINED else heading.length
                vr = heading.vr.decode("ascii")
                pixels = PixelElement(heading.tag, vr, heading.start, length, encoding.little_endian)
                return DataSet(found, pixels), heading.start
            element, position = self._read_value(heading, end, encoding, depth)
            if element is not None:
                found[heading.tag] = element
        return DataSet(found), position

    def _read_heading(self, position: int, encoding: Encoding) -> _Heading:
        order = "<" if encoding.little_endian else ">"
        group, element = struct.unpack_from(order + "HH", self._data, position)
        tag = group << 16 | element
        vr = bytes(self._data[position + 4 : position + 6])
        # Writers mix encodings inside one file: what is no VR is the low half of an implicit length.
        if not encoding.explicit or group == 0xFFFE or not (vr.isalpha() and vr.isupper()):
            (length,) = struct.unpack_from(order + "L", self._data, position + 4)
            return _Heading(tag, b"", length, position + 8)
        if vr in LONG_VRS:
            (length,) = struct.unpack_from(order + "L", self._data, position + 8)
            return _Heading(tag, vr, length, position + 12)
        (length,) = struct.unpack_from(order + "H", self._data, position + 6)
        return _Heading(tag, vr, length, position + 8)

    def _read_value(
        self, heading: _Heading, end: int, encoding: Encoding, depth: int
    ) -> tuple[Element | None, int]:
        """The element where it is wanted, else None; and the position after its value."""
        wanted = heading.tag in self._wanted
        inner = Encoding(explicit=False) if heading.vr == b"UN" else encoding  # PS3.5, 6.2.2
        if heading.length == UNDEFINED:
            if heading.vr in {b"OB", b"OW"}:
                return None, self._skip_fragments(heading.start, encoding)
            items, position = self._read_items(heading.start, end, inner, depth, delimited=True)
            return (Element("SQ", encoding.little_endian, b"", items) if wanted else None), position
        position = heading.start + heading.length
        if position > end:
            raise IncompleteError
        if not wanted:
            return None, position
        if heading.tag in SEQUENCES:
            items, _ = self._read_items(heading.start, position, inner, depth, delimited=False)
            return Element("SQ", encoding.little_endian, b"", items), position
        value = bytes(self._data[heading.start : position])
        return Element(heading.vr.decode("ascii"), encoding.little_endian, value), position

    def _read_items(
        self, position: int, end: int, encoding: Encoding, depth: int, *, delimited: bool
    ) -> tuple[tuple[DataSet, ...], int]:
        """The items of a sequence, and the position after it."""
        items: list[DataSet] = []
        while position < end:
            heading = self._read_heading(position, encoding)
            if heading.tag == SEQUENCE_END and delimited:
                return tuple(items), heading.start
            if heading.tag != ITEM:
                raise InputError("broken-dicom", "a sequence holds something other than items; it is damaged")
            undefined = heading.length == UNDEFINED
            stop = end if undefined else heading.start + heading.length
            if stop > end:
                raise IncompleteError
            item, position = self.read_elements(heading.start, stop, encoding, depth + 1)
            items.append(item)
            position = position if undefined else stop
        if delimited:
            raise IncompleteError
        return tuple(items), position

    def _skip_fragments(self, position: int, encoding: Encoding) -> int:
        """The position after encapsulated data inside an item (an icon, say)."""
        while True:
            heading = self._read_heading(position, encoding)
            if heading.tag == SEQUENCE_END:
                return heading.start
            if heading.tag != ITEM or heading.length == UNDEFINED:
                raise InputError("broken-dicom", "encapsulated data inside a sequence is damaged")
            position = heading.start + heading.length
