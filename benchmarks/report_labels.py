"""Numbers beside points, so that they hide neither each other nor the points."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, radians, sin
from typing import Any, Final

from bedside.bench.report.drawing import INK

__all__ = ["place_numbers"]

SIZE: Final = 8.0
"""Of the letters, points of print."""
WIDTH: Final = 0.62
"""Of a digit, in parts of that."""
MARKER: Final = 9.0
"""Across a point, points of print."""
RADII: Final = (12.0, 17.0, 23.0)
"""Tried in turn: from the middle of a point to that of its number, points of print."""
ANGLES: Final = (45, 135, 315, 225, 90, 270, 0, 180)
"""The same, degrees."""

_Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""


def place_numbers(axes: Any, points: Sequence[tuple[float, float, int]]) -> None:
    """Write numbers beside points, each where it hides least.

    Args:
        axes: With its limits set, of a figure that is laid out.
        points: x, y and number of each.
    """
    scale = 72.0 / axes.figure.dpi
    placed = [tuple(scale * axes.transData.transform((x, y))) for x, y, _ in points]
    taken: list[_Box] = [_around(x, y, MARKER, MARKER) for x, y in placed]
    frame = axes.bbox
    bounds = (scale * frame.x0, scale * frame.y0, scale * frame.x1, scale * frame.y1)
    for (at_x, at_y, number), (x, y) in zip(points, placed, strict=True):
        width = SIZE * WIDTH * len(str(number))
        choices = [(r * cos(radians(angle)), r * sin(radians(angle))) for r in RADII for angle in ANGLES]
        costs = [_cost(_around(x + dx, y + dy, width, SIZE), taken, bounds) for dx, dy in choices]
        best = costs.index(min(costs))
        dx, dy = choices[best]
        taken.append(_around(x + dx, y + dy, width, SIZE))
        far = best >= len(ANGLES)
        axes.annotate(
            str(number),
            (at_x, at_y),
            xytext=(dx, dy),
            textcoords="offset points",
            fontsize=SIZE,
            ha="center",
            va="center",
            color=INK,
            zorder=4,
            arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.5, "shrinkA": 4, "shrinkB": 3}
            if far
            else None,
        )


def _around(x: float, y: float, width: float, height: float) -> _Box:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _cost(box: _Box, taken: Sequence[_Box], bounds: _Box) -> float:
    """What a box hides, and what of it lies outside, in squares of points of print."""
    return sum(_overlap(box, other) for other in taken) + _overlap(box, box) - _overlap(box, bounds)


def _overlap(one: _Box, other: _Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)
