"""A table of scored X-rays, read and checked."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside_export.errors import ExportError
from bedside_export.heads import BOUNDS

__all__ = ["COLUMNS", "Columns", "ScoreTable", "read_rows", "read_scores"]

COLUMNS: Final = ("geographic_mean", "opacity_mean")
"""Columns of the scores, in the order of `bedside_export.heads.SCORES`; named as mlmed/covid-severity does."""


@dataclass(frozen=True, slots=True)
class Columns:
    """How a table names what it holds."""

    image: str = "image"
    """The file of a picture."""
    extent: str = COLUMNS[0]
    """Its geographic extent."""
    opacity: str = COLUMNS[1]
    """Its degree of opacity."""
    patient: str = "patientid"
    """Whose it is; the column may be missing."""


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
    bounds: tuple[tuple[float, float], ...] = BOUNDS
    """Scales of the scores."""
    alone: int = 0
    """Pictures of nobody known."""


def read_scores(
    table: Path, folder: Path, *, columns: Columns = Columns(), bounds: Sequence[tuple[float, float]] = BOUNDS
) -> ScoreTable:
    """Read a CSV file of pictures, their scores and, if it has that column, their patients.

    Args:
        table: The CSV file, UTF-8, with a header.
        folder: Where the pictures are.
        columns: Names of the columns.
        bounds: Scales of extent and opacity.

    Raises:
        ExportError: The table can't be read, is empty, lacks a column, or a row has no picture in the folder,
            a score that is no number or out of its scale, or a picture named before. The message says which row.
    """
    names = (columns.extent, columns.opacity)
    rows, given = read_rows(table, (columns.image, *names))
    images: dict[str, Path] = {}
    scores, patients, alone = [], [], 0
    for number, row in rows:
        name = (row[columns.image] or "").strip()
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
        scores.append([_score(row, number, name, limits) for name, limits in zip(names, bounds, strict=True)])
        patient = (row.get(columns.patient) or "").strip()
        alone += not patient
        patients.append(patient or f"alone {number}")
    return ScoreTable(
        tuple(images.values()),
        np.array(scores),
        tuple(patients),
        grouped=columns.patient in given,
        bounds=tuple(bounds),
        alone=alone,
    )


def read_rows(
    table: Path, columns: Sequence[str], *, what: str = "the table of scores"
) -> tuple[list[tuple[int, dict[str, str]]], tuple[str, ...]]:
    """Rows of a CSV file with their numbers as an editor counts them, and the names of all its columns.

    Args:
        table: The CSV file, UTF-8, with a header.
        columns: Those that it must have.
        what: What the table is, for messages.

    Raises:
        ExportError: It can't be read, lacks a column, or has no rows.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            given = tuple(reader.fieldnames or ())
            rows = list(enumerate(reader, 2))  # the header is line 1
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ExportError(f"{what} can't be read as CSV; save it as CSV in UTF-8") from error
    if missing := [column for column in columns if column not in given]:
        raise ExportError(f"{what} has no column {missing[0]!r}; it needs {', '.join(columns)}")
    if not rows:
        raise ExportError(f"{what} has no rows; add scored pictures")
    return rows, given


def _score(row: dict[str, str], number: int, name: str, limits: tuple[float, float]) -> float:
    low, high = limits
    try:
        value = float(row[name] or "")
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise ExportError(
            f"the table of scores, row {number}: {name} must be a number from {low:g} to {high:g}; mend it"
        )
    return value
