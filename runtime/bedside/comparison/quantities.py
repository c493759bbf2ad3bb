"""Numbers that several readers give of the same cases, and how well these agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside.agreement import (
    BlandAltman,
    Interval,
    bland_altman,
    cohen_kappa,
    count_votes,
    fleiss_kappa,
    intraclass_correlations,
    tabulate,
)
from bedside.comparison.readers import SEVERITY, Readers
from bedside.errors import RefusedError

__all__ = ["PairAgreement", "Quantity", "measure_agreement", "quantities_of_results"]

SCORES: Final = ("extent", "opacity")
"""Of a severity result."""
VOLUMES: Final = {
    "opacity": ("opacity_ml", "mL"),
    "opacity of lung": ("opacity_percent", "%"),
    "lung": ("lung_ml", "mL"),
}
"""Quantity -> its key in the volumes of an opacification result, and its unit."""
SIDES: Final = ("left", "right")


@dataclass(frozen=True, slots=True)
class PairAgreement:
    """How one reader's numbers agree with the reference's."""

    reader: int
    """Place among the readers; 0 is the reference."""
    mean_absolute: float
    """Mean of the absolute differences."""
    bland_altman: BlandAltman | None
    """Differences are reader less reference. None for fewer than two cases."""
    kappa: Interval | None
    """Cohen's kappa with quadratic weights, of scores rounded to whole points; None for volumes, and undefined where
    both gave one and the same score only."""


@dataclass(frozen=True, slots=True, eq=False)
class Quantity:
    """One number of each case by each reader, and the agreement on it."""

    name: str
    """E.g. ``opacity``."""
    unit: str
    """``mL``, ``%`` or ``points``."""
    cases: tuple[str, ...]
    """Those where every reader gave it."""
    values: npt.NDArray[np.float64]
    """``(cases, readers)``, in the unit."""
    pairs: tuple[PairAgreement, ...]
    """Each reader but the first with the first."""
    icc: Mapping[str, Interval] | None
    """Of all readers: see `bedside.agreement.intraclass_correlations`."""
    fleiss: float | None
    """Fleiss' kappa of scores rounded to whole points, from three readers on; else None."""


def quantities_of_results(readers: Readers) -> tuple[Quantity, ...]:
    """What results of ``bedside score`` or ``bedside segment`` give as numbers, with the agreement on it.

    Raises:
        RefusedError: ``not-comparable``: scores on different scales.
        MissingExtraError: The extra ``stats`` is not installed.
    """
    if readers.kind == SEVERITY:
        tables = [(name, "points", *_scores(readers, name)) for name in SCORES]
        return tuple(
            measure_agreement(name, unit, readers.cases, values, categories=range(low, high + 1))
            for name, unit, values, (low, high) in tables
        )
    found = []
    for side in (None, *SIDES):
        for name, (key, unit) in VOLUMES.items():
            values = [
                [_volume(reader.records[case], side, key) for reader in readers.readers]
                for case in readers.cases
            ]
            found.append(measure_agreement(f"{side} {name}" if side else name, unit, readers.cases, values))
    return tuple(quantity for quantity in found if quantity.cases)


def measure_agreement(
    name: str,
    unit: str,
    cases: Sequence[str],
    values: Sequence[Sequence[float | None]],
    *,
    categories: Sequence[int] = (),
) -> Quantity:
    """Agreement of readers on one number.

    Args:
        name: What it is.
        unit: Its unit.
        cases: Their names.
        values: Of each case, a number of each reader; cases where one gave none are left out.
        categories: Whole points of a scale, for kappa; empty for a number that is no score.
    """
    whole = [(case, row) for case, row in zip(cases, values, strict=True) if None not in row]
    table = np.array([row for _, row in whole], np.float64)
    kept = tuple(case for case, _ in whole)
    if not kept:
        return Quantity(name, unit, (), np.empty((0, 0)), (), None, None)
    points = np.floor(table + 0.5).astype(int)  # halves go up: numpy would round them to even
    pairs = tuple(
        PairAgreement(
            reader,
            float(np.abs(table[:, reader] - table[:, 0]).mean()),
            bland_altman(table[:, 0], table[:, reader]),
            cohen_kappa(
                tabulate(points[:, 0].tolist(), points[:, reader].tolist(), categories), weights="quadratic"
            )
            if categories
            else None,
        )
        for reader in range(1, table.shape[1])
    )
    several = categories and table.shape[1] > 2
    fleiss = fleiss_kappa(count_votes(points, categories)) if several else None
    return Quantity(name, unit, kept, table, pairs, intraclass_correlations(table), fleiss)


def _scores(readers: Readers, name: str) -> tuple[list[list[float]], tuple[int, int]]:
    scales = {
        tuple(reader.records[case][name]["scale"]) for reader in readers.readers for case in readers.cases
    }
    if len(scales) > 1:
        said = " and ".join(f"{low:g} to {high:g}" for low, high in sorted(scales))
        raise RefusedError(
            "not-comparable", f"{name} is on different scales ({said}); compare scores of one scale"
        )
    low, high = scales.pop()
    values = [
        [float(reader.records[case][name]["value"]) for reader in readers.readers] for case in readers.cases
    ]
    return values, (int(np.floor(low)), int(np.ceil(high)))


def _volume(record: Mapping[str, Any], side: str | None, key: str) -> float | None:
    volumes = record["volumes"] if side is None else record["volumes"].get(side) or {}
    value = volumes.get(key)
    return None if value is None else float(value)
