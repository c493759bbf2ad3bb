"""How each quantity went from study to study, and what of that is more than noise. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bedside.contract import Repeatability
from bedside.provenance import BundleRef
from bedside.trend.moments import Moment
from bedside.trend.noise import Noise
from bedside.trend.slope import Slope, slope_of
from bedside.trend.studies import Quantity, Reading, Study

__all__ = ["VERDICTS", "Change", "Course", "Placed", "Point", "follow"]

DIGITS: Final = 6
"""Decimals of a difference: the results have fewer, and the rest is the rounding of binary numbers."""
VERDICTS: Final[Mapping[str, str]] = {
    "worse": "worse",
    "better": "better",
    "within-noise": "no change beyond noise",
    "unknown": "",
}
"""What can be said of a change -> the same for people."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A study at its place in time."""

    study: Study
    """What was found."""
    moment: Moment
    """When."""
    clock: str
    """What told it; see `bedside.trend.occasions.Dated`."""


@dataclass(frozen=True, slots=True)
class Change:
    """From one study to another."""

    since: int
    """Place of the earlier one among all studies, from 0."""
    days: float
    """From the one to the other."""
    value: float
    """Later less earlier, in the quantity's unit."""
    smallest_change: float | None
    """What it has to be over to be more than noise; None where that is not known."""
    verdict: str
    """One of `VERDICTS`."""
    beyond_observers: bool | None
    """Whether it is also more than two people who read one picture differ by; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Point:
    """A quantity in one study."""

    study: int
    """Place among all studies, from 0."""
    days: float
    """Since the first of all studies."""
    reading: Reading
    """Its value with its interval."""
    since_last: Change | None
    """From the latest study of an earlier time; None for the first."""
    since_first: Change | None
    """From the first study."""


@dataclass(frozen=True, slots=True)
class Course:
    """A quantity over time."""

    quantity: Quantity
    """Which."""
    bundle: BundleRef
    """What answered."""
    points: tuple[Point, ...]
    """In order of time."""
    own: Repeatability | None
    """How well the bundle's answers repeat themselves; None where that is not known."""
    observers: Repeatability | None
    """How well people do."""
    slope: Slope | None
    """A straight line through all of it; see `bedside.trend.slope.slope_of`."""


def follow(
    quantity: Quantity, studies: Sequence[Placed], bundle: BundleRef, noise: Noise | None
) -> Course | None:
    """The course of a quantity.

    Args:
        quantity: Which.
        studies: All that are followed, in order of time, of any kind.
        bundle: What answered on those that give the quantity.
        noise: What may be noise in it, where that is known.

    Returns:
        None where no study gives it.
    """
    places = [place for place, each in enumerate(studies) if quantity.name in each.study.readings]
    if not places:
        return None
    start = studies[0].moment.days
    points = []
    for place in places:
        moment = studies[place].moment
        earlier = [other for other in places if studies[other].moment.days < moment.days]
        last = max(earlier, key=lambda other: (studies[other].moment.days, other), default=None)
        points.append(
            Point(
                place,
                moment.days - start,
                studies[place].study.readings[quantity.name],
                None if last is None else _change(quantity.name, studies, (last, place), noise),
                None if last is None else _change(quantity.name, studies, (places[0], place), noise),
            )
        )
    slope = slope_of([point.days for point in points], [point.reading.value for point in points])
    own, observers = (None, None) if noise is None else (noise.own, noise.observers)
    return Course(quantity, bundle, tuple(points), own, observers, slope)


def _change(name: str, studies: Sequence[Placed], pair: tuple[int, int], noise: Noise | None) -> Change:
    first, second = (studies[place] for place in pair)
    value = round(second.study.readings[name].value - first.study.readings[name].value, DIGITS)
    days = second.moment.days - first.moment.days
    smallest = None if noise is None else noise.smallest_change(first.study.engine, second.study.engine)
    if noise is None or smallest is None:
        return Change(pair[0], days, value, None, "unknown", None)
    verdict = "within-noise" if abs(value) <= smallest else "worse" if value > 0 else "better"
    people = noise.observers
    return Change(
        pair[0],
        days,
        value,
        smallest,
        verdict,
        None if people is None else abs(value) > people.smallest_change,
    )
