"""What each slice of a CT holds of each tissue, gathered slice by slice, in any order.

A tally keeps a few kilobytes a slice: for each tissue a profile from the patient's right to left, from which
volumes, sides and the curve along the body are taken once all slices are in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.contract import Input, Tissue
from bedside.ct.sampling import FEWEST, Estimate, estimate_sum
from bedside.scan import Grid

__all__ = ["AERATED_HU", "BIN_COLUMNS", "POSSIBLE", "SURE", "Tally", "normalise"]

AERATED_HU: Final = (-950.0, -700.0)
"""Well-aerated lung, HU: Colombi et al. 2020, "Well-aerated lung on admitting chest CT to predict adverse outcome in
COVID-19 pneumonia", Radiology 296:E86."""
SURE: Final = 0.75
"""Opacity at least as probable as this makes the low volume, where the bundle has no measured interval."""
POSSIBLE: Final = 0.25
"""The same for the high volume."""
BIN_COLUMNS: Final = 4
"""Columns of a profile's bin: 3 mm at the usual 0.7 mm, under the thickness of what parts the lungs."""


def normalise(hu: npt.NDArray[np.float32], spec: Input) -> npt.NDArray[np.float32]:
    """Clip HU to the network's window and map them to its scale, in place.

    Args:
        hu: Any shape, float32, HU; overwritten.
        spec: The bundle's input, which has an ``hu_window``.

    Returns:
        ``hu``, from ``spec.low`` to ``spec.high``.
    """
    low, high = spec.hu_window or (0.0, 1.0)
    scale = (spec.high - spec.low) / (high - low)
    np.clip(hu, low, high, out=hu)
    hu -= np.float32(low)
    hu *= np.float32(scale)
    hu += np.float32(spec.low)
    return hu


class Tally:
    """What each slice holds of each tissue.

    Args:
        grid: Of the labels.
        tissues: Of the bundle; the first is the background.
    """

    def __init__(self, grid: Grid, tissues: Sequence[Tissue]) -> None:
        slices, _, columns = grid.shape
        self.grid = grid
        self.tissues = tuple(tissues)
        self.bins = -(-columns // BIN_COLUMNS)
        """Bins of a profile, from the patient's right to left."""
        profiles = (slices, len(self.tissues), self.bins)
        self.voxels = np.zeros(profiles, np.float32)
        """Voxels by the labels, ``(Z, K, bins)``."""
        self.hu = np.zeros(profiles, np.float32)
        """Sum of their HU."""
        self.aerated = np.zeros((slices, self.bins), np.float32)
        """Voxels of lung that are well aerated."""
        self.expected = np.zeros(profiles, np.float32)
        """Sum of the probabilities, in voxels of the labels."""
        self.range = np.zeros((slices, 2), np.float64)
        """Voxels where opacity is `SURE`, and where it is `POSSIBLE`."""
        self.seen = np.zeros(slices, bool)
        """Which slices are in."""
        self._lung = np.array([tissue.lung for tissue in self.tissues])
        self._opacity = np.array([tissue.opacity for tissue in self.tissues])
        self._bin_of = np.arange(columns) // BIN_COLUMNS

    def add(
        self,
        index: int,
        hu: npt.NDArray[np.float32],
        labels: npt.NDArray[np.uint8],
        probabilities: npt.NDArray[np.float32],
    ) -> None:
        """Take in a slice.

        Args:
            index: Which slice.
            hu: ``(Y, X)`` float32, HU.
            labels: ``(Y, X)`` uint8.
            probabilities: ``(K, h, w)`` float32 over the same field, on any grid that parts it evenly.
        """
        rows, columns = labels.shape
        kinds = len(self.tissues)
        flat = np.flatnonzero(labels)
        label = labels.ravel()[flat]
        place = self._bin_of[flat % columns]
        values = hu.ravel()[flat]
        key = label.astype(np.intp) * self.bins + place
        self.voxels[index] = np.bincount(key, minlength=kinds * self.bins).reshape(kinds, self.bins)
        self.hu[index] = np.bincount(key, values, kinds * self.bins).reshape(kinds, self.bins)
        aerated = self._lung[label] & (values >= AERATED_HU[0]) & (values <= AERATED_HU[1])
        self.aerated[index] = np.bincount(place[aerated], minlength=self.bins)
        self.voxels[index, 0] = rows * np.bincount(self._bin_of) - self.voxels[index].sum(axis=0)

        _, height, width = probabilities.shape
        share = rows * columns / (height * width)  # voxels of the labels in one of the probabilities
        spread = (np.arange(width) + 0.5) * columns / width
        profile = np.ones(height, np.float32) @ probabilities  # (K, h, w) -> (K, w)
        for kind in range(kinds):
            self.expected[index, kind] = share * np.bincount(
                self._bin_of[spread.astype(np.intp)], profile[kind], self.bins
            )
        first, *others = (plane for plane, counts in zip(probabilities, self._opacity, strict=True) if counts)
        opacity = sum(others, first)
        self.range[index] = [share * np.count_nonzero(opacity >= limit) for limit in (SURE, POSSIBLE)]
        self.seen[index] = True

    def read(self) -> npt.NDArray[np.intp]:
        """Indices of the slices that are in, sorted."""
        return np.flatnonzero(self.seen)

    def opacity_so_far(self) -> Estimate | None:
        """The opacified volume of the whole scan from the slices that are in, mL; None while they are too few."""
        read = self.read()
        if len(read) < min(FEWEST, len(self.seen)):
            return None
        areas = self.voxels[read][:, self._opacity].sum(axis=(1, 2), dtype=np.float64)
        return estimate_sum(read, areas * self.grid.voxel_ml, len(self.seen))
