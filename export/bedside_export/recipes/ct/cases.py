"""Which scans with masks a folder holds, of whom and from which scanner, and who is held out.

    scans/                      one scanner, or
    scans/SCANNER/              a folder for each
        NAME.nii.gz             a CT in HU, and beside it
        NAME-labels.nii.gz      its labels; of several readers NAME-labels-1.nii.gz, NAME-labels-2.nii.gz ...
        images/NAME.nii.gz      or apart, under the same name
        labels/NAME.nii.gz
        NAME/0000.png           or slices as pictures, each with its 0000-opacity.png

A table in CSV may say more: ``case`` (a path under the folder, with or without its ending), and any of ``source``,
``patient`` and ``part``. Scans of one name are taken for one patient's. Messages number cases in the order of their
paths: names may be patients'.
"""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bedside_export.errors import ExportError
from bedside_export.recipes.ct.data import MASKS

__all__ = ["PARTS", "Entry", "list_cases", "split_cases"]

TRAIN, HELD_OUT, TEST = PARTS = ("train", "held-out", "test")
"""What a case is for: to learn from, to stop by, or to be measured alone."""
ONE_SOURCE: Final = "all"
"""Name of the source where folders name none."""
_NIFTI: Final = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_LABELS: Final = re.compile(r"^(.+?)[-_](?:labels?|masks?|msk|seg)(?:[-_]([^-_]+))?$", re.IGNORECASE)
"""Name of a label file: its scan's, and its reader's if there are several."""
_CHANNEL: Final = re.compile(r"_0000$")
"""nnU-Net numbers the channels of a scan."""
_APART: Final = ("images", "labels")
_COLUMNS: Final = ("case", "source", "patient", "part")


@dataclass(frozen=True, slots=True)
class Entry:
    """A case of the folder, not read yet."""

    number: int
    """Its place in the order of paths, from 1: what messages call it."""
    key: str
    """Its path under the folder without ending."""
    source: str
    """Scanner or hospital."""
    patient: str
    """Whose scan it is."""
    image: Path
    """A NIfTI file, or a folder of pictures."""
    readings: tuple[Path, ...]
    """Label maps, one a reader; none for a folder of pictures."""
    part: str = ""
    """One of `PARTS`; empty until it is chosen."""


def list_cases(folder: Path, table: Path | None = None) -> tuple[Entry, ...]:
    """The cases of a folder, in the order of their paths.

    Raises:
        ExportError: There is no such folder, it is empty, a scan has no labels or labels no scan, or the table is not
            of this folder.
    """
    if not folder.is_dir():
        raise ExportError("there is no such folder of masks; give one that holds scans and their labels")
    found = _list_folder(folder, folder, ONE_SOURCE)
    for child in _folders(folder):
        if child.name not in _APART and not _has_pictures(child):
            found += _list_folder(folder, child, child.name)
    if not found:
        raise ExportError(
            "the folder holds no scan with masks; it wants NAME.nii.gz beside NAME-labels.nii.gz, or folders of "
            "0000.png beside 0000-opacity.png"
        )
    entries = tuple(
        replace(entry, number=number)
        for number, entry in enumerate(sorted(found, key=lambda entry: entry.key), 1)
    )
    return entries if table is None else _apply(entries, _read_table(table))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _has_pictures(folder: Path) -> bool:
    return any(folder.glob(MASKS))


def _list_folder(root: Path, folder: Path, source: str) -> list[Entry]:
    """What lies in ``folder`` itself."""

    def entry(stem: str, image: Path, readings: Sequence[Path]) -> Entry:
        key = (image.parent / stem).relative_to(root).as_posix()
        return Entry(0, key, source, stem, image, tuple(sorted(readings)))

    here = folder if not _has_pictures(folder) else folder.parent
    pictures = [folder] if here != folder else [each for each in _folders(folder) if _has_pictures(each)]
    found = [Entry(0, each.relative_to(root).as_posix(), source, each.name, each, ()) for each in pictures]
    images, labels = _sort_files(here if here == folder else None)
    for stem, readings in labels.items():
        if stem not in images:
            raise ExportError(
                f"{len(readings)} label files lie beside no scan of their name; put NAME.nii.gz beside "
                "NAME-labels.nii.gz"
            )
    for stem, image in images.items():
        found.append(entry(stem, image, labels.get(stem, ())))
    apart = [folder / name for name in _APART]
    if all(path.is_dir() for path in apart):
        scans, drawn = (_stems(path) for path in apart)
        if lonely := scans.keys() ^ drawn.keys():
            raise ExportError(
                f"{len(lonely)} files of images/ and labels/ have no partner of the same name; complete them"
            )
        found += [entry(stem, image, (drawn[stem],)) for stem, image in scans.items()]
    if bare := sum(not each.readings and each.image.is_file() for each in found):
        raise ExportError(
            f"{bare} of {len(found)} scans of a folder have no labels beside them; name those NAME-labels.nii.gz, "
            "or take the scans away"
        )
    return found


