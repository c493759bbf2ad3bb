"""What a DICOM header says of display: LUT sequences, windows, inversion, padding (PS3.3, C.11 and C.7.5.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.dicom.elements import DataSet, Element
from bedside.dicom.layout import Layout
from bedside.dicom.tags import Tag
from bedside.errors import InputError
from bedside.radiograph import Finding
from bedside.rendering import LookupTable, Pipeline, Window

__all__ = ["as_stored", "read_pipeline", "read_rescale"]

FUNCTIONS: Final = frozenset({"LINEAR", "LINEAR_EXACT", "SIGMOID"})
"""Values of VOI LUT Function (0028,1056)."""

MAX_ENTRIES: Final = 1 << 16
"""Entries of a LUT; the descriptor writes this number as 0 (PS3.3, C.11.1.1.1)."""


@dataclass(slots=True)
class _Findings:
    """Collects what is worth telling, in order."""

    found: list[Finding] = field(default_factory=list)

    def add(self, code: str, text: str) -> None:
        self.found.append(Finding(code, text))


def read_pipeline(dataset: DataSet, layout: Layout, bits: int) -> tuple[Pipeline, tuple[Finding, ...]]:
    """The grayscale pipeline of a picture, and the choices made.

    A VOI LUT goes before a window, and the first of several before the others: the standard leaves the choice
    to the application (PS3.3, C.11.2.1.2). Where neither is usable, `rendering` has a default.

    Args:
        dataset: The header.
        layout: Its Image Pixel module.
        bits: Bits of a stored value, as decoded.

    Raises:
        InputError: ``bad-attribute``: a rescale or a Modality LUT that gives no values.
    """
    findings = _Findings()
    modality = _read_modality_lut(dataset, layout)
    slope, intercept = (1.0, 0.0) if modality else read_rescale(dataset)
    plain = Pipeline(bits, layout.signed, slope, intercept, modality)
    lowest = float(plain.modality_values().min())
    pipeline = Pipeline(
        bits=bits,
        signed=layout.signed,
        slope=slope,
        intercept=intercept,
        modality=modality,
        voi=_read_voi(dataset, findings, negative=lowest < 0),
        presentation=_read_presentation_lut(dataset, findings),
        inverted=_read_inversion(dataset, layout, findings),
        padding=_read_padding(dataset, layout, bits, findings),
    )
    return pipeline, tuple(findings.found)


def read_rescale(dataset: DataSet) -> tuple[float, float]:
    """Rescale Slope and Rescale Intercept; 1 and 0 where they are absent.

    Raises:
        InputError: ``bad-attribute``.
    """
    slopes, intercepts = dataset.decimals(Tag.RESCALE_SLOPE), dataset.decimals(Tag.RESCALE_INTERCEPT)
    slope, intercept = slopes[0] if slopes else 1.0, intercepts[0] if intercepts else 0.0
    # Beyond 1e9 nothing physical is meant, and products would lose the stored value's last bit.
    if (
        not (math.isfinite(slope) and math.isfinite(intercept))
        or slope == 0
        or max(abs(slope), abs(intercept)) > 1e9
    ):
        raise InputError(
            "bad-attribute", "RESCALE_SLOPE or RESCALE_INTERCEPT is zero or no number; export it again"
        )
    return slope, intercept


def _read_modality_lut(dataset: DataSet, layout: Layout) -> LookupTable | None:
    items = dataset.items(Tag.MODALITY_LUT_SEQUENCE)
    if not items:
        return None
    table = _read_lut(items[0], negative=layout.signed)
    if table is None:
        raise InputError(
            "bad-attribute", "the Modality LUT is damaged, so the values have no meaning; export it again"
        )
    return table


def _read_voi(dataset: DataSet, findings: _Findings, *, negative: bool) -> LookupTable | Window | None:
    items = dataset.items(Tag.VOI_LUT_SEQUENCE)
    for number, item in enumerate(items, 1):
        table = _read_lut(item, negative=negative)
        if table is not None:
            findings.add("voi", f"shown through VOI LUT {number} of {len(items)}")
            return table
        findings.add("voi-invalid", f"VOI LUT {number} is damaged and left out")
    function = dataset.text(Tag.VOI_LUT_FUNCTION) or "LINEAR"
    if function not in FUNCTIONS:
        findings.add("voi-invalid", "an unknown VOI LUT Function is read as LINEAR")
        function = "LINEAR"
    pairs = list(zip(dataset.decimals(Tag.WINDOW_CENTER), dataset.decimals(Tag.WINDOW_WIDTH), strict=False))
    for number, (centre, width) in enumerate(pairs, 1):
        window = _make_window(centre, width, function)
        if window is not None:
            if window.function != function:
                findings.add("voi-invalid", "a LINEAR window narrower than 1 is read as LINEAR_EXACT")
            findings.add("voi", f"shown through window {number} of {len(pairs)} ({window.function})")
            return window
        findings.add("voi-invalid", f"window {number} has no usable centre and width and is left out")
    findings.add("voi", "no VOI LUT or window: shown over the full range (8 bits) or over what occurs (more)")
    return None


def _make_window(centre: float, width: float, function: str) -> Window | None:
    """A window, or None where the numbers make none."""
    if not (math.isfinite(centre) and math.isfinite(width)) or width <= 0:
        return None
    return Window(centre, width, "LINEAR_EXACT" if function == "LINEAR" and width < 1 else function)


def _read_presentation_lut(dataset: DataSet, findings: _Findings) -> LookupTable | None:
    items = dataset.items(Tag.PRESENTATION_LUT_SEQUENCE)
    if not items:
        return None
    table = _read_lut(items[0], negative=False)
    if table is None:
        findings.add("presentation-invalid", "the Presentation LUT is damaged and left out")
    return table


def _read_inversion(dataset: DataSet, layout: Layout, findings: _Findings) -> bool:
    """Whether the picture is inverted: by MONOCHROME1, by the shape INVERSE, or by both together, once.

    DX asks for INVERSE with MONOCHROME1 and IDENTITY with MONOCHROME2 (PS3.3, C.8.11.3.1.2); where the two
    disagree, the one that inverts is followed, and a finding tells.
    """
    shape = dataset.text(Tag.PRESENTATION_LUT_SHAPE)
    monochrome1 = layout.photometric == "MONOCHROME1"
    if shape and (shape == "INVERSE") != monochrome1:
        findings.add(
            "presentation-contradiction",
            f"{layout.photometric} with a Presentation LUT Shape that contradicts it: shown inverted",
        )
        return True
    return monochrome1


def _read_padding(dataset: DataSet, layout: Layout, bits: int, findings: _Findings) -> tuple[int, int] | None:
    values = dataset.integers(Tag.PIXEL_PADDING_VALUE, signed=layout.signed)
    if not values:
        return None
    limits = dataset.integers(Tag.PIXEL_PADDING_RANGE_LIMIT, signed=layout.signed)
    ends = values[0], (limits or values)[0]
    wrapped = tuple(as_stored(end, layout) for end in ends)
    lowest, highest = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if layout.signed else (0, (1 << bits) - 1)
    if max(wrapped) < lowest or min(wrapped) > highest:
        findings.add(
            "padding-invalid", "the Pixel Padding Value lies outside of the bits stored and is left out"
        )
        return None
    return min(wrapped), max(wrapped)


def as_stored(value: int, layout: Layout) -> int:
    """A padding value written with the wrong sign, as writers do, by the sign of the pixels."""
    pattern = value & 0xFFFF
    return pattern - 0x10000 if layout.signed and pattern >= 0x8000 else pattern


def _read_lut(item: DataSet, *, negative: bool) -> LookupTable | None:
    """A LUT item (PS3.3, C.11.1.1 and C.11.2.1.1), or None where it is damaged.

    Args:
        item: Holds LUT Descriptor and LUT Data.
        negative: Whether inputs can be negative, which decides the sign of the first mapped value: writers and
            implicit VR get its value representation wrong.
    """
    descriptor = item.integers(Tag.LUT_DESCRIPTOR)
    data = item.elements.get(Tag.LUT_DATA)
    if len(descriptor) != 3 or data is None:
        return None
    n_entries = descriptor[0] & 0xFFFF or MAX_ENTRIES
    first = descriptor[1] & 0xFFFF
    if negative and first >= 0x8000:
        first -= 0x10000
    entries = _read_entries(data, n_entries, descriptor[2])
    if entries is None:
        return None
    needed = max(int(entries.max()).bit_length(), 8)
    bits = descriptor[2] if needed <= descriptor[2] <= 16 else needed
    return LookupTable(first, entries, bits)


def _read_entries(data: Element, n_entries: int, bits: int) -> npt.NDArray[np.uint16] | None:
    """LUT Data: words, or bytes where there are only so many of them and the descriptor says 8 bits."""
    value = data.value
    order = "<" if data.little_endian else ">"
    if len(value) >= 2 * n_entries:
        return np.frombuffer(value, f"{order}u2", n_entries).astype(np.uint16)
    if bits <= 8 and len(value) >= n_entries:
        packed = np.frombuffer(value[: len(value) // 2 * 2], f"{order}u2").astype("<u2").view(np.uint8)
        return packed[:n_entries].astype(np.uint16) if len(packed) >= n_entries else None
    return None
