"""How far predictions are from the experts' scores: over splits, over patients drawn again, over ranges of the score.

summarise      MAE, MSE, R2 and correlation over splits, each with its deviation and an interval by patient
divide_ranges  error and bias by range of the experts' score
average        one prediction of each picture: the mean over the splits that held it out
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = [
    "LEVEL",
    "METRICS",
    "Measured",
    "RangeError",
    "Summary",
    "average",
    "divide_ranges",
    "draw_patients",
    "summarise",
]

METRICS: Final = ("correlation", "r2", "mae", "mse")
"""In the order of the paper's table."""
LEVEL: Final = 0.95
"""Of the intervals by patient."""
RESAMPLES: Final = 2000
"""Draws of patients, with replacement."""
RANGES: Final = 4
"""Equal parts of a scale."""
_SEED: Final = 0
_ROUNDING: Final = 1e-12
"""Variance below this is rounding: the prediction is constant, and its correlation counts as 0, as in the authors'
notebook."""

Float = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measured:
    """One number over the splits."""

    mean: float
    """Mean of the splits' values."""
    sd: float
    """Their standard deviation (n - 1); NaN for one split."""
    low: float
    """Lower end of the mean's interval, patients drawn again."""
    high: float
    """Upper end."""


@dataclass(frozen=True, slots=True)
class Summary:
    """One method on one score."""

    metrics: dict[str, Measured]
    """Each of `METRICS`."""
    ratio: Measured
    """MAE over that of the training half's mean on the same splits: under 1 is better than knowing no picture. The
    mean is the ratio of the means."""


@dataclass(frozen=True, slots=True)
class RangeError:
    """Errors on pictures whose score is in a range."""

    low: float
    """The range begins here."""
    high: float
    """And ends here, not included but at the end of the scale."""
    pictures: int
    """Pictures in it that any split measured."""
    mae: float | None
    """Mean over them of each one's mean absolute error over the splits; None without pictures."""
    bias: float | None
    """The same of prediction less score."""


def summarise(
    predicted: Float, baseline: Float, truth: Float, patients: Sequence[str], *, resamples: int = RESAMPLES
) -> Summary:
    """Errors of a method on one score.

    The interval is of a bootstrap: patients are drawn with replacement, all pictures of one together, and each split's
    value is computed again on those that it held out. What was fitted is not fitted again, so it tells how much
    the measured patients matter, not those that were learnt from.

    Args:
        predicted: ``(splits, N)``; NaN where a split does not measure the picture.
        baseline: The same of the training half's mean.
        truth: ``(N,)`` experts' scores.
        patients: Whose each picture is.
        resamples: Draws of patients.
    """
    whole = np.ones((1, len(truth)))
    drawn = np.concatenate([whole, draw_patients(patients, resamples)])
    of_splits = _measure(predicted, truth, drawn)  # metric -> (1 + draws, splits)
    means = {name: _mean(values) for name, values in of_splits.items()}
    mean_of_baseline = _mean(_measure(baseline, truth, drawn)["mae"])
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = means["mae"] / mean_of_baseline
        of_ratio = of_splits["mae"][0] / _measure(baseline, truth, whole)["mae"][0]
    return Summary(
        {name: _conclude(means[name], of_splits[name][0]) for name in METRICS}, _conclude(ratios, of_ratio)
    )


def divide_ranges(predicted: Float, truth: Float, bounds: tuple[float, float]) -> list[RangeError]:
    """Errors in equal parts of the scale.

    Args:
        predicted: ``(splits, N)``; NaN where a split does not measure the picture.
        truth: ``(N,)``.
        bounds: The scale.
    """
    error = predicted - truth
    mean, absolute = average(error), average(np.abs(error))
    ends = np.linspace(*bounds, RANGES + 1)
    found = []
    for place, (low, high) in enumerate(pairwise(ends)):
        above = truth <= high if place == RANGES - 1 else truth < high
        inside = (truth >= low) & above & np.isfinite(mean)
        values = (
            (float(absolute[inside].mean()), float(mean[inside].mean())) if inside.any() else (None, None)
        )
        found.append(RangeError(float(low), float(high), int(inside.sum()), *values))
    return found


def average(values: Float) -> Float:
    """Mean over splits ``(splits, N) -> (N,)`` of those that have a value; NaN where none has."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def draw_patients(patients: Sequence[str], resamples: int = RESAMPLES) -> Float:
    """How often each picture is drawn, ``(resamples, N)``: as often as its patient."""
    names, place = np.unique(np.asarray(patients), return_inverse=True)
    count = len(names)
    random = np.random.Generator(np.random.PCG64(_SEED))
    drawn = random.multinomial(count, np.full(count, 1 / count), size=resamples)
    return drawn[:, place].astype(np.float64)


def _measure(predicted: Float, truth: Float, weights: Float) -> dict[str, Float]:
    """Each of `METRICS` of each split, ``(draws, splits)``, for each draw's weights of the pictures ``(draws, N)``."""
    known = np.isfinite(predicted)
    middle = float(truth.mean())  # about it, since sums of squares lose digits
    y = np.where(known, truth - middle, 0)
    p = np.where(known, predicted - middle, 0)

    def mean(values: Float) -> Float:
        total: Float = weights @ values.T
        return total / count

    count: Float = weights @ known.T.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):  # a draw may leave a split without pictures
        mse = mean((p - y) ** 2)
        of_y = mean(y * y) - mean(y) ** 2
        of_p = mean(p * p) - mean(p) ** 2
        together = mean(p * y) - mean(p) * mean(y)
        flat = (of_p <= _ROUNDING) & (of_y > _ROUNDING)
        correlation = np.where(flat, 0.0, together / np.sqrt(np.where(of_p > 0, of_p * of_y, np.nan)))
        r2 = np.where(of_y > _ROUNDING, 1 - mse / of_y, np.nan)
        return {"correlation": correlation, "r2": r2, "mae": mean(np.abs(p - y)), "mse": mse}


def _mean(values: Float) -> Float:
    """Mean over the splits that have a value, ``(draws, splits) -> (draws,)``."""
    return average(values.T)


def _conclude(means: Float, of_splits: Float) -> Measured:
    """The first draw is of the pictures as they are."""
    known = of_splits[np.isfinite(of_splits)]
    drawn = means[1:][np.isfinite(means[1:])]
    low, high = np.quantile(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2)) if len(drawn) else (np.nan, np.nan)
    sd = float(known.std(ddof=1)) if len(known) > 1 else float("nan")
    return Measured(float(means[0]), sd, float(low), float(high))
