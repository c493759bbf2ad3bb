"""From the pixel data of a file to stored values (PS3.5, section 8 and annex A.4)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from bedside.codestream import read_codestream
from bedside.decoders import decode_codestream, decode_rle
from bedside.dicom.elements import PixelElement
from bedside.dicom.frames import Frame
from bedside.dicom.layout import Layout
from bedside.dicom.source import Source, find_size
from bedside.errors import InputError, RefusedError
from bedside.radiograph import Finding

__all__ = ["StoredPixels", "read_pixels"]

RLE: Final = "1.2.840.10008.1.2.5"
PROCESSES: Final = {
    "1.2.840.10008.1.2.4.50": ("dct",),
    "1.2.840.10008.1.2.4.51": ("dct",),
    "1.2.840.10008.1.2.4.53": ("dct",),
    "1.2.840.10008.1.2.4.55": ("dct",),
    "1.2.840.10008.1.2.4.57": ("lossless",),
    "1.2.840.10008.1.2.4.70": ("lossless",),
    "1.2.840.10008.1.2.4.80": ("jpeg-ls",),
    "1.2.840.10008.1.2.4.81": ("jpeg-ls",),
    "1.2.840.10008.1.2.4.90": ("jpeg-2000",),
    "1.2.840.10008.1.2.4.91": ("jpeg-2000",),
}
"""Transfer syntax -> what its codestream may be (PS3.5, A.4)."""

MAX_EXPANSION: Final = 2
"""Compressed data larger than this many times the picture, and a MiB, is refused."""

Words = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.uint32]

ITEM: Final = (0xFFFE, 0xE000)
SEQUENCE_END: Final = (0xFFFE, 0xE0DD)
UNDEFINED: Final = 0xFFFFFFFF
LOSSY_TOLERANCE: Final = 3
"""Largest difference between the planes of a grey picture after lossy colour compression, in levels of 8 bits."""


@dataclass(frozen=True, slots=True)
class StoredPixels:
    """The stored values of a picture, as bit patterns."""

    patterns: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    """``(rows, columns)``: the low ``bits`` bits of each stored value, the others zero; two's complement."""
    bits: int
    """Bits of a stored value: Bits Stored, or fewer where the codestream has fewer."""
    findings: tuple[Finding, ...] = ()
    """Defects mended."""


def read_pixels(
    stream: BinaryIO, source: Source, layout: Layout, *, frame: Frame | None = None
) -> StoredPixels:
    """Decode the one picture of a file, or one frame of several.

    Args:
        stream: The file, at any position.
        source: What `read_source` found in it.
        layout: What `read_layout` found in its data set.
        frame: Which frame of a multi-frame file, and where `find_frames` found it.

    Raises:
        InputError: ``no-pixels``, ``truncated-pixels``, ``excess-pixels``, ``broken-pixels``,
            ``unsupported-syntax``.
        RefusedError: ``colour``.
        MissingExtraError: The decoder is in the ``codecs`` extra.
    """
    pixels = source.dataset.pixels
    if pixels is None:
        raise InputError("no-pixels", "the DICOM file holds no pixel data")
    if source.native:
        words = _read_native(stream, source, pixels, layout, frame)
        return _settle(words, layout)
    uid = source.transfer_syntax_uid
    if uid != RLE and uid not in PROCESSES:
        raise InputError(
            "unsupported-syntax",
            f"transfer syntax {_printable(uid)} is not read; export it uncompressed, or as JPEG, JPEG-LS, JPEG 2000 "
            "or RLE",
        )
    if frame is None:
        data = _read_frame(stream, pixels, layout)
    else:
        data = frame.read(stream, limit=MAX_EXPANSION * layout.n_bytes + (1 << 20))
    if uid == RLE:
        decoded = decode_rle(data, layout.rows, layout.columns, layout.samples, layout.bits_allocated)
        return _settle(decoded, replace(layout, planar=False))
    return _decode(data, PROCESSES[uid], layout)


