"""Where stored pixels are in the patient: what reading put in canonical order, turned back.

`bedside.dicom.geometry` exchanges and flips the axes of a series as it reads; results refer to the pixels as they are
stored, so that nothing is mirrored in a viewer that lays one over the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.valuerep import DSfloat

from bedside.dicom.geometry import Axes
from bedside.scan import Grid

__all__ = ["Placement", "place", "turn_back"]

_Scalar = TypeVar("_Scalar", bound=np.generic)
_Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the pixels of the source's files are, as stored. Millimetres, LPS."""

    origin: _Vector
    """Centre of the first pixel of the first slice."""
    step: _Vector
    """From slice to slice."""
    down: _Vector
    """From row to row."""
    along: _Vector
    """From column to column."""
    matrix: tuple[int, int]
    """Rows and columns."""
    gap_mm: float
    """Distance of neighbouring slices along their normal."""

    def position(self, index: int) -> Dataset:
        """An item of Plane Position Sequence: where a slice is."""
        item = Dataset()
        item.ImagePositionPatient = [_decimal(value) for value in self.origin + index * self.step]
        return item

    def shared(self) -> Dataset:
        """The functional groups of all slices: Pixel Measures and Plane Orientation."""
        down, along = (float(np.linalg.norm(axis)) for axis in (self.down, self.along))
        measures = Dataset()
        measures.PixelSpacing = [_decimal(down), _decimal(along)]
        measures.SliceThickness = measures.SpacingBetweenSlices = _decimal(self.gap_mm)
        orientation = Dataset()
        orientation.ImageOrientationPatient = [
            _decimal(value) for value in (*(self.along / along), *(self.down / down))
        ]
        shared = Dataset()
        shared.PixelMeasuresSequence = Items([measures])
        shared.PlaneOrientationSequence = Items([orientation])
        return shared


def place(grid: Grid, axes: Axes) -> Placement:
    """The grid's axes as the files have them: what `bedside.dicom.geometry` turned is turned back."""
    _, rows, columns = grid.shape
    step, down, along, origin = (grid.affine[:3, column].copy() for column in range(4))
    if axes.columns_flipped:
        origin, along = origin + (columns - 1) * along, -along
    if axes.rows_flipped:
        origin, down = origin + (rows - 1) * down, -down
    if axes.transposed:
        rows, columns, down, along = columns, rows, along, down
    return Placement(origin, step, down, along, (rows, columns), grid.slice_gap_mm)


def turn_back(axes: Axes, picture: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
    """A view of a picture in canonical order as its pixels are stored: `Axes.turn` undone."""
    flipped = picture[:: -1 if axes.rows_flipped else 1, :: -1 if axes.columns_flipped else 1]
    return flipped.T if axes.transposed else flipped


def _decimal(value: float) -> str:
    """A number as VR DS has room for, 16 characters: to a micrometre and better."""
    return str(DSfloat(float(value), auto_format=True))
