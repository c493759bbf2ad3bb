"""Whether scores change as the experts' do: patients with pictures of several days, whom the network never saw.

A change may be beyond what a retake makes, and still not be the patient's: another posture or breath, a tube, the
network's own error on either picture. So each consecutive pair of a held-out patient's pictures with experts' scores of
both is looked at: does a change beyond the smallest one go the experts' way?
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside_export.recipes.cxr.data import Collection, Picture, mend_patient, read_table
from bedside_export.recipes.cxr.report import MAXIMA, SCORES

__all__ = ["Change", "changes_of", "measure_changes", "read_days"]

BRIXIA_MAXIMUM: Final = 18
"""Of the global Brixia score."""
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Change:
    """From one picture of a patient to the next."""

    first: Picture
    """The earlier one."""
    second: Picture
    """The later one."""
    scores: npt.NDArray[np.float64]
    """``(2,)``: later less earlier, of each score; the mean over the networks that never saw the patient."""


def read_days(collection: Collection) -> dict[str, float]:
    """Day of each picture that has one, of any beginning of its patient's own; the table has ``?`` for some.

    Raises:
        DataError: the table is missing.
    """
    rows = read_table(collection.root / "metadata.csv", ("image", "offset"))
    return {row["image"]: float(row["offset"]) for row in rows if _NUMBER.fullmatch(row["offset"].strip())}


def changes_of(
    collection: Collection, scored: Sequence[tuple[Sequence[Picture], npt.NDArray[np.float64]]]
) -> list[Change]:
    """Changes between the consecutive days of each patient; pictures of one day are not told apart, the first counts.

    Args:
        collection: For the days.
        scored: Of each network, pictures of patients whom it never saw, and their scores ``(P, 2)``.
    """
    days = read_days(collection)
    found: dict[tuple[str, str], list[npt.NDArray[np.float64]]] = defaultdict(list)
    known = {picture.name: picture for picture in collection.pictures}
    for pictures, scores in scored:
        of: dict[str, list[tuple[float, str, npt.NDArray[np.float64]]]] = defaultdict(list)
        for picture, row in zip(pictures, scores, strict=True):
            patient = mend_patient(picture.name, picture.patient)
            if patient is not None and picture.name in days:
                of[patient].append((days[picture.name], picture.name, row))
        for each in of.values():
            first_of_day = list(
                {day: (name, row) for day, name, row in sorted(each, key=_order, reverse=True)}.items()
            )
            ordered = sorted(first_of_day, key=lambda item: item[0])
            for (_, (name, row)), (_, (later, after)) in pairwise(ordered):
                found[name, later].append(after - row)
    return [Change(known[a], known[b], np.mean(rows, axis=0)) for (a, b), rows in sorted(found.items())]


def measure_changes(
    changes: Sequence[Change], smallest: Mapping[str, float]
) -> dict[str, list[dict[str, Any]]]:
    """Score -> how its changes go against each kind of experts' scores.

    Args:
        changes: As of `changes_of`.
        smallest: Score -> smallest change.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for column, name in enumerate(SCORES):
        found[name] = []
        for experts in ("severity", "brixia"):
            pairs = [
                (float(change.scores[column]), expected, str(change.first.patient))
                for change in changes
                if (expected := _expected(change, experts, column)) is not None
            ]
            if pairs:
                found[name].append({"experts": experts, **_compare(pairs, smallest[name])})
    return found


def _order(item: tuple[float, str, npt.NDArray[np.float64]]) -> tuple[float, str]:
    return item[:2]


def _expected(change: Change, experts: str, column: int) -> float | None:
    """How the experts' score changed, on the network's scale; Brixia's stands for the extent alone."""
    first, second = change.first, change.second
    if experts == "severity":
        if first.severity is None or second.severity is None:
            return None
        return second.severity[column] - first.severity[column]
    if first.brixia is None or second.brixia is None or column:
        return None
    return (second.brixia - first.brixia) * MAXIMA[column] / BRIXIA_MAXIMUM


def _compare(pairs: Sequence[tuple[float, float, str]], smallest: float) -> dict[str, Any]:
    beyond = [(ours, theirs) for ours, theirs, _ in pairs if abs(ours) > smallest]
    return {
        "pairs": len(pairs),
        "patients": len({patient for _, _, patient in pairs}),
        "beyond": len(beyond),
        "same_way": sum(ours * theirs > 0 for ours, theirs in beyond),
        "other_way": sum(ours * theirs < 0 for ours, theirs in beyond),
        "unchanged": sum(theirs == 0 for _, theirs in beyond),
        "rms_error": float(np.sqrt(np.mean([(ours - theirs) ** 2 for ours, theirs, _ in pairs]))),
        "rms_of_experts": float(np.sqrt(np.mean([theirs**2 for _, theirs, _ in pairs]))),
    }
