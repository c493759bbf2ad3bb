"""Slices that are lost or missing: whether to go on without them, and where they would lie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.dicom.ledger import Ledger, bound_ends, bound_missing
from bedside.dicom.slices import Slice

__all__ = ["ALLOWED_PERCENT", "Losses", "bound_lost", "close_gaps", "name_slices"]

MISSING_PERCENT: Final = 1.0
"""Bound up to which missing slices are mended unasked: a volume shall be right within 1 %."""
ALLOWED_PERCENT: Final = 10.0
"""Bound up to which they are mended where that was allowed."""
NAMED: Final = 5
"""Most slices that are named in a message."""

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Losses:
    """What is known of losses before the slices are in order."""

    unreadable: int = 0
    """Files whose header can't be read, so that nobody knows where they belong."""
    strays: int = 0
    """Slices that don't say where they lie."""
    allowed: bool = False
    """Whether to go on with slices missing."""


def close_gaps(
    slices: list[Slice],
    places: Vector,
    gap_mm: float,
    ledger: Ledger,
    losses: Losses,
    *,
    uneven: bool = False,
) -> tuple[list[Slice], Vector]:
    """Take the slices that can be read, and decide on those that can't, or aren't there.

    Args:
        slices: In order; some may be known to be unreadable.
        places: Index of each on a grid, the first being 0.
        gap_mm: Distance of neighbours on that grid.
        ledger: Takes the findings.
        losses: What else is lost.
        uneven: The grid is a count, so that nothing can be missing on it.

    Returns:
        The slices that can be read, at least two, and their indices, the first being 0.

    Raises:
        GeometryError: ``missing-slices``.
    """
    depth = int(places[-1]) + 1
    kept = [index for index, item in enumerate(slices) if not item.problem]
    lost = [int(places[index]) for index, item in enumerate(slices) if item.problem]
    empty = sorted(set(range(depth)) - {int(place) for place in places})
    if len(kept) < 2:
        raise ledger.refuse(
            "unreadable-slices",
            f"{len(lost)} of {depth} slices can't be read, and two are needed; copy or export them again",
            count=len(lost),
            code="missing-slices",
        )
    _check_lost(slices, lost, empty, depth, ledger, losses)
    readable = places[kept]
    of_lost = bound_lost(lost, readable, depth, gap_mm)
    torn = set(lost)
    runs = [
        int(high - low) - 1
        for low, high in pairwise(readable)
        if high - low > 1 and torn.isdisjoint(range(int(low) + 1, int(high)))
    ]
    of_empty = bound_missing(runs, gap_mm)
    unknown = max(0, losses.unreadable + losses.strays - (0 if uneven else len(empty)))
    of_unknown = bound_ends(unknown, gap_mm)
    total = of_lost + of_empty + of_unknown
    limit = ALLOWED_PERCENT if losses.allowed else MISSING_PERCENT
    if total > limit:
        missing = [*empty, *lost]
        what = (
            f"{name_slices(missing, depth)} missing or unreadable" if missing else "some without a position"
        )
        raise ledger.refuse(
            "missing-slices",
            f"{what}: a volume may be wrong by {total:.1f} %, over {limit:g} %; export the series again"
            + (
                ""
                if losses.allowed or total > ALLOWED_PERCENT
                else ", or go on without them: --allow-missing"
            ),
            count=max(1, len(missing)),
            code="missing-slices",
        )
    _note(
        ledger,
        "unreadable-slices",
        f"{name_slices(lost, depth)} unreadable: interpolated, or left out at the ends",
        of_lost,
        len(lost),
    )
    _note(
        ledger,
        "missing-slices",
        f"{name_slices(empty, depth)} not there: interpolated between the neighbours",
        of_empty,
        len(empty),
    )
    _note(
        ledger,
        "unreadable-files",
        "files that can't be read, and may have been slices: left out",
        bound_ends(max(0, unknown - losses.strays), gap_mm),
        losses.unreadable,
    )
    _note(
        ledger,
        "without-position",
        "slices that don't say where they lie: left out",
        bound_ends(min(unknown, losses.strays), gap_mm),
        losses.strays,
    )
    return [slices[index] for index in kept], readable - readable[0]


def bound_lost(lost: Iterable[float], readable: Sequence[float] | Vector, depth: int, gap_mm: float) -> float:
    """Bound for slices that are replaced by a blend of the nearest that can be read, percent.

    Args:
        lost: Their places.
        readable: Places of the slices that can be read, rising.
        depth: Number of places.
        gap_mm: Distance of neighbouring places.
    """
    places = sorted(lost)
    runs = [
        ceil(high - low) - 1
        for low, high in pairwise(readable)
        if any(low < place < high for place in places)
    ]
    ends = sum(1 for place in places if place < readable[0] or place > readable[-1])
    return bound_missing(runs, gap_mm) + bound_ends(min(ends, depth), gap_mm)


def name_slices(places: Sequence[int], depth: int) -> str:
    """For a message: the number of slices, or their places counted from 1 at the feet."""
    if len(places) == 1:
        return f"slice {places[0] + 1} of {depth} (from the feet)"
    if len(places) <= NAMED:
        return f"slices {', '.join(str(place + 1) for place in places)} of {depth} (from the feet)"
    return f"{len(places)} of {depth} slices"


def _check_lost(
    slices: list[Slice], lost: list[int], empty: list[int], depth: int, ledger: Ledger, losses: Losses
) -> None:
    """Refuse what was damaged, unless that was allowed."""
    if losses.allowed or not (lost or losses.unreadable):
        return
    if lost:
        problem = next(item.problem for item in slices if item.problem)
        text = f"{name_slices(lost, depth)} can't be read ({problem})"
    else:
        text = f"{losses.unreadable} DICOM file{'' if losses.unreadable == 1 else 's'} can't be read"
        if empty:
            text += f", and {name_slices(empty, depth)} missing"
    raise ledger.refuse(
        "unreadable-slices",
        f"{text}; copy or export the series again, or go on without: --allow-missing",
        count=max(1, len(lost) + losses.unreadable),
        code="missing-slices",
    )


def _note(ledger: Ledger, finding: str, text: str, error_percent: float, count: int) -> None:
    if count:
        ledger.mend(finding, text, error_percent=error_percent, count=count)
