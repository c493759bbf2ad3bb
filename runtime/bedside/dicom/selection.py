"""Which pictures of a series belong to its volume: those of one orientation, one matrix and one pixel spacing.

What is left out here changes no volume: a localizer or a reformat shows again what the axial slices show, and
whether those are complete is told by their own distances.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.dicom.catalogue import Series
from bedside.dicom.hounsfield import is_padding_credible
from bedside.dicom.layout import Layout
from bedside.dicom.ledger import GeometryError, Ledger, bound_pixel_spacing
from bedside.dicom.slices import Rescale, Slice

__all__ = ["Selection", "select"]

SAME_DIRECTION: Final = 5e-3
"""Largest difference between direction cosines of one stack, 0.3 degrees: beyond the rounding of writers."""
AXIAL: Final = float(np.cos(np.radians(45)))
"""Least share of the head's direction in an axial stack's normal: nearer to axial than to any other plane."""
SAME_SPACING: Final = 1e-3
"""Largest share by which pixel spacings differ that is taken for rounding: areas are then right to 0.2 %."""
NOT_HU: Final = frozenset({"OD", "MGML", "Z_EFF", "ED", "EDW", "PCT", "HU_MOD"})
"""Values of Rescale Type that name another unit, or a mended one (PS3.3, C.11.1.1.2)."""

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Selection:
    """The slices of one stack, in no order."""

    slices: list[Slice]
    """Each has a plane; some may be known to be unreadable."""
    strays: int
    """Pictures of the same size that don't say where they lie."""
    along: Vector
    """Direction in which columns are counted, unit vector."""
    down: Vector
    """Direction in which rows are counted, unit vector."""
    spacing_mm: tuple[float, float]
    """Distance between rows, and between columns."""
    matrix: tuple[int, int]
    """Rows and columns."""


def select(series: Series, ledger: Ledger) -> Selection:
    """Take the slices of the volume out of a series.

    Raises:
        GeometryError: No stack can be made of it; the message says why.
    """
    pictures = series.slices
    if not pictures:
        raise ledger.refuse("no-pictures", "the CT series holds no grey picture; give one of slices")
    localizers = [item for item in pictures if item.localizer]
    if localizers:
        ledger.mend("localizers", "localizers among the slices: left out", count=len(localizers))
    rest = [item for item in pictures if not item.localizer]
    placed = [item for item in rest if item.plane is not None]
    if not placed:
        raise ledger.refuse(
            "without-position",
            f"none of {len(rest)} pictures says where it lies in the patient; export the original CT series",
            count=max(1, len(rest)),
        )
    _check_frames_of_reference(series, ledger)
    stack = _take_orientation(placed, ledger)
    spacing = _take_spacing(stack, ledger)
    matrix = _take_matrix(stack, ledger)
    _check_units(stack, ledger)
    unplaced = [item for item in rest if item.plane is None]
    strays = [item for item in unplaced if item.layout is None or _is_alike(item.layout, matrix)]
    if len(strays) < len(unplaced):
        ledger.mend(
            "other-pictures",
            "pictures of another kind and without a position, which are no slices: left out",
            count=len(unplaced) - len(strays),
        )
    cosines = np.median([_cosines(item) for item in stack], axis=0)
    along = cosines[:3] / np.linalg.norm(cosines[:3])
    down = cosines[3:] - (cosines[3:] @ along) * along
    return Selection(stack, len(strays), along, down / np.linalg.norm(down), spacing, matrix)


def _cosines(item: Slice) -> Vector:
    if item.plane is None:
        raise ValueError("a slice without a plane has no direction")
    return np.array(item.plane.orientation)


def _normal(cosines: Vector) -> Vector:
    return np.asarray(np.cross(cosines[:3], cosines[3:]))


def _size(item: Slice) -> tuple[int, int]:
    return (0, 0) if item.layout is None else (item.layout.rows, item.layout.columns)


def _is_alike(layout: Layout, matrix: tuple[int, int]) -> bool:
    return (layout.rows, layout.columns) == matrix and layout.samples == 1


def _check_frames_of_reference(series: Series, ledger: Ledger) -> None:
    frames = {
        part.frame_of_reference_uid
        for part in series.parts
        if part.frame_of_reference_uid and any(item.plane and not item.localizer for item in part.slices)
    }
    if len(frames) > 1:
        raise ledger.refuse(
            "frames-of-reference",
            f"the slices lie in {len(frames)} frames of reference, so their places can't be compared; export one",
            count=len(frames),
        )


