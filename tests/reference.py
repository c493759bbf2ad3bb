"""The one table of DICOM cases: what is stored, what the header says, and what must be seen.

Expected values follow from the formulas and worked examples of PS3.3, C.11.1 and C.11.2.1.2 to C.11.2.1.3, by
hand: no case takes its numbers from bedside itself. Each stored value is one pixel of a one-row picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_files import make_lut, write_pixels

__all__ = [
    "CASES",
    "CR_FILES",
    "CT_FILES",
    "CT_RANGE_HU",
    "NATIVE_SYNTAXES",
    "SHARED",
    "Case",
    "CrFile",
    "CtFile",
    "encode_case",
]

SHARED: Final = Path(__file__).parents[1].parent / "shared" / "data"
"""Reference data beside the checkout; tests that need it skip where it is absent."""

NATIVE_SYNTAXES: Final = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)


@dataclass(frozen=True)
class Case:
    """One header and what it does to stored values."""

    name: str
    stored: tuple[int, ...]
    """Cells as they lie in the file: bits of overlays and all."""
    shown: tuple[float, ...]
    """Display values, 0 to 1."""
    header: Mapping[str, object] = field(default_factory=dict)
    """Attributes by keyword; those of a plain 12-bit MONOCHROME2 picture where not given."""
    findings: tuple[str, ...] = ("voi",)
    """Codes, in order."""


def _sigmoid(exponent: float) -> float:
    return 1 / (1 + math.exp(-exponent))


U8: Final = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
S16: Final = {"BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1}

CASES: Final = (
    # Without VOI, 8 bits are shown over their range and deeper pictures over what occurs
    Case("eight bits without VOI", (0, 51, 255), (0, 0.2, 1), U8),
    Case("eight bits without VOI keep their range", (51, 102, 153), (0.2, 0.4, 0.6), U8),
    Case("twelve bits without VOI", (100, 600, 1100), (0, 0.5, 1)),
    Case("one value without VOI is half-way", (7, 7, 7), (0.5, 0.5, 0.5)),
    # Windows: the examples of PS3.3, C.11.2.1.2.1
    Case(
        "window LINEAR c=2048 w=4096",
        (0, 1, 2047, 2048, 4095),
        (0, 1 / 4095, 2047 / 4095, 2048 / 4095, 1),
        {"WindowCenter": 2048, "WindowWidth": 4096},
    ),
    Case("window LINEAR c=2048 w=1", (2047, 2048), (0, 1), {"WindowCenter": 2048, "WindowWidth": 1}),
    Case(
        "window LINEAR c=0 w=100, signed",
        (-51, -50, 0, 49, 50),
        (0, 0, 0.5 / 99 + 0.5, 1, 1),
        {**S16, "WindowCenter": 0, "WindowWidth": 100},
    ),
    Case("window LINEAR c=0 w=1, signed", (-1, 0), (0, 1), {**S16, "WindowCenter": 0, "WindowWidth": 1}),
    Case(
        "window LINEAR_EXACT c=2048 w=4096",
        (0, 1024, 2048, 4095),
        (0, 0.25, 0.5, 4095 / 4096),
        {"WindowCenter": 2048, "WindowWidth": 4096, "VOILUTFunction": "LINEAR_EXACT"},
    ),
    Case(
        "window SIGMOID c=2000 w=400",
        (0, 1900, 2000, 2100, 4095),
        (_sigmoid(-20), _sigmoid(-1), 0.5, _sigmoid(1), _sigmoid(20.95)),
        {"WindowCenter": 2000, "WindowWidth": 400, "VOILUTFunction": "SIGMOID"},
    ),
    Case(
        "the first window goes before the others",
        (0, 100, 200),
        (0, 0.5, 1),
        {"WindowCenter": [100, 3000], "WindowWidth": [200, 10], "VOILUTFunction": "LINEAR_EXACT"},
    ),
    Case(
        "a window without width is left out",
        (0, 100, 200),
        (0, 0.5, 1),
        {"WindowCenter": [3000, 100], "WindowWidth": [0, 200], "VOILUTFunction": "LINEAR_EXACT"},
        ("voi-invalid", "voi"),
    ),
    Case(
        "no usable window at all",
        (0, 100, 200),
        (0, 0.5, 1),
        {"WindowCenter": 100, "WindowWidth": -200},
        ("voi-invalid", "voi"),
    ),
    Case(
        "a LINEAR window narrower than 1 is LINEAR_EXACT",
        (0, 1, 2),
        (0, 0.5, 1),
        {"RescaleSlope": 0.1, "RescaleIntercept": 0, "WindowCenter": 0.1, "WindowWidth": 0.2},
        ("voi-invalid", "voi"),
    ),
    Case(
        "an unknown function is LINEAR",
        (0, 50, 100),
        (0, 0.5, 1),
        {"WindowCenter": 50.5, "WindowWidth": 101, "VOILUTFunction": "GAMMA"},
        ("voi-invalid", "voi"),
    ),
    # The Modality stage, rescaled or by LUT
    Case(
        "rescale goes before the window",
        (0, 100, 200),
        (0, 0.5, 1),
        {"RescaleSlope": 2.5, "RescaleIntercept": -100, "WindowCenter": 150.5, "WindowWidth": 501},
    ),
    Case(
        "a negative slope inverts",
        (0, 100, 400),
        (1, 0.75, 0),
        {"RescaleSlope": -1, "RescaleIntercept": 400},
    ),
    Case(
        "rescale of eight bits keeps their range",
        (0, 51, 255),
        (0, 0.2, 1),
        {**U8, "RescaleSlope": 3, "RescaleIntercept": 7},
    ),
    Case(
        "Modality LUT",
        (9, 10, 11, 12, 13),
        (0, 0, 0.25, 1, 1),
        {
            "ModalityLUTSequence": [make_lut(10, [1000, 2000, 5000], 16)],
            "WindowCenter": 3000,
            "WindowWidth": 4000,
            "VOILUTFunction": "LINEAR_EXACT",
        },
    ),
    Case(
        "Modality LUT of signed values begins below zero, though written unsigned",
        (-2, -1, 0),
        (0, 0.4, 1),
        {**S16, "ModalityLUTSequence": [make_lut(0xFFFE, [100, 200, 350], 16)]},
    ),
    # VOI LUT
    Case(
        "a VOI LUT goes before a window",
        (0, 1, 2, 3),
        (0, 51 / 255, 1, 1),
        {"VOILUTSequence": [make_lut(0, [0, 51, 255], 8)], "WindowCenter": 2000, "WindowWidth": 10},
    ),
    Case(
        "the first VOI LUT goes before the others",
        (0, 1),
        (0, 1),
        {"VOILUTSequence": [make_lut(0, [0, 4095], 12), make_lut(0, [4095, 0], 12)]},
    ),
    Case(
        "a VOI LUT after a rescale begins below zero, though written unsigned",
        (0, 1, 2),
        (0, 0.2, 1),
        {"RescaleSlope": 1, "RescaleIntercept": -1, "VOILUTSequence": [make_lut(0xFFFF, [0, 51, 255], 8)]},
    ),
    Case(
        "a VOI LUT of bytes packed in words",
        (0, 1, 2),
        (0, 0.2, 1),
        {"VOILUTSequence": [make_lut(0, [0, 51, 255], 8, data=bytes([0, 51, 255, 0]))]},
    ),
    Case(
        "a VOI LUT of 65,536 entries",
        (0, 16384, 65535),
        (0, 16384 / 65535, 1),
        {"BitsStored": 16, "HighBit": 15, "VOILUTSequence": [make_lut(0, list(range(65536)), 16)]},
    ),
    Case(
        "a VOI LUT whose entries pass its own bits",
        (0, 1, 2),
        (0, 1023 / 4095, 1),
        {"VOILUTSequence": [make_lut(0, [0, 1023, 4095], 8)]},
    ),
    Case(
        "a VOI LUT cut short is left out",
        (0, 100, 200),
        (0, 0.5, 1),
        {"VOILUTSequence": [make_lut(0, [0, 1, 2], 12, data=bytes(4))]},
        ("voi-invalid", "voi"),
    ),
    # Inversion
    Case("MONOCHROME1", (0, 51, 255), (1, 0.8, 0), {**U8, "PhotometricInterpretation": "MONOCHROME1"}),
    Case(
        "MONOCHROME1 with INVERSE inverts once",
        (0, 51, 255),
        (1, 0.8, 0),
        {**U8, "PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
    ),
    Case("MONOCHROME2 with IDENTITY", (0, 51, 255), (0, 0.2, 1), {**U8, "PresentationLUTShape": "IDENTITY"}),
    Case(
        "MONOCHROME2 with INVERSE",
        (0, 51, 255),
        (1, 0.8, 0),
        {**U8, "PresentationLUTShape": "INVERSE"},
        ("voi", "presentation-contradiction"),
    ),
    Case(
        "MONOCHROME1 with IDENTITY",
        (0, 51, 255),
        (1, 0.8, 0),
        {**U8, "PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "IDENTITY"},
        ("voi", "presentation-contradiction"),
    ),
    Case(
        "MONOCHROME1 is inverted after the window",
        (0, 100, 300),
        (1, 0.5, 0),
        {
            "PhotometricInterpretation": "MONOCHROME1",
            "WindowCenter": 100,
            "WindowWidth": 200,
            "VOILUTFunction": "LINEAR_EXACT",
        },
    ),
    Case(
        "Presentation LUT",
        (0, 51, 102, 255),
        (0, 0.4, 0.8, 1),
        {**U8, "PresentationLUTSequence": [make_lut(0, [0, 102, 204, 204, 204, 255], 8)]},
    ),
    # Padding
    Case(
        "padding is black and not counted",
        (0, 1000, 1500, 2000),
        (0, 0, 0.5, 1),
        {"PixelPaddingValue": 0},
        ("voi", "padding"),
    ),
    Case(
        "padding of MONOCHROME1 is black too",
        (4095, 1000, 1500, 2000),
        (0, 1, 0.5, 0),
        {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 4095},
        ("voi", "padding"),
    ),
    Case(
        "a range of padding, its ends in either order",
        (0, 5, 10, 1000, 1500, 2000),
        (0, 0, 0, 0, 0.5, 1),
        {"PixelPaddingValue": 10, "PixelPaddingRangeLimit": 0},
        ("voi", "padding"),
    ),
    Case(
        "signed padding",
        (-2000, -100, 0, 100),
        (0, 0, 0.5, 1),
        {**S16, "PixelPaddingValue": -2000},
        ("voi", "padding"),
    ),
    Case(
        "padding outside of the bits stored is left out",
        (0, 100, 200),
        (0, 0.5, 1),
        {"PixelPaddingValue": 63536},
        ("voi", "padding-invalid"),
    ),
    Case("nothing but padding", (0, 0), (0, 0), {"PixelPaddingValue": 0}, ("voi", "padding", "dark-image")),
    # Bits
    Case("High Bit above Bits Stored - 1", (0x0000, 0x7FF0, 0xFFF0), (0, 0x7FF / 0xFFF, 1), {"HighBit": 15}),
    Case("overlay bits below the value", (0x000F, 0x7FF1, 0xFFF3), (0, 0x7FF / 0xFFF, 1), {"HighBit": 15}),
    Case("overlay bits above the value", (0xF000, 0x17FF, 0x8FFF), (0, 0x7FF / 0xFFF, 1)),
    Case(
        "signed twelve bits",
        (0x0800, 0x0000, 0x0400, 0x07FF),
        (0, 2048 / 4095, 3072 / 4095, 1),
        {"PixelRepresentation": 1},
    ),
    Case("signed eight bits", (-128, -77, 127), (0, 0.2, 1), {**U8, "PixelRepresentation": 1}),
    Case("ten bits", (0, 1023), (0, 1), {"BitsStored": 10, "HighBit": 9}),
    Case("sixteen bits", (0, 13107, 65535), (0, 0.2, 1), {"BitsStored": 16, "HighBit": 15}),
    Case(
        "six bits in eight", (0, 21, 63), (0, 1 / 3, 1), {"BitsAllocated": 8, "BitsStored": 6, "HighBit": 5}
    ),
    Case(
        "sixteen bits in thirty-two",
        (0, 13107, 65535),
        (0, 0.2, 1),
        {"BitsAllocated": 32, "BitsStored": 16, "HighBit": 15},
    ),
    Case(
        "a window far above the picture",
        (0, 100, 200),
        (0, 100 / 4095, 200 / 4095),
        {"WindowCenter": 2048, "WindowWidth": 4096},
        ("voi", "dark-image"),
    ),
)


def encode_case(path: Path, case: Case, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write the picture of ``case``."""
    return write_pixels(path, np.array([case.stored]), syntax, **case.header)


