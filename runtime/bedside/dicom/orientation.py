"""Putting a picture upright by its own header: Patient Orientation (PS3.3, C.7.6.1.1.1)."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.dicom.elements import DataSet
from bedside.dicom.tags import Tag
from bedside.radiograph import Finding

__all__ = ["put_upright", "read_spacing"]

MAX_ASPECT: Final = 4.0
"""A pixel more oblong than this is a mistaken number, not a detector."""

Picture = npt.NDArray[np.float32]
Spacing = tuple[float, float] | None

SPACINGS: Final = (Tag.PIXEL_SPACING, Tag.IMAGER_PIXEL_SPACING, Tag.NOMINAL_SCANNED_PIXEL_SPACING)
"""In order of trust: at the patient, at the detector, of the scanned film (PS3.3, 10.7)."""


def read_spacing(dataset: DataSet) -> tuple[Spacing, tuple[Finding, ...]]:
    """Distance between rows and between columns in mm, or None where the header has no usable one.

    Pixel Aspect Ratio (vertical over horizontal; PS3.3, C.7.6.3.1.7) gives the ratio alone: columns are
    then taken to be 1 mm apart, and a finding tells.
    """
    findings: list[Finding] = []
    for tag in SPACINGS:
        values = dataset.decimals(tag)
        if not values:
            continue
        if _is_usable(values):
            return (values[0], values[1]), tuple(findings)
        findings.append(Finding("spacing-invalid", f"{tag.name} is no distance and is left out"))
    ratio = dataset.decimals(Tag.PIXEL_ASPECT_RATIO)
    if _is_usable(ratio) and ratio[0] != ratio[1]:
        findings.append(
            Finding("spacing-relative", "only the ratio of the pixel's sides is known, not its size")
        )
        return (ratio[0] / ratio[1], 1.0), tuple(findings)
    return None, tuple(findings)


def _is_usable(values: list[float]) -> bool:
    return (
        len(values) == 2
        and all(math.isfinite(value) and value > 0 for value in values)
        and max(values) / min(values) <= MAX_ASPECT
    )


def put_upright(
    picture: Picture, spacing: Spacing, dataset: DataSet
) -> tuple[Picture, Spacing, tuple[Finding, ...]]:
    """Turn and flip a frontal picture so that rows run to the patient's left and columns to the feet.

    Args:
        picture: ``(H, W)``.
        spacing: Of rows and columns.
        dataset: Holds Patient Orientation: the direction of a row, then of a column.

    Returns:
        The picture, C-contiguous; its spacing; and a finding where it was changed. A picture whose header is
        silent, or names no frontal plane, stays as it is.
    """
    directions = [text[:1].upper() for text in dataset.texts(Tag.PATIENT_ORIENTATION)]
    if len(directions) != 2 or not {"".join(sorted(directions))} & {"FL", "FR", "HL", "HR"}:
        return picture, spacing, ()
    turned = directions[0] in "FH"
    if turned:
        picture = picture.T
        spacing = None if spacing is None else (spacing[1], spacing[0])
        directions.reverse()
    mirrored, inverted = directions[0] == "R", directions[1] == "H"
    picture = np.ascontiguousarray(picture[:: -1 if inverted else 1, :: -1 if mirrored else 1])
    if not (turned or mirrored or inverted):
        return picture, spacing, ()
    text = "turned or mirrored by its Patient Orientation: put upright, the patient's right on the left"
    return picture, spacing, (Finding("orientation-mended", text),)