def _decode(frame: bytes, processes: tuple[str, ...], layout: Layout) -> StoredPixels:
    found = read_codestream(frame)
    if found.process not in processes:
        raise InputError(
            "broken-pixels", f"the pixel data is {found.process}, and its transfer syntax says otherwise"
        )
    if (found.rows, found.columns) != (layout.rows, layout.columns):
        raise InputError("broken-pixels", "the compressed picture has another size than Rows x Columns says")
    if found.components != layout.samples:
        raise InputError(
            "broken-pixels", "the compressed picture has another number of samples than the header says"
        )
    words = decode_codestream(frame, found)
    findings: tuple[Finding, ...] = ()
    bits = min(layout.bits_stored, found.precision)
    if bits < layout.bits_stored:
        text = f"Bits Stored says {layout.bits_stored}, and the compressed picture holds {bits} bits"
        findings = (Finding("bits-mended", text),)
    whole_cells = found.precision > layout.high_bit
    high_bit = layout.high_bit if whole_cells else bits - 1
    settled = replace(layout, bits_stored=bits, high_bit=high_bit, planar=False)
    stored = _settle(
        words,
        settled,
        clip=found.process in {"dct", "jpeg-ls"} and not layout.signed,
        tolerance=0 if found.process == "lossless" else LOSSY_TOLERANCE,
    )
    return replace(stored, findings=findings + stored.findings)


def _settle(words: Words, layout: Layout, *, clip: bool = False, tolerance: int = 0) -> StoredPixels:
    """Cut the stored bits out of their cells: what lies above High Bit or below is no part of the value.

    Args:
        words: Cells, ``(rows, columns)`` or ``(rows, columns, 3)``.
        layout: What they hold.
        clip: Whether bits above the value mean that a lossy codec overshot, and not an overlay.
        tolerance: Largest difference between the planes of a grey picture in colour, in levels.
    """
    findings: tuple[Finding, ...] = ()
    if layout.samples == 3:
        words = _grey_plane(words, layout, tolerance=tolerance)
        findings = (Finding("grey-in-colour", f"a grey picture stored as {layout.photometric}"),)
    kind = words.dtype.type
    top = (1 << layout.bits_stored) - 1
    shift = layout.high_bit + 1 - layout.bits_stored
    if shift:
        words = words >> kind(shift)
    if layout.bits_stored < words.dtype.itemsize * 8:
        words = np.minimum(words, kind(top)) if clip else words & kind(top)
    if layout.bits_stored <= 8:
        return StoredPixels(np.ascontiguousarray(words, np.uint8), layout.bits_stored, findings)
    return StoredPixels(np.ascontiguousarray(words, np.uint16), layout.bits_stored, findings)


def _grey_plane(words: Words, layout: Layout, *, tolerance: int) -> Words:
    """The one plane of a grey picture that is stored in three.

    Args:
        words: ``(rows, columns, 3)``.
        layout: Says in which colour space. Codestreams come out of their decoder as RGB.
        tolerance: Largest difference between planes, in levels.
    """
    first, second, third = (words[..., plane].astype(np.int32) for plane in range(3))
    if layout.photometric == "YBR_FULL" and not tolerance:
        middle = 1 << (
            layout.bits_stored - 1
        )  # PS3.3, C.7.6.3.1.2: both chrominances are half the range in grey
        coloured = bool(np.any(second != middle) or np.any(third != middle))
        grey = words[..., 0]
    else:
        spread = np.maximum(np.maximum(first, second), third) - np.minimum(np.minimum(first, second), third)
        coloured = bool(spread.max() > tolerance)
        grey = words[..., 1]
    if coloured:
        raise RefusedError("colour", "the picture is in colour; give a grey one")
    return grey


