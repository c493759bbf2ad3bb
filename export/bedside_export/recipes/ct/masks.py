"""Scans and their masks, read from files as a network is to see them.

read_masked     HU and classes of one case, at the network's pixels
check_apart     no scan is on both sides, whatever it is called
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from bedside.contract import Tissue
from bedside.errors import BedsideError
from bedside.nifti.reading import read_labels, read_nifti
from bedside.scan import Grid
from bedside_export.ct_rules import TISSUES
from bedside_export.errors import ExportError
from bedside_export.recipes.ct.cases import Entry
from bedside_export.recipes.ct.data import DataError, enlarge, read_pictures
from bedside_export.recipes.ct.lungs import Labels, label_opacity
from bedside_export.recipes.ct.network import PIXEL_MM

__all__ = ["Masked", "Rules", "check_apart", "read_masked"]

KINDS_OF_LABELS: Final = ("tissues", "opacity")
"""What the values of a label map are."""
_ELSEWHERE: Final = 0.5
"""Share of a pixel's side that a corner of the labels may be off the scan's."""
_LEAST_HU, _GREATEST_HU = -1024, 3071
"""What 12 bits hold, as scanners store HU; what is beyond has no meaning that a window would show."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How label maps are read."""

    tissues: tuple[Tissue, ...]
    """The classes."""
    spacing_mm: tuple[float, float] | None
    """``(y, x)`` to interpolate to; None for a scan's own."""
    labels: str = "tissues"
    """``tissues``: values are places in the table. ``opacity``: what is over 0 is opacity, and the lungs are found by
    thresholds and morphology as in the built-in recipe."""

    def __post_init__(self) -> None:
        """Refuse masks of opacity where lungs can't be found for them."""
        if self.labels not in KINDS_OF_LABELS:
            raise ExportError(f"labels must be one of {', '.join(KINDS_OF_LABELS)}")
        if self.labels == "opacity" and not self.may_find_lungs:
            raise ExportError(
                f"masks of opacity alone go with the tissues 'sides' and pixels of {PIXEL_MM} mm, for which lungs are "
                "found; give labels of all tissues instead"
            )

    @property
    def may_find_lungs(self) -> bool:
        """Whether `find_lungs` gives these classes."""
        kinds = [(each.opacity, each.lung, each.side) for each in self.tissues]
        known = [(each.opacity, each.lung, each.side) for each in TISSUES["sides"]]
        return kinds == known and self.spacing_mm == (PIXEL_MM, PIXEL_MM)


@dataclass(frozen=True, slots=True)
class Masked:
    """A scan with its labels, in canonical order."""

    entry: Entry
    """Which case."""
    hu: Tensor
    """``(Z, Y, X)`` int16 HU."""
    readings: Tensor
    """``(Z, R, Y, X)`` uint8 classes, one a reader."""
    voxel_ml: float | None
    """Volume of a voxel of these, mL; None where pictures don't say it."""
    digest: str
    """SHA-256 of HU and classes: names these very voxels."""


def read_masked(entry: Entry, rules: Rules) -> Masked:
    """Read a case.

    Raises:
        ExportError: It can't be read, is not in HU or holds voxels that are no number; its labels are of another size,
            lie elsewhere, or hold what the table lacks; or no lungs are found in it.
    """
    try:
        hu, readings, voxel_ml = (
            _read_pictures(entry, rules) if entry.image.is_dir() else _read_nifti(entry, rules)
        )
    except BedsideError as error:
        raise ExportError(f"case {entry.number}: {error.message} [{error.code}]") from error
    except DataError as error:
        raise ExportError(f"case {entry.number}: {error}") from error
    stored = np.rint(np.clip(hu, _LEAST_HU, _GREATEST_HU)).astype(np.int16)
    stack = np.ascontiguousarray(np.stack(readings, 1))
    digest = hashlib.sha256(stored.tobytes() + stack.tobytes()).hexdigest()
    return Masked(entry, torch.from_numpy(stored), torch.from_numpy(stack), voxel_ml, digest)


