"""Two radiologists on the same X-rays, and how near a network comes to them.

read_readings     Brixia scores of a senior and a junior radiologist, zone by zone
compare_readers   zone by zone and in sum, by view
place_network     a network's extent as a third observer
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.agreement import (
    BlandAltman,
    Interval,
    bland_altman,
    cohen_kappa,
    intraclass_correlations,
    tabulate,
)
from bedside.comparison.quantities import Quantity, measure_agreement
from bedside_export.errors import ExportError
from bedside_export.evaluation.layouts import Known, read_metadata
from bedside_export.evaluation.statistics import LEVEL, draw_patients
from bedside_export.recipes.cxr.data import mend_patient
from bedside_export.scores import read_rows

__all__ = [
    "EXTENT_MAXIMUM",
    "GLOBAL_MAXIMUM",
    "ZONES",
    "NetworkPlace",
    "ReaderAgreement",
    "Readings",
    "ZoneAgreement",
    "compare_readers",
    "group_views",
    "place_network",
    "read_extents",
    "read_readings",
]

ZONES: Final = ("A", "B", "C", "D", "E", "F")
"""Brixia: A to C the patient's right lung from above, D to F the left (Borghesi and Maroldi 2020)."""
ZONE_LEVELS: Final = range(4)
"""A zone's score is 0 to 3."""
GLOBAL_MAXIMUM: Final = 18
"""The zones' sum."""
EXTENT_MAXIMUM: Final = 8
"""Upper end of the scale of extent, to which sums are mapped: divided by 18, times 8."""
READERS: Final = ("S", "J")
"""Senior and junior, as the columns of the table are named."""
ALL: Final = "all"
"""Name of the group of all pictures."""
_NO_VIEW: Final = "not stated"

Int64 = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """Two readers' scores of the same pictures."""

    images: tuple[Path, ...]
    """Picture files."""
    zones: Int64
    """``(N, 2, 6)``: senior and junior, each of `ZONES`, 0 to 3."""
    views: tuple[str, ...]
    """Projection of each, or ``not stated``."""
    patients: tuple[str, ...]
    """Whose each is; a picture of nobody known counts as a patient of its own."""

    @property
    def sums(self) -> Int64:
        """``(N, 2)``: each reader's global score, 0 to 18."""
        return np.asarray(self.zones.sum(axis=2), np.int64)


@dataclass(frozen=True, slots=True)
class ZoneAgreement:
    """Both readers on one zone."""

    zone: str
    """One of `ZONES`, or ``all``."""
    ratings: int
    """Pairs of ratings."""
    same: float
    """Share where both say the same."""
    kappa: Interval | None
    """Cohen's with quadratic weights. Its interval takes ratings as independent, which pictures of one patient, and
    zones of one picture, are not."""
    bias: float
    """Mean of junior less senior, points of 3."""
    table: Int64
    """``(4, 4)`` counts: senior in rows."""


@dataclass(frozen=True, slots=True)
class ReaderAgreement:
    """Both readers' global scores in a group of pictures."""

    group: str
    """A view, or ``all``."""
    quantity: Quantity
    """Junior against senior, points of 18."""


@dataclass(frozen=True, slots=True)
class NetworkPlace:
    """A network's extent among the readers, in points of extent (0 to 8; readers' sums / 18 * 8)."""

    network: str
    """Its name."""
    group: str
    """A view, or ``all``."""
    pictures: int
    """Those that it gave an extent of."""
    between_readers: float
    """Mean absolute difference of junior and senior on them."""
    to_senior: float
    """Mean absolute difference of the network to the senior."""
    to_junior: float
    """The same to the junior."""
    to_mean: float
    """The same to the mean of both: it flatters, since a mean has less noise than a reader."""
    ratio: Interval | None
    """Mean of `to_senior` and `to_junior` over `between_readers`: at 1 it is as near to a reader as they to each other.
    Interval of patients drawn again; None where the readers never differ."""
    limits: BlandAltman | None
    """Network less the mean of both readers."""
    icc: Mapping[str, Interval] | None
    """Of all three: see `bedside.agreement.intraclass_correlations`."""


def read_readings(folder: Path) -> Readings:
    """The twice-read X-rays of a folder with ``brixia.csv``, ``metadata.csv`` and ``images/``.

    Raises:
        ExportError: A table can't be read or lacks a column; a row has no picture in ``images/``, a picture named
            before, a zone that is not 0 to 3, or a global score that is not the zones' sum.
    """
    known = read_metadata(folder)
    columns = [f"{reader}-{zone}" for reader in READERS for zone in (*ZONES, "Global")]
    rows, _ = read_rows(folder / "brixia.csv", ("image", *columns), what="brixia.csv")
    images: dict[str, Path] = {}
    zones, views, patients = [], [], []
    for number, row in rows:
        name = row["image"] or ""
        path = folder / "images" / name
        if not name or Path(name).name != name or not path.is_file():
            raise ExportError(f"brixia.csv, row {number}: no such picture in images/; mend or remove it")
        if name in images:
            raise ExportError(f"brixia.csv, row {number}: this picture stands there before; keep one row")
        images[name] = path
        zones.append([_zones(row, reader, number) for reader in READERS])
        about = known.get(name, Known(mend_patient(name, None) or "", ""))
        views.append(about.view or _NO_VIEW)
        patients.append(about.patient or f"alone {number}")
    return Readings(tuple(images.values()), np.array(zones, np.int64), tuple(views), tuple(patients))


