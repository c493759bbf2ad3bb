"""When a picture was taken, and whether two are of one patient: without telling or keeping whose they are.

A patient is held as marks: hashes with a key that is drawn anew for each `Marks` and never leaves the process. They can
be compared with each other, and give nothing away.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Final

from bedside.dicom.archive import open_archive
from bedside.dicom.elements import DataSet
from bedside.dicom.header import make_header
from bedside.dicom.source import Source, is_dicom, read_source
from bedside.dicom.tags import ISSUER_OF_PATIENT_ID, PATIENT_ID, Tag
from bedside.errors import InputError

__all__ = ["Marks", "Occasion", "Patient", "read_occasion"]

HEAD_BYTES: Final = 132
"""Enough to tell DICOM."""
IDENTITY: Final = frozenset({PATIENT_ID, ISSUER_OF_PATIENT_ID})
CLOCKS: Final = (
    ("acquisition", Tag.ACQUISITION_DATE, Tag.ACQUISITION_TIME),
    ("content", Tag.CONTENT_DATE, Tag.CONTENT_TIME),
    ("study", Tag.STUDY_DATE, Tag.STUDY_TIME),
)
"""What tells the time, nearest to the exposure first (PS3.3, C.7.6.1, C.8.1.2 and C.7.2.1)."""
_DATE: Final = re.compile(r"(\d{4})[.-]?(\d{2})[.-]?(\d{2})")
_TIME: Final = re.compile(r"(\d{2}):?(?:(\d{2}):?(?:(\d{2})(?:\.(\d{1,6}))?)?)?")
_DATE_TIME: Final = re.compile(r"(\d{8})(\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,6})?)?)?)?(?:[+-]\d{4})?")
"""Values of DA, TM and DT (PS3.5, table 6.2-1), also as older versions of the standard had them."""


@dataclass(frozen=True, slots=True)
class Patient:
    """Marks of a patient, of one `Marks`. An empty one says nothing."""

    number: bytes = field(repr=False)
    """Of Patient ID."""
    issuer: bytes = field(repr=False)
    """Of Issuer of Patient ID."""
    birth: bytes = field(repr=False)
    """Of the birth date."""


@dataclass(frozen=True, slots=True)
class Occasion:
    """When one picture was taken, and of whom."""

    taken: datetime | None
    """By the clock on the wall where it was taken, to the second; None where the file doesn't say. Offsets from UTC are
    left out."""
    timed: bool
    """Whether the time of day is known; else `taken` is midnight."""
    clock: str
    """What told the time, the first of `CLOCKS`; empty where nothing did."""
    patient: Patient | None
    """None where the file gives no Patient ID."""
    picture: bytes = field(repr=False)
    """Mark of the SOP Instance UID: two copies of one picture share it. Empty where it is missing."""
    view: str
    """View position, e.g. ``AP``; empty where the file is silent."""


class Marks:
    """Makes marks that can be compared with each other, and with no others'."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def of(self, value: bytes) -> bytes:
        """The mark of an attribute's value, padding and case aside; empty for an empty one."""
        text = b" ".join(value.replace(b"\0", b" ").split()).upper()
        return hashlib.blake2b(text, key=self._key, digest_size=16).digest() if text else b""


def read_occasion(path: str | os.PathLike[str], marks: Marks, *, series: str = "") -> Occasion | None:
    """When a picture or a scan was taken, and of whom.

    Args:
        path: A DICOM file, or a folder or zip of them; of several files the first counts.
        marks: Makes the marks.
        series: Series Instance UID; files of others are passed over. Empty for any.

    Returns:
        None where there is no DICOM file, or none of that series.

    Raises:
        InputError: ``not-found``, ``not-readable``, ``empty-file``, ``broken-dicom``.
    """
    with closing(open_archive(Path(path))) as archive:
        for number in range(len(archive)):
            try:
                with archive.open(number) as stream:
                    source = _read(stream)
            except InputError:
                if len(archive) == 1:
                    raise
                continue
            if source is not None and series in ("", source.dataset.text(Tag.SERIES_INSTANCE_UID)):
                return _occasion(source, marks)
    return None


def _read(stream: BinaryIO) -> Source | None:
    if not is_dicom(stream.read(HEAD_BYTES)):
        return None
    stream.seek(0)
    return read_source(stream, also=IDENTITY)


def _occasion(source: Source, marks: Marks) -> Occasion:
    dataset = source.dataset
    taken, timed, clock = _read_clocks(dataset)
    number = marks.of(_value(dataset, PATIENT_ID))
    issuer, birth = (
        marks.of(_value(dataset, tag)) for tag in (ISSUER_OF_PATIENT_ID, int(Tag.PATIENT_BIRTH_DATE))
    )
    patient = Patient(number, issuer, birth) if number else None
    picture = marks.of(_value(dataset, int(Tag.SOP_INSTANCE_UID)))
    return Occasion(taken, timed, clock, patient, picture, make_header(source).view_position)


def _value(dataset: DataSet, tag: int) -> bytes:
    element = dataset.elements.get(tag)
    return b"" if element is None else element.value


def _read_clocks(dataset: DataSet) -> tuple[datetime | None, bool, str]:
    """The first clock with a time of day, else the first with a date."""
    found = []
    whole = _DATE_TIME.fullmatch(dataset.text(Tag.ACQUISITION_DATE_TIME))
    if whole is not None:
        found.append(("acquisition", whole[1], whole[2] or ""))
    found += [(clock, dataset.text(date), dataset.text(time)) for clock, date, time in CLOCKS]
    read = [(_moment(date, time), clock) for clock, date, time in found]
    known = [(moment, clock) for moment, clock in read if moment is not None]
    for (taken, timed), clock in sorted(known, key=lambda each: not each[0][1]):
        return taken, timed, clock
    return None, False, ""


def _moment(date: str, time: str) -> tuple[datetime, bool] | None:
    """A date with its time of day, and whether that is known; None where there is no such date."""
    day = _DATE.fullmatch(date)
    if day is None:
        return None
    try:
        taken = datetime(int(day[1]), int(day[2]), int(day[3]))  # noqa: DTZ001 - the clock on the wall has no zone
    except ValueError:
        return None
    clock = _TIME.fullmatch(time)
    if clock is None:
        return taken, False
    hours, minutes, seconds = (int(part or 0) for part in clock.group(1, 2, 3))
    if hours > 23 or minutes > 59 or seconds > 60:  # 60: a leap second
        return taken, False
    return taken + timedelta(hours=hours, minutes=minutes, seconds=seconds), True
