"""Compressed frames to samples, one decoder a process; the only module that calls `imagecodecs`.

| process                    | transfer syntaxes (1.2.840.10008.1.2.)   | decoder     | extra    |
|----------------------------|------------------------------------------|-------------|----------|
| DCT, 8 bits                | 4.50, and 4.51, 4.53, 4.55 of 8 bits     | pillow      |          |
| DCT, 12 bits               | 4.51, 4.53, 4.55                         | imagecodecs | codecs   |
| lossless, 2 to 16 bits     | 4.57, 4.70                               | imagecodecs | codecs   |
| JPEG-LS                    | 4.80, 4.81                               | imagecodecs | codecs   |
| JPEG 2000                  | 4.90, 4.91                               | pillow      |          |
| RLE                        | 5                                        | this module |          |
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from bedside.codestream import Codestream
from bedside.containers import read_container
from bedside.errors import InputError, MissingExtraError

__all__ = ["decode_codestream", "decode_rle", "is_available"]

Samples = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

IMAGECODECS: Final = {"dct": "jpeg8_decode", "lossless": "jpeg8_decode", "jpeg-ls": "jpegls_decode"}
"""Function of `imagecodecs` for each process that pillow does not read in full."""

MAX_SEGMENTS: Final = 15
"""Of an RLE frame (PS3.5, G.5)."""


def is_available() -> bool:
    """Whether the ``codecs`` extra is installed."""
    return importlib.util.find_spec("imagecodecs") is not None


def decode_codestream(frame: bytes, found: Codestream) -> Samples:
    """Samples of a JPEG, JPEG-LS or JPEG 2000 codestream, bit by bit as encoded.

    Args:
        frame: The whole codestream.
        found: Its header.

    Returns:
        ``(rows, columns)``, or ``(rows, columns, 3)`` for three components, uint8 or uint16. Signed samples
        come as two's complement.

    Raises:
        MissingExtraError: The decoder is in the ``codecs`` extra, which is not installed.
        InputError: ``broken-pixels``, where the decoder refuses the codestream or disagrees with its header.
    """
    if found.process == "jpeg-2000" or (found.process == "dct" and found.precision == 8):
        samples = _decode_with_pillow(frame, found)
    else:
        samples = _decode_with_imagecodecs(frame, found)
    shape = (
        (found.rows, found.columns)
        if found.components == 1
        else (found.rows, found.columns, found.components)
    )
    if samples.shape != shape:
        raise InputError("broken-pixels", "the decoded picture has another size than its header says")
    return samples


def _decode_with_pillow(frame: bytes, found: Codestream) -> Samples:
    try:
        if found.process == "dct":
            frame = read_container(frame).data  # without comments and EXIF, which pillow would log
        with Image.open(io.BytesIO(frame), formats=("JPEG", "JPEG2000")) as picture:
            mode = picture.mode
            samples: Samples = np.array(picture)
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        raise _refusal() from error
    if mode not in {"L", "I;16", "RGB"}:
        raise InputError(
            "broken-pixels", f"the compressed pixel data decodes to mode {mode}, which is not grey"
        )
    if found.process != "jpeg-2000":
        return samples
    # Pillow moves samples up to the top of 8 or 16 bits, and signed ones up by half the range.
    container = samples.dtype.itemsize * 8
    if found.precision > container or (found.components > 1 and found.precision != container):
        raise InputError(
            "broken-pixels", f"JPEG 2000 of {found.precision} bits is not read; export it uncompressed"
        )
    if found.signed:
        samples ^= samples.dtype.type(1 << (container - 1))
        shifted = (samples.view(f"i{container // 8}") >> (container - found.precision)).view(samples.dtype)
    else:
        shifted = samples >> (container - found.precision)
    return shifted


def _decode_with_imagecodecs(frame: bytes, found: Codestream) -> Samples:
    if not is_available():
        raise MissingExtraError.of("imagecodecs", "codecs", f"reading {_name(found)}")
    library: Any = importlib.import_module("imagecodecs")
    try:
        samples = np.asarray(getattr(library, IMAGECODECS[found.process])(frame))
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise _refusal() from error
    if samples.dtype not in (np.uint8, np.uint16):
        raise _refusal()
    return samples


def _name(found: Codestream) -> str:
    names = {"dct": "JPEG", "lossless": "JPEG Lossless", "jpeg-ls": "JPEG-LS"}
    return f"{found.precision}-bit {names[found.process]}"


def _refusal() -> InputError:
    return InputError(
        "broken-pixels", "the compressed pixel data can't be decoded; it is damaged: copy it again"
    )


def decode_rle(frame: bytes, rows: int, columns: int, samples: int, bits_allocated: int) -> Samples:
    """Samples of an RLE frame (PS3.5, annex G): one segment a byte of a sample, most significant first.

    Returns:
        ``(rows, columns)`` or ``(rows, columns, samples)``, uint8 or uint16 in the machine's byte order.

    Raises:
        InputError: ``broken-pixels``, ``truncated-pixels``.
    """
    n_bytes = bits_allocated // 8
    if len(frame) < 64 or n_bytes > 2:
        raise InputError("broken-pixels", "the RLE frame has no header, or more than 16 bits; it is damaged")
    n_segments, *offsets = struct.unpack_from("<16L", frame)
    if n_segments != samples * n_bytes:
        raise InputError("broken-pixels", f"{n_segments} RLE segments where {samples * n_bytes} are needed")
    bounds = [*offsets[:n_segments], len(frame)]
    size = rows * columns
    planes = np.empty((samples, n_bytes, size), np.uint8)
    for index in range(n_segments):
        start, end = bounds[index], bounds[index + 1]
        if not 64 <= start <= end <= len(frame):
            raise InputError("broken-pixels", "an RLE segment lies outside of its frame; the file is damaged")
        planes[index // n_bytes, n_bytes - 1 - index % n_bytes] = _unpack_bits(frame[start:end], size)
    # (samples, bytes, pixels) -> (pixels, samples, bytes), least significant byte first
    packed = np.ascontiguousarray(planes.transpose(2, 0, 1))
    shape = (rows, columns) if samples == 1 else (rows, columns, samples)
    if n_bytes == 1:
        return packed.reshape(shape)
    return packed.view("<u2").astype(np.uint16, copy=False).reshape(shape)


def _unpack_bits(segment: bytes, size: int) -> npt.NDArray[np.uint8]:
    """``size`` bytes out of a PackBits segment (PS3.5, G.3.2)."""
    out = bytearray()
    position, end = 0, len(segment)
    while position < end and len(out) < size:
        control = segment[position]
        position += 1
        if control < 128:
            out += segment[position : position + control + 1]
            position += control + 1
        elif control > 128:
            out += segment[position : position + 1] * (257 - control)
            position += 1
    if len(out) < size:
        raise InputError("truncated-pixels", "the RLE pixel data ends early; the file is cut short")
    return np.frombuffer(out, np.uint8, size)
