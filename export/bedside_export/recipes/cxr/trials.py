"""The table of degraded pictures' scores, between `cxr.degradations`, which makes it, and `cxr.widening`; no torch."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from bedside_export.recipes.cxr.data import read_table
from bedside_export.recipes.cxr.report import Prediction, read_predictions

__all__ = ["AS_TAKEN", "TABLE", "Trial", "read_trials", "write_trials"]

TABLE: Final = "degraded.csv"
"""What `cxr.degradations` writes beside ``predictions.csv``."""
AS_TAKEN: Final = "none"
"""The degradation that leaves a picture as it is."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One held-out picture's scores after one degradation."""

    degradation: str
    """One of `cxr.degradations.DEGRADATIONS`."""
    notes: tuple[str, ...]
    """Codes of the runtime's notes on it."""
    prediction: Prediction
    """Scores and truths."""


def write_trials(path: Path, trials: Sequence[Trial]) -> None:
    """Writes one row a trial: degradation, notes (separated by ``;``), then the columns of ``predictions.csv``."""
    names = [f.name for f in fields(Prediction)]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["degradation", "notes", *names])
        writer.writerows(
            [[t.degradation, ";".join(t.notes), *(getattr(t.prediction, n) for n in names)] for t in trials]
        )


def read_trials(path: Path) -> list[Trial]:
    """Reads what `write_trials` wrote.

    Raises:
        DataError: The table is missing or lacks a column.
    """
    rows = read_table(path, ("degradation", "notes", *(f.name for f in fields(Prediction))))
    return [
        Trial(row["degradation"], tuple(filter(None, row["notes"].split(";"))), prediction)
        for row, prediction in zip(rows, read_predictions(path), strict=True)
    ]
