"""Conformal intervals around scores, from what networks said of patients whom they were not trained on.

The errors of all splits are calibrated together, because the network that ships is none of theirs: how far one half's
network errs as a whole (its bias) is part of the error. Coverage is measured split by split: the offsets come from
other splits' errors on patients whom this split did not hold out. Of the ways of `KINDS` the plain one is taken. With
ends of their own for errors up and down (``signed``) an interval misses: by one half of the patients it learns the
sign of a bias, which for the other half is the opposite. Difficulty by the predicted score (``normalised``) and
classes of it (``mondrian``) make intervals hardly narrower at equal coverage, and have something to fit on few
patients; `compare_kinds` prints the table.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from crepes import ConformalPredictiveSystem, ConformalRegressor
from crepes.extras import DifficultyEstimator, binning

from bedside_export.recipes.cxr.report import MAXIMA, SCORES, Prediction

__all__ = ["KINDS", "LEVELS", "Errors", "calibrate", "compare_kinds", "cover", "errors_of", "offset"]

LEVELS: Final = (0.8, 0.9)
"""Shares of truths inside; the first is the one that results state beside a score."""
KIND: Final = "symmetric"
"""The one of `KINDS` that the bundle's intervals are made by."""
NEIGHBOURS: Final = 25
"""Predictions whose errors tell how hard one is: the default of crepes."""
DIFFICULTY: Final = 0.5
"""Score units that are added to every difficulty, so that no lucky neighbourhood makes an interval of no width."""
LOWEST: Final = 0.7
HIGHEST: Final = 0.99
"""Confidences between which one is sought that covers the level."""

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Errors:
    """Out-of-patient errors of one score, a row a picture and split."""

    seeds: npt.NDArray[np.int64]
    """``(n,)``: the split."""
    images: npt.NDArray[np.str_]
    """``(n,)``: the picture."""
    scores: _Floats
    """``(n,)``: predicted, within the scale."""
    errors: _Floats
    """``(n,)``: true less predicted."""
    maximum: float
    """Upper end of the scale; the lower is 0."""

    def __len__(self) -> int:
        """Rows."""
        return len(self.errors)

    def rows(self, chosen: npt.NDArray[np.bool_]) -> Errors:
        """Some of the rows."""
        return Errors(
            self.seeds[chosen],
            self.images[chosen],
            self.scores[chosen],
            self.errors[chosen],
            self.maximum,
        )

    @property
    def pictures(self) -> int:
        """Different pictures."""
        return len(np.unique(self.images))


def errors_of(predictions: Sequence[Prediction], score: str) -> Errors:
    """The errors of ``extent`` or ``opacity`` against the experts' scores; pictures without one are left out.

    Raises:
        ValueError: A score lies outside of its scale, or no picture has one.
    """
    maximum = MAXIMA[SCORES.index(score)]
    known = [
        (p.seed, p.image, getattr(p, score), truth)
        for p in predictions
        if (truth := getattr(p, f"true_{score}")) is not None
    ]
    if not known:
        raise ValueError(f"no prediction has a true {score} beside it: there is nothing to calibrate on")
    seeds, images, scores, truths = (np.asarray(column) for column in zip(*known, strict=True))
    if not ((truths >= 0) & (truths <= maximum)).all():
        raise ValueError(f"a true {score} is not from 0 to {maximum:g}; correct the table of predictions")
    clipped = scores.clip(0, maximum)
    return Errors(seeds, images, clipped, truths - clipped, maximum)


def offset(errors: npt.ArrayLike, confidence: float) -> float:
    """Half the width of a conformal interval: the smallest that holds ``confidence`` of errors exchangeable with these.

    Returns:
        Score units; infinity where the errors are too few to say.
    """
    regressor = ConformalRegressor().fit(np.asarray(errors, dtype=np.float64))
    with warnings.catch_warnings():  # of too few errors, which infinity says
        warnings.simplefilter("ignore", UserWarning)
        return float(regressor.predict_int(np.zeros(1), confidence=confidence)[0, 1])


def _symmetric(known: Errors, scores: _Floats, confidence: float) -> _Floats:
    reach = offset(known.errors, confidence)
    return np.stack([scores - reach, scores + reach], 1)


def _signed(known: Errors, scores: _Floats, confidence: float) -> _Floats:
    system = ConformalPredictiveSystem().fit(known.errors, seed=0)
    return np.asarray(system.predict_int(scores, confidence=confidence), dtype=np.float64)


def _normalised(known: Errors, scores: _Floats, confidence: float) -> _Floats:
    difficulty = DifficultyEstimator().fit(
        known.scores[:, None], residuals=known.errors, k=min(NEIGHBOURS, len(known)), beta=DIFFICULTY
    )
    regressor = ConformalRegressor().fit(known.errors, sigmas=difficulty.apply(known.scores[:, None]))
    intervals = regressor.predict_int(scores, difficulty.apply(scores[:, None]), confidence=confidence)
    return np.asarray(intervals, dtype=np.float64)


def _mondrian(known: Errors, scores: _Floats, confidence: float) -> _Floats:
    bins, limits = binning(known.scores, bins=2, seed=0)
    regressor = ConformalRegressor().fit(known.errors, bins=bins)
    intervals = regressor.predict_int(scores, bins=binning(scores, bins=limits), confidence=confidence)
    return np.asarray(intervals, dtype=np.float64)


