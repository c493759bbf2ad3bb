"""Folders of X-rays in the layout that the recipes learn from, read and checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bedside_export.errors import ExportError
from bedside_export.recipes.cxr.data import mend_patient
from bedside_export.scores import ScoreTable, read_rows, read_scores

__all__ = ["MIN_PATIENTS", "Known", "check_patients", "read_layout", "read_metadata"]

MIN_PATIENTS: Final = 10
"""Fewest patients that are halved: with less, a half says nothing."""


@dataclass(frozen=True, slots=True)
class Known:
    """What ``metadata.csv`` tells of a picture."""

    patient: str
    """The mended patient; empty where nobody knows whose picture it is."""
    view: str
    """Projection, such as ``PA``; empty where it isn't stated."""


def read_layout(folder: Path) -> ScoreTable:
    """The scored X-rays of a folder with ``severity.csv``, ``metadata.csv`` and ``images/``.

    Patients are of ``metadata.csv``, mended as in the recipes.

    Raises:
        ExportError: As `read_scores`; or a scored picture has no patient.
    """
    _require_folder(folder)
    table = read_scores(folder / "severity.csv", folder / "images")
    known = read_metadata(folder)
    patients = []
    for number, image in enumerate(table.images, 2):
        patient = known.get(image.name, Known(mend_patient(image.name, None) or "", "")).patient
        if not patient:
            raise ExportError(
                f"severity.csv, row {number}: metadata.csv has no patient for this picture, so it can't be split by "
                "patient; remove it"
            )
        patients.append(patient)
    return replace(table, patients=tuple(patients), grouped=True, alone=0)


def read_metadata(folder: Path) -> dict[str, Known]:
    """Picture -> what ``metadata.csv`` of the folder tells of it.

    Raises:
        ExportError: The table can't be read, or lacks a column.
    """
    _require_folder(folder)
    rows, _ = read_rows(folder / "metadata.csv", ("image", "patientid", "view"), what="metadata.csv")
    return {
        row["image"]: Known(mend_patient(row["image"], row["patientid"] or None) or "", row["view"] or "")
        for _, row in rows
    }


def check_patients(table: ScoreTable) -> None:
    """Refuse a table that can't be split by patient.

    Raises:
        ExportError: It has no column of patients, a row without one, or fewer than `MIN_PATIENTS` patients.
    """
    if not table.grouped or table.alone:
        what = "a picture without a patient" if table.grouped else "no column of patients"
        raise ExportError(
            f"the table of scores has {what}, so it can't be split by patient; where each picture is of another "
            "patient, name the column of pictures with --patient-column"
        )
    count = len(set(table.patients))
    if count < MIN_PATIENTS:
        raise ExportError(f"the table of scores has {count} patients; halves need at least {MIN_PATIENTS}")


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ExportError(
            "no such folder of data; give the one that holds severity.csv, metadata.csv and images/"
        )
