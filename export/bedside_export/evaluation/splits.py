"""Who is learnt from and who is measured: halves of the patients, never of the pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupShuffleSplit

from bedside_export.errors import ExportError
from bedside_export.scores import ScoreTable, read_rows

__all__ = ["SPLITS", "Halves", "halve", "read_splits"]

SPLITS: Final = 50
"""Random halves of Cohen et al. 2020: seeds 0 to 49."""
_PARTS: Final = ("train", "test")
_LEAST: Final = 2
"""Fewest pictures on a side: one has no correlation and no spread."""

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Halves:
    """One split, as rows of the table."""

    name: str
    """Its seed, or what the user calls it."""
    train: Int64
    """Rows that may be learnt from, in order."""
    test: Int64
    """Rows that are measured, in order."""

    def check(self, patients: Sequence[str]) -> None:
        """Refuse what would measure on patients that were learnt from.

        Raises:
            ExportError: A patient is on both sides, or a side has fewer than two pictures.
        """
        if {patients[row] for row in self.train} & {patients[row] for row in self.test}:
            raise ExportError(
                f"split {self.name[:40]!r}: a patient is on both sides, so it would measure what was learnt by heart; "
                "put all pictures of a patient on one side"
            )
        if min(len(self.train), len(self.test)) < _LEAST:
            raise ExportError(
                f"split {self.name[:40]!r} has fewer than {_LEAST} pictures on a side; add pictures or leave it out"
            )


def halve(patients: Sequence[str], *, count: int = SPLITS) -> tuple[Halves, ...]:
    """The splits of Cohen et al. 2020: ``GroupShuffleSplit(train_size=0.5)`` of scikit-learn, a seed each from 0.

    Args:
        patients: Whose each picture is. As in the authors' tables, numbers are ordered as numbers, which says how
            a seed shuffles them.
        count: How many.

    Raises:
        ExportError: See `Halves.check`.
    """
    numbers = all(patient.isdecimal() for patient in patients)
    groups = [int(patient) for patient in patients] if numbers else list(patients)
    found = []
    for seed in range(count):
        splitter = GroupShuffleSplit(n_splits=1, train_size=0.5, random_state=seed)
        train, test = next(splitter.split(groups, groups=groups))
        found.append(Halves(str(seed), np.sort(train), np.sort(test)))
        found[-1].check(patients)
    return tuple(found)


def read_splits(path: Path, table: ScoreTable) -> tuple[Halves, ...]:
    """Splits that a user gives: a CSV file with the columns ``split``, ``image`` and ``part`` (train or test).

    A picture that a split doesn't name takes no part in it.

    Args:
        path: The CSV file.
        table: The scored pictures.

    Raises:
        ExportError: A row names no picture of the table, or one twice, or another part; or see `Halves.check`.
    """
    rows, _ = read_rows(path, ("split", "image", "part"), what="the table of splits")
    places = {image.name: place for place, image in enumerate(table.images)}
    parts: dict[str, dict[int, str]] = {}
    for number, row in rows:
        name, part = (row["split"] or "").strip(), (row["part"] or "").strip()
        place = places.get((row["image"] or "").strip())
        if place is None:
            raise ExportError(f"the table of splits, row {number}: the table of scores has no such picture")
        if part not in _PARTS:
            raise ExportError(f"the table of splits, row {number}: part must be train or test; mend it")
        if place in parts.setdefault(name, {}):
            raise ExportError(f"the table of splits, row {number}: the split names this picture before")
        parts[name][place] = part
    found = []
    for name, of in parts.items():
        train, test = (
            np.array(sorted(place for place, part in of.items() if part == wanted), np.int64)
            for wanted in _PARTS
        )
        found.append(Halves(name, train, test))
        found[-1].check(table.patients)
    return tuple(found)