KINDS: Final[Mapping[str, Callable[[Errors, _Floats, float], _Floats]]] = MappingProxyType(
    {"symmetric": _symmetric, "signed": _signed, "normalised": _normalised, "mondrian": _mondrian}
)
"""Name -> intervals ``(m, 2)`` around scores ``(m,)``, from known errors, at a confidence."""


def cover(
    errors: Errors, training: Mapping[int, frozenset[str]], confidence: float, kind: str = KIND
) -> tuple[npt.NDArray[np.bool_], _Floats]:
    """Try intervals on each split's held-out pictures, calibrated on other splits' errors on its own patients.

    Args:
        errors: Of all splits.
        training: Seed -> the pictures of the patients that this split did not hold out.
        confidence: What the calibration is asked for.
        kind: One of `KINDS`.

    Returns:
        For each row of ``errors``: whether the truth is inside, and the width within the scale.

    Raises:
        ValueError: A split has a held-out picture among ``training``, or no errors of others to be calibrated on.
    """
    inside, width = np.zeros(len(errors), dtype=bool), np.zeros(len(errors))
    truths = errors.scores + errors.errors
    for seed in np.unique(errors.seeds):
        mine = errors.seeds == seed
        names = training.get(int(seed), frozenset())
        if names.intersection(errors.images[mine].tolist()):
            raise ValueError(f"split {seed} is to be calibrated on a picture that it holds out")
        others = errors.rows(~mine & np.isin(errors.images, sorted(names)))
        if not len(others):
            raise ValueError(f"split {seed} has no other split's errors to be calibrated on; give more seeds")
        with warnings.catch_warnings():  # of too few errors: the interval is then the whole scale
            warnings.simplefilter("ignore", UserWarning)
            ends = KINDS[kind](others, errors.scores[mine], confidence).clip(0, errors.maximum)
        # a truth at the very end is inside, whatever the last digit of a sum
        inside[mine] = (truths[mine] >= ends[:, 0] - 1e-9) & (truths[mine] <= ends[:, 1] + 1e-9)
        width[mine] = ends[:, 1] - ends[:, 0]
    return inside, width


def calibrate(
    predictions: Sequence[Prediction],
    training: Mapping[int, frozenset[str]],
    levels: Sequence[float] = LEVELS,
) -> dict[str, Any]:
    """Calibrate both scores' intervals at each level.

    Args:
        predictions: Of all splits.
        training: Seed -> the pictures of the patients that this split did not hold out.
        levels: Nominal coverages, rising.

    Returns:
        What ``intervals.json`` says of them: for each score a list over the levels.

    Raises:
        ValueError: A true score is outside of its scale, a picture is on both sides of a split, or a split has
            nobody to be calibrated on.
    """
    found: dict[str, Any] = {
        "method": "Conformal prediction (crepes, ConformalRegressor): the interval reaches as far to either side of "
        "the clipped prediction as the absolute error of the given confidence among the out-of-patient predictions "
        "of all splits. Coverage: offsets from other splits' errors on the patients that a split did not hold out, "
        "tried on those that it did, over all splits. Where the level's own confidence covered less than the level, "
        "it was raised by hundredths until it did (coverage_at_level is before).",
        "splits": len({p.seed for p in predictions}),
        "levels": list(levels),
    }
    for score in SCORES:
        errors, reach = errors_of(predictions, score), 0.0
        found[score] = []
        for level in levels:
            nominal, _ = cover(errors, training, level)
            confidence, inside, width = _search(errors, training, level, start=level)
            reach = max(reach, min(offset(errors.errors, confidence), errors.maximum))
            found[score].append(
                {
                    "level": level,
                    "offset": reach,
                    "confidence": confidence,
                    "coverage": float(inside.mean()),
                    "coverage_at_level": float(nominal.mean()),
                    "coverage_of_splits": [
                        float(inside[errors.seeds == seed].mean()) for seed in np.unique(errors.seeds)
                    ],
                    "mean_width": float(width.mean()),
                    "residuals": len(errors),
                    "pictures": errors.pictures,
                }
            )
    return found


def compare_kinds(
    predictions: Sequence[Prediction],
    training: Mapping[int, frozenset[str]],
    levels: Sequence[float] = LEVELS,
) -> str:
    """Coverage and mean width of every kind of `KINDS`, as a Markdown table; arguments as for `calibrate`."""
    lines = [
        "| score | level | kind | coverage, width at this confidence | at the lowest that covers the level |",
        "|---|---|---|---|---|",
    ]
    for score in SCORES:
        errors = errors_of(predictions, score)
        for level in levels:
            for kind in KINDS:
                nominal, wide = cover(errors, training, level, kind)
                confidence, inside, width = _search(errors, training, level, start=LOWEST, kind=kind)
                lines.append(
                    f"| {score} | {level:.0%} | {kind} | {nominal.mean():.1%}, {wide.mean():.2f} "
                    f"| {inside.mean():.1%}, {width.mean():.2f} (confidence {confidence:.0%}) |"
                )
    return "\n".join(lines)


def _search(
    errors: Errors, training: Mapping[int, frozenset[str]], level: float, *, start: float, kind: str = KIND
) -> tuple[float, npt.NDArray[np.bool_], _Floats]:
    """The lowest confidence from ``start`` on, in hundredths, that covers ``level``, and what `cover` says at it."""
    confidence = start
    inside, width = cover(errors, training, confidence, kind)
    while inside.mean() < level and confidence < HIGHEST:
        confidence = min(round(confidence + 0.01, 4), HIGHEST)
        inside, width = cover(errors, training, confidence, kind)
    return confidence, inside, width