def check_apart(cases: Sequence[Masked]) -> None:
    """Refuse a scan that is on two sides under two names.

    Raises:
        ExportError: The message numbers the cases.
    """
    seen: dict[bytes, Entry] = {}
    for case in cases:
        content = hashlib.sha256(case.hu.numpy().tobytes()).digest()
        other = seen.setdefault(content, case.entry)
        if other.part != case.entry.part:
            raise ExportError(
                f"case {other.number} of source {other.source!r} ({other.part}) and case {case.entry.number} of source "
                f"{case.entry.source!r} ({case.entry.part}) are the same scan, on both sides; take one away"
            )


def _read_pictures(entry: Entry, rules: Rules) -> tuple[npt.NDArray[np.float32], list[Labels], float | None]:
    if not rules.may_find_lungs:
        raise ExportError(
            f"case {entry.number} is of pictures with masks of opacity, which fit the tissues 'sides' at {PIXEL_MM} mm "
            "only; give NIfTI files with labels of all tissues"
        )
    case = read_pictures(entry.image, str(entry.number))
    return case.hu, [label_opacity(case.hu, enlarge(case.opacity))], None


def _read_nifti(entry: Entry, rules: Rules) -> tuple[npt.NDArray[np.float32], list[Labels], float | None]:
    with read_nifti(entry.image) as scan:
        grid = scan.grid
        hu = scan.read(range(grid.shape[0]))
        broken = [each for each in scan.ledger if each.finding == "not-a-number"]
    if broken:
        raise ExportError(
            f"case {entry.number} holds voxels that are no number (NaN or infinity) in {broken[0].count} slices; "
            "convert it again, or leave it out"
        )
    zoom = _zoom_of(grid, rules)
    readings = [_read_reading(path, entry, grid, rules) for path in entry.readings]
    hu = np.asarray(ndimage.zoom(hu, zoom, order=1, mode="nearest", grid_mode=True), np.float32)
    readings = [ndimage.zoom(each, zoom, order=0, mode="nearest", grid_mode=True) for each in readings]
    if rules.labels == "opacity":
        readings = [label_opacity(hu, each > 0) for each in readings]
    return hu, readings, grid.voxel_ml / (zoom[1] * zoom[2])


def _zoom_of(grid: Grid, rules: Rules) -> tuple[float, float, float]:
    if rules.spacing_mm is None:
        return 1.0, 1.0, 1.0
    _, y, x = grid.spacing_mm
    return 1.0, y / rules.spacing_mm[0], x / rules.spacing_mm[1]


def _read_reading(path: object, entry: Entry, grid: Grid, rules: Rules) -> Labels:
    labels, affine = read_labels(str(path))
    if labels.shape != grid.shape:
        sizes = ["x".join(map(str, shape)) for shape in (labels.shape, grid.shape)]
        raise ExportError(
            f"case {entry.number}: its labels have {sizes[0]} voxels and its scan {sizes[1]}; give labels that were "
            "drawn on this scan"
        )
    corners = np.array([[0, 0, 0, 1], [*(side - 1 for side in grid.shape), 1]], np.float64).T
    gap = float(np.abs((affine - grid.affine) @ corners).max())
    if gap > _ELSEWHERE * min(grid.spacing_mm):
        raise ExportError(
            f"case {entry.number}: its labels lie up to {gap:.3g} mm off its scan; give labels that were drawn on this "
            "scan"
        )
    low, high = int(labels.min()), int(labels.max())
    if rules.labels == "tissues" and (low < 0 or high >= len(rules.tissues)):
        wrong = low if low < 0 else high
        raise ExportError(
            f"case {entry.number}: its labels hold {wrong}, and the table has {len(rules.tissues)} tissues, from 0 on; "
            "give a table that names it, or --labels opacity for masks of opacity alone"
        )
    return np.asarray(labels > 0 if rules.labels == "opacity" else labels, np.uint8)
