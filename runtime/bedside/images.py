"""Reading PNG, JPEG and TIFF pictures of 8 and 16 bits."""

from __future__ import annotations

import io
import os
import struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from bedside.containers import Container, read_container
from bedside.errors import InputError, RefusedError
from bedside.files import open_input
from bedside.radiograph import Finding, Header, Radiograph

__all__ = ["load_decoders", "read_picture", "read_picture_header"]

MAX_FILE_BYTES: Final = 1 << 29
"""Largest picture file, 512 MiB: more than the largest picture takes uncompressed in three colours."""

WIDE_MODES: Final = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I"})
"""Pillow's modes of 16-bit grey; ``I`` is how older versions read 16-bit PNG."""

NARROW_MODES: Final = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX"})
"""Pillow's modes of 8 bits that may hold a grey picture."""

JPEG_TOLERANCE: Final = 3
"""Largest difference between red, green and blue of a grey JPEG stored in colour, in levels of 8 bits."""

DARK: Final = 0.1
"""A picture whose brightest pixel is below this is told of, as in `bedside.rendering`."""

Levels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def load_decoders() -> None:
    """Load Pillow's own parts, which else the first picture waits for: ten milliseconds, as long as its score takes."""
    Image.preinit()


def read_picture_header(path: str | os.PathLike[str]) -> Header:
    """What a PNG, JPEG or TIFF file says of itself; no pixel is decoded.

    Raises:
        InputError: ``not-found``, ``not-readable``, ``empty-file``, ``not-an-image``, ``broken-image``,
            ``bad-dimensions``.
        RefusedError: ``multi-frame``.
    """
    return _make_header(_read_file(path))


def read_picture(path: str | os.PathLike[str]) -> Radiograph:
    """A grey PNG, JPEG or TIFF picture of 8 or 16 bits, turned as its orientation tag says.

    0 is black and 255 (65,535 for 16 bits) is white, but in a TIFF whose photometric interpretation is
    MinIsWhite. Nothing is stretched: a picture file holds display values. Transparency is left out.

    Raises:
        InputError: As `read_picture_header`.
        RefusedError: ``multi-frame``, ``colour``.
    """
    container = _read_file(path)
    levels, findings = _decode(container)
    largest = 255 if levels.dtype == np.uint8 else 65535
    significant = container.significant_bits
    if (
        container.bits == 16
        and significant is not None
        and significant < 16
        and levels.max() < 1 << significant
    ):
        largest = (1 << significant) - 1
        findings = (
            *findings,
            Finding("scale-mended", f"16-bit samples that hold {significant} bits, unscaled"),
        )
    brightest = largest - int(levels.min()) if container.inverted else int(levels.max())
    pixels = np.divide(levels, np.float32(largest), dtype=np.float32)
    if container.inverted:
        np.subtract(np.float32(1.0), pixels, out=pixels)
        findings = (*findings, Finding("inverted", "stored with white as 0, and inverted"))
    if container.orientation != 1:
        pixels = np.ascontiguousarray(_turn(pixels, container.orientation))
        findings = (
            *findings,
            Finding("orientation-mended", "turned or mirrored as the file's orientation says"),
        )
    if brightest < DARK * largest:
        findings = (*findings, Finding("dark-image", "the picture uses only the darkest tenth of its range"))
    return Radiograph(pixels, _make_header(container), None, findings)


def _read_file(path: str | os.PathLike[str]) -> Container:
    with open_input(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        data = stream.read(
            min(size, MAX_FILE_BYTES)
        )  # its size, not the limit: read() allocates what it is asked
    if size > MAX_FILE_BYTES:
        raise InputError(
            "bad-dimensions", f"the file is over {MAX_FILE_BYTES} bytes; no X-ray picture is that large"
        )
    return read_container(data)


def _make_header(container: Container) -> Header:
    return Header(
        format=container.format, photometric_interpretation=container.colour, bits_stored=container.bits
    )


def _decode(container: Container) -> tuple[Levels, tuple[Finding, ...]]:
    """Grey levels, ``(H, W)`` uint8 or uint16, as stored."""
    mode, samples = _decode_samples(container)
    if mode in WIDE_MODES and container.bits == 16:
        return samples.astype(np.uint16), ()
    if mode == "L":
        return samples, ()
    if mode not in NARROW_MODES:
        raise RefusedError(
            "colour", "the picture is in colour, or of a depth that is not read; give a grey one"
        )
    spread = samples.max(axis=2) - samples.min(axis=2)
    if spread.max() > (JPEG_TOLERANCE if container.format == "JPEG" else 0):
        raise RefusedError("colour", "the picture is in colour; give a grey one")
    findings = () if mode == "1" else (Finding("grey-in-colour", f"a grey picture stored as {mode}"),)
    return np.ascontiguousarray(samples[..., 1]), findings


def _decode_samples(container: Container) -> tuple[str, npt.NDArray[Any]]:
    """Pillow's mode of the picture, and its samples: as red, green and blue where it has a narrow mode."""
    try:
        with Image.open(io.BytesIO(container.data), formats=(container.format,)) as picture:
            picture.load()
            narrow = picture.mode != "L" and picture.mode in NARROW_MODES
            return picture.mode, np.asarray(picture.convert("RGB") if narrow else picture)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError("bad-dimensions", "the picture is larger than any X-ray detector") from error
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, UserWarning) as error:
        raise InputError(
            "broken-image", "the picture can't be decoded; it is damaged or cut short: copy it again"
        ) from error


def _turn(pixels: npt.NDArray[np.float32], orientation: int) -> npt.NDArray[np.float32]:
    """``pixels`` upright; orientations as in TIFF 6.0, page 36: where row 0 and column 0 are shown."""
    return {
        2: lambda: pixels[:, ::-1],
        3: lambda: pixels[::-1, ::-1],
        4: lambda: pixels[::-1],
        5: lambda: pixels.T,
        6: lambda: np.rot90(pixels, -1),
        7: lambda: pixels[::-1, ::-1].T,
        8: lambda: np.rot90(pixels),
    }[orientation]()
