"""The spread of what should be alike: standard error of measurement, and the smallest change that is more than that.

In 95 of 100 pairs without a change, measurements differ by at most 1.96 sqrt(2) times their standard deviation, if they
err normally and alike (Bland and Altman 1999, Stat Methods Med Res 8:135, section 3; Weir 2005, J Strength Cond Res
19:231). Scores on a scale don't: they err most in its middle. So the smallest change is widened until it holds that
share of the pairs in each third of what was measured, by its value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from math import sqrt
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside_export.recipes.cxr.data import DataError

__all__ = ["LEVEL", "measure_spread"]

LEVEL: Final = 0.95
"""Share of pairs without a change that differ by no more than the smallest change."""
RESAMPLES: Final = 1000
"""Bootstrap samples of patients."""
THIRDS: Final = 3
"""Parts of the values, by their size, each of which the smallest change has to hold for."""
ROUNDING: Final = 1e-9
"""What two differences of equal scores may be apart."""


def measure_spread(
    repeated: Sequence[tuple[str, npt.NDArray[np.float64]]], *, seed: int = 0
) -> dict[str, Any]:
    """Standard error of measurement and smallest change; every patient weighs the same.

    Args:
        repeated: Who each is of, and ``(n,)`` values that should be alike, two or more.
        seed: Of the interval.

    Raises:
        DataError: fewer than two patients.
    """
    gaps = [np.array([abs(a - b) for a, b in combinations(values.tolist(), 2)]) for _, values in repeated]
    groups: dict[str, list[int]] = defaultdict(list)
    for number, (who, _) in enumerate(repeated):
        groups[who].append(number)
    if len(groups) < 2:
        raise DataError("repeatability needs pictures of two patients or more")
    variances = np.array(
        [np.mean([repeated[number][1].var(ddof=1) for number in numbers]) for numbers in groups.values()]
    )
    weights = np.zeros(len(repeated))
    for numbers in groups.values():
        weights[numbers] = 1 / len(numbers)
    sd = sqrt(float(variances.mean()))
    by_formula = NormalDist().inv_cdf((1 + LEVEL) / 2) * sqrt(2) * sd
    order = np.argsort([values.mean() for _, values in repeated], kind="stable")
    thirds = [part.tolist() for part in np.array_split(order, THIRDS) if len(part)]
    smallest = max(by_formula, *(_quantile(gaps, weights, part) for part in thirds))
    drawn = np.random.default_rng(seed).integers(0, len(variances), (RESAMPLES, len(variances)))
    everyone = list(range(len(repeated)))
    return {
        "sd": sd,
        "sd_interval": np.quantile(np.sqrt(variances[drawn].mean(axis=1)), (0.025, 0.975)).tolist(),
        "level": LEVEL,
        "by_formula": by_formula,
        "held_by_formula": _held(gaps, weights, everyone, by_formula),
        "smallest_change": smallest,
        "held": _held(gaps, weights, everyone, smallest),
        "thirds": [
            {
                "from": float(repeated[part[0]][1].mean()),
                "to": float(repeated[part[-1]][1].mean()),
                "held_by_formula": _held(gaps, weights, part, by_formula),
                "held": _held(gaps, weights, part, smallest),
            }
            for part in thirds
        ],
        "series": len(repeated),
        "patients": len(groups),
    }


def _quantile(
    gaps: Sequence[npt.NDArray[np.float64]], weights: npt.NDArray[np.float64], chosen: Sequence[int]
) -> float:
    """The least gap that `LEVEL` of the pairs don't exceed."""
    values = np.concatenate([gaps[number] for number in chosen])
    weight = np.concatenate([np.full(len(gaps[n]), weights[n] / len(gaps[n])) for n in chosen])
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weight[order]) / weight.sum()
    return float(values[order][min(int(np.searchsorted(share, LEVEL)), len(values) - 1)])


def _held(
    gaps: Sequence[npt.NDArray[np.float64]],
    weights: npt.NDArray[np.float64],
    chosen: Sequence[int],
    limit: float,
) -> float:
    """Share of the pairs whose gap is at most ``limit``."""
    shares = [(gaps[number] <= limit + ROUNDING).mean() for number in chosen]
    return float(np.average(shares, weights=weights[list(chosen)]))
