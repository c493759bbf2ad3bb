"""A volume from some of the slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bedside.chest import chest_phantom
from bedside.ct.sampling import FEWEST, LEVEL, coarse_to_fine, estimate_sum, slice_weights


@given(st.integers(1, 700))
def test_every_slice_comes_once(n: int) -> None:
    assert sorted(coarse_to_fine(n)) == list(range(n))


@given(st.integers(20, 400), st.floats(0.05, 1))
@settings(max_examples=50)
def test_what_was_read_lies_evenly_at_any_time(n: int, share: float) -> None:
    read = np.sort(coarse_to_fine(n)[: max(5, int(share * n))])
    gaps = np.diff(read)
    assert read[0] == 0
    assert read[-1] == n - 1
    assert gaps.max() <= 2 * gaps.min() + 2


@given(st.sets(st.integers(0, 99), min_size=2))
@settings(max_examples=50)
def test_weights_integrate_a_straight_line_exactly(chosen: set[int]) -> None:
    read = np.array(sorted(chosen | {0, 99}))
    weights = slice_weights(read, 100)
    assert weights.sum() == pytest.approx(100)
    assert weights @ (3.0 + 2 * read) == pytest.approx((3 + 2 * np.arange(100)).sum())


def test_one_slice_counts_for_all() -> None:
    assert slice_weights(np.array([3]), 10).tolist() == [10]


def test_all_slices_leave_no_doubt() -> None:
    areas = np.arange(12.0)
    estimate = estimate_sum(np.arange(12), areas, 12)
    assert (estimate.low, estimate.value, estimate.high) == (66, 66, 66)


def test_interval_shrinks_as_more_is_read() -> None:
    areas = np.sin(np.linspace(0, np.pi, 200)) ** 2 * (
        1 + 0.2 * np.random.default_rng(0).standard_normal(200)
    )
    order = coarse_to_fine(200)
    widths = []
    for count in (8, 20, 60, 150):
        read = np.sort(order[:count])
        estimate = estimate_sum(read, areas[read], 200)
        widths.append(estimate.high - estimate.low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.1 * widths[0]


def coverage(areas: npt.NDArray[np.float64]) -> list[bool]:
    """Whether the interval holds the sum over all slices, after each number of slices."""
    n, order = len(areas), coarse_to_fine(len(areas))
    held = []
    for count in range(FEWEST, n):
        read = np.sort(order[:count])
        estimate = estimate_sum(read, areas[read], n)
        held.append(estimate.low - 1e-9 <= areas.sum() <= estimate.high + 1e-9)
    return held


@pytest.mark.parametrize("case", ["mild", "moderate", "severe"])
def test_interval_holds_the_answer_on_the_phantom(case: str) -> None:
    chest = chest_phantom(case)
    affine = np.array([[0, 0, 6.0, -195], [0, 6.0, 0, -140], [2.5, 0, 0, -180], [0, 0, 0, 1]])
    covers = chest.phantom.coverage(lambda body: bool(body.opacity), (136, 48, 65), affine)
    assert np.mean(coverage(covers.sum(axis=(1, 2)))) >= LEVEL


def test_interval_holds_the_answer_on_real_cases(shared: Path) -> None:
    held = []
    for case in sorted((shared / "data/ct/coronacases").iterdir()):
        masks = sorted(case.glob("*-opacity.png"))
        held.append(
            coverage(np.array([np.count_nonzero(np.asarray(Image.open(mask))) for mask in masks], float))
        )
    assert len(held) == 7
    assert np.mean(np.concatenate(held)) >= LEVEL
