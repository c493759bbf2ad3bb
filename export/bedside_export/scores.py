"""A table of scored X-rays, read and checked."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside_export.errors import ExportError
from bedside_export.heads import BOUNDS

__all__ = ["COLUMNS", "ScoreTable", "read_scores"]

COLUMNS: Final = ("geographic_mean", "opacity_mean")
"""Columns of the scores, in the order of `bedside_export.heads.SCORES`; named as mlmed/covid-severity does."""
_IMAGE: Final = "image"
_PATIENT: Final = "patientid"


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Scored pictures, and whose they are."""

    images: tuple[Path, ...]
    """The files, all there."""
    scores: npt.NDArray[np.float64]
    """``(N, 2)``: extent, opacity, within their scales."""
    patients: tuple[str, ...]
    """Whose picture each is; a picture of nobody known counts as a patient of its own."""
    grouped: bool
    """Whether the table has a column of patients."""


def read_scores(table: Path, folder: Path) -> ScoreTable:
    """Read a CSV file with the columns ``image``, `COLUMNS` and, if it has it, ``patientid``.

    Args:
        table: The CSV file, UTF-8, with a header.
        folder: Where the pictures are.

    Raises:
        ExportError: The table can't be read, is empty, lacks a column, or a row has no picture in the folder,
            a score that is no number or out of its scale, or a picture named before. The message says which row.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = tuple(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ExportError("the table of scores can't be read as CSV; save it as CSV in UTF-8") from error
    if missing := [column for column in (_IMAGE, *COLUMNS) if column not in columns]:
        raise ExportError(
            f"the table of scores has no column {missing[0]!r}; it needs {', '.join((_IMAGE, *COLUMNS))}"
        )
    if not rows:
        raise ExportError("the table of scores has no rows; add scored pictures")
    images: dict[str, Path] = {}
    scores, patients = [], []
    for number, row in enumerate(rows, 2):  # the header is line 1
        name = (row[_IMAGE] or "").strip()
        path = folder / name
        if not name or Path(name).name != name or not path.is_file():
            raise ExportError(
                f"the table of scores, row {number}: no such picture in the folder; mend or remove it"
            )
        if name in images:
            raise ExportError(
                f"the table of scores, row {number}: this picture stands there before; keep one row"
            )
        images[name] = path
        scores.append([_score(row, number, column) for column in range(len(COLUMNS))])
        patients.append((row.get(_PATIENT) or "").strip() or f"alone {number}")
    return ScoreTable(tuple(images.values()), np.array(scores), tuple(patients), grouped=_PATIENT in columns)


def _score(row: dict[str, str], number: int, column: int) -> float:
    (low, high), name = BOUNDS[column], COLUMNS[column]
    try:
        value = float(row[name] or "")
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise ExportError(
            f"the table of scores, row {number}: {name} must be a number from {low:g} to {high:g}; mend it"
        )
    return value
