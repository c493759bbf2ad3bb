from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside.opacification import CurvePoint
from bedside.report import curve
from bedside.report.curve import ABOVE, BELOW, LEFT, RIGHT, render, ticks

LUNG, OPACITY = (0, 0, 255), (255, 0, 0)
SIZE = (380, 700)
Bytes = npt.NDArray[np.uint8]


def points(lung: list[float], opacity: list[float], *, step: float = 10.0) -> list[CurvePoint]:
    return [CurvePoint(n, n * step, *areas) for n, areas in enumerate(zip(lung, opacity, strict=True))]


def plot(picture: Bytes) -> Bytes:
    """The inside of the axes."""
    return picture[ABOVE + 1 : SIZE[0] - BELOW, LEFT : SIZE[1] - RIGHT]


def shaded(picture: Bytes, channel: int) -> npt.NDArray[np.int64]:
    """Rows of each column of the plot where a channel stands out."""
    inside = plot(picture).astype(int)
    return np.asarray((inside[..., channel] > inside[..., (channel + 2) % 3] + 40).sum(axis=0))


def test_height_of_the_shade_is_the_area() -> None:
    picture = render(points([200, 200, 200], [50, 50, 50]), SIZE, colours=(LUNG, OPACITY))
    height = plot(picture).shape[0]
    top = ticks(0, 204, 4)[-1]
    assert np.median(shaded(picture, 0)) == pytest.approx(height * 50 / top, abs=3)
    blue = plot(picture)[..., 2].astype(int) > 60
    assert np.median(blue.sum(axis=0)) == pytest.approx(height * 200 / top, abs=4)


def test_head_is_at_the_right() -> None:
    picture = render(points([100, 100, 100], [0, 0, 80]), SIZE, colours=(LUNG, OPACITY))
    heights = shaded(picture, 0)
    assert heights[-20] > heights[len(heights) // 2] + 20


def test_slices_lie_where_they_are_and_not_where_they_are_in_order() -> None:
    uneven = [CurvePoint(0, 0.0, 100, 0), CurvePoint(1, 90.0, 100, 80), CurvePoint(2, 100.0, 100, 0)]
    heights = shaded(render(uneven, SIZE, colours=(LUNG, OPACITY)), 0)
    assert int(heights.argmax()) == pytest.approx(0.9 * len(heights), abs=4)


def test_marks_stand_above_their_slices() -> None:
    plain, marked = (
        render(points([100] * 5, [0] * 5), SIZE, colours=(LUNG, OPACITY), marks=marks)
        for marks in ((), (10.0,))
    )
    columns = np.nonzero((plain != marked)[ABOVE - 6 : ABOVE].any(axis=(0, 2)))[0]
    assert columns.mean() == pytest.approx(LEFT + 0.25 * (SIZE[1] - LEFT - RIGHT), abs=2)


def test_slices_that_were_read_are_dots_where_not_all_were() -> None:
    whole, part = (
        render(points([100] * 5, [20] * 5), SIZE, colours=(LUNG, OPACITY), whole=whole)
        for whole in (True, False)
    )
    assert (whole != part).any(axis=2).sum() > 5 * 2 * 10


@pytest.mark.parametrize("areas", [([0.0], [0.0]), ([120.0], [30.0]), ([0.0, 0.0], [0.0, 0.0])])
def test_one_slice_and_no_lung_are_drawn(areas: tuple[list[float], list[float]]) -> None:
    picture = render(points(*areas), SIZE, colours=(LUNG, OPACITY))
    assert picture.shape == (*SIZE, 3)
    assert (np.ptp(picture[ABOVE:, LEFT:].astype(int), axis=2) > 100).any()


def test_curve_without_slices_is_refused() -> None:
    with pytest.raises(ValueError, match="slice"):
        render([], SIZE, colours=(LUNG, OPACITY))


@given(st.floats(-1e4, 1e4), st.floats(0.5, 1e4), st.integers(2, 8))
@settings(max_examples=60)
def test_ticks_are_round_enclose_and_are_few(low: float, span: float, count: int) -> None:
    found = ticks(low, low + span, count)
    step = found[1] - found[0]
    mantissa = step / 10 ** np.floor(np.log10(step) + 1e-9)
    assert min(abs(mantissa - round_one) for round_one in (1, 2, 5, 10)) < 1e-6
    assert found[0] <= low + 1e-6 * step
    assert found[-1] >= low + span - 1e-6 * step
    assert 2 <= len(found) <= count + 3


def test_axis_starts_at_no_area() -> None:
    assert curve.ticks(0.0, 263.0, 4) == [0, 100, 200, 300]
