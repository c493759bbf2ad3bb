"""Whether an object's pixel data is all there, told without decoding it. Not for clinical use."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import BinaryIO, Final, Literal

from bedside.dicom.layout import count_frames, read_layout
from bedside.dicom.pixels import RLE
from bedside.dicom.source import Source, find_size, read_source
from bedside.errors import InputError, RefusedError

__all__ = ["Pixels", "judge_pixels"]

Pixels = Literal["whole", "cut", "broken"]
"""``cut``: the file ends before its pixel data do; ``broken``: there is none that could be read, whatever followed."""

_ITEM: Final = (0xFFFE, 0xE000)
_SEQUENCE_END: Final = (0xFFFE, 0xE0DD)
_UNDEFINED: Final = 0xFFFFFFFF
_CODESTREAM_END: Final = b"\xff\xd9"
"""EOI of JPEG and JPEG-LS (ITU-T T.81, table B.1), EOC of JPEG 2000 (T.800, table A.2)."""
_TAIL: Final = 4096
"""Bytes at the end of a codestream in which its end is looked for, as `bedside.codestream` does."""


def judge_pixels(stream: BinaryIO) -> Pixels:
    """Judge the pixel data of a DICOM file by its header and its length.

    Args:
        stream: The file, at its start.

    Returns:
        What it is; ``broken`` also where the file can't be parsed, is no image, or is of a layout that is not read.

    Raises:
        OSError: The file can't be read.
    """
    try:
        source = read_source(stream)
        size = _size_of_frames(source)
    except InputError:
        return "broken"
    pixels = source.dataset.pixels
    if pixels is None:
        return "broken"
    if not source.native:
        return "broken" if pixels.length is not None else _judge_fragments(stream, source, pixels.offset)
    if pixels.length is None or pixels.length < size:
        return "broken"
    there = find_size(stream) if source.body is None else len(source.body)
    return "whole" if pixels.offset + (size or pixels.length) <= there else "cut"


def _size_of_frames(source: Source) -> int:
    """Bytes of all frames, decoded; 0 where they are refused for what they show, which is no defect.

    Raises:
        InputError: The header tells of no picture.
    """
    try:
        return read_layout(source.dataset, frames=True).n_bytes * count_frames(source.dataset)
    except RefusedError:
        return 0


def _judge_fragments(stream: BinaryIO, source: Source, start: int) -> Pixels:
    """Judge encapsulated pixel data (PS3.5, A.4) by the headings of its fragments.

    Some writers leave out the end of the sequence: the file's end stands for it if the last codestream has its own.
    """
    size, position = find_size(stream), start
    spans: list[tuple[int, int]] = []
    ended = False
    while not ended and position + 8 <= size:
        stream.seek(position)
        group, element, length = struct.unpack("<HHL", stream.read(8))
        position += 8
        ended = (group, element) == _SEQUENCE_END
        if not ended:
            if (group, element) != _ITEM or length == _UNDEFINED:
                return "broken"
            spans.append((position, length))
            position += length
    if not ended and position != size:
        return "cut"
    enough = len(spans) > count_frames(source.dataset)  # the first is the offset table
    if enough and (source.transfer_syntax_uid == RLE or _CODESTREAM_END in _read_tail(stream, spans)):
        return "whole"
    return "broken" if ended else "cut"


def _read_tail(stream: BinaryIO, spans: Sequence[tuple[int, int]]) -> bytes:
    """The last bytes of what lies in these places (offset and length), joined."""
    tail = b""
    for start, length in reversed(spans):
        wanted = min(length, _TAIL - len(tail))
        stream.seek(start + length - wanted)
        tail = stream.read(wanted) + tail
        if len(tail) >= _TAIL:
            break
    return tail
