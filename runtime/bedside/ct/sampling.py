"""A volume from some of a scan's slices: in which order to read them, and how sure the volume is by then.

The slices are read from coarse to fine: the two ends, the middle, the quarters, and so on, so that at any time
those that were read lie about evenly. Areas of the slices between are interpolated.

How far that may be off has two parts, which are added up:

- *chance*: between two slices that were read, the area is taken to wander like a Brownian bridge, whose strength is
  learnt from how far each slice that was read lies from the line between its neighbours;
- *curvature*: a lung's area bulges between slices, so all gaps err the same way. Leaving out every other slice that
  was read tells by how much at twice the gap; at the gap itself it is at most half of that (a quarter, were the
  area smooth).

"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["FEWEST", "LEVEL", "Estimate", "coarse_to_fine", "estimate_sum", "slice_weights"]

FEWEST: Final = 5
"""Fewest slices that give an interval: three residuals."""
LEVEL: Final = 0.9
"""Share of runs in which the interval holds the answer on all slices."""

_T95: Final = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812)
"""95th percentile of Student's t with 1 to 10 degrees of freedom (any table): two-sided 90 %."""
_NORMAL_95: Final = 1.645
"""The same of the normal distribution."""
_CURVATURE_SHARE: Final = 0.5
"""Error at a gap, of the difference that doubling it makes: under 1/2 if it grows at least with the gap."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A sum over all slices, from some."""

    value: float
    """With the slices between interpolated."""
    low: float
    """Lower end; never under what was read itself."""
    high: float
    """Upper end."""


def coarse_to_fine(n: int) -> npt.NDArray[np.intp]:
    """All slices ``0 .. n-1``, once each, from coarse to fine.

    Returns:
        ``(n,)`` indices: the ends, then each time the middles of what lies between, evenly spread.
    """
    order = [0, n - 1] if n > 1 else [0]
    gaps = [(0, n - 1)]
    while gaps:
        # the bit-reversed order of a level keeps its middles spread while it is half done
        level = [gaps[i] for i in _spread(len(gaps))]
        finer = {}
        for low, high in level:
            if high - low > 1:
                middle = (low + high) // 2
                order.append(middle)
                finer[low] = ((low, middle), (middle, high))
        gaps = [gap for low in sorted(finer) for gap in finer[low]]
    return np.array(order, np.intp)


def slice_weights(read: npt.NDArray[np.intp], n: int) -> npt.NDArray[np.float64]:
    """For how many slices each one that was read counts, where those between are interpolated linearly.

    Args:
        read: ``(m,)`` sorted indices, without repetition.
        n: Slices of the scan; outside the first and last that were read, their areas go on.

    Returns:
        ``(m,)`` float64, adding up to ``n``.
    """
    weights = np.zeros(n)
    every = np.arange(n)
    right = (
        np.searchsorted(read, every).clip(1, max(len(read) - 1, 1)) if len(read) > 1 else np.zeros(n, np.intp)
    )
    left = right - 1 if len(read) > 1 else right
    span = read[right] - read[left] if len(read) > 1 else np.ones(n)
    part = ((every - read[left]) / span).clip(0, 1)
    np.add.at(weights, read[left], 1 - part)
    np.add.at(weights, read[right], part)
    return weights[read]


def estimate_sum(read: npt.NDArray[np.intp], areas: npt.NDArray[np.float64], n: int) -> Estimate:
    """Estimate the sum of the areas of all slices.

    A Brownian bridge of strength s2 (variance of a step) over a gap of g steps has, summed over its ``g - 1`` inner
    points, the variance ``s2 * g * (g^2 - 1) / 12``; at one point, d1 and d2 from the ends, ``s2 * d1 * d2 / (d1 +
    d2)``, which turns each residual into an estimate of s2. Neighbouring residuals share a slice, so they count as
    half as many degrees of freedom.

    Args:
        read: ``(m,)`` sorted indices of the slices that were read, at least `FEWEST`.
        areas: ``(m,)`` float64, not negative.
        n: Slices of the scan.

    Returns:
        The sum, in the areas' unit, with an interval of `LEVEL`.
    """
    value = float(slice_weights(read, n) @ areas)
    if len(read) == n:
        return Estimate(value, value, value)
    chance = _wander(read, areas, n)
    curvature = max(abs(value - _without(read, areas, n, start)) for start in (1, 2))
    reach = chance + _CURVATURE_SHARE * curvature
    return Estimate(value, max(value - reach, float(areas.sum())), value + reach)


def _wander(read: npt.NDArray[np.intp], areas: npt.NDArray[np.float64], n: int) -> float:
    """How far chance may take the sum, to either side."""
    gaps = np.diff(read).astype(np.float64)
    before, after = gaps[:-1], gaps[1:]
    between = (areas[:-2] * after + areas[2:] * before) / (before + after)
    strengths = (areas[1:-1] - between) ** 2 * (before + after) / (before * after)
    outside = float(read[0] + (n - 1 - read[-1]))
    variance = float(strengths.mean()) * (float((gaps * (gaps**2 - 1)).sum()) / 12 + outside**3 / 3)
    freedom = max(1, len(strengths) // 2)
    t = _T95[freedom - 1] if freedom <= len(_T95) else _NORMAL_95 * (1 + 1 / freedom)
    return float(t * variance**0.5)


def _without(read: npt.NDArray[np.intp], areas: npt.NDArray[np.float64], n: int, start: int) -> float:
    """The sum as it would be without every other slice, from the one at ``start`` on; the ends stay."""
    kept = np.ones(len(read), bool)
    kept[start:-1:2] = False
    return float(slice_weights(read[kept], n) @ areas[kept])


def _spread(n: int) -> npt.NDArray[np.intp]:
    """``0 .. n-1`` in bit-reversed order."""
    bits = max(n - 1, 1).bit_length()
    every = np.arange(1 << bits)
    turned = sum(((every >> bit) & 1) << (bits - 1 - bit) for bit in range(bits))
    order = np.asarray(turned)
    return order[order < n].astype(np.intp)
