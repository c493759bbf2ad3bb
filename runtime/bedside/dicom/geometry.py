"""From slices in order to a grid: their distances, their slant, and what is missing between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.dicom.gaps import Losses, close_gaps
from bedside.dicom.ledger import Ledger, bound_jitter, bound_resampling, bound_sampling
from bedside.dicom.order import find_normal, find_positions
from bedside.dicom.selection import Selection
from bedside.dicom.slices import Slice
from bedside.scan import Grid

__all__ = ["Axes", "Stack", "arrange"]

UNIFORM_MM: Final = 0.1
"""Offsets from a uniform grid up to which slices are taken to lie on it; `bound_jitter` gives 0.15 % for them."""
UNIFORM_SHARE: Final = 0.1
"""The same as a share of the distance of slices."""
SPARSE_SHARE: Final = 0.25
"""With more than this share of the places empty, the spacing is uneven rather than slices missing."""
FINEST_SHARE: Final = 0.25
"""A distance under this share of the usual one, or of the mean, is a defect and no uneven spacing."""
WIDEST_MM: Final = 20.0
"""Slices further apart make no volume: `bound_sampling` gives 13 % for them."""
UNEVEN_PERCENT: Final = 5.0
"""Bound up to which uneven slices are resampled: beyond it, a volume says little."""
STRAIGHT_PIXELS: Final = 0.5
"""How far slices may be shifted in their plane against a straight line, in pixels."""
TILT_DEGREES: Final = 0.5
"""Angle from which on a tilt is told of; the affine holds smaller ones too."""
THICKNESS_SHARE: Final = 0.05
"""How far Slice Thickness may be from the distance of slices untold."""

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Axes:
    """How the pixels of a file are put in canonical order: by moving them alone."""

    transposed: bool = False
    """Rows and columns are exchanged, first of all."""
    rows_flipped: bool = False
    """Then the order of the rows is reversed."""
    columns_flipped: bool = False
    """And the order of the columns."""

    @property
    def as_stored(self) -> bool:
        """Whether nothing is moved."""
        return not (self.transposed or self.rows_flipped or self.columns_flipped)

    def turn(self, picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A view of ``picture``, ``(rows, columns)`` as stored, in canonical order."""
        turned = picture.T if self.transposed else picture
        return turned[:: -1 if self.rows_flipped else 1, :: -1 if self.columns_flipped else 1]


@dataclass(frozen=True, slots=True)
class Stack:
    """Slices in order, and the grid that they make."""

    slices: tuple[Slice, ...]
    """Those that can be read, as far as is known, from the feet to the head."""
    places: tuple[float, ...]
    """Where each lies on the grid's z axis: an index, whole or between two; rising."""
    grid: Grid
    """In canonical order."""
    axes: Axes
    """From the pixels as stored to those of the grid."""


def arrange(slices: list[Slice], selection: Selection, ledger: Ledger, losses: Losses) -> Stack:
    """Make a grid of slices.

    Args:
        slices: In order, no two at one place; some may be known to be unreadable.
        selection: What they were taken from.
        ledger: Takes the findings.
        losses: Files that are lost altogether, and whether that is allowed.

    Raises:
        GeometryError: ``improper-geometry``, ``missing-slices``.
    """
    normal = find_normal(selection)
    if len(slices) < 2:
        raise ledger.refuse("single-slice", "one slice is no volume; give the whole series")
    heights = find_positions(slices) @ normal
    if np.diff(heights).max() > WIDEST_MM:
        raise ledger.refuse(
            "wide-gap",
            f"slices {np.diff(heights).max():.0f} mm apart make no volume; give the whole series",
        )
    whole = _find_uniform(heights)
    if whole is not None:
        gap = _fit(whole, heights)[1]
        slices, places = close_gaps(slices, whole, float(gap), ledger, losses)
        _note_jitter(places, find_positions(slices) @ normal, ledger)
        _note_thickness(slices, float(gap), ledger)
    else:
        usual = float(np.median(np.diff(heights)))
        slices, _ = close_gaps(
            slices, np.arange(len(slices), dtype=np.float64), usual, ledger, losses, uneven=True
        )
        places = _resample(find_positions(slices) @ normal, ledger)
    start, step = _fit_line(places, slices, selection, ledger)
    _note_tilt(step, normal, ledger)
    grid, axes = _make_grid(start, step, round(float(places[-1])) + 1, selection)
    if not axes.as_stored:
        ledger.accept(
            "flipped-axes", "pixels stored in another order than by the body: put in order, none changed"
        )
    return Stack(tuple(slices), tuple(map(float, places)), grid, axes)


def _fit(places: Vector, heights: Vector) -> tuple[Vector, Vector]:
    """Least squares: where place 0 is, and one step; ``heights`` is ``(n,)`` or ``(n, 3)``."""
    middle = places - places.mean()
    step = middle @ heights / (middle @ middle)
    return np.asarray(heights.mean(axis=0) - places.mean() * step), np.asarray(step)


