"""The curve of a segmented CT: how much lung and how much opacity each slice holds, from the feet to the head.

Arrays and numbers in, an array out; no I/O. Not for clinical use.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log10
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from bedside.opacification import CurvePoint
from bedside.report.lettering import Colour, fit, length, write

__all__ = ["render", "ticks"]

TEXT: Final = 18
"""Size of the text, pixels to the em."""
FINER: Final = 3
"""Drawn so many times larger, and made smaller by area: lines without steps."""
LEAST_MM: Final = 10.0
"""Shortest axis: one slice is not stretched over the whole width."""
FILLING: Final = 0.4
"""Opacity of what is under a line."""
LEFT, RIGHT, ABOVE, BELOW = 62, 14, 40, 58
"""Room around the plot, pixels."""

_Bytes = npt.NDArray[np.uint8]
_WHITE: Final[Colour] = (235, 235, 235)
_GREY: Final[Colour] = (165, 165, 165)
_FAINT: Final[Colour] = (60, 60, 60)


def render(
    points: Sequence[CurvePoint],
    size: tuple[int, int],
    *,
    colours: tuple[Colour, Colour],
    marks: Sequence[float] = (),
    whole: bool = True,
) -> _Bytes:
    """Draw the curve.

    Args:
        points: At least one, from the feet to the head.
        size: Height and width, pixels.
        colours: Of lung and of opacity.
        marks: Positions of slices that are shown elsewhere, mm: a tick each above the plot.
        whole: Whether every slice was read; otherwise those that were are dots on the lines.

    Returns:
        ``(H, W, 3)`` uint8 sRGB on black, new.

    Raises:
        ValueError: No points.
    """
    if not points:
        raise ValueError("a curve needs a slice that was read")
    height, width = size
    place = np.array([point.z_mm for point in points])
    areas = np.array([(point.lung_cm2, point.opacity_cm2) for point in points])
    slack = max(0.0, LEAST_MM - (place[-1] - place[0])) / 2
    start, end = float(place[0] - slack), float(place[-1] + slack)
    levels = ticks(0.0, max(float(areas.max()), 1.0) * 1.02, 4)
    top = levels[-1]
    inner_width, inner_height = width - LEFT - RIGHT, height - ABOVE - BELOW
    across = LEFT + (place - start) / (end - start) * inner_width
    down = ABOVE + inner_height * (1 - areas / top)

    canvas = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(canvas)
    for level in levels:
        y = ABOVE + inner_height * (1 - level / top)
        draw.line((LEFT, y, width - RIGHT, y), fill=_FAINT)
        write(canvas, (LEFT - 8, y), f"{level:g}", size=TEXT, colour=_GREY, anchor="rm")
    canvas = _with_areas(canvas, across, down, colours=colours, dots=not whole or len(points) == 1)
    _with_axis(canvas, (start, end))
    for mark in marks:
        x = LEFT + (mark - start) / (end - start) * inner_width
        ImageDraw.Draw(canvas).line((x, ABOVE - 8, x, ABOVE - 1), fill=_WHITE, width=2)
    _with_key(canvas, colours, marked=bool(marks))
    return np.asarray(canvas)


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers, 1, 2 or 5 times a power of ten apart, about ``count``, that enclose ``low`` and ``high``."""
    rough = (high - low) / count
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * 0.999)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def _with_areas(
    canvas: Image.Image,
    across: npt.NDArray[np.float64],
    down: npt.NDArray[np.float64],
    *,
    colours: tuple[Colour, Colour],
    dots: bool,
) -> Image.Image:
    """Lung behind, opacity before it: filled under their lines."""
    floor_y = canvas.height - BELOW
    large = (canvas.width * FINER, canvas.height * FINER)
    for curve, colour in zip(down.T, colours, strict=True):
        line = [
            (float(x) * FINER, float(min(y, floor_y)) * FINER) for x, y in zip(across, curve, strict=True)
        ]
        ends = [(line[-1][0], floor_y * FINER), (line[0][0], floor_y * FINER)]
        mask = Image.new("L", large)
        draw = ImageDraw.Draw(mask)
        if len(line) > 1:
            draw.polygon([*line, *ends], fill=round(255 * FILLING))
            draw.line(line, fill=255, width=2 * FINER, joint="curve")
        if dots:
            for x, y in line:
                draw.ellipse((x - 3 * FINER, y - 3 * FINER, x + 3 * FINER, y + 3 * FINER), fill=255)
        canvas.paste(Image.new("RGB", canvas.size, colour), mask=mask.reduce(FINER))
    return canvas


def _with_axis(canvas: Image.Image, span: tuple[float, float]) -> None:
    start, end = span
    floor_y, right = canvas.height - BELOW, canvas.width - RIGHT
    draw = ImageDraw.Draw(canvas)
    draw.line((LEFT, floor_y, right, floor_y), fill=_GREY)
    for value in ticks(start, end, 6):
        if not start <= value <= end:
            continue
        x = LEFT + (value - start) / (end - start) * (right - LEFT)
        draw.line((x, floor_y, x, floor_y + 5), fill=_GREY)
        text = f"{value:g}"
        half = length(text, TEXT) / 2
        write(
            canvas,
            (min(x, canvas.width - half - 1), floor_y + 8),
            text,
            size=TEXT,
            colour=_GREY,
            anchor="ma",
        )
    below = floor_y + 8 + TEXT + 6
    write(canvas, (LEFT, below), "feet", size=TEXT, colour=_GREY)
    write(canvas, (right, below), "head", size=TEXT, colour=_GREY, anchor="ra")
    write(canvas, ((LEFT + right) / 2, below), "z of the patient, mm", size=TEXT, colour=_GREY, anchor="ma")


def _with_key(canvas: Image.Image, colours: tuple[Colour, Colour], *, marked: bool) -> None:
    """What the colours mean, above the plot."""
    write(canvas, (LEFT - 8, 4), "cm2", size=TEXT, colour=_GREY, anchor="ra")
    x = float(LEFT)
    for name, colour in zip(("lung", "opacity"), colours, strict=True):
        ImageDraw.Draw(canvas).rectangle((x, 7, x + 16, 7 + 12), fill=colour)
        write(canvas, (x + 24, 4), name, size=TEXT, colour=_WHITE)
        x += 24 + length(name, TEXT) + 24
    if marked:
        room = canvas.width - RIGHT - x
        note = fit("ticks: slices shown above", TEXT, room)
        write(canvas, (canvas.width - RIGHT, 4), note, size=TEXT, colour=_GREY, anchor="ra")