def _read_native(
    stream: BinaryIO, source: Source, pixels: PixelElement, layout: Layout, frame: Frame | None
) -> Words:
    """Cells of Bits Allocated, in the machine's byte order: ``(rows, columns[, 3])``."""
    if pixels.length is None:
        raise InputError("broken-dicom", "uncompressed pixel data of undefined length; the file is damaged")
    if layout.photometric == "YBR_FULL_422":
        raise RefusedError("colour", "the picture is in colour (YBR_FULL_422); give a grey one")
    swapped = layout.bits_allocated == 8 and not pixels.little_endian and pixels.vr == "OW"
    if frame is None:
        _check_length(pixels.length, layout)
        offset = pixels.offset
    elif swapped:
        raise InputError("unsupported-syntax", "frames of bytes in big-endian words; export them again")
    else:
        ((offset, _),) = frame.spans
    data = _read_bytes(stream, source, offset, layout.n_bytes)
    order = "<" if pixels.little_endian else ">"
    cells = np.frombuffer(data, f"{order}u{layout.bits_allocated // 8}")
    if swapped:
        cells = _swap_pairs(stream, pixels, layout)
    words = cells.astype(cells.dtype.newbyteorder("="), copy=False)
    if layout.samples == 1:
        return words.reshape(layout.rows, layout.columns)
    if layout.planar:
        return np.moveaxis(words.reshape(3, layout.rows, layout.columns), 0, -1)
    return words.reshape(layout.rows, layout.columns, 3)


def _read_bytes(stream: BinaryIO, source: Source, offset: int, n_bytes: int) -> bytes:
    if source.body is not None:
        data = source.body[offset : offset + n_bytes]
    elif find_size(stream) < offset + n_bytes:
        raise _truncated()
    else:
        stream.seek(offset)
        data = stream.read(n_bytes)
    if len(data) < n_bytes:
        raise _truncated()
    return data


def _swap_pairs(stream: BinaryIO, pixels: PixelElement, layout: Layout) -> npt.NDArray[np.uint8]:
    """8-bit cells packed in big-endian words: the second of a pair comes first (PS3.5, 8.1.1)."""
    stream.seek(pixels.offset)
    data = stream.read(layout.n_bytes + layout.n_bytes % 2)
    if len(data) % 2:
        raise _truncated()
    return np.frombuffer(data, np.uint16).byteswap().view(np.uint8)[: layout.n_bytes]


def _check_length(length: int, layout: Layout) -> None:
    if length < layout.n_bytes:
        raise _truncated()
    if length > layout.n_bytes + layout.n_bytes % 2:
        raise InputError(
            "excess-pixels",
            f"{length} bytes of pixel data where Rows x Columns x bits needs {layout.n_bytes}; "
            "one of them is wrong: export the image again",
        )


def _read_frame(stream: BinaryIO, pixels: PixelElement, layout: Layout) -> bytes:
    """The bytes of the one encapsulated frame, its fragments joined (PS3.5, A.4)."""
    if pixels.length is not None:
        raise InputError("broken-pixels", "the pixel data isn't encapsulated, as its transfer syntax says")
    limit = MAX_EXPANSION * layout.n_bytes + (1 << 20)
    left = find_size(stream) - pixels.offset
    stream.seek(pixels.offset)
    fragments, ended = _split_fragments(stream.read(min(left, limit)))
    if not ended and left > limit:
        raise InputError("excess-pixels", "far more compressed pixel data than one such picture can hold")
    if fragments and len(fragments[0]) > 4:
        raise InputError(
            "excess-pixels", "the offset table lists more than one frame; give one picture a file"
        )
    if not ended or len(fragments) < 2:
        raise _truncated()
    return b"".join(fragments[1:])


def _split_fragments(data: bytes) -> tuple[list[bytes], bool]:
    """The offset table and the fragments, and whether the last of them ends within ``data``.

    A sequence delimiter that is missing at the end of the file is no loss: every fragment has its length.
    """
    fragments: list[bytes] = []
    position = 0
    while position + 8 <= len(data):
        group, element, length = struct.unpack_from("<HHL", data, position)
        position += 8
        if (group, element) == SEQUENCE_END:
            return fragments, True
        if (group, element) != ITEM or length == UNDEFINED:
            raise InputError("broken-pixels", "the fragments of the compressed pixel data are damaged")
        if position + length > len(data):
            return fragments, False
        fragments.append(data[position : position + length])
        position += length
    return fragments, position >= len(data)


def _truncated() -> InputError:
    return InputError(
        "truncated-pixels", "the pixel data ends early; the file is cut short: copy or export it again"
    )


def _printable(uid: str) -> str:
    """A UID as it may be shown: a damaged one could hold anything."""
    return uid if len(uid) <= 64 and all(sign in ".0123456789" for sign in uid) else "(malformed)"