def _zones(row: Mapping[str, str], reader: str, number: int) -> list[int]:
    scores = []
    for zone in (*ZONES, "Global"):
        try:
            scores.append(float(row[f"{reader}-{zone}"] or ""))
        except ValueError:
            scores.append(float("nan"))
    *zones, whole = scores
    if any(score not in ZONE_LEVELS for score in zones):
        raise ExportError(f"brixia.csv, row {number}: zones of {reader} must be 0, 1, 2 or 3; mend it")
    if whole != sum(zones):
        raise ExportError(
            f"brixia.csv, row {number}: {reader}-Global must be the sum of the six zones; mend it"
        )
    return [int(score) for score in zones]


def group_views(views: Sequence[str]) -> dict[str, npt.NDArray[np.bool_]]:
    """``all`` and each view -> which pictures are in it ``(N,)``; the views by their number of pictures."""
    names = np.asarray(views)
    found, counts = np.unique(names, return_counts=True)
    order = found[np.argsort(-counts, kind="stable")]
    return {ALL: np.ones(len(names), bool), **{str(view): names == view for view in order}}


def compare_readers(readings: Readings) -> tuple[list[ZoneAgreement], list[ReaderAgreement]]:
    """Agreement zone by zone (and over all zones), and of the global scores, by view."""
    zones = [_compare_zone(zone, readings.zones[:, :, place]) for place, zone in enumerate(ZONES)]
    zones.append(_compare_zone(ALL, readings.zones.transpose(0, 2, 1).reshape(-1, 2)))
    sums = readings.sums
    cases = [str(place) for place in range(len(sums))]
    groups = []
    for group, inside in group_views(readings.views).items():
        chosen = np.flatnonzero(inside)
        groups.append(
            ReaderAgreement(
                group,
                measure_agreement(
                    f"global Brixia score, {group}",
                    "points",
                    [cases[place] for place in chosen],
                    sums[chosen].tolist(),
                    categories=range(GLOBAL_MAXIMUM + 1),
                ),
            )
        )
    return zones, groups


def _compare_zone(zone: str, ratings: Int64) -> ZoneAgreement:
    """``(n, 2)``: senior, junior."""
    table = tabulate(ratings[:, 0].tolist(), ratings[:, 1].tolist(), ZONE_LEVELS)
    difference = ratings[:, 1] - ratings[:, 0]
    return ZoneAgreement(
        zone,
        len(ratings),
        float((difference == 0).mean()),
        cohen_kappa(table, weights="quadratic"),
        float(difference.mean()),
        table,
    )


def place_network(name: str, extents: Float, readings: Readings) -> list[NetworkPlace]:
    """Where a network stands among the readers: over all pictures, and by view.

    Args:
        name: The network's.
        extents: ``(N,)``, 0 to 8; NaN for pictures that it gave none of.
        readings: The readers'.
    """
    sums = readings.sums / GLOBAL_MAXIMUM * EXTENT_MAXIMUM
    given = np.isfinite(extents)
    found = []
    for group, inside in group_views(readings.views).items():
        chosen = np.flatnonzero(inside & given)
        if len(chosen) == 0:
            continue
        senior, junior, network = sums[chosen, 0], sums[chosen, 1], extents[chosen]
        middle = (senior + junior) / 2
        apart, to_senior, to_junior = (
            np.abs(junior - senior),
            np.abs(network - senior),
            np.abs(network - junior),
        )
        found.append(
            NetworkPlace(
                name,
                group,
                len(chosen),
                float(apart.mean()),
                float(to_senior.mean()),
                float(to_junior.mean()),
                float(np.abs(network - middle).mean()),
                _ratio((to_senior + to_junior) / 2, apart, [readings.patients[place] for place in chosen]),
                bland_altman(middle, network),
                intraclass_correlations(np.stack([senior, junior, network], axis=1)),
            )
        )
    return found


def _ratio(distance: Float, apart: Float, patients: Sequence[str]) -> Interval | None:
    if apart.sum() == 0:
        return None
    drawn = draw_patients(patients)
    above, below = drawn @ distance, drawn @ apart
    values = above[below > 0] / below[below > 0]
    low, high = np.quantile(values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(float(distance.sum() / apart.sum()), float(low), float(high))


def read_extents(path: Path, readings: Readings) -> Float:
    """Each picture's mean predicted extent ``(N,)`` over the splits that held it out; NaN where none did.

    Args:
        path: CSV with the columns ``seed``, ``image`` and ``extent``, as `bedside_export.recipes.cxr.severity` writes
            it.
        readings: The pictures.

    Raises:
        ExportError: The file can't be read, holds what is no number, or none of the pictures.
    """
    rows, _ = read_rows(path, ("seed", "image", "extent"), what="the table of predictions")
    places = {image.name: place for place, image in enumerate(readings.images)}
    found: dict[int, list[float]] = {}
    for number, row in rows:
        place = places.get(row["image"] or "")
        if place is None:
            continue
        try:
            value = float(row["extent"] or "")
        except ValueError:
            value = float("nan")
        if not np.isfinite(value):
            raise ExportError(
                f"the table of predictions, row {number}: extent must be a number; mend or remove it"
            )
        found.setdefault(place, []).append(min(max(value, 0.0), float(EXTENT_MAXIMUM)))
    if not found:
        raise ExportError("the table of predictions names no picture of brixia.csv; give another")
    return np.array([np.mean(found[place]) if place in found else np.nan for place in range(len(places))])
