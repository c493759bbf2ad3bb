"""Following a patient: times, changes, noise and the line through a course."""

from __future__ import annotations

import math
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bedside import Bundle
from bedside.errors import BedsideError, BundleError, InputError, RefusedError
from bedside.manifest import Manifest
from bedside.provenance import BundleRef
from bedside.trend import Request, Trend, follow_up
from bedside.trend.courses import Change
from bedside.trend.document import HEADER, rows
from bedside.trend.moments import parse_moment
from bedside.trend.noise import Noise, noise_of
from bedside.trend.slope import LEVEL, slope_of
from bedside.trend.studies import Engine, read_study
from followed import OWN, PEOPLE, ct, followed, unknown, x_ray
from tiny_bundle import Network, make_bundle, manifest_of, read_manifest, write_manifest

MEASURED = {"sd": 0.2, "smallest_change": 0.7, "level": 0.95, "method": "made up: each picture twice"}
READERS = {"sd": 0.8, "smallest_change": 2.2, "level": 0.95, "method": "made up: two readers"}


def measured_manifest(folder: Path, **changed: Any) -> Manifest:
    """Of a bundle that says how well its extent repeats itself."""
    scores = manifest_of(Network())["scores"]
    scores[0] |= {"repeatability": MEASURED, "observers": READERS, **changed}
    return Bundle.open(make_bundle(folder, scores=scores)).manifest


def follow(records: list[dict[str, Any]], days: list[float], manifest: Manifest | None = None) -> Trend:
    told = [
        (str(record["source"]), parse_moment(f"{day:g}")) for record, day in zip(records, days, strict=True)
    ]
    return follow_up(records, Request(told), manifest_of=lambda _ref: manifest)


def changes(trend: Trend, quantity: str = "extent") -> list[Change | None]:
    (course,) = (course for course in trend.courses if course.quantity.name == quantity)
    return [point.since_last for point in course.points]


def codes(trend: Trend) -> list[str]:
    return [note.code for note in trend.notes]


def study_codes(trend: Trend) -> list[set[str]]:
    return [{note.code for note in placed.study.notes} for placed in trend.studies]


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


# Noise.


@pytest.mark.parametrize(
    ("values", "verdict", "beyond"),
    [
        ((4.0, 4.7), "within-noise", False),
        ((4.0, 4.75), "worse", False),
        ((4.0, 3.25), "better", False),
        ((4.0, 3.4), "within-noise", False),
        ((4.0, 6.3), "worse", True),
        ((4.0, 1.7), "better", True),
    ],
)
def test_change_counts_where_it_is_over_the_smallest(
    tmp_path: Path, values: tuple[float, float], verdict: str, beyond: bool
) -> None:
    records = [x_ray(f"{number}.png", value) for number, value in enumerate(values)]
    (_, change) = changes(follow(records, [0, 1], measured_manifest(tmp_path / "bundle")))
    assert change is not None
    assert (change.verdict, change.beyond_observers, change.smallest_change) == (verdict, beyond, 0.7)


def test_without_a_measurement_there_is_no_verdict() -> None:
    trend = follow([x_ray("a.png", 1), x_ray("b.png", 8)], [0, 1])
    (_, change) = changes(trend)
    assert change is not None
    assert (change.verdict, change.smallest_change, change.beyond_observers) == ("unknown", None, None)
    assert "bundle-absent" in codes(trend)


def test_bundle_that_was_never_measured_says_so(tmp_path: Path) -> None:
    manifest = Bundle.open(make_bundle(tmp_path / "bundle")).manifest
    trend = follow([x_ray("a.png", 1), x_ray("b.png", 8)], [0, 1], manifest)
    (_, change) = changes(trend)
    assert change is not None
    assert change.verdict == "unknown"
    assert "noise-unknown" in codes(trend)


def test_score_without_a_measurement_has_no_verdict_beside_one_that_has(tmp_path: Path) -> None:
    trend = follow([x_ray("a.png", 1), x_ray("b.png", 8)], [0, 1], measured_manifest(tmp_path / "bundle"))
    verdicts = {
        course.quantity.name: point.since_last.verdict
        for course in trend.courses
        for point in course.points
        if point.since_last is not None
    }
    assert verdicts == {"extent": "worse", "opacity": "unknown"}
    assert "noise-unknown" in codes(trend)


FP32, BF16 = Engine("onnxruntime", "fp32"), Engine("openvino", "bf16")


@pytest.mark.parametrize(
    ("first", "second", "smallest"),
    [
        (FP32, FP32, 0.7),
        (FP32, Engine("openvino", "fp32"), 0.72),
        (FP32, BF16, 0.81),
        (BF16, BF16, 0.9),
        (FP32, Engine("openvino", "int8"), None),
    ],
)
def test_other_engines_widen_noise_by_the_tolerances_of_the_bundle(
    first: Engine, second: Engine, smallest: float | None
) -> None:
    noise = Noise(OWN, PEOPLE, {"fp32": 0.01, "bf16": 0.1})
    found = noise.smallest_change(first, second)
    assert found == (None if smallest is None else pytest.approx(smallest))
    assert found == noise.smallest_change(second, first)


def test_several_engines_are_told(tmp_path: Path) -> None:
    records = [x_ray("a.png", 1), x_ray("b.png", 2)]
    records[1]["engine"] = {**records[1]["engine"], "precision": "bf16"}
    trend = follow(records, [0, 1], measured_manifest(tmp_path / "bundle"))
    (_, change) = changes(trend)
    assert change is not None
    assert change.smallest_change == pytest.approx(0.7 + 0.01 + 0.1)
    assert "several-engines" in codes(trend)


def test_noise_is_read_from_the_bundle(tmp_path: Path) -> None:
    manifest = measured_manifest(tmp_path / "bundle")
    noise = noise_of(manifest, "extent")
    assert noise is not None
    assert (noise.own, noise.observers) == (OWN, PEOPLE)
    assert noise_of(manifest, "opacity") is None


@pytest.mark.parametrize(
    "changed",
    [
        {"repeatability": {**MEASURED, "sd": -0.1}},
        {"repeatability": {**MEASURED, "smallest_change": 0.1}},
        {"observers": {**READERS, "level": 1.0}},
        {"observers": {**READERS, "unit": "points"}},
        {"repeatability": {"sd": 0.2}},
    ],
)
def test_improper_repeatability_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(BundleError) as caught:
        measured_manifest(tmp_path / "bundle", **changed)
    assert caught.value.code == "bundle-broken"


def test_manifest_without_repeatability_is_one(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "bundle")
    assert "repeatability" not in str(read_manifest(folder))
    write_manifest(folder, read_manifest(folder))
    assert Bundle.open(folder).manifest.scores[0].repeatability is None


# What is not followed, and what is refused.


def test_results_of_two_bundles_are_refused_by_digest() -> None:
    records = [x_ray("a.png", 1), x_ray("b.png", 2)]
    records[1]["bundle"] = {**records[1]["bundle"], "digest": "f" * 64}
    with pytest.raises(RefusedError) as caught:
        follow(records, [0, 1])
    assert caught.value.code == "mixed-bundles"
    assert "tiny 1.0.0 (sha256 0123456789ab)" in str(caught.value)
    assert "tiny 1.0.0 (sha256 ffffffffffff)" in str(caught.value)
    assert "bedside score --bundle" in str(caught.value)


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


# The line through a course.


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
