"""What a result in DICOM has to say of the objects that it was made from."""

from __future__ import annotations

from dataclasses import dataclass

from bedside.dicom.geometry import Axes

__all__ = ["Instance", "References"]


@dataclass(frozen=True, slots=True)
class Instance:
    """The object in DICOM that a slice of the grid comes from."""

    sop_class_uid: str
    """SOP Class UID."""
    sop_instance_uid: str
    """SOP Instance UID."""
    frame: int | None
    """Number of the frame, from 1; None in a file of one picture."""


@dataclass(frozen=True, slots=True)
class References:
    """What a DICOM result refers to."""

    study_uid: str
    """Study Instance UID."""
    series_uid: str
    """Series Instance UID."""
    frame_of_reference_uid: str
    """Frame of Reference UID; empty where there is none."""
    slices: tuple[Instance | None, ...]
    """One for each slice of the grid; None where it is a blend of two."""
    axes: Axes
    """From the pixels as stored to those of the grid."""
