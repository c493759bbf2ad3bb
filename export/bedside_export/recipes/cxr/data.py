"""The tables and pictures that the chest X-ray network learns from, and who may learn from whom.

The unit of every split is a patient, not a picture. `Collection` holds each picture with its patient,
after mending; `Split` says which patients are held out and refuses a training set that holds one of
them. No patient identifier reaches a message or a log.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Float = npt.NDArray[np.float32]
View = Literal["PA", "AP", "AP Supine", ""]
VIEWS: Final[tuple[View, ...]] = ("PA", "AP", "AP Supine")

MENDED_PATIENTS: Final[dict[str, str]] = {"178": "97", "201": "78"}
"""Patient -> the same patient's other number (pictures identical to within JPEG; ../shared/data/README.md)."""

MENDED_FILES: Final[tuple[tuple[re.Pattern[str], str], ...]] = ((re.compile(r"4-x-day\d+"), "196"),)
"""Pictures without a patient in metadata.csv whose patient is known (../shared/data/README.md)."""

ZONES: Final[tuple[str, ...]] = ("A", "D", "B", "E", "C", "F")
"""Brixia zones row by row as displayed: right upper, left upper, right middle, ... (A-C: the patient's
right lung, shown left). Borghesi and Maroldi 2020, doi 10.1007/s11547-020-01200-3."""

ZONE_MAXIMUM: Final = 3.0
"""A zone's score is 0-3 (same source)."""

SEVERITY_MAXIMA: Final = (8.0, 6.0)
"""Greatest geographic extent and opacity (Cohen et al. 2020, arXiv 2005.11856)."""

NEAR_DUPLICATE: Final = 0.95
"""Correlation of two 32x32 thumbnails from which on two pictures count as one. In this collection copies
of one picture reach 0.995 and more, different patients 0.94 but for two pairs at 0.98."""

OTHER_HALF: Final = 1000
"""Added to a shuffle's seed: the split whose halves are exchanged, so that two splits measure each patient once."""

_THUMBNAIL: Final = 32


class DataError(ValueError):
    """The data folder or one of its tables isn't what the recipe expects."""


class LeakError(ValueError):
    """A picture of a held-out patient was about to be trained on."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One frontal chest X-ray and what is known of it."""

    name: str
    """File name in ``images/``."""
    patient: str | None
    """The mended patient id; None where nobody knows whose picture it is."""
    view: View
    """Projection; empty where it isn't stated."""
    severity: tuple[float, float] | None = None
    """Mean of three experts: geographic extent 0-8 and opacity 0-6 (Cohen et al. 2020)."""
    zones: tuple[float, ...] | None = None
    """Mean Brixia score of the two radiologists for each of `ZONES`, 0-3."""

    @property
    def brixia(self) -> float | None:
        """Global Brixia score 0-18, or None."""
        return None if self.zones is None else float(sum(self.zones))


@dataclass(frozen=True, slots=True)
class Collection:
    """All pictures of the data folder, in order of their names."""

    root: Path
    """The folder that holds ``images/`` and the tables."""
    pictures: tuple[Picture, ...]
    """Every picture of ``images/``."""

    def __post_init__(self) -> None:
        if len({p.name for p in self.pictures}) != len(self.pictures):
            raise DataError("a picture is listed twice")

    @property
    def scored(self) -> tuple[Picture, ...]:
        """The pictures with an expert severity score."""
        return tuple(p for p in self.pictures if p.severity is not None)

    def grey(self, picture: Picture) -> Float:
        """Grey display values ``(H, W)``, 0 black to 1 white."""
        with Image.open(self.root / "images" / picture.name) as image:
            return np.asarray(image.convert("L"), dtype=np.float32) / np.float32(255)


def mend_patient(name: str, patient: str | None) -> str | None:
    """The patient of the picture ``name``, after mending what the tables have wrong."""
    for pattern, known in MENDED_FILES:
        if pattern.match(name):
            return known
    return MENDED_PATIENTS.get(patient, patient) if patient else None


def read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV file.

    Raises:
        DataError: the file is absent, empty, or lacks one of ``columns``.
    """
    if not path.is_file():
        raise DataError(
            f"{path.name} is missing from the data folder; --data wants the folder that holds cxr/"
        )
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    missing = [c for c in columns if not rows or c not in rows[0]]
    if missing:
        raise DataError(f"{path.name} has no rows or lacks the columns {missing}")
    return rows


def _view(text: str) -> View:
    return next((view for view in VIEWS if view == text), "")


def _score(text: str, maximum: float, column: str) -> float:
    """A score that lies within 0 and ``maximum``."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= maximum:
        raise DataError(f"a score in column {column} is not a number from 0 to {maximum:g}: mend the table")
    return value


