"""Following a patient: times, order, changes and notes."""

from __future__ import annotations

import pytest

from bedside.errors import InputError
from bedside.provenance import BundleRef
from bedside.trend import Request, follow_up
from bedside.trend.document import HEADER, rows
from bedside.trend.moments import parse_moment
from followed import changes, codes, ct, follow, followed, study_codes, unknown, x_ray

# Times.


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2020-03-01", "2020-03-01"),
        ("20200301", "2020-03-01"),
        (" 2020-03-01T08:30 ", "2020-03-01 08:30"),
        ("2020-03-01 08:30:59", "2020-03-01 08:30"),
        ("5", "day 5"),
        ("day 5.5", "day 5.5"),
        ("-2", "day -2"),
    ],
)
def test_time_is_a_date_or_a_number_of_days(text: str, shown: str) -> None:
    moment = parse_moment(text)
    assert moment.text == shown
    assert moment.dated == (not shown.startswith("day"))


@pytest.mark.parametrize(
    "text", ["", "soon", "2020-13-01", "20201301", "2020-03-01T08:30+01:00", "nan", "1e3", "99999", "day"]
)
def test_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_moment(text)
    assert caught.value.code == "bad-attribute"


def test_days_between_dates_count_hours() -> None:
    first, second = parse_moment("2020-02-28T18:00"), parse_moment("2020-03-01T06:00")
    assert second.days - first.days == 1.5


# Order and changes.


def test_studies_come_in_order_of_time_whatever_the_order_given() -> None:
    trend = followed(1, 2, 3, days=(9, 4, 7))
    assert [placed.study.source for placed in trend.studies] == ["1.png", "2.png", "0.png"]
    values = [point.reading.value for point in trend.courses[0].points]
    assert values == [2, 3, 1]
    assert [point.days for point in trend.courses[0].points] == [0, 3, 5]


def test_change_since_the_last_and_since_the_first() -> None:
    course = followed(1, 3, 2.5).courses[0]
    assert [point.since_last and point.since_last.value for point in course.points] == [None, 2, -0.5]
    assert [point.since_first and point.since_first.value for point in course.points] == [None, 2, 1.5]
    assert [point.since_last and point.since_last.since for point in course.points] == [None, 0, 1]


def test_studies_of_one_time_are_compared_with_the_one_before_both() -> None:
    trend = followed(1, 3, 5, 2, days=(0, 4, 4, 6))
    assert [change and (change.since, change.value) for change in changes(trend)] == [
        None,
        (0, 2),
        (0, 4),
        (2, -3),
    ]
    assert [("same-time" in each) for each in study_codes(trend)] == [False, True, True, False]


def test_studies_of_the_first_time_have_nothing_before_them() -> None:
    course = followed(1, 3, days=(2, 2)).courses[0]
    assert [(point.since_last, point.since_first) for point in course.points] == [(None, None)] * 2


def test_one_study_is_no_trend() -> None:
    trend = followed(4)
    assert codes(trend)[0] == "no-trend"
    assert changes(trend) == [None]


def test_two_studies_are_a_trend() -> None:
    assert "no-trend" not in codes(followed(4, 5))


def test_last_result_of_a_source_counts() -> None:
    records = [x_ray("a.png", 1), x_ray("b.png", 2), x_ray("a.png", 3)]
    told = [("a.png", parse_moment("0")), ("b.png", parse_moment("1"))]
    trend = follow_up(records, Request(told), manifest_of=unknown)
    assert [point.reading.value for point in trend.courses[0].points] == [3, 2]


def test_series_of_one_folder_are_studies_of_their_own() -> None:
    records = [ct("scan", 100, series="1.2"), ct("scan", 150, series="1.3")]
    with pytest.raises(InputError, match="names several studies"):
        follow_up(records, Request([("scan", parse_moment("0"))]), manifest_of=unknown)


# Notes.


def test_doubts_about_a_picture_are_kept_and_the_usual_note_is_not() -> None:
    quality = [
        {"code": "voi", "text": "the first window"},
        {"code": "low-resolution", "text": "few pixels"},
    ]
    assert study_codes(followed(1, 2, quality=quality)) == [{"low-resolution"}] * 2


def test_score_at_the_top_of_its_scale_is_told() -> None:
    trend = followed(8, 3)
    assert ["top-of-scale" in each for each in study_codes(trend)] == [True, False]


def test_estimate_from_some_slices_is_told() -> None:
    entry = {"finding": "missing-slices", "decision": "mended", "text": "two slices were filled in"}
    trend = follow([ct("a", 10, read_share=0.5), ct("b", 10, ledger=[entry])], [0, 1])
    assert study_codes(trend) == [{"sampled"}, {"missing-slices"}]


def test_pictures_that_do_not_say_whose_they_are_are_told_of() -> None:
    assert "patient-unknown" in codes(followed(1, 2))
    assert "patient-unknown" not in codes(followed(1))


# X-rays and CTs together.


def test_x_rays_and_cts_have_bundles_of_their_own() -> None:
    trend = follow([x_ray("a.png", 1), ct("b", 120.0), ct("c", 200.0), x_ray("d.png", 2)], [0, 1, 2, 3])
    assert {course.quantity.name: len(course.points) for course in trend.courses} == {
        "extent": 2,
        "opacity": 2,
        "opacity_ml": 2,
        "opacity_percent": 2,
    }
    assert [change and change.value for change in changes(trend, "opacity_ml")] == [None, 80]
    assert [change and change.since for change in changes(trend, "extent")] == [None, 0]


def test_rows_have_a_cell_for_each_column() -> None:
    trend = follow([x_ray("a.png", 1), ct("b", 10.0), x_ray("c.png", 2)], [0, 1, 2])
    table = list(rows(trend))
    assert {len(row) for row in table} == {len(HEADER)}
    assert [row[0] for row in table] == [
        "extent",
        "extent",
        "opacity",
        "opacity",
        "opacity_ml",
        "opacity_percent",
    ]


def test_bundle_is_asked_for_once_a_kind() -> None:
    asked: list[BundleRef] = []

    def manifest_of_ref(ref: BundleRef) -> None:
        asked.append(ref)

    told = [(name, parse_moment(str(day))) for day, name in enumerate(("a.png", "b", "c.png"))]
    records = [x_ray("a.png", 1), ct("b", 10.0), x_ray("c.png", 2)]
    trend = follow_up(records, Request(told), manifest_of=manifest_of_ref)
    assert [ref.name for ref in asked] == ["tiny", "tiny-ct"]
    assert [course.bundle.name for course in trend.courses] == ["tiny", "tiny", "tiny-ct", "tiny-ct"]
