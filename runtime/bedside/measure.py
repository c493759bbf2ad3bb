"""What can be said of label maps: volumes in mL, overlap of two, distance between surfaces in mm.

    volumes_ml                    of each label of one map
    cross_tabulate, CrossTable    two maps of one grid, counted once for every class and group of classes
    Overlap                       Dice, IoU and difference in volume of one class or group; adds up over cases
    surface_distance              mean, Hausdorff and 95 % distance (needs the extra ``stats``)

Maps are ``(Z, Y, X)`` integers; affines are as of `bedside.scan.Grid`. Knows no DICOM and no file. What is not
defined (the Dice of two empty masks, the distance to an empty one) is None, never 0, 1 or NaN.
Not for clinical use.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside.errors import MissingExtraError, RefusedError
from bedside.scan import Grid

__all__ = [
    "MAX_LABEL",
    "CrossTable",
    "Overlap",
    "SurfaceDistance",
    "check_same_grid",
    "cross_tabulate",
    "surface_distance",
    "volumes_ml",
]

Labels = npt.NDArray[np.integer[Any]]
Mask = npt.NDArray[np.bool_]

MAX_LABEL: Final = 255
"""Largest label: bedside writes label maps as 8-bit."""
GRID_TOLERANCE: Final = 0.1
"""How far corners of one grid may lie apart, in voxels: NIfTI keeps affines in 32 bits, some as rounded quaternions,
which moves the far corner of a CT by hundredths of a voxel."""
HAUSDORFF_PERCENTILE: Final = 95.0
"""Percentile of the robust Hausdorff distance."""


def volumes_ml(labels: Labels, affine: npt.NDArray[np.float64]) -> dict[int, float]:
    """Volume of each label that occurs, but for 0: label -> mL.

    Raises:
        RefusedError: ``not-comparable``, a label that is negative or over `MAX_LABEL`.
    """
    check_labels(labels)
    counts = np.zeros(MAX_LABEL + 1, np.int64)
    for plane in labels:  # bincount widens to 64 bits: a slice at a time
        counts += np.bincount(plane.ravel().astype(np.uint8), minlength=MAX_LABEL + 1)
    voxel_ml = Grid(_shape(labels), affine).voxel_ml
    return {label: int(counts[label]) * voxel_ml for label in range(1, MAX_LABEL + 1) if counts[label]}


@dataclass(frozen=True, slots=True)
class Overlap:
    """How two masks lie over each other. Add several up for the overlap pooled over cases, weighted by volume."""

    first_ml: float
    """Volume of the first mask, the reference, mL."""
    second_ml: float
    """Volume of the second, mL."""
    shared_ml: float
    """Volume that is in both, mL."""

    @property
    def empty(self) -> str:
        """Which mask has no voxel: ``first``, ``second``, ``both``; empty text where neither."""
        if self.first_ml > 0:
            return "" if self.second_ml > 0 else "second"
        return "first" if self.second_ml > 0 else "both"

    @property
    def dice(self) -> float | None:
        """Twice the shared volume over the sum of both, 0 to 1; None where both are empty."""
        total = self.first_ml + self.second_ml
        return 2 * self.shared_ml / total if total > 0 else None

    @property
    def iou(self) -> float | None:
        """Intersection over union, the shared volume over that of either, 0 to 1; None where both are empty."""
        union = self.first_ml + self.second_ml - self.shared_ml
        return self.shared_ml / union if union > 0 else None

    @property
    def difference_ml(self) -> float:
        """Second less first, mL."""
        return self.second_ml - self.first_ml

    @property
    def difference_percent(self) -> float | None:
        """`difference_ml` in percent of the first; None where the first is empty."""
        return 100 * self.difference_ml / self.first_ml if self.first_ml > 0 else None

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(
            self.first_ml + other.first_ml,
            self.second_ml + other.second_ml,
            self.shared_ml + other.shared_ml,
        )


@dataclass(frozen=True, slots=True, eq=False)
class CrossTable:
    """Two label maps of one grid, counted: what all overlaps follow from."""

    counts: npt.NDArray[np.int64]
    """``(MAX_LABEL + 1, MAX_LABEL + 1)``: voxels with the row's label in the first and the column's in the second."""
    voxel_ml: float
    """Volume of a voxel, mL."""

    def overlap(self, first: Collection[int], second: Collection[int] | None = None) -> Overlap:
        """Overlap of a class, or of a group of classes taken together.

        Args:
            first: Labels that make the mask in the first map. All of its opacities together give the opacity IoU
                of Lensink et al. 2020.
            second: The same for the second map; as ``first`` unless given.
        """
        rows = np.array(sorted(first), np.intp)
        columns = rows if second is None else np.array(sorted(second), np.intp)
        return Overlap(
            int(self.counts[rows].sum()) * self.voxel_ml,
            int(self.counts[:, columns].sum()) * self.voxel_ml,
            int(self.counts[np.ix_(rows, columns)].sum()) * self.voxel_ml,
        )


def cross_tabulate(first: Labels, second: Labels, affine: npt.NDArray[np.float64]) -> CrossTable:
    """Count two label maps of one grid against each other.

    Args:
        first: ``(Z, Y, X)``, the reference.
        second: ``(Z, Y, X)``.
        affine: Of both: see `check_same_grid`.

    Raises:
        RefusedError: ``not-comparable``, another shape, or a label that is negative or over `MAX_LABEL`.
    """
    if first.shape != second.shape:
        raise RefusedError("not-comparable", f"the grids differ: {_sized(first)} and {_sized(second)} voxels")
    check_labels(first)
    check_labels(second)
    side = MAX_LABEL + 1
    counts = np.zeros(side * side, np.int64)
    for one, other in zip(first, second, strict=True):
        pairs = one.astype(np.int64) * side
        pairs += other
        counts += np.bincount(pairs.ravel(), minlength=side * side)
    return CrossTable(counts.reshape(side, side), Grid(_shape(first), affine).voxel_ml)


def check_labels(labels: Labels) -> None:
    """Refuse what is no label map.

    Raises:
        RefusedError: ``not-comparable``, a label that is negative or over `MAX_LABEL`.
    """
    if labels.dtype.kind not in "iu" or labels.ndim != 3:
        raise ValueError(f"a label map is (Z, Y, X) integers, not {labels.dtype} of {labels.ndim} axes")
    if labels.size and (labels.min() < 0 or labels.max() > MAX_LABEL):
        raise RefusedError(
            "not-comparable",
            f"labels from {labels.min()} to {labels.max()}: give maps with labels from 0 to {MAX_LABEL}",
        )


def check_same_grid(first: Grid, second: Grid) -> None:
    """Refuse to lay one label map over another whose voxels are elsewhere.

    Raises:
        RefusedError: ``not-comparable``: the shapes differ, or corners lie further apart than `GRID_TOLERANCE`.
    """
    if first.shape != second.shape:
        sizes = " and ".join(" x ".join(map(str, grid.shape)) for grid in (first, second))
        raise RefusedError(
            "not-comparable", f"the grids differ: {sizes} voxels; resample one to the other's grid"
        )
    corners = np.array([(*corner, 1.0) for corner in np.ndindex(2, 2, 2)])
    corners[:, :3] *= np.array(first.shape) - 1
    apart_mm = np.linalg.norm(corners @ (first.affine - second.affine).T, axis=1).max()
    if apart_mm > GRID_TOLERANCE * min(first.spacing_mm):
        raise RefusedError(
            "not-comparable",
            f"the affines differ: corners of the grids lie {apart_mm:.2g} mm apart; "
            "resample one map to the other's grid",
        )


@dataclass(frozen=True, slots=True)
class SurfaceDistance:
    """Distance between the surfaces of two masks, mm; each is symmetric in the two."""

    mean_mm: float
    """Mean over the surface voxels of both, each to the nearest of the other (average symmetric surface distance)."""
    hausdorff_mm: float
    """Greatest of these distances."""
    hausdorff95_mm: float
    """The 95th percentile to each side, and the greater of the two, as in Maier-Hein et al. 2024, Metrics reloaded
    (doi 10.1038/s41592-023-02151-z). Some tools take one percentile over both sides together, which is smaller."""


def surface_distance(first: Mask, second: Mask, affine: npt.NDArray[np.float64]) -> SurfaceDistance | None:
    """Distance between the surfaces of two masks, right for any spacing and any affine, sheared ones too.

    A voxel is of the surface if one of its six neighbours is not of the mask; what is outside the grid is not. Its
    place is its centre, and each counts the same.

    Args:
        first: ``(Z, Y, X)`` bool.
        second: ``(Z, Y, X)`` bool, of the same shape.
        affine: ``(4, 4)``, index ``(z, y, x, 1)`` -> mm.

    Returns:
        None where a mask is empty: there is no distance to what is not there.

    Raises:
        MissingExtraError: The extra ``stats`` is not installed.
    """
    if first.shape != second.shape:
        raise ValueError(f"masks of {first.shape} and {second.shape} are not of one grid")
    try:
        tree: Any = importlib.import_module("scipy.spatial").cKDTree
    except ImportError as error:
        raise MissingExtraError.of("scipy", "stats", "the distance between surfaces") from error
    points = [_surface(mask) @ affine[:3, :3].T for mask in (first, second)]
    if not len(points[0]) or not len(points[1]):
        return None
    there, back = (
        np.asarray(tree(target).query(source)[0], np.float64) for source, target in (points, reversed(points))
    )
    return SurfaceDistance(
        float((there.sum() + back.sum()) / (len(there) + len(back))),
        float(max(there.max(), back.max())),
        float(max(np.percentile(each, HAUSDORFF_PERCENTILE) for each in (there, back))),
    )


def _surface(mask: Mask) -> npt.NDArray[np.float64]:
    """Indices ``(n, 3)`` of the surface voxels."""
    spans = []
    for axis in range(3):
        filled = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if not len(filled):
            return np.empty((0, 3))
        spans.append(slice(int(filled[0]), int(filled[-1]) + 1))
    box = np.pad(mask[tuple(spans)], 1)
    inner = box.copy()
    for axis in range(3):
        inner &= np.roll(box, 1, axis) & np.roll(box, -1, axis)
    found = np.argwhere(box & ~inner) + [span.start - 1 for span in spans]
    return found.astype(np.float64)


def _shape(labels: Labels) -> tuple[int, int, int]:
    slices, rows, columns = labels.shape
    return slices, rows, columns


def _sized(labels: Labels) -> str:
    return " x ".join(map(str, labels.shape))
