"""How pixels are laid out in a DICOM file: the Image Pixel module (PS3.3, C.7.6.3), checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bedside.dicom.elements import DataSet
from bedside.dicom.tags import Tag
from bedside.errors import InputError, RefusedError
from bedside.files import check_dimensions

__all__ = ["Layout", "count_frames", "read_layout"]

GREY: Final = frozenset({"MONOCHROME1", "MONOCHROME2"})
THREE_PLANES: Final = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
"""Colour spaces that may still hold a grey picture; any other one (palettes) is refused unseen."""

MAX_FRAMES: Final = 1 << 20
"""Most frames that are counted: no file holds as many."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The shape and the bits of one picture."""

    rows: int
    """Rows (0028,0010)."""
    columns: int
    """Columns (0028,0011)."""
    samples: int
    """Samples per Pixel (0028,0002): 1 or 3."""
    planar: bool
    """Planar Configuration (0028,0006): whether three samples lie in planes, not pixel by pixel."""
    photometric: str
    """Photometric Interpretation (0028,0004)."""
    bits_allocated: int
    """Bits Allocated (0028,0100): 8, 16 or 32."""
    bits_stored: int
    """Bits Stored (0028,0101): 1 to 16."""
    high_bit: int
    """High Bit (0028,0102)."""
    signed: bool
    """Pixel Representation (0028,0103): two's complement."""

    @property
    def n_bytes(self) -> int:
        """Size of the uncompressed pixel data, without padding to an even length."""
        return self.rows * self.columns * self.samples * self.bits_allocated // 8


def read_layout(dataset: DataSet, *, frames: bool = False) -> Layout:
    """The layout of the one picture of ``dataset``.

    Args:
        dataset: The header.
        frames: Whether there may be more than one frame; the layout is that of each.

    Raises:
        InputError: ``no-pixels``, ``bad-dimensions``, ``bad-attribute``.
        RefusedError: ``multi-frame``, ``colour``.
    """
    if dataset.pixels is None:
        raise InputError(
            "no-pixels", "the DICOM file holds no pixel data; give an image, not a report or a plan"
        )
    if dataset.pixels.tag != Tag.PIXEL_DATA:
        raise InputError("bad-attribute", "the pixel data is floating-point; give a picture of integers")
    if count_frames(dataset) > 1 and not frames:
        raise RefusedError("multi-frame", "the file holds more than one frame; give one picture a file")
    rows, columns = _one(dataset, Tag.ROWS), _one(dataset, Tag.COLUMNS)
    check_dimensions(rows, columns)
    photometric = dataset.text(Tag.PHOTOMETRIC_INTERPRETATION).upper()
    samples = 3 if photometric in THREE_PLANES else 1
    if not photometric:
        raise InputError(
            "bad-attribute", "PHOTOMETRIC_INTERPRETATION is missing, so black and white can't be told"
        )
    if photometric not in GREY | THREE_PLANES:
        raise RefusedError(
            "colour", "the picture is in colour (a palette, or a colour space); give a grey one"
        )
    if _one(dataset, Tag.SAMPLES_PER_PIXEL, samples) != samples:
        raise InputError("bad-attribute", "SAMPLES_PER_PIXEL contradicts PHOTOMETRIC_INTERPRETATION")
    stored = _one(dataset, Tag.BITS_STORED)
    layout = Layout(
        rows=rows,
        columns=columns,
        samples=samples,
        planar=_one(dataset, Tag.PLANAR_CONFIGURATION, 0) == 1,
        photometric=photometric,
        bits_allocated=_one(dataset, Tag.BITS_ALLOCATED),
        bits_stored=stored,
        high_bit=_one(dataset, Tag.HIGH_BIT, stored - 1),
        signed=_one(dataset, Tag.PIXEL_REPRESENTATION) == 1,
    )
    _check_bits(layout)
    return layout


def count_frames(dataset: DataSet) -> int:
    """Number of Frames (0028,0008); 1 where it is absent."""
    counts = dataset.decimals(Tag.NUMBER_OF_FRAMES)
    return int(min(counts[0], MAX_FRAMES)) if counts and counts[0] > 1 else 1  # NaN is over nothing


def _check_bits(layout: Layout) -> None:
    if layout.bits_allocated not in {8, 16, 32}:
        raise InputError(
            "bad-attribute", f"BITS_ALLOCATED is {layout.bits_allocated}; bedside reads 8, 16 and 32"
        )
    if not 1 <= layout.bits_stored <= min(layout.bits_allocated, 16):
        raise InputError(
            "bad-attribute",
            f"BITS_STORED is {layout.bits_stored} of {layout.bits_allocated} allocated; "
            "bedside reads up to 16, and no more than are allocated",
        )
    if not layout.bits_stored - 1 <= layout.high_bit < layout.bits_allocated:
        raise InputError(
            "bad-attribute", f"HIGH_BIT is {layout.high_bit}, outside of the bits allocated and stored"
        )
    if layout.samples == 3 and layout.bits_stored != layout.bits_allocated:
        raise RefusedError(
            "colour", "the picture has three samples a pixel of unusual depth; give a grey one"
        )


def _one(dataset: DataSet, tag: Tag, default: int | None = None) -> int:
    values = dataset.integers(tag)
    if values:
        return values[0]
    if default is None:
        raise InputError(
            "bad-attribute", f"{tag.name} is missing, and the pixels depend on it; export it again"
        )
    return default
