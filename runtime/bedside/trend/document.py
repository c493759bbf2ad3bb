"""A trend as JSON, of schema ``bedside.trend/1``, and as rows of a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from bedside.contract import Repeatability
from bedside.provenance import NOTICE
from bedside.trend.courses import Change, Course, Placed, Point
from bedside.trend.slope import LEVEL, Slope

if TYPE_CHECKING:
    from bedside.trend import Trend

__all__ = ["HEADER", "SCHEMA", "rows", "write_document"]

SCHEMA: Final = "bedside.trend/1"
"""Version of the JSON; its schema is ``schemas/trend-1.schema.json``."""
DIGITS: Final = 6
"""Decimals of every number: of days, a tenth of a second."""
HEADER: Final = (
    "quantity",
    "unit",
    "source",
    "time",
    "day",
    "value",
    "low",
    "high",
    "level",
    "since_last",
    "days_since_last",
    "verdict_since_last",
    "since_first",
    "verdict_since_first",
    "smallest_change",
    "beyond_observers",
    "notes",
    "bundle",
    "bundle_version",
    "bundle_digest",
    "backend",
    "precision",
    "notice",
)
"""Columns of `rows`."""


def write_document(trend: Trend) -> dict[str, Any]:
    """All of a trend. What is not known is null."""
    start = trend.studies[0].moment.days
    return {
        "schema": SCHEMA,
        "studies": [_study(each, start) for each in trend.studies],
        "left_out": [asdict(each) for each in trend.left_out],
        "courses": [_course(course) for course in trend.courses],
        "notes": [asdict(note) for note in trend.notes],
        "notice": NOTICE,
    }


def rows(trend: Trend) -> Iterator[tuple[object, ...]]:
    """The cells of `HEADER`, a row for each quantity in each study; None where there is nothing to tell."""
    for course in trend.courses:
        for point in course.points:
            placed = trend.studies[point.study]
            study, reading = placed.study, point.reading
            last, first = point.since_last, point.since_first
            yield (
                course.quantity.name,
                course.quantity.unit,
                study.source,
                placed.moment.text,
                _number(point.days),
                _number(reading.value),
                _number(reading.low),
                _number(reading.high),
                reading.level,
                *((None,) * 3 if last is None else (_number(last.value), _number(last.days), last.verdict)),
                *((None,) * 2 if first is None else (_number(first.value), first.verdict)),
                *((None,) * 2 if last is None else (_number(last.smallest_change), last.beyond_observers)),
                ";".join(note.code for note in study.notes),
                study.bundle.name,
                study.bundle.version,
                study.bundle.digest,
                study.engine.backend,
                study.engine.precision,
                NOTICE,
            )


def _study(placed: Placed, start: float) -> dict[str, Any]:
    study = placed.study
    return {
        "source": study.source,
        "kind": study.kind,
        "time": placed.moment.text,
        "time_from": placed.clock,
        "day": _number(placed.moment.days - start),
        "engine": asdict(study.engine),
        "notes": [asdict(note) for note in study.notes],
    }


def _course(course: Course) -> dict[str, Any]:
    quantity, scale = course.quantity, course.points[0].reading.scale
    return {
        "quantity": quantity.name,
        "title": quantity.title,
        "unit": quantity.unit,
        "kind": quantity.kind,
        "scale": None if scale is None else list(scale),
        "bundle": asdict(course.bundle),
        "repeatability": _repeatability(course.own),
        "observers": _repeatability(course.observers),
        "points": [_point(point) for point in course.points],
        "slope": _slope(course.slope),
    }


def _repeatability(measured: Repeatability | None) -> dict[str, Any] | None:
    return None if measured is None else asdict(measured)


def _point(point: Point) -> dict[str, Any]:
    reading = point.reading
    return {
        "study": point.study,
        "day": _number(point.days),
        "value": _number(reading.value),
        "low": _number(reading.low),
        "high": _number(reading.high),
        "level": reading.level,
        "since_last": _change(point.since_last),
        "since_first": _change(point.since_first),
    }


def _change(change: Change | None) -> dict[str, Any] | None:
    if change is None:
        return None
    return {
        "since": change.since,
        "days": _number(change.days),
        "change": _number(change.value),
        "smallest_change": _number(change.smallest_change),
        "verdict": change.verdict,
        "beyond_observers": change.beyond_observers,
    }


def _slope(slope: Slope | None) -> dict[str, Any] | None:
    if slope is None:
        return None
    return {
        "per_day": _number(slope.per_day),
        "low": _number(slope.low),
        "high": _number(slope.high),
        "level": LEVEL,
    }


def _number(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
