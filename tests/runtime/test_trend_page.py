"""The picture of a trend: what it shows, and that it tells nothing of the patient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from bedside.provenance import NOTICE, BundleRef
from bedside.trend import Request, Trend, follow_up, page, panel
from bedside.trend.courses import Course
from bedside.trend.moments import parse_moment
from bedside.trend.page import MARGIN, WIDTH, render
from bedside.trend.panel import MARKERS, draw_panel
from followed import OWN, PEOPLE, ct, followed, unknown, x_ray
from written_pages import Written, check_layout, note_lines

SIZE = (480, 752)
CANARY = "CANARY-7731"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    return note_lines(monkeypatch, page, panel)


def both_kinds() -> Trend:
    """As much as a page can have to tell."""
    names = [f"{CANARY}-{number}" for number in range(14)]
    note = [{"code": "low-resolution", "text": "few pixels; " * 12}]
    records = [
        x_ray(name, number / 2, quality=note) if number % 2 else ct(name, 40.0 * number)
        for number, name in enumerate(names)
    ]
    told = [(name, parse_moment(f"2020-03-{1 + number:02}T08:30")) for number, name in enumerate(names)]
    trend = follow_up(records, Request(told), manifest_of=unknown)
    courses = [
        replace(course, own=OWN, observers=replace(PEOPLE, method="read by two; " * 20))
        for course in trend.courses
    ]
    bundle = BundleRef("n" * 64, "1.0.0+" + "b" * 26, "a" * 64)
    return replace(trend, courses=(replace(courses[0], bundle=bundle), *courses[1:]))


def scan_only() -> Trend:
    told = [("a", parse_moment("0")), ("b", parse_moment("0.01"))]
    return follow_up([ct("a", 0.0, percent=None), ct("b", 0.4)], Request(told), manifest_of=unknown)


CASES: dict[str, Callable[[], Trend]] = {
    "both kinds": both_kinds,
    "one study": lambda: followed(4),
    "at the ends of the scale": lambda: followed(0, 8, 8, 0, 8, days=(0, 1, 30, 365, 366)),
    "one time": lambda: followed(1, 2, days=(3, 3)),
    "scans alone": scan_only,
}


@pytest.mark.parametrize("name", CASES)
def test_no_text_is_clipped_none_meets_another_and_the_margin_is_free(name: str, written: Written) -> None:
    check_layout(render(CASES[name]()), written, width=WIDTH, margin=MARGIN)


def test_page_says_that_it_is_not_for_clinical_use_and_whose_answer_it_is(written: Written) -> None:
    render(followed(1, 2))
    texts = [text for text, _, _ in written]
    assert NOTICE.rstrip(".").upper() in texts
    assert any("tiny 1.0.0, sha256 0123456789ab" in text for text in texts)


def test_page_tells_no_date_and_no_source(written: Written) -> None:
    render(both_kinds())
    told = " ".join(text for text, _, _ in written)
    assert CANARY not in told
    assert "2020" not in told
    assert "days since the first study" in told


def test_page_tells_the_smallest_change_and_what_it_rests_on(written: Written) -> None:
    trend = followed(1, 2)
    courses = tuple(replace(course, own=OWN) for course in trend.courses)
    render(replace(trend, courses=courses))
    assert any("smallest change 0.70 points" in text and OWN.method in text for text, _, _ in written)


def test_page_is_the_same_each_time() -> None:
    np.testing.assert_array_equal(render(both_kinds()), render(both_kinds()))


def measured(*values: float, doubted: bool = False) -> npt.NDArray[np.uint8]:
    """The panel of the extent, with its noise known; three days."""
    course = _with_verdicts(followed(*values).courses[0])
    return np.asarray(draw_panel(course, SIZE, (0, 2), frozenset({0} if doubted else ())))


def _with_verdicts(course: Course) -> Course:
    points = tuple(
        point
        if point.since_last is None
        else replace(
            point,
            since_last=replace(
                point.since_last,
                verdict="within-noise"
                if abs(point.since_last.value) <= OWN.smallest_change
                else "worse"
                if point.since_last.value > 0
                else "better",
            ),
        )
        for point in course.points
    )
    return replace(course, points=points, own=OWN)


def shows(picture: npt.NDArray[np.uint8], colour: tuple[int, int, int]) -> int:
    return int((picture == colour).all(axis=2).sum())


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ((2, 4), {"worse": 1, "better": 0, "within-noise": 0, "unknown": 1}),
        ((4, 2), {"worse": 0, "better": 1, "within-noise": 0, "unknown": 1}),
        ((4, 4.5), {"worse": 0, "better": 0, "within-noise": 1, "unknown": 1}),
    ],
)
def test_marker_says_what_became_of_it(values: tuple[float, float], counts: dict[str, int]) -> None:
    picture = measured(*values)
    assert {name: int(shows(picture, MARKERS[name].colour) > 20) for name in counts} == counts


def test_markers_differ_in_shape_as_well_as_in_colour() -> None:
    shapes = {(marker.corners, marker.up) for marker in MARKERS.values() if marker.corners}
    assert len(shapes) == 2
    assert len({marker.colour for marker in MARKERS.values()}) == len(MARKERS)


def test_higher_score_is_drawn_higher_and_later_study_to_the_right() -> None:
    picture = measured(2, 6)
    rows, columns = np.nonzero((picture == MARKERS["worse"].colour).all(axis=2))
    first_rows, first_columns = np.nonzero((picture == MARKERS["unknown"].colour).all(axis=2))
    assert rows.mean() < first_rows.mean()
    assert columns.mean() > first_columns.mean()


def test_band_is_as_high_as_the_noise_on_both_sides() -> None:
    picture = measured(4, 4)
    column = picture[:, 400]
    (rows,) = np.nonzero((column == panel.BAND).all(axis=1))
    plot = SIZE[0] - panel.ABOVE - panel.BELOW
    assert rows.max() - rows.min() == pytest.approx(2 * OWN.smallest_change / 8 * plot, abs=3)
    assert (rows.max() + rows.min()) / 2 == pytest.approx(panel.ABOVE + plot / 2, abs=2)


def test_study_with_a_note_has_a_ring() -> None:
    assert shows(measured(4, 5), panel.AMBER) == 0
    assert shows(measured(4, 5, doubted=True), panel.AMBER) > 20
