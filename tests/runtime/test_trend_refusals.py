"""What is not followed: results that do not belong together, studies without a time, and what is no result."""

from __future__ import annotations

from typing import Any

import pytest

from bedside.errors import BedsideError, InputError, RefusedError
from bedside.trend import Request, follow_up
from bedside.trend.moments import parse_moment
from bedside.trend.studies import read_study
from followed import changes, ct, follow, unknown, x_ray


def test_results_of_two_bundles_are_refused_by_digest() -> None:
    records = [x_ray("a.png", 1), x_ray("b.png", 2)]
    records[1]["bundle"] = {**records[1]["bundle"], "digest": "f" * 64}
    with pytest.raises(RefusedError) as caught:
        follow(records, [0, 1])
    assert caught.value.code == "mixed-bundles"
    assert "tiny 1.0.0 (sha256 0123456789ab)" in str(caught.value)
    assert "tiny 1.0.0 (sha256 ffffffffffff)" in str(caught.value)
    assert "bedside score --bundle" in str(caught.value)


def test_cts_of_two_bundles_are_refused_and_the_command_is_named() -> None:
    other = {"name": "tiny-ct", "version": "1.0.1", "digest": "e" * 64}
    with pytest.raises(RefusedError, match="bedside segment --bundle"):
        follow([ct("a", 1), ct("b", 2, bundle=other)], [0, 1])


def test_scan_without_lungs_has_no_share() -> None:
    trend = follow([ct("a", 10), ct("b", 0, percent=None), ct("c", 20)], [0, 1, 2])
    points = {course.quantity.name: [point.study for point in course.points] for course in trend.courses}
    assert points == {"opacity_ml": [0, 1, 2], "opacity_percent": [0, 2]}
    assert [change and change.since for change in changes(trend, "opacity_percent")] == [None, 0]


def test_refused_results_are_left_out_with_their_code() -> None:
    error = {"code": "wrong-view", "message": "the view position is LL"}
    refused = {**x_ray("b.png", 1), "status": "refused", "error": error, "extent": None, "opacity": None}
    trend = follow([x_ray("a.png", 1), refused, x_ray("c.png", 2)], [0, 1, 2])
    assert [(each.source, each.reason) for each in trend.left_out] == [("b.png", "refused [wrong-view]")]
    assert len(trend.studies) == 2


def test_study_without_a_time_is_left_out() -> None:
    records = [x_ray("a.png", 1), x_ray("b.png", 2)]
    trend = follow_up(records, Request([("a.png", parse_moment("0"))]), manifest_of=unknown)
    (left,) = trend.left_out
    assert left.source == "b.png"
    assert "--at" in left.reason


def test_nothing_to_follow_is_refused_with_a_reason() -> None:
    with pytest.raises(RefusedError) as caught:
        follow_up([x_ray("a.png", 1)], manifest_of=unknown)
    assert caught.value.code == "no-studies"
    assert "no time" in str(caught.value)
    with pytest.raises(RefusedError, match="no study"):
        follow_up([], manifest_of=unknown)


def test_dates_and_numbers_of_days_do_not_mix() -> None:
    told = [("a.png", parse_moment("2020-03-01")), ("b.png", parse_moment("5"))]
    with pytest.raises(RefusedError) as caught:
        follow_up([x_ray("a.png", 1), x_ray("b.png", 2)], Request(told), manifest_of=unknown)
    assert caught.value.code == "not-comparable"


def test_scores_on_two_scales_do_not_mix() -> None:
    records = [x_ray("a.png", 1), x_ray("b.png", 2)]
    records[1]["opacity"] = {**records[1]["opacity"], "scale": [0, 8]}
    with pytest.raises(RefusedError, match="different scales"):
        follow(records, [0, 1])


@pytest.mark.parametrize("name", ["c.png", "elsewhere/a.png", ""])
def test_time_of_no_study_is_refused(name: str) -> None:
    with pytest.raises(InputError) as caught:
        follow_up([x_ray("x/a.png", 1)], Request([(name, parse_moment("1"))]), manifest_of=unknown)
    assert caught.value.code == "bad-attribute"
    assert "names no study" in str(caught.value)
    assert ".png" not in str(caught.value)


def test_time_is_matched_by_as_much_of_the_path_as_it_takes() -> None:
    records = [x_ray("monday/a.png", 1), x_ray("friday/a.png", 2)]
    told = [("friday/a.png", parse_moment("4")), ("monday/a.png", parse_moment("0"))]
    trend = follow_up(records, Request(told), manifest_of=unknown)
    assert [placed.moment.text for placed in trend.studies] == ["day 0", "day 4"]
    with pytest.raises(InputError, match="names several"):
        follow_up(records, Request([("a.png", parse_moment("0"))]), manifest_of=unknown)


def test_two_times_of_one_study_are_refused() -> None:
    told = [("a.png", parse_moment("0")), ("./a.png", parse_moment("1"))]
    with pytest.raises(InputError, match="second"):
        follow_up([x_ray("a.png", 1)], Request(told), manifest_of=unknown)


def test_time_may_be_told_of_a_study_that_failed() -> None:
    error = {"code": "broken-image", "message": "damaged; copy it again"}
    failed = x_ray("b.png", 1, status="failed", error=error)
    assert len(follow([x_ray("a.png", 1), failed], [0, 1]).studies) == 1


@pytest.mark.parametrize("key", ["bundle", "engine", "quality", "extent", "status"])
def test_result_that_lacks_something_is_refused(key: str) -> None:
    record = x_ray("a.png", 1)
    del record[key]
    with pytest.raises(InputError) as caught:
        read_study(record)
    assert caught.value.code == "not-results"


@pytest.mark.parametrize("record", [{}, {"schema": "other/1", "source": "a", "status": "ok"}, [], "text"])
def test_what_is_no_result_is_refused(record: Any) -> None:
    with pytest.raises(BedsideError) as caught:
        follow_up([record], manifest_of=unknown)
    assert caught.value.code == "not-results"
