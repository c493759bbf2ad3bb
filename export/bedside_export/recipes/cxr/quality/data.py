"""Chest X-rays and everything else that the quality network learns from, and what is held out of what.

Held out are whole patients among the chest X-rays, and whole kinds of pictures among the others: what is measured
of a photograph is measured of a network that has never seen one.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bedside.chest import CASES, chest_phantom
from bedside.reading import read_radiograph
from bedside.sample import write_sample
from bedside_export.recipes.cxr.data import (
    NEAR_DUPLICATE,
    Collection,
    DataError,
    Float,
    LeakError,
    read_collection,
    read_thumbnails,
)
from bedside_export.recipes.cxr.quality.drawn import DRAWN, draw
from bedside_export.recipes.cxr.quality.packages import PACKAGES, read_pictures
from bedside_export.recipes.cxr.quality.volumes import (
    cut_planes,
    cut_slices,
    project_sides,
    read_bodies,
    read_single_slices,
)
from bedside_export.recipes.cxr.targets import input_square

__all__ = ["FOLDS", "HELD_OUT", "Chests", "Others", "assign_folds", "read_chests", "read_others"]

log = logging.getLogger(__name__)

FOLDS: Final = 5
"""Parts of the cross-validation."""
HELD_OUT: Final = (
    ("axial CT", "white noise", "blank"),
    ("CT planes", "limbs", "ramps"),
    ("projections", "two ovals", "stripes"),
    ("other imaging", "charts", "checkers", "two beside each other"),
    ("photographs", "objects", "pages", "shapes", "clouds"),
)
"""Kinds that the fold of that number has not seen. What is like each other is in one fold."""
DRAWN_EACH: Final = 60
"""Pictures drawn of each kind."""
PHANTOM_SEEDS: Final = (0, 1)
"""Seeds of the quantum noise in pictures of each phantom."""

_Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Chests:
    """Frontal chest X-rays: patients' and the phantom's."""

    squares: Tensor
    """``(P, 1, 320, 320)`` uint8: input squares."""
    extents: Tensor
    """``(P, 2)`` float32: half width and half height of the picture in its square."""
    folds: Tensor
    """``(P,)`` int64: the fold that holds a picture out."""
    phantoms: Tensor
    """``(P,)`` bool: of the phantom."""

    def __post_init__(self) -> None:
        if not len(self.squares) == len(self.extents) == len(self.folds) == len(self.phantoms):
            raise DataError("the arrays of chest X-rays are not of one length")


@dataclass(frozen=True, slots=True)
class Others:
    """What is no chest X-ray."""

    squares: Tensor
    """``(M, 1, 320, 320)`` uint8: input squares."""
    kinds: tuple[str, ...]
    """What each is."""
    sources: tuple[str, ...]
    """Where each is from."""

    def training(self, fold: int) -> Tensor:
        """The rows that a fold trains on; of fold -1, the final network, all."""
        unseen = HELD_OUT[fold] if fold >= 0 else ()
        return torch.tensor([kind not in unseen for kind in self.kinds]).nonzero()[:, 0]

    def unseen(self, fold: int) -> Tensor:
        """The rows whose kinds a fold has not seen."""
        return torch.tensor([kind in HELD_OUT[fold] for kind in self.kinds]).nonzero()[:, 0]


def read_chests(data: Path, *, keep: Path | None = None) -> Chests:
    """The chest X-rays of the data folder, and the phantom's.

    Args:
        data: The folder that holds ``cxr/``.
        keep: A file that keeps what was read, for the next time; read instead if it is there.

    Raises:
        DataError: As `read_collection`.
        LeakError: A patient, or copies of one picture, would be on both sides.
    """
    if keep is not None and keep.is_file():
        with np.load(keep) as kept:
            return Chests(**{name: torch.from_numpy(kept[name]) for name in kept.files})
    collection = read_collection(data)
    pictures = [collection.grey(picture) for picture in collection.pictures]
    folds = assign_folds(collection, read_thumbnails(collection))
    phantoms, cases = _take_phantoms()
    chests = Chests(
        _stack(pictures + phantoms),
        torch.tensor([_extent(picture) for picture in pictures + phantoms]),
        torch.tensor(folds + cases),
        torch.tensor([False] * len(pictures) + [True] * len(phantoms)),
    )
    if keep is not None:
        np.savez(keep, **{name: getattr(chests, name).numpy() for name in Chests.__slots__})
    return chests


def assign_folds(collection: Collection, thumbnails: dict[str, Float]) -> list[int]:
    """The fold that holds out each picture: that of its patient, and of every picture that nearly equals it.

    Raises:
        LeakError: A patient is in two folds.
    """
    pictures = collection.pictures
    group = list(range(len(pictures)))
    table = np.stack([thumbnails[picture.name] for picture in pictures])
    alike = table @ table.T > NEAR_DUPLICATE
    for i, picture in enumerate(pictures):
        for j in range(i):
            same = picture.patient is not None and picture.patient == pictures[j].patient
            if (same or alike[i, j]) and group[i] != group[j]:
                old, new = group[i], group[j]
                group = [new if each == old else each for each in group]
    names = sorted(set(group))
    order = np.random.RandomState(0).permutation(len(names))
    place = {name: int(order[k]) % FOLDS for k, name in enumerate(names)}
    folds = [place[each] for each in group]
    patients: dict[str, int] = {}
    for picture, fold in zip(pictures, folds, strict=True):
        if picture.patient is not None and patients.setdefault(picture.patient, fold) != fold:
            raise LeakError("pictures of one patient are in two folds")
    return folds


def read_others(data: Path, packages: Path, *, keep: Path | None = None) -> Others:
    """Everything else: CT, pictures out of packages, and drawn ones.

    Args:
        data: The folder that holds ``ct/`` and ``dicom/``.
        packages: The folder of downloaded packages; see `bedside_export.recipes.cxr.quality.packages`.
        keep: A file that keeps what was read, for the next time; read instead if it is there.

    Raises:
        DataError: A case or a package is missing.
    """
    if keep is not None and keep.is_file():
        with np.load(keep) as kept:
            return Others(
                torch.from_numpy(kept["squares"]),
                tuple(kept["kinds"].tolist()),
                tuple(kept["sources"].tolist()),
            )
    found: list[tuple[str, str, Float]] = []
    for body in read_bodies(data, packages):
        log.info("CT of %s", body.source)
        found += [("axial CT", body.source, picture) for picture in cut_slices(body)]
        found += [("CT planes", body.source, picture) for picture in cut_planes(body)]
        found += [("projections", body.source, picture) for picture in project_sides(body)]
    found += [("axial CT", "cornerstone", picture) for picture in read_single_slices(data)]
    for package in PACKAGES:
        log.info("package %s", package.file)
        source = package.file.partition("*")[0].strip("-_")
        found += [(package.kind, source, picture) for picture in read_pictures(packages, package)]
    for number, kind in enumerate(DRAWN):
        chance = np.random.default_rng(number)
        found += [(kind, "drawn", draw(kind, chance)) for _ in range(DRAWN_EACH)]
    others = Others(
        _stack([picture for _, _, picture in found]),
        tuple(kind for kind, _, _ in found),
        tuple(source for _, source, _ in found),
    )
    if keep is not None:
        np.savez(keep, squares=others.squares.numpy(), kinds=others.kinds, sources=others.sources)
    return others


def _take_phantoms() -> tuple[list[Float], list[int]]:
    """X-rays of the phantom, read as any study is read, and the fold that holds each out: one case a fold."""
    pictures, folds = [], []
    with tempfile.TemporaryDirectory(prefix="bedside-recipe-") as folder:
        for number, case in enumerate(CASES):
            for seed in PHANTOM_SEEDS:
                file = write_sample(
                    Path(folder) / "phantom.dcm", phantom=chest_phantom(case).phantom, seed=seed
                )
                pictures.append(read_radiograph(file).pixels)
                folds.append(number)
    return pictures, folds


def _stack(pictures: list[Float]) -> Tensor:
    """Pictures ``(H, W)`` as input squares ``(N, 1, 320, 320)`` uint8."""
    squares: list[_Bytes] = [np.rint(input_square(picture) * 255).astype(np.uint8) for picture in pictures]
    return torch.from_numpy(np.stack(squares)).unsqueeze(1)


def _extent(picture: Float) -> tuple[float, float]:
    height, width = picture.shape
    return width / max(picture.shape), height / max(picture.shape)
