"""Readers of phantoms who disagree in known ways, to train on and to measure against.

A reader draws each lesion a little too large or too small, takes one pattern for another now and then, and misses
some lesions: each with a known probability, so that what a panel of such readers says of a voxel is known, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from bedside_export.recipes.ct.lungs import Labels
from bedside_export.recipes.ct.phantoms import PIXEL_MM, SLICE_MM, Specimen

__all__ = ["Reader", "majority", "read_specimen"]


@dataclass(frozen=True, slots=True)
class Reader:
    """How one reader errs."""

    shift_mm: float = 0.0
    """How far outside of a lesion's edge the reader draws, on average; under 0 inside."""
    spread_mm: float = 0.0
    """Standard deviation of that from lesion to lesion."""
    missed: float = 0.0
    """Probability of missing a lesion."""
    confusion: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Pattern -> what it is taken for -> probability; they add up to 1. A pattern that is not here is known."""

    def __post_init__(self) -> None:
        """Refuse what are no probabilities."""
        rows = [tuple(row.values()) for row in self.confusion.values()]
        if not 0 <= self.missed <= 1 or self.spread_mm < 0:
            raise ValueError("missed must be a probability and spread_mm not negative")
        if any(min(row, default=0) < 0 or not isclose(sum(row), 1) for row in rows):
            raise ValueError("each row of the confusion must be probabilities that add up to 1")


def read_specimen(
    specimen: Specimen,
    readers: Sequence[Reader],
    classes: Mapping[str, int],
    chance: np.random.Generator,
    *,
    sides: tuple[int, int] = (1, 2),
) -> npt.NDArray[np.uint8]:
    """What each reader draws.

    Args:
        specimen: The phantom.
        readers: Who reads.
        classes: Pattern -> its class.
        chance: Source of chance.
        sides: Classes of the left lung and of the right.

    Returns:
        ``(Z, R, Y, X)`` classes, 0 outside of the lungs.
    """
    lungs = np.asarray((0, *sides), np.uint8)[specimen.lungs]
    drawn = [lungs.copy() for _ in readers]
    for lesion in specimen.lesions:
        sampling = (SLICE_MM, PIXEL_MM, PIXEL_MM)
        outside = ndimage.distance_transform_edt(~lesion.where, sampling=sampling)
        inside = ndimage.distance_transform_edt(lesion.where, sampling=sampling)
        beyond = (
            outside - inside
        )  # below 0 in the lesion; half a pixel lies between its edge and the next centre
        for reader, labels in zip(readers, drawn, strict=True):
            shift = reader.shift_mm + reader.spread_mm * chance.normal()
            seen = chance.uniform() >= reader.missed
            row = reader.confusion.get(lesion.pattern, {lesion.pattern: 1.0})
            taken_for = str(chance.choice(np.asarray(list(row)), p=np.asarray(list(row.values()))))
            if seen:
                labels[(beyond <= shift) & (specimen.lungs > 0)] = classes[taken_for]
    return np.stack(drawn, 1)


def majority(readings: npt.NDArray[np.uint8], classes: int) -> Labels:
    """What most readers say; of equals the lowest class.

    Args:
        readings: ``(Z, R, Y, X)`` classes.
        classes: How many there are.

    Returns:
        ``(Z, 1, Y, X)``.
    """
    votes = np.stack([(readings == k).sum(1) for k in range(classes)])
    return np.asarray(votes.argmax(0)[:, None], np.uint8)
