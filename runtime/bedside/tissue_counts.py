"""How far one segmentation lies from another, tissue by tissue, in clinical units.

Knows arrays only: labels and probabilities of two answers on the same tile are counted, counts are added up over
tiles, and the differences are taken of the sums, as volumes of a scan are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.contract import Tissue

__all__ = ["FEW_VOXELS", "TissueCounts", "count_tissues"]

FEW_VOXELS: Final = 1000
"""A tissue of fewer voxels is compared as if it had these: a share of hardly anything says nothing."""

_Counts = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TissueCounts:
    """Voxels of each tissue, ``(K,)`` float64 each."""

    reference: _Counts
    """By the reference's labels."""
    given: _Counts
    """By the labels of what is compared."""
    common: _Counts
    """By both."""
    reference_expected: _Counts
    """Sum of the reference's probabilities."""
    given_expected: _Counts
    """Sum of the probabilities of what is compared."""

    def __add__(self, other: TissueCounts) -> TissueCounts:
        return TissueCounts(
            self.reference + other.reference,
            self.given + other.given,
            self.common + other.common,
            self.reference_expected + other.reference_expected,
            self.given_expected + other.given_expected,
        )

    def absent(self) -> npt.NDArray[np.bool_]:
        """Which tissues neither has: there is nothing to compare."""
        absent: npt.NDArray[np.bool_] = (self.reference == 0) & (self.given == 0)
        return absent

    def dice_loss(self) -> _Counts:
        """1 - Dice of each tissue; of those under `FEW_VOXELS`, differing voxels in parts of twice that."""
        both = self.reference + self.given
        return np.asarray((both - 2 * self.common) / np.maximum(both, 2 * FEW_VOXELS))

    def volume_percent(self, tissues: Sequence[Tissue]) -> float:
        """Difference of the opacified volume, the larger of hard and expected, in percent of the reference's.

        Of a reference of under `FEW_VOXELS`, in percent of twice these: one voxel is the least that can differ.
        """
        opacity = np.array([tissue.opacity for tissue in tissues])
        pairs = ((self.reference, self.given), (self.reference_expected, self.given_expected))
        return max(
            100
            * abs(float(given[opacity].sum() - wanted[opacity].sum()))
            / max(float(wanted[opacity].sum()), 2 * FEW_VOXELS)
            for wanted, given in pairs
        )


def count_tissues(
    labels: npt.NDArray[np.uint8], expected: npt.NDArray[np.floating], given: npt.NDArray[np.floating]
) -> TissueCounts:
    """Count one tile.

    Args:
        labels: The reference's, any shape.
        expected: ``(K,)``: sums of the reference's probabilities over the tile.
        given: ``(K, ...)`` probabilities to compare, finite.
    """
    kinds = len(given)
    answer = given.argmax(axis=0).astype(np.uint8)
    return TissueCounts(
        _count(labels, kinds),
        _count(answer, kinds),
        _count(labels[labels == answer], kinds),
        np.asarray(expected, np.float64),
        given.reshape(kinds, -1).sum(axis=1, dtype=np.float64),
    )


def _count(labels: npt.NDArray[np.uint8], kinds: int) -> _Counts:
    return np.bincount(labels.ravel(), minlength=kinds).astype(np.float64)
