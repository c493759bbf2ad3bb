"""What a reader of CT hands on: a scan whose slices are read when asked for, and the ledger of its geometry.

    Grid         shape and affine of the voxels; spacing, position and volume are derived from it
    Entry        one finding on the geometry, what was decided, and how wrong a volume may be for it
    Scan         the Protocol: `grid`, `ledger`, and `read` of any slices
    Volume       a scan that is held in memory

Arrays are ``(Z, Y, X)``, in *canonical order*: axes are flipped, never resampled, so that the index z grows
towards the head, y to the patient's back and x to the patient's left, as far as the axes follow the body.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["AIR_HU", "DECISIONS", "Entry", "Grid", "Scan", "Volume"]

AIR_HU: Final = -1000.0
"""HU of air, by the definition of the Hounsfield scale: what padding and all outside a scan read as."""
DECISIONS: Final = ("accepted", "mended", "refused")
"""What can be decided on a finding."""

_SINGULAR_MM3: Final = 1e-6
"""Smallest voxel that is not a defect of the affine, mm3: a micrometre is under any CT's pixel."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the voxels are."""

    shape: tuple[int, int, int]
    """Number of voxels, ``(Z, Y, X)``."""
    affine: npt.NDArray[np.float64]
    """``(4, 4)``: index ``(z, y, x, 1)`` of a voxel's centre -> patient coordinates LPS, mm. May hold a shear, as of
    a tilted gantry."""

    def __post_init__(self) -> None:
        """Check shapes and that the voxels have a volume."""
        if min(self.shape) < 1:
            raise ValueError(f"shape must be (Z, Y, X), each at least 1, not {self.shape}")
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all():
            raise ValueError("affine must be a finite 4x4 matrix")
        if self.voxel_ml * 1000 < _SINGULAR_MM3:
            raise ValueError("the affine is singular: the voxels have no volume")

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between the centres of neighbours along ``(z, y, x)``, mm."""
        z, y, x = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)

    @property
    def slice_gap_mm(self) -> float:
        """Distance between neighbouring slices along their normal, mm; under ``spacing_mm[0]`` where sheared."""
        return self.voxel_ml * 1000 / self.pixel_mm2

    @property
    def pixel_mm2(self) -> float:
        """Area of a pixel of a slice, mm2."""
        return float(np.linalg.norm(np.cross(self.affine[:3, 1], self.affine[:3, 2])))

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, mL."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    def z_mm(self, index: float) -> float:
        """Patient coordinate z (towards the head) of the middle of slice ``index``, mm."""
        _, rows, columns = self.shape
        return float((self.affine @ [index, (rows - 1) / 2, (columns - 1) / 2, 1.0])[2])

    def x_mm(self, column: float) -> float:
        """Patient coordinate x (towards the left) of ``column`` in the middle of the scan, mm."""
        slices, rows, _ = self.shape
        return float((self.affine @ [(slices - 1) / 2, (rows - 1) / 2, column, 1.0])[0])


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the geometry ledger."""

    finding: str
    """Stable, lower-case, hyphenated, e.g. ``missing-slices``."""
    decision: str
    """One of `DECISIONS`."""
    text: str
    """One line for a person: what was found and what was done. Never patient data."""
    volume_error_percent: float = 0.0
    """Bound on the error of a volume that this causes, in percent of it; 0 where the geometry stays exact."""
    count: int = 1
    """How many slices or files it concerns."""

    def __post_init__(self) -> None:
        """Refuse an unknown decision, and a bound that is negative or none."""
        if self.decision not in DECISIONS or not 0 <= self.volume_error_percent < math.inf:
            raise ValueError(f"improper ledger entry {self.finding!r}")


class Scan(Protocol):
    """A CT whose slices are decoded when asked for. Use it from one thread at a time; close it after use."""

    @property
    def grid(self) -> Grid:
        """Where the voxels are."""
        ...

    @property
    def ledger(self) -> tuple[Entry, ...]:
        """What was found in the geometry, none of it refused."""
        ...

    def read(self, slices: Sequence[int]) -> npt.NDArray[np.float32]:
        """Decode slices.

        Args:
            slices: Indices on the grid's z axis, in any order.

        Returns:
            ``(n, Y, X)`` float32, HU; padding reads as `AIR_HU`. Owned by the caller.

        Raises:
            InputError: A slice can't be decoded.
        """
        ...

    def close(self) -> None:
        """Free files and threads; `read` must not be called after."""
        ...


@dataclass(frozen=True, slots=True)
class Volume:
    """A scan that is held in memory."""

    hu: npt.NDArray[np.float32]
    """``(Z, Y, X)`` float32, HU."""
    affine: npt.NDArray[np.float64]
    """As of `Grid`."""
    ledger: tuple[Entry, ...] = field(default=())
    """What was found in the geometry."""

    @property
    def grid(self) -> Grid:
        """Where the voxels are."""
        slices, rows, columns = self.hu.shape
        return Grid((slices, rows, columns), self.affine)

    def read(self, slices: Sequence[int]) -> npt.NDArray[np.float32]:
        """Copy slices out, ``(n, Y, X)`` float32, HU."""
        return self.hu[list(slices)]

    def close(self) -> None:
        """Nothing to free."""
