"""Labels that the sides of the CT comparison wrote, and how far they agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bedside.nifti.reading import read_labels

__all__ = ["dice", "read_any"]


def read_any(path: Path) -> npt.NDArray[Any]:
    """Labels ``(Z, Y, X)`` that a side wrote."""
    if path.suffix == ".npz":
        with np.load(path) as archive:
            return np.asarray(archive["labels"])
    return read_labels(path)[0]


def dice(one: npt.NDArray[Any], other: npt.NDArray[Any], classes: int) -> list[float | None]:
    """Dice of each class; None where neither has a voxel of it."""
    found: list[float | None] = []
    for label in range(classes):
        a, b = one == label, other == label
        total = int(a.sum()) + int(b.sum())
        found.append(2 * int((a & b).sum()) / total if total else None)
    return found
