"""When each study was, and of whom: from its DICOM file, or as it is told."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from bedside.dicom import Marks, Occasion, Patient, read_occasion
from bedside.errors import InputError, RefusedError
from bedside.files import open_input
from bedside.trend.moments import Moment, moment_of, parse_moment
from bedside.trend.studies import Study

__all__ = ["Dated", "Told", "choose_patient", "date_studies", "may_be_of", "patient_of", "read_times"]

MAX_TABLE_BYTES: Final = 1 << 24
"""Largest table of times, 16 MiB."""
COLUMNS: Final = ("source", "time")
"""Of a table of times; others are passed over."""


@dataclass(frozen=True, slots=True)
class Dated:
    """A study, when it was, and of whom."""

    study: Study
    """What was found."""
    moment: Moment | None
    """None where nothing tells it."""
    clock: str
    """What told it: ``acquisition``, ``content``, ``study``, ``given``; empty where nothing did."""
    patient: Patient | None
    """None where nothing tells it."""
    picture: bytes
    """Mark of the picture or of the scan's first slice; empty where there is none."""
    view: str
    """View position, e.g. ``AP``; empty where nothing tells it."""


Told = Sequence[tuple[str, Moment]]
"""Source of a study, or the end of its path -> when it was."""


def read_times(path: str | os.PathLike[str]) -> list[tuple[str, Moment]]:
    """A table of times: CSV with the columns ``source`` and ``time``.

    Raises:
        InputError: ``not-found``, ``not-readable``, ``empty-file``; ``bad-attribute`` where it is no such table.
    """
    with open_input(path) as stream:
        data = stream.read(MAX_TABLE_BYTES)
    try:
        rows = list(csv.reader(data.decode("utf-8-sig").splitlines()))
        places = [rows[0].index(column) for column in COLUMNS]
        cells = [(row[places[0]], row[places[1]]) for row in rows[1:] if row]
    except (ValueError, LookupError, csv.Error) as error:
        raise InputError(
            "bad-attribute",
            f"the table of times is no CSV in UTF-8 with the columns {' and '.join(COLUMNS)}; write it so",
        ) from error
    return [(source, parse_moment(time)) for source, time in cells]


def date_studies(
    studies: Sequence[Study], told: Told, marks: Marks, *, others: Sequence[str] = ()
) -> list[Dated]:
    """When each study was, and of whom.

    What is told goes before what the file says. A result holds no time and no patient: they are read from the DICOM
    file that it names, if that is still there.

    Args:
        studies: Some.
        told: See `Told`.
        marks: Makes the patients' marks.
        others: Sources without an answer, of which a time may be told too.

    Raises:
        InputError: ``bad-attribute``: a time was told of no study, of several, or twice.
    """
    given = _match([*(study.source for study in studies), *others], told)
    return [_date(study, given.get(number), marks) for number, study in enumerate(studies)]


def patient_of(path: str | os.PathLike[str], marks: Marks) -> Patient:
    """The patient of a DICOM file, folder or zip.

    Raises:
        InputError: ``bad-attribute`` where it doesn't say; or it can't be read.
    """
    occasion = read_occasion(path, marks)
    if occasion is None or occasion.patient is None:
        raise InputError(
            "bad-attribute", "the file that chooses the patient gives no Patient ID; give another one"
        )
    return occasion.patient


def may_be_of(source: str, patients: Sequence[Patient], marks: Marks) -> bool:
    """Whether a study may be one of these patients', as far as its file says."""
    try:
        occasion = read_occasion(source, marks)
    except InputError:
        return True
    return (
        occasion is None
        or occasion.patient is None
        or occasion.patient.number in {each.number for each in patients}
    )


def choose_patient(dated: Sequence[Dated], wanted: int | Patient | None) -> list[Dated]:
    """The studies of one patient.

    Args:
        dated: Studies, perhaps of several.
        wanted: Which: the number in order of appearance, from 1, or the patient; None where there is but one.

    Returns:
        Theirs; where none was asked for, also those that don't say whose they are.

    Raises:
        RefusedError: ``several-patients``, also where one Patient ID stands with different dates of birth or issuers;
            ``no-studies`` where none is of the patient who was asked for.
    """
    groups: dict[bytes, list[Dated]] = {}
    for each in dated:
        if each.patient is not None:
            groups.setdefault(each.patient.number, []).append(each)
    if len(groups) < 2 and wanted is None:
        chosen = list(dated)
    elif wanted is None:
        counts = ", ".join(f"{n}: {_studies(len(group))}" for n, group in enumerate(groups.values(), 1))
        raise RefusedError(
            "several-patients",
            f"studies of {len(groups)} patients ({counts}); choose one with --patient, by this number or by a "
            "DICOM file of theirs",
        )
    else:
        key = wanted.number if isinstance(wanted, Patient) else dict(enumerate(groups, 1)).get(wanted, b"")
        chosen = groups.get(key, [])
        if not chosen:
            raise RefusedError(
                "no-studies",
                f"no study is of the patient who was chosen; how many patients there are: {len(groups)}",
            )
    _check_one(chosen)
    return chosen


def _date(study: Study, given: Moment | None, marks: Marks) -> Dated:
    occasion = _occasion(study, marks)
    if given is not None:
        moment, clock = given, "given"
    elif occasion is not None and occasion.taken is not None:
        moment, clock = moment_of(occasion.taken, timed=occasion.timed), occasion.clock
    else:
        moment, clock = None, ""
    if occasion is None:
        return Dated(study, moment, clock, None, b"", "")
    return Dated(study, moment, clock, occasion.patient, occasion.picture, occasion.view)


def _occasion(study: Study, marks: Marks) -> Occasion | None:
    try:
        return read_occasion(study.source, marks, series=study.series)
    except InputError:  # gone or moved since it was scored: then its time has to be told
        return None


def _match(sources: Sequence[str], told: Told) -> dict[int, Moment]:
    """Number of a study -> what was told of it."""
    found: dict[int, Moment] = {}
    for place, (name, moment) in enumerate(told, 1):
        numbers = [number for number, source in enumerate(sources) if _is_same(source, name)]
        if not numbers:
            numbers = [number for number, source in enumerate(sources) if _ends_with(source, name)]
        if len(numbers) != 1 or numbers[0] in found:
            problem = (
                "names no study"
                if not numbers
                else "names several studies"
                if len(numbers) > 1
                else "is the second one"
            )
            raise InputError(
                "bad-attribute",
                f"time {place} of {len(told)} {problem}; name each study once, by as much of its path as it takes",
            )
        found[numbers[0]] = moment
    return found


def _is_same(source: str, name: str) -> bool:
    return source == name or os.path.realpath(source) == os.path.realpath(name)


def _ends_with(source: str, name: str) -> bool:
    parts = PurePath(name).parts
    return bool(parts) and PurePath(source).parts[-len(parts) :] == parts


def _studies(count: int) -> str:
    return "1 study" if count == 1 else f"{count} studies"


def _check_one(chosen: Iterable[Dated]) -> None:
    patients = [each.patient for each in chosen if each.patient is not None]
    for marks in ({patient.birth for patient in patients}, {patient.issuer for patient in patients}):
        if len(marks - {b""}) > 1:
            raise RefusedError(
                "several-patients",
                "one Patient ID stands with different dates of birth or issuers, so these may be two patients; give "
                "the studies of one, or --same-patient if you know that they are",
            )
