"""Which series there are in a folder, a zip or a file, and which of them to read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bedside.dicom.archive import Archive, open_archive
from bedside.dicom.slices import Part, Slice, read_part
from bedside.dicom.source import is_dicom
from bedside.errors import InputError, RefusedError

__all__ = ["Catalogue", "Series", "SeriesInfo", "list_series", "read_catalogue"]

HEAD_BYTES: Final = 132
"""Enough to tell DICOM."""
MODALITY: Final = "CT"


@dataclass(frozen=True, slots=True)
class SeriesInfo:
    """One series, as it is listed. Holds no identifier of a patient; the UID serves to choose it."""

    number: int
    """Place in the list, from 1: names the series as its UID does."""
    uid: str
    """Series Instance UID; empty where the files have none."""
    modality: str
    """Modality, e.g. ``CT``."""
    files: int
    """How many files it has."""
    slices: int
    """How many pictures of it have a place in the patient, and are no localizers."""


@dataclass(frozen=True, slots=True)
class Series:
    """The files of one series."""

    info: SeriesInfo
    """What is listed."""
    parts: tuple[Part, ...]
    """One of each file, in the order of the files' names."""

    @property
    def slices(self) -> list[Slice]:
        """All its pictures, in the order of the files."""
        return [item for part in self.parts for item in part.slices]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All series of an archive."""

    series: tuple[Series, ...]
    """In the order of their UIDs."""
    others: int
    """Files that are not DICOM."""
    unreadable: int
    """Files that are, or say so by their names, and whose header can't be read."""

    def choose(self, wanted: str | None) -> Series:
        """The one series to read.

        Where none is named, a CT series that could be no volume (a localizer alone, say) is passed over as long
        as one other is left.

        Args:
            wanted: Its UID, or its number in the list.

        Raises:
            RefusedError: ``no-series``, ``several-series``, ``wrong-modality``.
            InputError: ``broken-dicom``: no file could be read.
        """
        if not self.series:
            raise self._nothing()
        if wanted is not None:
            return self._find(wanted)
        scans = [one for one in self.series if one.info.modality == MODALITY]
        if not scans:
            kinds = Counter(part.modality for one in self.series for part in one.parts)
            seen = ", ".join(f"{count} {kind or 'of no modality'}" for kind, count in sorted(kinds.items()))
            raise RefusedError("wrong-modality", f"no CT among the DICOM files ({seen}); give a CT series")
        likely = [one for one in scans if one.info.slices > 1] or scans
        if len(likely) > 1:
            raise RefusedError(
                "several-series",
                f"{len(likely)} CT series: {self._listed(likely)}; choose one with --series, by number or UID",
            )
        return likely[0]

    def _find(self, wanted: str) -> Series:
        found = [one for one in self.series if wanted in {one.info.uid, str(one.info.number)}]
        if not found:
            raise RefusedError("no-series", f"no such series; there are {self._listed(self.series)}")
        scans = [one for one in found if one.info.modality == MODALITY]
        if not scans:
            raise RefusedError(
                "wrong-modality",
                f"the series that was chosen is {found[0].info.modality or 'of no modality'}; choose a CT",
            )
        return scans[0]

    def _nothing(self) -> InputError | RefusedError:
        if self.unreadable:
            return InputError(
                "broken-dicom",
                f"none of {self.unreadable} DICOM files can be read; copy or export them again",
            )
        return RefusedError(
            "no-series",
            f"no DICOM file ({self.others} others); give the folder of a CT series, or a zip of it",
        )

    @staticmethod
    def _listed(series: Sequence[Series]) -> str:
        """One line, without UIDs: they are for `list_series`."""
        return ", ".join(
            f"{one.info.number}: {one.info.modality or 'no modality'}, {one.info.slices} slices"
            for one in series
        )


def read_catalogue(archive: Archive) -> Catalogue:
    """Read the headers of all files.

    Raises:
        InputError: ``not-an-image`` where the only file is not DICOM; any code where it can't be opened.
    """
    groups: dict[tuple[str, str], list[Part]] = {}
    others = unreadable = 0
    for number in range(len(archive)):
        try:
            with archive.open(number) as stream:
                known = is_dicom(stream.read(HEAD_BYTES))
                if not known and not archive.is_named_dicom(number):
                    others += 1
                    continue
                stream.seek(0)
                part = read_part(stream, number)
        except InputError as error:
            if len(archive) == 1:
                raise
            if error.code == "empty-file" and not archive.is_named_dicom(number):
                others += 1
            else:
                unreadable += 1
            continue
        groups.setdefault((part.series_uid, part.modality), []).append(part)
    series = tuple(_make_series(number, groups[key]) for number, key in enumerate(sorted(groups), 1))
    return Catalogue(series, others, unreadable)


def list_series(path: str | os.PathLike[str]) -> list[SeriesInfo]:
    """What series there are in a folder, in a zip of one, or in a DICOM file.

    Args:
        path: The folder (searched with those in it), the zip, or the file. What is not DICOM is left out.

    Returns:
        In the order of their UIDs, whatever their modality; none where there is no DICOM file.

    Raises:
        InputError: ``not-found``, ``not-readable``, ``not-an-image``, ``broken-dicom``.
    """
    archive = open_archive(path)
    try:
        return [series.info for series in read_catalogue(archive).series]
    finally:
        archive.close()


def _make_series(number: int, parts: list[Part]) -> Series:
    slices = [item for part in parts for item in part.slices]
    placed = sum(1 for item in slices if item.plane is not None and not item.localizer)
    info = SeriesInfo(number, parts[0].series_uid, parts[0].modality, len(parts), placed)
    return Series(info, tuple(parts))
