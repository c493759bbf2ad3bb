"""The line through a course, and the interval of its slope."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest

from bedside.trend.slope import LEVEL, slope_of
from followed import followed


def test_slope_of_a_line_is_exact() -> None:
    slope = slope_of([0, 1, 3, 7, 8], [2 + 0.5 * day for day in (0, 1, 3, 7, 8)])
    assert slope is not None
    assert (slope.per_day, slope.low, slope.high) == pytest.approx((0.5, 0.5, 0.5))


@pytest.mark.parametrize("days", [[0, 1, 2, 3], [0, 1, 2, 3, 3]])
def test_few_studies_and_studies_of_one_time_have_no_slope(days: list[float]) -> None:
    assert slope_of(days, [float(day) for day in days]) is None


@pytest.mark.parametrize("count", [5, 6])
def test_interval_of_the_slope_holds_its_level_over_all_orders(count: int) -> None:
    """Without a trend each order of the values is as likely; the interval has to hold zero in 95 % of them."""
    days = [float(day) for day in range(count)]
    values = [float(2**number) for number in range(count)]  # all differences of pairs differ
    held = 0
    for order in permutations(values):
        slope = slope_of(days, order)
        assert slope is not None
        held += slope.low <= 0 <= slope.high
    share = held / math.factorial(count)
    assert share >= LEVEL
    assert share < 1


def test_slope_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="needs the extra stats")
    chance = np.random.default_rng(0)
    for count in (5, 8, 30):
        days = np.sort(chance.uniform(0, 20, count))
        values = 0.2 * days + chance.normal(size=count)
        slope, theirs = slope_of(days.tolist(), values.tolist()), stats.theilslopes(values, days, LEVEL)
        assert slope is not None
        assert slope.per_day == pytest.approx(theirs.slope)
        assert (slope.low, slope.high) == pytest.approx((theirs.low_slope, theirs.high_slope))


def test_trend_of_five_has_a_slope() -> None:
    trend = followed(1, 2, 3, 4, 5)
    assert trend.courses[0].slope is not None
    assert followed(1, 2, 3, 4).courses[0].slope is None
