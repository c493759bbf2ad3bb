"""A straight line through a patient's course, with an interval that small numbers can hold. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial
from statistics import median
from typing import Final

__all__ = ["LEAST", "LEVEL", "Slope", "slope_of"]

LEAST: Final = 5
"""Fewest studies: of four, no interval holds 95 %, since all six pairs go one way in 2 of 24 orders."""
MOST: Final = 100
"""Studies beyond are not counted out exactly in reasonable time."""
LEVEL: Final = 0.95
"""Of the interval."""


@dataclass(frozen=True, slots=True)
class Slope:
    """Change a day, as the median over all pairs of studies (Theil 1950; Sen 1968, J Am Stat Assoc 63:1379)."""

    per_day: float
    """In the quantity's unit a day."""
    low: float
    """Lower end of its interval, of `LEVEL` or more."""
    high: float
    """Upper end."""


def slope_of(days: Sequence[float], values: Sequence[float]) -> Slope | None:
    """The slope of ``values`` over ``days``.

    The interval is Sen's, with the exact distribution of Kendall's S in place of the normal one: it asks of the values
    only that they err independently, and alike, about a straight line.

    Returns:
        None for fewer than `LEAST` studies, or over `MOST`; and where two are of one time.
    """
    if not LEAST <= len(days) <= MOST or len(set(days)) < len(days):
        return None
    points = sorted(zip(days, values, strict=True))
    slopes = sorted((v - u) / (t - s) for (s, u), (t, v) in combinations(points, 2))
    skip = _tail(len(points))
    return Slope(median(slopes), slopes[skip], slopes[-1 - skip])


def _tail(count: int) -> int:
    """How many slopes lie outside of the interval at each side: the most that 5 % of orders allow."""
    orders = [1]  # by their number of inversions
    for size in range(2, count + 1):
        sums = [0]
        for each in orders + [0] * (size - 1):
            sums.append(sums[-1] + each)
        orders = [sums[k + 1] - sums[max(0, k + 1 - size)] for k in range(len(orders) + size - 1)]
    allowed = (1 - LEVEL) / 2 * factorial(count)
    skip, below = 0, 0
    while below + orders[skip] <= allowed:
        below += orders[skip]
        skip += 1
    return skip - 1