def _find_uniform(heights: Vector) -> Vector | None:
    """The index of each slice on a uniform grid, the first being 0; None where they fit none."""
    gaps = np.diff(heights)
    for usual in (float(np.median(gaps)), float(gaps.min())):
        steps = np.rint(gaps / usual)
        if steps.min() < 1:
            continue
        places = np.concatenate([[0.0], np.cumsum(steps)])
        if len(places) < (1 - SPARSE_SHARE) * (places[-1] + 1):
            continue
        start, step = _fit(places, heights)
        if np.abs(heights - start - step * places).max() <= min(UNIFORM_MM, UNIFORM_SHARE * float(step)):
            return places
    return None


def _note_jitter(places: Vector, heights: Vector, ledger: Ledger) -> None:
    start, step = _fit(places, heights)
    offset = float(np.abs(heights - start - step * places).max())
    if offset > 1e-3:
        ledger.accept(
            "uneven-rounding",
            f"slices up to {offset:.3f} mm off a uniform spacing: taken to lie on it",
            error_percent=bound_jitter(offset),
        )


def _resample(heights: Vector, ledger: Ledger) -> Vector:
    """Where unevenly spaced slices lie on a uniform grid from the first to the last, as broken indices."""
    gaps = np.diff(heights)
    span = float(heights[-1] - heights[0])
    steps = round(span / float(gaps.min()))
    if gaps.min() < FINEST_SHARE * np.median(gaps) or steps > len(heights) / FINEST_SHARE:
        raise ledger.refuse(
            "uneven-spacing",
            f"slices {gaps.min():.2f} to {gaps.max():.2f} mm apart are no one scan; export the original series",
        )
    step = span / steps
    bound = bound_resampling(step, float(gaps.max()))
    text = f"slices {gaps.min():.2f} to {gaps.max():.2f} mm apart"
    if bound > UNEVEN_PERCENT:
        raise ledger.refuse(
            "uneven-spacing",
            f"{text} leave a volume uncertain by {bound:.1f} %, over {UNEVEN_PERCENT:g} %; export an even series",
        )
    ledger.mend(
        "uneven-spacing",
        f"{text}: blended to a uniform {step:.2f} mm, each slice from its two neighbours",
        error_percent=bound,
        count=len(heights),
    )
    return np.asarray((heights - heights[0]) / step)


def _fit_line(
    places: Vector, slices: list[Slice], selection: Selection, ledger: Ledger
) -> tuple[Vector, Vector]:
    """Position of the first slice, and the step from slice to slice, patient mm."""
    positions = find_positions(slices)
    start, step = _fit(places, positions)
    shifts = np.linalg.norm(positions - start - np.outer(places, step), axis=1)
    worst = int(shifts.argmax())
    if shifts[worst] > max(STRAIGHT_PIXELS * min(selection.spacing_mm), UNIFORM_MM):
        raise ledger.refuse(
            "shifted-slices",
            f"slices are shifted in their plane by up to {shifts[worst]:.1f} mm against a straight line; export one "
            "reconstruction",
        )
    return start, step


def _note_tilt(step: Vector, normal: Vector, ledger: Ledger) -> None:
    slant = float(np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1))))
    lean = float(np.degrees(np.arccos(np.clip(normal[2], -1, 1))))
    if slant > TILT_DEGREES:
        ledger.accept(
            "gantry-tilt",
            f"gantry tilt of {slant:.1f} degrees: kept in the affine as a shear, which leaves volumes exact",
        )
    elif lean > TILT_DEGREES:
        ledger.accept("oblique", f"slices {lean:.1f} degrees off axial: kept in the affine")


def _note_thickness(slices: list[Slice], gap_mm: float, ledger: Ledger) -> None:
    found = [item.thickness_mm for item in slices if item.thickness_mm is not None]
    if not found:
        return
    thickness = float(np.median(found))
    if thickness < (1 - THICKNESS_SHARE) * gap_mm:
        ledger.accept(
            "slices-apart",
            f"slices of {thickness:.2f} mm, {gap_mm:.2f} mm apart: what lies between them was not seen",
            error_percent=bound_sampling(gap_mm),
            count=len(slices),
        )
    elif thickness > (1 + THICKNESS_SHARE) * gap_mm:
        ledger.accept(
            "slices-overlap",
            f"slices of {thickness:.2f} mm, {gap_mm:.2f} mm apart: they overlap, and count by their distance",
            count=len(slices),
        )


def _make_grid(start: Vector, step: Vector, depth: int, selection: Selection) -> tuple[Grid, Axes]:
    """The grid in canonical order: axes exchanged and flipped, their vectors with them."""
    rows, columns = selection.matrix
    down, along = selection.down * selection.spacing_mm[0], selection.along * selection.spacing_mm[1]
    transposed = bool(abs(selection.down[0]) > abs(selection.along[0]))
    if transposed:
        rows, columns, down, along = columns, rows, along, down
    rows_flipped, columns_flipped = bool(down[1] < 0), bool(along[0] < 0)
    origin = start.copy()
    if rows_flipped:
        origin, down = origin + (rows - 1) * down, -down
    if columns_flipped:
        origin, along = origin + (columns - 1) * along, -along
    affine = np.eye(4)
    affine[:3] = np.column_stack([step, down, along, origin])
    return Grid((depth, rows, columns), affine), Axes(transposed, rows_flipped, columns_flipped)
