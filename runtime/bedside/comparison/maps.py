"""Label maps of one case by several readers, laid over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bedside.agreement import cohen_kappa, fleiss_kappa
from bedside.comparison.readers import Reader
from bedside.errors import RefusedError
from bedside.measure import (
    MAX_LABEL,
    Overlap,
    SurfaceDistance,
    check_same_grid,
    cross_tabulate,
    surface_distance,
    volumes_ml,
)
from bedside.nifti.reading import read_labels
from bedside.scan import Grid

__all__ = ["CaseOverlap", "PairOverlap", "VoxelVotes", "compare_maps"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PairOverlap:
    """One reader's labels over the reference's, in one case."""

    reader: int
    """Place among the readers; 0 is the reference."""
    overlaps: Mapping[str, Overlap]
    """Part (``opacity``, ``lung``, a class) -> overlap; the reference is its first."""
    surfaces: Mapping[str, SurfaceDistance | None]
    """Part -> distance between the surfaces; None where either has none of it."""


@dataclass(frozen=True, slots=True, eq=False)
class VoxelVotes:
    """Who calls which voxel opacity, counted: agreement beyond chance follows from it, and it adds up over cases."""

    within_lung: bool
    """True if voxels were counted in the lungs of any reader; False over the whole grid, where kappa grows with what
    lies around the patient."""
    votes: npt.NDArray[np.int64]
    """``(readers + 1,)``: voxels that so many readers call opacity."""
    pairs: npt.NDArray[np.int64]
    """``(readers - 1, 2, 2)``: the reference's (no, yes) against each other reader's."""

    def __add__(self, other: VoxelVotes) -> VoxelVotes:
        return VoxelVotes(
            self.within_lung and other.within_lung, self.votes + other.votes, self.pairs + other.pairs
        )

    @property
    def fleiss(self) -> float | None:
        """Fleiss' kappa of all readers; None for fewer than three, and where it is not defined."""
        readers = len(self.votes) - 1
        if readers < 3:
            return None
        yes = np.arange(readers + 1)
        return fleiss_kappa(np.stack([readers - yes, yes], axis=1), self.votes)

    def cohen(self, reader: int) -> float | None:
        """Cohen's kappa of ``reader`` with the reference; None where it is not defined.

        Without an interval: neighbouring voxels are not independent, so one would be far too narrow.
        """
        found = cohen_kappa(self.pairs[reader - 1])
        return None if found is None else found.value


@dataclass(frozen=True, slots=True)
class CaseOverlap:
    """One case."""

    case: str
    """Its name."""
    volumes_ml: Mapping[str, tuple[float, ...]]
    """Part -> volume by each reader, mL."""
    pairs: tuple[PairOverlap, ...]
    """Each reader but the first with the first."""
    voxels: VoxelVotes
    """Of the opacity."""
    assumed: tuple[int | None, ...]
    """Of each reader, the one label of its map that was taken as opacity because nothing says so; else None."""


def compare_maps(case: str, readers: Sequence[Reader]) -> CaseOverlap:
    """Lay the label maps of a case over each other.

    Raises:
        InputError: A map can't be read.
        RefusedError: ``not-comparable``: other grids, or labels of which nothing says what they mean.
        MissingExtraError: The extra ``stats`` is not installed.
    """
    maps: list[npt.NDArray[np.integer[Any]]] = []
    parts: list[Mapping[str, frozenset[int]]] = []
    assumed: list[int | None] = []
    grid: Grid | None = None
    for reader in readers:
        labels, affine = read_labels(reader.maps[case].path)
        slices, rows, columns = labels.shape
        found = Grid((slices, rows, columns), affine)
        grid = grid or found
        try:
            check_same_grid(grid, found)
            meaning, guessed = _meaning(reader, case, labels, affine)
        except RefusedError as error:
            raise RefusedError(error.code, f"{reader.name}: {error.message}") from error
        maps.append(labels)
        parts.append(meaning)
        assumed.append(guessed)
    if grid is None:
        raise ValueError("no readers")
    shared = [name for name in parts[0] if all(name in each for each in parts)]
    tables = [cross_tabulate(maps[0], other, grid.affine) for other in maps[1:]]
    pairs = tuple(
        PairOverlap(
            reader,
            {name: table.overlap(parts[0][name], parts[reader][name]) for name in shared},
            {
                name: surface_distance(
                    _mask(maps[0], parts[0][name]), _mask(maps[reader], parts[reader][name]), grid.affine
                )
                for name in shared
            },
        )
        for reader, table in enumerate(tables, 1)
    )
    first = pairs[0].overlaps
    volumes = {
        name: (first[name].first_ml, *(pair.overlaps[name].second_ml for pair in pairs)) for name in shared
    }
    return CaseOverlap(case, volumes, pairs, _vote(maps, parts), tuple(assumed))


def _meaning(
    reader: Reader, case: str, labels: npt.NDArray[np.integer[Any]], affine: npt.NDArray[np.float64]
) -> tuple[Mapping[str, frozenset[int]], int | None]:
    parts = reader.maps[case].parts
    if parts is not None:
        return parts, None
    present = list(volumes_ml(labels, affine))
    if len(present) > 1:
        listed = ", ".join(map(str, present[:6])) + (", ..." if len(present) > 6 else "")
        raise RefusedError(
            "not-comparable",
            f"the map has labels {listed}, and nothing says which are opacity: give --labels",
        )
    only = present[0] if present else None
    return {"opacity": frozenset() if only is None else frozenset({only})}, only


def _mask(labels: npt.NDArray[np.integer[Any]], of: frozenset[int]) -> Mask:
    chosen = np.zeros(MAX_LABEL + 1, np.bool_)
    chosen[[label for label in of if label <= MAX_LABEL]] = True
    return np.take(chosen, labels)


def _vote(
    maps: Sequence[npt.NDArray[np.integer[Any]]], parts: Sequence[Mapping[str, frozenset[int]]]
) -> VoxelVotes:
    """Count slice by slice, so that no mask of the whole volume is held."""
    within_lung = all("lung" in each for each in parts)
    readers = len(maps)
    votes = np.zeros(readers + 1, np.int64)
    pairs = np.zeros((readers - 1, 2, 2), np.int64)
    for planes in zip(*maps, strict=True):
        says = np.stack([_mask(plane, each["opacity"]) for plane, each in zip(planes, parts, strict=True)])
        if within_lung:
            lungs = [_mask(plane, each["lung"]) for plane, each in zip(planes, parts, strict=True)]
            says = says[:, np.any(lungs, axis=0)]
        says = says.reshape(readers, -1)
        votes += np.bincount(says.sum(axis=0), minlength=readers + 1)
        for reader in range(1, readers):
            joint = says[0] * 2 + says[reader]
            pairs[reader - 1] += np.bincount(joint, minlength=4).reshape(2, 2)
    return VoxelVotes(within_lung, votes, pairs)