def _take_orientation(placed: list[Slice], ledger: Ledger) -> list[Slice]:
    """The largest axial stack, else the largest of all, which is then refused."""
    groups: list[tuple[Vector, list[Slice]]] = []
    for item in placed:
        cosines = _cosines(item)
        for first, members in groups:
            if np.abs(cosines - first).max() <= SAME_DIRECTION:
                members.append(item)
                break
        else:
            groups.append((cosines, [item]))
    groups.sort(key=lambda group: (_is_axial(group[0]) and len(group[1]) > 1, len(group[1])), reverse=True)
    main, stack = groups[0]
    if not _is_axial(main):
        plane = "sagittal" if abs(_normal(main)[0]) > abs(_normal(main)[1]) else "coronal"
        raise ledger.refuse(
            "non-axial", f"the series is {plane}; give the axial series of the same scan", count=len(stack)
        )
    others = 0
    for cosines, members in groups[1:]:
        if _is_axial(cosines):
            raise ledger.refuse(
                "mixed-orientation",
                f"{len(members)} of {len(placed)} slices are turned or tilted against the others; export the "
                "original series",
                count=len(members),
            )
        others += len(members)
    if others:
        ledger.mend(
            "other-orientations",
            "slices of other orientations among the axial ones: left out",
            count=others,
        )
    return stack


def _is_axial(cosines: Vector) -> bool:
    return bool(abs(_normal(cosines)[2]) > AXIAL)


def _take_spacing(stack: list[Slice], ledger: Ledger) -> tuple[float, float]:
    spacings = np.array([item.plane.spacing_mm for item in stack if item.plane is not None])
    middle = np.median(spacings, axis=0)
    deviations = np.abs(spacings / middle - 1).max(axis=1)
    worst = float(deviations.max())
    if worst > SAME_SPACING:
        count = int((deviations > SAME_SPACING).sum())
        raise ledger.refuse(
            "mixed-pixel-spacing",
            f"{count} of {len(stack)} slices have pixels of another size; export one reconstruction",
            count=count,
        )
    if worst > 1e-6:
        ledger.mend(
            "mixed-pixel-spacing",
            "pixel spacings that differ by rounding: the median is taken",
            error_percent=bound_pixel_spacing(worst),
            count=int((deviations > 1e-6).sum()),
        )
    return float(middle[0]), float(middle[1])


def _take_matrix(stack: list[Slice], ledger: Ledger) -> tuple[int, int]:
    sizes = Counter(_size(item) for item in stack if item.layout is not None)
    if not sizes:
        raise _unreadable(stack, ledger)
    (matrix, count), *others = sizes.most_common()
    if others:
        raise ledger.refuse(
            "mixed-matrix",
            f"{len(stack) - count} of {len(stack)} slices have other rows x columns; export one reconstruction",
            count=len(stack) - count,
        )
    return matrix


def _unreadable(stack: list[Slice], ledger: Ledger) -> GeometryError:
    return ledger.refuse(
        "unreadable-slices",
        f"none of {len(stack)} slices can be read ({stack[0].problem or 'unknown'}); copy or export them again",
        count=len(stack),
        code="missing-slices",
    )


def _check_units(stack: list[Slice], ledger: Ledger) -> None:
    """Make sure that the slices are in HU, each by its own rescale."""
    found = [
        (item.rescale, item.layout) for item in stack if item.rescale is not None and item.layout is not None
    ]
    other = sum(1 for rescale, _ in found if rescale.kind in NOT_HU)
    if other:
        raise ledger.refuse(
            "not-hu",
            f"{other} of {len(stack)} slices hold another quantity than Hounsfield units; give the plain CT series",
            count=other,
            code="not-hu",
        )
    silent = [layout for rescale, layout in found if not rescale.stated]
    if silent and (len(silent) < len(found) or not all(layout.signed for layout in silent)):
        raise ledger.refuse(
            "not-hu",
            f"{len(silent)} of {len(stack)} slices have no rescale, so their values are not known in Hounsfield "
            "units; export the original series",
            count=len(silent),
            code="not-hu",
        )
    if silent:
        ledger.accept(
            "no-rescale", "no rescale, and signed values: taken as Hounsfield units", count=len(silent)
        )
    rescales = {(rescale.slope, rescale.intercept) for rescale, _ in found}
    if len(rescales) > 1:
        ledger.accept(
            "mixed-rescale", "slices with different rescales: each is read by its own", count=len(rescales)
        )
    _note_padding([rescale for rescale, _ in found], ledger)


def _note_padding(rescales: list[Rescale], ledger: Ledger) -> None:
    doubted = sum(1 for rescale in rescales if not is_padding_credible(rescale))
    if doubted:
        ledger.accept(
            "padding-ignored",
            "a padding value that occurs in bodies: its pixels are kept as they are",
            count=doubted,
        )
