"""Folders of CT slices to compare on: a part of a series, the same chest in any number of slices, or the phantom."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import generate_uid

from bedside.sample_ct import write_series
from bedside.scan import Grid

__all__ = ["Series", "draw_phantom", "find_series"]

_PHANTOM_SLICES = 120
_PHANTOM_SIDE = 512
_PHANTOM_PIXEL_MM = 0.78125
_PHANTOM_GAP_MM = 3.0
"""As `bedside.sample_ct.GRID`, in pixels half as large: 512 a side, as scanners have it."""


@dataclass(frozen=True)
class Series:
    """An axial series, a file a slice."""

    files: tuple[Path, ...]
    """From the feet to the head."""
    plane: tuple[int, int]
    """Rows and columns."""

    def copy_middle(self, count: int, folder: Path) -> Path:
        """Copy ``count`` neighbouring slices from the middle of the series into a new folder, which is returned."""
        folder.mkdir()
        first = max(0, (len(self.files) - count) // 2)
        for path in self.files[first : first + count]:
            shutil.copy(path, folder / path.name)
        return folder

    def without_middle(self, count: int) -> Series:
        """The slices that `copy_middle` leaves; all of them where it leaves fewer than three."""
        first = max(0, (len(self.files) - count) // 2)
        left = self.files[:first] + self.files[first + count :]
        return Series(left, self.plane) if len(left) > 2 else self

    def halves(self) -> tuple[Series, Series]:
        """Every second slice, and the others."""
        return Series(self.files[::2], self.plane), Series(self.files[1::2], self.plane)

    def reslice(self, count: int, folder: Path) -> Path:
        """Write the same chest in ``count`` slices into a new folder, which is returned.

        Each slice is the nearest of the series, pixels as they are, so that every folder holds the same mix of belly,
        lungs and neck, and only the number of slices differs.
        """
        folder.mkdir()
        ends = [np.array(_header(self.files[at]).ImagePositionPatient, np.float64) for at in (0, -1)]
        for number in range(count):
            file = pydicom.dcmread(self.files[number * len(self.files) // count])
            position = ends[0] + (ends[1] - ends[0]) * (number / (count - 1))
            file.ImagePositionPatient = [f"{value:.6f}" for value in position]
            file.SliceThickness = f"{np.linalg.norm(ends[1] - ends[0]) / (count - 1):.6f}"
            file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = generate_uid(
                entropy_srcs=[str(count), str(number), str(file.SeriesInstanceUID)]
            )
            file.InstanceNumber = number + 1
            for keyword in ("SliceLocation", "SpacingBetweenSlices"):
                if keyword in file:
                    delattr(file, keyword)
            file.save_as(folder / f"{number:04}.dcm")
        return folder


def find_series(folder: Path) -> Series:
    """The series in a folder, which is to hold one.

    Raises:
        click.UsageError: There are not at least three slices of one series.
    """
    found = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        try:
            header = _header(path)
        except InvalidDicomError:
            continue
        if "ImagePositionPatient" in header:
            place = float(header.ImagePositionPatient[2])
            found.append((place, path, header.SeriesInstanceUID, (int(header.Rows), int(header.Columns))))
    found.sort()
    if len(found) < 3 or len({each[2:] for each in found}) > 1:
        raise click.UsageError(f"{folder} does not hold one CT series; give another folder")
    return Series(tuple(path for _, path, *_ in found), found[0][3])


def draw_phantom(folder: Path) -> Path:
    """A series of the chest phantom, for machines without a collection; returns its folder."""
    edge = -_PHANTOM_PIXEL_MM * (_PHANTOM_SIDE - 1) / 2
    affine = np.zeros((4, 4))
    affine[0, 2] = affine[1, 1] = _PHANTOM_PIXEL_MM
    affine[2, 0] = _PHANTOM_GAP_MM
    affine[:, 3] = edge, edge + 5, -195.0, 1
    write_series(folder, grid=Grid((_PHANTOM_SLICES, _PHANTOM_SIDE, _PHANTOM_SIDE), affine))
    return folder


def _header(path: Path) -> pydicom.FileDataset:
    return pydicom.dcmread(path, stop_before_pixels=True)
