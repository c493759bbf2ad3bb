"""A trend as text for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bedside.cli.console import columns, field, printable
from bedside.contract import Repeatability
from bedside.provenance import NOTICE
from bedside.trend import Trend
from bedside.trend.courses import VERDICTS, Change, Course
from bedside.trend.slope import LEVEL

__all__ = ["describe"]

ABSENT: Final = "-"
"""What there is none of."""


def describe(trend: Trend) -> str:
    """All that is printed, as one text: a table for each quantity, and what it rests on."""
    blocks = []
    for course in trend.courses:
        scale = course.points[0].reading.scale
        unit = f"{scale[0]:g} to {scale[1]:g}" if scale is not None else course.quantity.unit
        text = f"{course.quantity.title}, {unit}\n{columns(_rows(trend, course))}"
        blocks.append("\n".join([text, *_basis(course)]))
    if trend.notes:
        blocks.append("\n".join(field(note.code, note.text) for note in trend.notes))
    return "\n\n".join([*blocks, NOTICE])


def _rows(trend: Trend, course: Course) -> Iterable[list[str]]:
    yield ["TIME", "DAY", "VALUE", "INTERVAL", "SINCE THE LAST", "SINCE THE FIRST", "NOTES", "SOURCE"]
    for point in course.points:
        placed, reading = trend.studies[point.study], point.reading
        yield [
            placed.moment.text,
            f"{point.days:.1f}",
            _value(course, reading.value),
            ABSENT
            if reading.low is None or reading.high is None
            else f"{_value(course, reading.low)} to {_value(course, reading.high)}",
            _change(course, point.since_last),
            _change(course, point.since_first),
            ", ".join(dict.fromkeys(note.code for note in placed.study.notes)),
            printable(placed.study.source),
        ]


def _basis(course: Course) -> Iterable[str]:
    """What the table rests on, a line each."""
    levels = {point.reading.level for point in course.points if point.reading.low is not None}
    for level in sorted(levels, key=str):
        yield field(
            "interval",
            "its level was never measured" if level is None else f"{level:.0%} of truths lie inside",
        )
    own, people = course.own, course.observers
    if own is not None:
        yield field("smallest change", _smallest(course, own))
    if people is not None:
        yield field("of two observers", _smallest(course, people))
    slope = course.slope
    if slope is not None:
        yield field(
            "slope",
            f"{slope.per_day:+.2g} {course.quantity.unit} a day ({LEVEL:.0%} interval {slope.low:+.2g} to "
            f"{slope.high:+.2g}), as if the course were a straight line",
        )
    yield field("bundle", f"{course.bundle.name} {course.bundle.version}, sha256 {course.bundle.digest[:12]}")


def _smallest(course: Course, measured: Repeatability) -> str:
    return (
        f"{_value(course, measured.smallest_change, more=1)} {course.quantity.unit}: {measured.level:.0%} of pairs "
        f"without a change differ by no more; {measured.method}"
    )


def _change(course: Course, change: Change | None) -> str:
    if change is None:
        return ABSENT
    value = _value(course, abs(change.value))
    sign = "" if float(value) == 0 else "+" if change.value > 0 else "-"
    verdict = VERDICTS[change.verdict]
    people = ", within observers" if verdict and change.beyond_observers is False else ""
    if change.verdict == "within-noise":
        people = ""
    return " ".join(part for part in (sign + value, verdict + people) if part)


def _value(course: Course, value: float, *, more: int = 0) -> str:
    """To a tenth of a point or of a percent, and to the millilitre."""
    return f"{value:.{more if course.quantity.unit == 'mL' else 1 + more}f}"