def read_collection(data: Path) -> Collection:
    """Reads the X-ray part of the data folder (see its README for the tables).

    Args:
        data: The folder that holds ``cxr/``.

    Raises:
        DataError: a table or picture is missing, a score is outside its scale, or a scored picture has no patient.
    """
    root = data / "cxr"
    meta = {r["image"]: r for r in read_table(root / "metadata.csv", ("image", "patientid", "view"))}
    severity = {
        r["image"]: (
            _score(r["geographic_mean"], SEVERITY_MAXIMA[0], "geographic_mean"),
            _score(r["opacity_mean"], SEVERITY_MAXIMA[1], "opacity_mean"),
        )
        for r in read_table(root / "severity.csv", ("image", "geographic_mean", "opacity_mean"))
    }
    brixia = {
        r["image"]: tuple(
            sum(_score(r[f"{s}-{z}"], ZONE_MAXIMUM, f"{s}-{z}") for s in "SJ") / 2 for z in ZONES
        )
        for r in read_table(root / "brixia.csv", ("image", *(f"{s}-{z}" for s in "SJ" for z in ZONES)))
    }
    files = sorted(p.name for p in (root / "images").glob("*.jpg"))
    absent = (severity.keys() | brixia.keys()) - set(files)
    if absent:
        raise DataError(f"{len(absent)} scored pictures are missing from images/")
    pictures = []
    for name in files:
        row = meta.get(name, {})
        patient = mend_patient(name, row.get("patientid"))
        if patient is None and name in severity:
            raise DataError("a picture of severity.csv has no patient: it can't be split by patient")
        pictures.append(
            Picture(name, patient, _view(row.get("view", "")), severity.get(name), brixia.get(name)),
        )
    return Collection(root, tuple(pictures))


def group_shuffle_split(groups: list[str], *, train_size: float, seed: int) -> tuple[list[str], list[str]]:
    """The groups for training and for testing, drawn as scikit-learn's ``GroupShuffleSplit`` draws them.

    Args:
        groups: One group an item; repeats count once.
        train_size: The share of the groups, rounded down, that trains.
        seed: ``random_state`` of scikit-learn.
    """
    unique = np.unique(np.asarray(groups))
    train = int(train_size * len(unique))
    # scikit-learn's generator, not numpy's newer one
    order = np.random.RandomState(seed).permutation(len(unique))
    test = len(unique) - train
    return sorted(unique[order[test:]].tolist()), sorted(unique[order[:test]].tolist())


@dataclass(frozen=True, slots=True)
class Split:
    """Who trains and who is held out.

    Built by `split`; `check` holds what it promises.
    """

    seed: int
    """Seed of the shuffle, plus `OTHER_HALF` where its halves are exchanged."""
    training: tuple[Picture, ...]
    """Pictures that any stage may learn from."""
    held_out: tuple[Picture, ...]
    """Pictures of the held-out patients: never learnt from."""

    def check(self, pictures: tuple[Picture, ...] | list[Picture]) -> None:
        """Raises `LeakError` if one of ``pictures`` must not be learnt from in this split."""
        patients = {p.patient for p in self.held_out}
        allowed = {p.name for p in self.training}
        if any(p.name not in allowed or (p.patient is not None and p.patient in patients) for p in pictures):
            raise LeakError("a picture of a held-out patient is among those to train on")


def read_thumbnails(collection: Collection) -> dict[str, Float]:
    """A standardised thumbnail ``(1024,)`` of each picture: two thumbnails' product is their correlation."""
    thumbnails = {}
    for picture in collection.pictures:
        with Image.open(collection.root / "images" / picture.name) as image:
            image.draft("L", (2 * _THUMBNAIL, 2 * _THUMBNAIL))  # lets the JPEG decoder skip detail
            small = image.convert("L").resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
        values = np.asarray(small, dtype=np.float32).ravel()
        values = values - values.mean()
        thumbnails[picture.name] = values / max(float(np.linalg.norm(values)), 1e-6)
    return thumbnails


def held_out_patients(collection: Collection, *, seed: int, folds: int = 5) -> set[str]:
    """Half of the severity patients, and one in ``folds`` of the patients with AP or supine Brixia scores.

    The severity scores are all of PA pictures; the second group lets every AP picture be measured once in
    ``folds`` splits without taking more than a few from training. ``seed`` is a shuffle's, plus `OTHER_HALF` for
    its other half.
    """
    shuffle = seed % OTHER_HALF
    halves = group_shuffle_split([str(p.patient) for p in collection.scored], train_size=0.5, seed=shuffle)
    held_out = halves[0 if seed >= OTHER_HALF else 1]
    scored = {p.patient for p in collection.scored}
    portable = sorted(
        {p.patient for p in collection.pictures if p.zones and p.view in ("AP", "AP Supine") and p.patient}
        - scored,
    )
    order = np.random.RandomState(0).permutation(len(portable))
    return set(held_out) | {portable[i] for i in order[shuffle % folds :: folds]}


def split(collection: Collection, thumbnails: dict[str, Float], *, seed: int) -> Split:
    """One half split by patient; pictures too like a held-out one, known patient or not, don't train.

    Args:
        collection: All pictures.
        thumbnails: Theirs, by `read_thumbnails`.
        seed: Seed of the shuffle, plus `OTHER_HALF` to exchange its halves.
    """
    patients = held_out_patients(collection, seed=seed)
    held_out = tuple(p for p in collection.pictures if p.patient in patients)
    rest = [p for p in collection.pictures if p.patient not in patients]
    theirs = np.stack([thumbnails[p.name] for p in held_out])
    likeness = np.stack([thumbnails[p.name] for p in rest]) @ theirs.T  # (rest, held out)
    training = tuple(p for p, row in zip(rest, likeness, strict=True) if row.max() < NEAR_DUPLICATE)
    result = Split(seed, training, held_out)
    result.check(training)
    return result


def everyone(collection: Collection) -> Split:
    """The split of the final network: nobody is held out."""
    return Split(-1, collection.pictures, ())
