"""Intervals of ratios by the bootstrap, over blocks of successive values.

Künsch 1989, Annals of Statistics 17: neighbours are alike, since what slows one study slows the next. Drawn one by one,
values would make an interval too narrow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["LEVEL", "Floats", "Statistic", "find_interval", "mean", "median", "percentile_at"]

LEVEL: Final = 0.95
"""Of the intervals, each by itself: of twenty that hold nothing, one is expected to say something."""
DRAWS: Final = 1000
"""Of the bootstrap."""
CHUNK: Final = 1 << 20
"""Most values that are drawn at once: 8 MiB."""
Floats = npt.NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Of values along the last axis."""


def find_interval(
    old: Floats, new: Floats, statistic: Statistic, random: np.random.Generator
) -> tuple[float, float]:
    """The interval, of `LEVEL`, of the ratio of a statistic of ``new`` to that of ``old``, which are over 0."""
    drawn = _draw(new, statistic, random) / _draw(old, statistic, random)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return low, high


def median(values: Floats) -> Floats:
    """Along the last axis."""
    middle: Floats = np.median(values, axis=-1)
    return middle


def mean(values: Floats) -> Floats:
    """Along the last axis."""
    middle: Floats = np.mean(values, axis=-1)
    return middle


def percentile_at(share: float) -> Statistic:
    """MLPerf's percentile, as `bedside.bench.tail.percentile` has it."""

    def percentile(values: Floats) -> Floats:
        place = min(values.shape[-1] - 1, int(values.shape[-1] * share))
        found: Floats = np.partition(values, place, axis=-1)[..., place]
        return found

    return percentile


def _draw(values: Floats, statistic: Statistic, random: np.random.Generator) -> Floats:
    """A statistic of as many values, drawn in blocks of successive ones, whose end goes on at the beginning.

    Returns:
        ``(DRAWS,)``.
    """
    count = len(values)
    length = max(1, round(count ** (1 / 3)))
    blocks = -(-count // length)
    drawn = np.empty(DRAWS)
    step = max(1, CHUNK // count)
    for first in range(0, DRAWS, step):
        part = min(step, DRAWS - first)
        begins = random.integers(count, size=(part, blocks, 1))
        places = (begins + np.arange(length)) % count  # (part, blocks, 1) -> (part, blocks, length)
        drawn[first : first + part] = statistic(values[places.reshape(part, -1)[:, :count]])
    return drawn