@dataclass(frozen=True)
class CtFile:
    """One of the CT slices in `ct-transfer-syntaxes`: all show the same slice."""

    syntax: str
    """Transfer syntax, and the file's name."""
    extra: bool
    """Whether decoding needs the ``codecs`` extra."""
    error_hu: float
    """Largest difference from the uncompressed twin, in HU: 0 where lossless; else as decoded by pydicom 3.0.2
    with GDCM 3.2.6 or, for .51, .53 and .55, by pylibjpeg-libjpeg 2.5.0, plus one level (`level_hu`) of a DCT's
    rounding."""
    level_hu: float = 1.0
    """HU of one stored level: its Rescale Slope."""


CT_NAME: Final = "1.2.840.10008.1.2"
CT_FILES: Final = (
    CtFile(f"{CT_NAME}", extra=False, error_hu=0),
    CtFile(f"{CT_NAME}.1", extra=False, error_hu=0),
    CtFile(f"{CT_NAME}.1.99", extra=False, error_hu=0),
    CtFile(f"{CT_NAME}.2", extra=False, error_hu=0),
    CtFile(f"{CT_NAME}.5", extra=False, error_hu=0),
    CtFile(f"{CT_NAME}.4.50", extra=False, error_hu=559.4 + 32.13, level_hu=32.1216),
    CtFile(f"{CT_NAME}.4.51", extra=True, error_hu=35.63 + 2.01, level_hu=2.0002442),
    CtFile(f"{CT_NAME}.4.53", extra=True, error_hu=35.63 + 2.01, level_hu=2.0002442),
    CtFile(f"{CT_NAME}.4.55", extra=True, error_hu=35.63 + 2.01, level_hu=2.0002442),
    CtFile(f"{CT_NAME}.4.57", extra=True, error_hu=0),
    CtFile(f"{CT_NAME}.4.70", extra=True, error_hu=0),
    CtFile(f"{CT_NAME}.4.80", extra=True, error_hu=0),
    CtFile(f"{CT_NAME}.4.81", extra=True, error_hu=1),
    CtFile(f"{CT_NAME}.4.90", extra=False, error_hu=0),
    CtFile(f"{CT_NAME}.4.91", extra=False, error_hu=5),
)
CT_RANGE_HU: Final = (-3024, 1378)
"""Least and greatest value of the slice, read with pydicom 3.0.2 from the uncompressed file."""


@dataclass(frozen=True)
class CrFile:
    """One of the real radiographs in `dicom/cr`."""

    name: str
    shape: tuple[int, int]
    extra: bool


CR_FILES: Final = (
    CrFile("1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm", (1024, 1024), extra=False),
    CrFile("Fake_MONOHR1.dcm", (1024, 1024), extra=False),
    CrFile("RG1_JLSN.dcm", (1955, 1841), extra=True),
)
