"""One quantity over time, drawn. Numbers in, a picture out; no I/O. Not for clinical use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, pi, sin
from types import MappingProxyType
from typing import Final

from PIL import Image, ImageDraw

from bedside.report.curve import ticks
from bedside.report.lettering import Colour, fit, write
from bedside.trend.courses import Course, Point

__all__ = ["AMBER", "GREY", "MARKERS", "WHITE", "Marker", "draw_marker", "draw_panel"]

WHITE: Final[Colour] = (240, 240, 240)
GREY: Final[Colour] = (165, 165, 165)
AMBER: Final[Colour] = (255, 190, 60)
FAINT: Final[Colour] = (60, 60, 60)
BAND: Final[Colour] = (38, 44, 52)
"""Of the noise around the first value: dark, under everything else."""
TEXT: Final = 18
"""Size of the text, pixels to the em."""
FINER: Final = 3
"""Drawn so many times larger, and made smaller by area: lines without steps."""
LEFT, RIGHT, ABOVE, BELOW = 64, 20, 44, 58
"""Room around the plot, pixels."""
LEAST_DAYS: Final = 1.0
"""Shortest axis: studies of one hour are not stretched over the whole width."""
MARK: Final = 9
"""Radius of a marker, pixels."""


@dataclass(frozen=True, slots=True)
class Marker:
    """How a study is shown, by what became of the quantity since the last; by shape as well as by colour."""

    corners: int
    """Of a triangle 3; 0 for a disc."""
    up: bool
    """Whether the triangle points upwards."""
    colour: Colour
    """Red and blue, which the colour-blind tell apart too."""
    text: str
    """What it means."""


MARKERS: Final[Mapping[str, Marker]] = MappingProxyType(
    {
        "worse": Marker(3, up=True, colour=(255, 90, 40), text="worse than the last"),
        "better": Marker(3, up=False, colour=(90, 170, 255), text="better than the last"),
        "within-noise": Marker(0, up=False, colour=(225, 225, 225), text="no change beyond noise"),
        "unknown": Marker(0, up=False, colour=(120, 120, 120), text="first, or not known"),
    }
)
"""Verdict -> marker."""


def draw_panel(
    course: Course, size: tuple[int, int], span: tuple[float, float], doubted: frozenset[int]
) -> Image.Image:
    """Draw the course of a quantity.

    Args:
        course: Which.
        size: Height and width, pixels.
        span: Days of the first and of the last study of any kind: all panels share their axis.
        doubted: Places of the studies with a note, which get a ring.

    Returns:
        An RGB picture, on black.
    """
    height, width = size
    axes = _Axes.of(course, size, span)
    large = Image.new("RGB", (width * FINER, height * FINER))
    draw = ImageDraw.Draw(large)
    _band(draw, course, axes)
    for level in axes.levels:
        draw.line(_scaled(LEFT, axes.down(level), width - RIGHT, axes.down(level)), fill=FAINT, width=FINER)
    for level in axes.days:
        x = axes.across(level)
        draw.line(_scaled(x, height - BELOW, x, height - BELOW + 5), fill=GREY, width=FINER)
    places = [(axes.across(point.days), axes.down(point.reading.value)) for point in course.points]
    if len(places) > 1:
        draw.line([(x * FINER, y * FINER) for x, y in places], fill=GREY, width=2 * FINER, joint="curve")
    for point, place in zip(course.points, places, strict=True):
        _bar(draw, point, place[0], axes)
        _mark(draw, place, _verdict(point), ringed=point.study in doubted)
    canvas = large.reduce(FINER)
    _letter(canvas, course, axes)
    return canvas


def draw_marker(canvas: Image.Image, place: tuple[float, float], verdict: str) -> None:
    """Draw one of `MARKERS` for a legend, its centre at ``place``."""
    side = 3 * MARK
    patch = Image.new("RGB", (side * FINER, side * FINER))
    _mark(ImageDraw.Draw(patch), (side / 2, side / 2), verdict, ringed=False)
    left, top = (round(each - side / 2) for each in place)
    canvas.paste(patch.reduce(FINER), (max(left, 0), max(top, 0)))


@dataclass(frozen=True, slots=True)
class _Axes:
    """Where days and values lie."""

    size: tuple[int, int]
    start: float
    end: float
    levels: tuple[float, ...]
    days: tuple[float, ...]

    @classmethod
    def of(cls, course: Course, size: tuple[int, int], span: tuple[float, float]) -> _Axes:
        """Axes that hold all points with their intervals; of a score, its whole scale."""
        readings = [point.reading for point in course.points]
        scale = readings[0].scale
        if scale is None:
            tops = [reading.value if reading.high is None else reading.high for reading in readings]
            levels = ticks(0.0, max(*tops, 1.0), 5)
        else:
            levels = [level for level in ticks(*scale, 6) if scale[0] <= level <= scale[1]]
            levels = sorted({*levels, *scale})
        first, last = span
        slack = max(LEAST_DAYS - (last - first), (last - first) * 0.06) / 2
        start, end = first - slack, last + slack
        days = [day for day in ticks(start, end, 6) if start <= day <= end]
        return cls(size, start, end, tuple(levels), tuple(days))

    def across(self, days: float) -> float:
        """Pixels from the left."""
        return LEFT + (days - self.start) / (self.end - self.start) * (self.size[1] - LEFT - RIGHT)

    def down(self, value: float) -> float:
        """Pixels from the top, within the plot."""
        low, high = self.levels[0], self.levels[-1]
        share = min(max((value - low) / (high - low), 0.0), 1.0)
        return ABOVE + (1 - share) * (self.size[0] - ABOVE - BELOW)


def _verdict(point: Point) -> str:
    return "unknown" if point.since_last is None else point.since_last.verdict


def _band(draw: ImageDraw.ImageDraw, course: Course, axes: _Axes) -> None:
    """The noise around the first value, where it is known."""
    if course.own is None:
        return
    middle, reach = course.points[0].reading.value, course.own.smallest_change
    left, right = LEFT, axes.size[1] - RIGHT
    draw.rectangle(_scaled(left, axes.down(middle + reach), right, axes.down(middle - reach)), fill=BAND)


def _bar(draw: ImageDraw.ImageDraw, point: Point, x: float, axes: _Axes) -> None:
    low, high = point.reading.low, point.reading.high
    if low is None or high is None:
        return
    top, bottom = axes.down(high), axes.down(low)
    draw.line(_scaled(x, top, x, bottom), fill=GREY, width=2 * FINER)
    for y in (top, bottom):
        draw.line(_scaled(x - 6, y, x + 6, y), fill=GREY, width=2 * FINER)


def _mark(draw: ImageDraw.ImageDraw, place: tuple[float, float], verdict: str, *, ringed: bool) -> None:
    marker = MARKERS[verdict]
    x, y = (each * FINER for each in place)
    if ringed:
        ring = (MARK + 5) * FINER
        draw.ellipse((x - ring, y - ring, x + ring, y + ring), outline=AMBER, width=2 * FINER)
    if marker.corners:
        turn = -pi / 2 if marker.up else pi / 2
        radius = 1.25 * MARK * FINER
        angles = [turn + 2 * pi * corner / marker.corners for corner in range(marker.corners)]
        draw.polygon([(x + radius * cos(a), y + radius * sin(a)) for a in angles], fill=marker.colour)
    else:
        radius = 0.8 * MARK * FINER
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=marker.colour)


def _letter(canvas: Image.Image, course: Course, axes: _Axes) -> None:
    height, width = axes.size
    quantity = course.quantity
    scale = course.points[0].reading.scale
    unit = quantity.unit if scale is None else f"{scale[0]:g} to {scale[1]:g}"
    title = fit(f"{quantity.title}, {unit}", TEXT + 4, width)
    write(canvas, (0, 4), title, size=TEXT + 4, colour=WHITE)
    for level in axes.levels:
        beside = (LEFT - 8, axes.down(level))
        write(canvas, beside, f"{level:g}", size=TEXT, colour=GREY, anchor="rm")
    for day in axes.days:
        under = (axes.across(day), height - BELOW + 8)
        write(canvas, under, f"{day:g}", size=TEXT, colour=GREY, anchor="ma")
    below = height - BELOW + 8 + TEXT + 6
    middle = (LEFT + width - RIGHT) / 2
    write(canvas, (middle, below), "days since the first study", size=TEXT, colour=GREY, anchor="ma")


def _scaled(*numbers: float) -> tuple[float, ...]:
    return tuple(number * FINER for number in numbers)
