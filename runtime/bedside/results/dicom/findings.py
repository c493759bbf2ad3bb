"""What a report says, before it is a tree: groups of numbers and statements on one finding at one site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydicom.sr.coding import Code

from bedside.dicom.references import Instance
from bedside.results.dicom.codes import finding_code

__all__ = ["PERCENT", "Figure", "Group", "Interval", "Note", "Segment"]

PERCENT: Final = Code("%", "UCUM", "Percent")
QUALITY_FINDING: Final = Code("111052", "DCM", "Quality Finding")


@dataclass(frozen=True, slots=True)
class Interval:
    """How far a figure may be off."""

    low: float
    """Lower end."""
    high: float
    """Upper end."""
    level: float | None
    """Share of truths inside; None where that was never measured."""
    text: str
    """What it rests on, and other intervals: one line."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number."""

    name: Code
    """What it is."""
    value: float
    """The number."""
    unit: Code
    """Of UCUM."""
    interval: Interval | None = None
    """Its interval, if it has one."""


@dataclass(frozen=True, slots=True)
class Note:
    """One qualitative statement."""

    name: Code
    """What it is about."""
    value: Code
    """The statement."""
    text: str = ""
    """The same in words."""

    @classmethod
    def quality(cls, code: str, text: str) -> Note:
        """A quality note, or an entry of the geometry ledger."""
        return cls(QUALITY_FINDING, finding_code(code), text)


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment that a group measures."""

    instance: Instance
    """The segmentation."""
    number: int
    """Segment Number."""


@dataclass(frozen=True, slots=True)
class Group:
    """What is said of one finding at one site."""

    name: str
    """By which it is followed; unique in a report."""
    finding: Code | None = None
    """What was found."""
    side: str | None = None
    """``left``, ``right`` or empty for both lungs; None for no site."""
    figures: tuple[Figure, ...] = ()
    """Numbers."""
    notes: tuple[Note, ...] = ()
    """Statements."""
    segment: Segment | None = None
    """What was measured, where it is segmented."""
    comments: tuple[str, ...] = ()
    """Lines for a person."""
