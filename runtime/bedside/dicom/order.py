"""Slices in the order in which they lie in the patient, each place once.

The order is by the projection of Image Position (Patient) on the normal of the slices, never by file name or
Instance Number, which follow the scanner's or the exporter's own ways.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.dicom.ledger import GeometryError, Ledger
from bedside.dicom.selection import Selection
from bedside.dicom.slices import Slice

__all__ = ["find_normal", "find_positions", "put_in_order"]

SAME_PLACE_MM: Final = 0.02
"""Slices nearer than this are at one place: far under the thinnest CT slice, over the rounding of writers."""
MIN_ACQUISITION: Final = 8
"""Acquisitions of more slices than this are scans; where some have fewer, the number counts something else."""

Vector = npt.NDArray[np.float64]
Same = Callable[[Slice, Slice], bool]


def find_normal(selection: Selection) -> Vector:
    """Unit vector across the slices, towards the head."""
    normal = np.cross(selection.along, selection.down)
    return np.asarray(normal * np.sign(normal[2]) / np.linalg.norm(normal))


def find_positions(slices: list[Slice]) -> Vector:
    """Image Position (Patient) of each slice, ``(n, 3)`` mm."""
    return np.array([item.plane.position for item in slices if item.plane is not None])


def put_in_order(selection: Selection, ledger: Ledger, same: Same) -> list[Slice]:
    """The slices from the feet to the head, duplicates dropped.

    Args:
        selection: Slices of one stack.
        ledger: Takes the findings.
        same: Whether two slices show the same.

    Raises:
        GeometryError: Different pictures at one place.
    """
    normal = find_normal(selection)
    heights = find_positions(selection.slices) @ normal
    ordered = [selection.slices[index] for index in np.argsort(heights, kind="stable")]
    heights.sort()
    groups = np.split(np.arange(len(ordered)), np.flatnonzero(np.diff(heights) > SAME_PLACE_MM) + 1)
    kept: list[Slice] = []
    conflicts = 0
    for group in groups:
        members = [ordered[index] for index in group]
        first = next((item for item in members if not item.problem), members[0])
        others = [item for item in members if item is not first and not item.problem]
        conflicts += not all(_is_copy(first, item, selection, same) for item in others)
        kept.append(first)
    if conflicts:
        raise _refuse_conflict(ordered, groups, conflicts, ledger)
    _check_interleaved(kept, find_positions(kept) @ normal, ledger)
    if len(kept) < len(ordered):
        ledger.mend(
            "duplicates",
            "slices that are there twice, with the same pixels: one is kept",
            count=len(ordered) - len(kept),
        )
    return kept


def _is_copy(one: Slice, other: Slice, selection: Selection, same: Same) -> bool:
    shift = np.abs(np.diff(find_positions([one, other]), axis=0)).max()
    return bool(shift <= min(selection.spacing_mm) / 2) and same(one, other)


def _refuse_conflict(
    ordered: list[Slice], groups: list[npt.NDArray[np.intp]], conflicts: int, ledger: Ledger
) -> GeometryError:
    labels = {item.acquisition for item in ordered}
    parted = all(len({ordered[index].acquisition for index in group}) == len(group) for group in groups)
    if len(labels) > 1 and parted:
        return _refuse_acquisitions(len(labels), ledger)
    return ledger.refuse(
        "conflicting-duplicates",
        f"different pictures at {conflicts} of {len(groups)} places; export the original series again",
        count=conflicts,
    )


def _check_interleaved(slices: list[Slice], heights: Vector, ledger: Ledger) -> None:
    """Refuse acquisitions of the same stretch of the body, whose slices lie between each other's."""
    spans: dict[tuple[bytes, ...], list[float]] = {}
    for item, height in zip(slices, heights, strict=True):
        spans.setdefault(item.acquisition, []).append(float(height))
    ranges = sorted((low, high) for low, *_, high in spans.values() if high > low) if _are_few(spans) else []
    for (low, end), (start, high) in pairwise(ranges):
        if min(end, high) - start > min(end - low, high - start) / 2:
            raise _refuse_acquisitions(len(spans), ledger)


def _are_few(spans: dict[tuple[bytes, ...], list[float]]) -> bool:
    """Whether acquisitions are more than the rotations of a scanner that numbers each."""
    return all(len(heights) > MIN_ACQUISITION for heights in spans.values())


def _refuse_acquisitions(count: int, ledger: Ledger) -> GeometryError:
    return ledger.refuse(
        "several-acquisitions",
        f"{count} acquisitions in one series (contrast phases, or breath-holds); export each as a series of its own",
        count=count,
    )
