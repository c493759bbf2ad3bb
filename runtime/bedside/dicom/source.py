"""A DICOM file: its meta information, its data set up to the pixel data, and the bytes after that."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO, Final

from bedside.dicom.elements import DataSet, Encoding, IncompleteError, parse
from bedside.dicom.tags import Tag
from bedside.errors import InputError
from bedside.files import MAX_PIXELS

__all__ = ["Source", "find_size", "is_dicom", "read_source"]

HEAD_BYTES: Final = 1 << 16
"""Read at first: nearly every header fits, so a header costs one small read."""

GROWTH: Final = 16
"""How much more is read where it does not: the header of a thousand frames is a few MiB."""

MAX_HEADER_BYTES: Final = 1 << 26
"""Most bytes before the pixel data: large private attributes happen, this many do not."""

MAX_BODY_BYTES: Final = 4 * MAX_PIXELS
"""Most bytes that a deflated file is inflated to after its header: 32 bits for each pixel."""

PREFIX_END: Final = 132
"""Preamble of 128 bytes and the letters DICM (PS3.10, 7.1)."""

IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
DEFLATED_LITTLE: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG: Final = "1.2.840.10008.1.2.2"
META_GROUP: Final = 0x0002


@dataclass(frozen=True, slots=True)
class Source:
    """What precedes the pixel data, and how to get at the pixel data."""

    dataset: DataSet
    """The attributes of `Tag`."""
    transfer_syntax_uid: str
    """As stored; guessed from the first element where the file has no meta information."""
    body: bytes | None
    """The inflated data set, in a deflated file as far as it was needed; else None."""
    start: int
    """Where the (deflated) data set begins in the file, in bytes."""

    @property
    def native(self) -> bool:
        """Whether the pixel data is uncompressed."""
        return self.transfer_syntax_uid in {IMPLICIT_LITTLE, EXPLICIT_LITTLE, DEFLATED_LITTLE, EXPLICIT_BIG}


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is DICOM, with or without preamble.

    Args:
        head: At least the first 132 bytes, fewer where the file has fewer.
    """
    if head[128:PREFIX_END] == b"DICM":
        return True
    if len(head) < 8:
        return False
    group, element = struct.unpack_from("<HH", head)
    little = group in {0x0002, 0x0008} and element < 0x0100
    big = head[:2] == b"\x00\x08" and head[2] == 0 and head[4:6].isalpha()
    (length,) = struct.unpack_from("<L", head, 4)
    return big or (little and (length < HEAD_BYTES or (head[4:6].isalpha() and head[4:6].isupper())))


def read_source(stream: BinaryIO, *, also: frozenset[int] = frozenset()) -> Source:
    """Read a DICOM file up to its pixel data.

    Args:
        stream: The file, at its start.
        also: Attributes to keep beside those of `Tag`.

    Raises:
        InputError: ``not-an-image``, ``broken-dicom``.
        OSError: The file can't be read.
    """
    head = stream.read(HEAD_BYTES)
    if not is_dicom(head):
        raise InputError("not-an-image", "the file is not DICOM; give a DICOM, PNG, JPEG or TIFF picture")
    size = find_size(stream)
    while True:
        try:
            return _parse_head(head, stream, whole=size <= len(head), also=also)
        except IncompleteError as error:
            if len(head) >= MAX_HEADER_BYTES:
                raise InputError(
                    "broken-dicom",
                    f"no pixel data within {MAX_HEADER_BYTES} bytes; the file is no image, or damaged",
                ) from error
        stream.seek(len(head))
        more = stream.read(min(GROWTH * len(head), MAX_HEADER_BYTES) - len(head))
        size = size if more else len(head)  # it became shorter meanwhile
        head += more


def find_size(stream: BinaryIO) -> int:
    """Size of a file or of a buffer in bytes; its position stays."""
    position = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(position)
    return size


def _parse_head(head: bytes, stream: BinaryIO, *, whole: bool, also: frozenset[int]) -> Source:
    start = PREFIX_END if head[128:PREFIX_END] == b"DICM" else 0
    meta, start = parse(head, start, Encoding(explicit=True), group=META_GROUP, whole=whole)
    uid = meta.text(Tag.TRANSFER_SYNTAX_UID) or _guess_syntax(head, start)
    if uid == DEFLATED_LITTLE:
        return _inflate(stream, start, also)
    explicit = uid != IMPLICIT_LITTLE
    found = head[start + 4 : start + 6]
    if len(found) == 2 and (found.isalpha() and found.isupper()) != explicit:
        explicit = not explicit
    encoding = Encoding(explicit=explicit, little_endian=uid != EXPLICIT_BIG)
    dataset, _ = parse(head, start, encoding, whole=whole, also=also)
    return Source(dataset, uid, None, start)


def _guess_syntax(head: bytes, start: int) -> str:
    """The transfer syntax of a data set without meta information (native, by its first element)."""
    if head[start : start + 2] == b"\x00\x08":
        return EXPLICIT_BIG
    vr = head[start + 4 : start + 6]
    return EXPLICIT_LITTLE if vr.isalpha() and vr.isupper() else IMPLICIT_LITTLE


def _inflate(stream: BinaryIO, start: int, also: frozenset[int]) -> Source:
    """A deflated data set (PS3.5, A.5), inflated no further than its pixel data goes."""
    stream.seek(start)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    packed = stream.read()
    try:
        body = inflater.decompress(packed, HEAD_BYTES)
        try:
            dataset, _ = parse(body, 0, Encoding(explicit=True), whole=False, also=also)
        except IncompleteError:
            body += inflater.decompress(inflater.unconsumed_tail, MAX_HEADER_BYTES)
            dataset, _ = parse(body, 0, Encoding(explicit=True), also=also)
        pixels = dataset.pixels
        if pixels is not None and pixels.length is not None:
            missing = pixels.offset + pixels.length - len(body)
            if 0 < missing <= MAX_BODY_BYTES:
                body += inflater.decompress(inflater.unconsumed_tail, missing)
    except zlib.error as error:
        raise InputError(
            "broken-dicom", "the deflated data set is damaged; export or copy it again"
        ) from error
    return Source(dataset, DEFLATED_LITTLE, body, start)
