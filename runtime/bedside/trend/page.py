"""A trend as a picture: a panel for each quantity, and what it rests on.

It tells no patient, date, file or series: days are counted from the first study. Numbers in, an array out; no I/O. Not
for clinical use.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from bedside.provenance import NOTICE
from bedside.report.lettering import Colour, fit, length, wrap, write
from bedside.trend import Trend
from bedside.trend.courses import Course
from bedside.trend.panel import AMBER, GREY, MARKERS, WHITE, draw_marker, draw_panel
from bedside.trend.slope import LEVEL

__all__ = ["WIDTH", "render"]

WIDTH: Final = 1600
"""Of the page, pixels, as of a CT's report."""
MARGIN: Final = 32
"""Around the page, and between its columns."""
PANEL_HEIGHT: Final = 480
TEXT: Final = 20
"""Size of the text, pixels to the em."""
LINE: Final = 30
"""From line to line."""
TITLES: Final = 210
"""Width of the notes' titles."""
NOTES: Final = 10
"""Most studies whose notes are told; the JSON has them all."""


def render(trend: Trend) -> npt.NDArray[np.uint8]:
    """Draw the page.

    Returns:
        ``(H, WIDTH, 3)`` uint8 sRGB, light on black, new.
    """
    room = WIDTH - 2 * MARGIN
    across = 1 if len(trend.courses) == 1 else 2
    width = (room - (across - 1) * MARGIN) // across
    span = (0.0, trend.studies[-1].moment.days - trend.studies[0].moment.days)
    doubted = frozenset(place for place, each in enumerate(trend.studies) if each.study.notes)
    panels = [draw_panel(course, (PANEL_HEIGHT, width), span, doubted) for course in trend.courses]
    lines = [panels[start : start + across] for start in range(0, len(panels), across)]
    blocks = [_heading(trend, room), *(_beside(line) for line in lines), _legend(room), _told(trend, room)]
    height = sum(block.height + MARGIN for block in blocks) + MARGIN
    page = Image.new("RGB", (WIDTH, height))
    top = MARGIN
    for block in blocks:
        page.paste(block, (MARGIN, top))
        top += block.height + MARGIN
    return np.asarray(page)


def _heading(trend: Trend, room: int) -> Image.Image:
    canvas = Image.new("RGB", (room, 44 + LINE))
    notice = NOTICE.rstrip(".").upper()
    write(canvas, (0, 0), "Follow-up of one patient", size=34, colour=WHITE)
    write(canvas, (room, 2), notice, size=30, colour=AMBER, anchor="ra")
    span = trend.studies[-1].moment.days - trend.studies[0].moment.days
    studies = "1 study" if len(trend.studies) == 1 else f"{len(trend.studies)} studies"
    bundles = dict.fromkeys(
        f"{course.bundle.name} {course.bundle.version}, sha256 {course.bundle.digest[:12]}"
        for course in trend.courses
    )
    line = f"{studies} over {span:.1f} days; {'; '.join(bundles)}"
    write(canvas, (0, 44), fit(line, TEXT, room), size=TEXT, colour=GREY)
    return canvas


def _beside(panels: Sequence[Image.Image]) -> Image.Image:
    width = sum(panel.width for panel in panels) + MARGIN * (len(panels) - 1)
    canvas = Image.new("RGB", (width, max(panel.height for panel in panels)))
    left = 0
    for panel in panels:
        canvas.paste(panel, (left, 0))
        left += panel.width + MARGIN
    return canvas


def _legend(room: int) -> Image.Image:
    """What the marks mean."""
    entries = [(marker.text, name) for name, marker in MARKERS.items()]
    placed: list[tuple[float, int, str, str]] = []
    x, y = 0.0, 0
    for text, name in entries:
        step = 30 + length(text, TEXT) + 32
        if x and x + step > room:
            x, y = 0.0, y + LINE
        placed.append((x, y, text, name))
        x += step
    rest = (
        "amber ring: the study has a note",
        "bars: intervals",
        "band: no change beyond noise since the first",
    )
    lines = wrap("; ".join(rest), TEXT, room)
    canvas = Image.new("RGB", (room, y + LINE * (1 + len(lines))))
    for left, top, text, name in placed:
        draw_marker(canvas, (left + 12, top + 13), name)
        write(canvas, (left + 30, top), text, size=TEXT, colour=WHITE)
    for number, line in enumerate(lines, 1):
        write(canvas, (0, y + number * LINE), line, size=TEXT, colour=GREY)
    return canvas


def _told(trend: Trend, room: int) -> Image.Image:
    """What it rests on and what is doubtful: titles at the left, text at the right."""
    lines: list[tuple[str, str, Colour]] = []
    for title, text, colour in _notes(trend):
        told = wrap(text, TEXT - 2, room - TITLES)
        lines += [(title if number == 0 else "", line, colour) for number, line in enumerate(told)]
    step = LINE - 4
    canvas = Image.new("RGB", (room, max(1, len(lines)) * step))
    for number, (title, line, colour) in enumerate(lines):
        write(canvas, (0, number * step), fit(title, TEXT - 2, TITLES - 8), size=TEXT - 2, colour=WHITE)
        write(canvas, (TITLES, number * step), line, size=TEXT - 2, colour=colour)
    return canvas


def _notes(trend: Trend) -> Iterator[tuple[str, str, Colour]]:
    """Title, text and colour of each note."""
    for note in trend.notes:
        yield "Note", note.text, AMBER
    for course in trend.courses:
        for number, line in enumerate(_basis(course)):
            yield "" if number else course.quantity.title, line, GREY
    start = trend.studies[0].moment.days
    doubted = [each for each in trend.studies if each.study.notes]
    for each in doubted[:NOTES]:
        texts = "; ".join(dict.fromkeys(note.text for note in each.study.notes))
        yield f"{each.study.kind}, day {each.moment.days - start:.1f}", texts, AMBER
    if len(doubted) > NOTES:
        yield "", f"and notes on {len(doubted) - NOTES} more studies, in the JSON", GREY
    if trend.left_out:
        yield "Left out", f"{len(trend.left_out)} of the results that were given", AMBER


def _basis(course: Course) -> Iterator[str]:
    levels = sorted(
        {point.reading.level for point in course.points if point.reading.low is not None}, key=str
    )
    for level in levels:
        yield "interval: " + (
            "its level was never measured" if level is None else f"{level:.0%} of truths lie inside"
        )
    unit = course.quantity.unit
    if course.own is not None:
        own = course.own
        yield f"smallest change {own.smallest_change:.2f} {unit} ({own.level:.0%}): {own.method}"
    if course.observers is not None:
        people = course.observers
        yield f"of two observers {people.smallest_change:.2f} {unit} ({people.level:.0%}): {people.method}"
    slope = course.slope
    if slope is not None:
        yield (
            f"slope {slope.per_day:+.2g} {unit} a day ({LEVEL:.0%} interval {slope.low:+.2g} to {slope.high:+.2g}), as "
            "if the course were a straight line"
        )