def _sort_files(folder: Path | None) -> tuple[dict[str, Path], dict[str, list[Path]]]:
    """Scans by name, and label maps by the name of their scan."""
    images: dict[str, Path] = {}
    labels: dict[str, list[Path]] = {}
    for stem, path in _stems(folder).items() if folder else ():
        match = _LABELS.match(stem)
        if match:
            labels.setdefault(match[1], []).append(path)
        else:
            images[stem] = path
    return images, labels


def _stems(folder: Path) -> dict[str, Path]:
    files = sorted(path for path in folder.iterdir() if path.is_file() and _NIFTI.search(path.name))
    return {_CHANNEL.sub("", _NIFTI.sub("", path.name)): path for path in files if path.name[0] != "."}


def _read_table(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
            columns = reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ExportError("the table can't be read; give a CSV file in UTF-8") from error
    if "case" not in columns or set(columns) - set(_COLUMNS):
        raise ExportError(
            f"the table wants a column case, and may have {', '.join(_COLUMNS[1:])}; rename its columns"
        )
    return rows


def _apply(entries: Sequence[Entry], rows: Sequence[dict[str, str]]) -> tuple[Entry, ...]:
    """The cases that the table names, as it describes them."""
    by_key = {entry.key: entry for entry in entries}
    taken: dict[str, Entry] = {}
    for number, row in enumerate(rows, 2):
        key = _CHANNEL.sub("", _NIFTI.sub("", row["case"].rstrip("/")))
        if key not in by_key:
            raise ExportError(
                f"row {number} of the table names a case that is not in the folder; mend it, or add the scan and its "
                "labels"
            )
        if key in taken:
            raise ExportError(f"row {number} of the table names a case for the second time; keep one")
        part = row.get("part", "")
        if part and part not in PARTS:
            raise ExportError(f"row {number} of the table: part must be one of {', '.join(PARTS)}, or empty")
        entry = by_key[key]
        taken[key] = replace(
            entry,
            source=row.get("source") or entry.source,
            patient=row.get("patient") or entry.patient,
            part=part,
        )
    if not taken:
        raise ExportError("the table names no case; fill it, or leave it out")
    return tuple(sorted(taken.values(), key=lambda entry: entry.number))


def split_cases(entries: Sequence[Entry], *, share: float, seed: int) -> tuple[Entry, ...]:
    """Say of each case what it is for: whole patients are held out, of each source at least one where it has two.

    Args:
        entries: Those whose part is set already keep it.
        share: Of the patients of a source, over 0 and under 1, to hold out.
        seed: Of chance.

    Raises:
        ExportError: A patient is on two sides, or nobody is left on one.
    """
    parts: dict[str, str] = {}
    for entry in entries:
        if entry.part and parts.setdefault(entry.patient, entry.part) != entry.part:
            raise ExportError(
                f"the patient of case {entry.number} is on both sides, {parts[entry.patient]} and {entry.part}; one "
                "patient's scans belong on one side"
            )
    chance = random.Random(seed)  # noqa: S311 - a draw of lots, no secret
    for source in sorted({entry.source for entry in entries}):
        patients = sorted({entry.patient for entry in entries if entry.source == source})
        wanted = max(1, round(share * len(patients))) if len(patients) > 1 else 0
        wanted -= sum(parts.get(patient) == HELD_OUT for patient in patients)
        free = [patient for patient in patients if patient not in parts]
        chance.shuffle(free)
        parts.update(dict.fromkeys(free[: max(0, wanted)], HELD_OUT))
        parts.update(dict.fromkeys(free[max(0, wanted) :], TRAIN))
    made = tuple(replace(entry, part=parts[entry.patient]) for entry in entries)
    for part, purpose in ((TRAIN, "learn from"), (HELD_OUT, "hold out")):
        if not any(entry.part == part for entry in made):
            raise ExportError(
                f"there is no patient to {purpose}: {len(parts)} in all; fine-tuning needs two patients of one source "
                "or more, or a table that says who is held out"
            )
    return made
