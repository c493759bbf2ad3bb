"""The ledger's bounds, against the body that they are derived for: an ellipsoid, cut in slices in the worst ways."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from bedside.dicom.ledger import (
    REFERENCE_MM,
    bound_ends,
    bound_jitter,
    bound_missing,
    bound_pixel_spacing,
    bound_resampling,
    bound_sampling,
)

Array = npt.NDArray[np.float64]

VOLUME = 2 / 3 * REFERENCE_MM
"""Of an ellipsoid of that height whose largest cross-section is 1."""

GAPS = st.floats(0.3, 10)
PHASES = st.floats(0, 1)


def area(heights: npt.ArrayLike) -> Array:
    """Cross-section of the ellipsoid from 0 to its height."""
    return np.maximum(1 - (2 * np.asarray(heights, np.float64) / REFERENCE_MM - 1) ** 2, 0)


def percent(found: float, expected: float = VOLUME) -> float:
    return 100 * abs(float(found) - expected) / VOLUME


def make_heights(gaps: list[float], phase: float) -> Array:
    """Slices from below the body to above it, the gaps in turn."""
    heights = [-max(gaps) * (1 + phase)]
    while heights[-1] < REFERENCE_MM + max(gaps):
        heights.append(heights[-1] + gaps[len(heights) % len(gaps)])
    return np.array(heights)


@given(gap=GAPS, phase=PHASES, data=st.data())
def test_missing_slices_cost_no_more_than_their_bound(gap: float, phase: float, data: Any) -> None:
    areas = area(make_heights([gap], phase))
    lost = data.draw(st.lists(st.integers(1, len(areas) - 2), min_size=1, max_size=12, unique=True))
    kept = sorted(set(range(len(areas))) - set(lost))
    made = areas.copy()
    runs = []
    for low, high in pairwise(kept):
        if high - low > 1:
            runs.append(high - low - 1)
            end = areas[[low, high]][data.draw(st.integers(0, 1))]  # whatever lies between them is nearer
            made[low + 1 : high] = end
    assert percent(gap * made.sum(), gap * areas.sum()) <= bound_missing(runs, gap) + 1e-9


@given(gap=GAPS, phase=PHASES, count=st.integers(1, 20))
def test_slices_lost_at_the_end_cost_no_more_than_their_bound(gap: float, phase: float, count: int) -> None:
    areas = area(make_heights([gap], phase))
    worst = max(areas[start : start + count].sum() for start in range(len(areas)))
    assert percent(gap * (areas.sum() - worst), gap * areas.sum()) <= bound_ends(count, gap) + 1e-9


@given(gap=st.floats(0.6, 10), phase=PHASES, offset=st.floats(0, 0.1), seed=st.integers(0, 99))
def test_jitter_costs_no_more_than_its_bound(gap: float, phase: float, offset: float, seed: int) -> None:
    grid = make_heights([gap], phase)
    heights = grid + np.random.default_rng(seed).choice([-offset, offset], len(grid))
    areas = area(heights)
    true = float((np.diff(heights) * (areas[1:] + areas[:-1]) / 2).sum())
    assert percent(gap * areas.sum(), true) <= bound_jitter(offset) + 1e-9


@given(gaps=st.lists(GAPS, min_size=1, max_size=5), phase=PHASES)
def test_what_lies_between_slices_costs_no_more_than_its_bound(gaps: list[float], phase: float) -> None:
    heights = make_heights(gaps, phase)
    areas = area(heights)
    assert (
        percent((np.diff(heights) * (areas[1:] + areas[:-1]) / 2).sum()) <= bound_sampling(max(gaps)) + 1e-9
    )


@given(gaps=st.lists(GAPS, min_size=1, max_size=5), phase=PHASES)
def test_blending_to_a_uniform_grid_costs_no_more_than_its_bound(gaps: list[float], phase: float) -> None:
    heights = make_heights(gaps, phase)
    span = heights[-1] - heights[0]
    steps = round(span / min(gaps))
    step = span / steps
    grid = heights[0] + step * np.arange(steps + 1)
    nearest = np.abs(grid[:, None] - heights[None, :]).argmin(
        axis=1
    )  # a threshold half-way turns a blend into this
    assert percent(step * area(heights)[nearest].sum()) <= bound_resampling(step, max(gaps)) + 1e-9


@given(deviation=st.floats(0, 1e-3))
def test_pixel_spacing_costs_no_more_than_its_bound(deviation: float) -> None:
    assert abs((1 + deviation) ** 2 - 1) * 100 <= bound_pixel_spacing(deviation) + 1e-12
    assert abs((1 - deviation) ** 2 - 1) * 100 <= bound_pixel_spacing(deviation) + 1e-12


def test_bounds_are_of_use() -> None:
    assert bound_missing([], 1.25) == 0
    assert bound_missing([1], 1.25) < 0.1
    assert bound_missing([1], 5) < 1 < bound_missing([3], 5)
    assert bound_resampling(1.25, 2.5) < 2
    assert bound_jitter(0.05) < 0.1
