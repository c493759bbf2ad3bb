"""How much wider an interval has to be on poor pictures and on other projections, from errors measured on both.

A factor is how far a conformal interval reaches among errors on such pictures, over how far it reaches on ordinary
ones. For a quality note these are the same pictures, scored by the same networks, before they were degraded. For a
projection they are PA pictures: all severity scores of experts are of PA pictures, so that projections are compared by
Brixia's scores. A factor under 1 is 1: a poor picture makes no interval narrower.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside.contract import WIDENING_NOTES
from bedside_export.recipes.cxr.conformal import LEVELS, offset
from bedside_export.recipes.cxr.report import MAXIMA, SCORES, Prediction
from bedside_export.recipes.cxr.trials import AS_TAKEN, Trial

__all__ = ["FEWEST", "PROJECTIONS", "measure_notes", "measure_views"]

FEWEST: Final = 15
"""Pictures of a kind under which nothing is said of it."""
PROJECTIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"PA": ("PA",), "AP": ("AP", "AP Supine"), "AP SUPINE": ("AP Supine",)}
)
"""What a header can say -> views of the table. A header that says AP says nothing of sitting or lying."""
BRIXIA_TO_EXTENT: Final = 8 / 18
"""Global Brixia score (0-18) to the scale of extent (0-8)."""

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Errors of one score on one kind of picture, and what they are to be compared with."""

    images: npt.NDArray[np.str_]
    """``(n,)``: the pictures."""
    errors: _Floats
    """``(n,)``: on such pictures."""
    usual: _Floats
    """``(m,)``: on ordinary ones."""

    @property
    def pictures(self) -> int:
        return len(np.unique(self.images))


def measure_views(predictions: Sequence[Prediction], levels: Sequence[float] = LEVELS) -> dict[str, Any]:
    """Factors of the projections, by Brixia's scores of held-out pictures.

    Extent is compared with the global score / 18 * 8; opacity with a line through the pictures that have both scores.

    Args:
        predictions: Of all splits.
        levels: Of the intervals, rising.

    Returns:
        For each of `PROJECTIONS` its ``pictures``, and for each score and level the ``ratio`` and ``factor``;
        without these where the pictures are too few to say. Empty if no picture has a Brixia score.
    """
    known = [p for p in predictions if p.brixia is not None]
    errors = {score: _brixia_errors(known, score) for score in SCORES}
    images, views = np.asarray([p.image for p in known]), np.asarray([p.view for p in known])
    found = {}
    for name, members in PROJECTIONS.items() if known else ():
        chosen = np.isin(views, members)
        rows = {
            score: _Rows(images[chosen], each[chosen], each[views == "PA"]) for score, each in errors.items()
        }
        found[name] = _factors(rows, levels)
    return found


def _brixia_errors(known: Sequence[Prediction], score: str) -> _Floats:
    maximum = MAXIMA[SCORES.index(score)]
    scores = np.asarray([getattr(p, score) for p in known], dtype=np.float64).clip(0, maximum)
    brixia = np.asarray([p.brixia for p in known], dtype=np.float64)
    if score == "extent":
        return np.asarray(brixia * BRIXIA_TO_EXTENT - scores)
    both = {p.image: (p.brixia, p.true_opacity) for p in known if p.true_opacity is not None}
    if len(both) < FEWEST or len({value for value, _ in both.values()}) < 2:
        return np.full(len(known), np.nan)  # no line
    known_brixia, known_opacity = np.asarray(list(both.values()), dtype=np.float64).T
    line = np.polyfit(known_brixia, known_opacity, deg=1)
    return np.asarray(np.polyval(line, brixia).clip(0, maximum) - scores)


def measure_notes(trials: Sequence[Trial], levels: Sequence[float] = LEVELS) -> dict[str, Any]:
    """Factors of the quality notes, by the experts' scores of pictures that were degraded.

    A trial with several notes counts to the one whose mean error grows most, since the runtime takes the widest.

    Args:
        trials: What `cxr.degradations` wrote.
        levels: Of the intervals, rising.

    Returns:
        As `measure_views`, for every note that came up, of `bedside.contract.WIDENING_NOTES`; and under an empty name
        the same for trials that got no such note, which the runtime can't widen.
    """
    scored = [t for t in trials if t.prediction.true_extent is not None]
    usual = {
        (t.prediction.seed, t.prediction.image): t.prediction for t in scored if t.degradation == AS_TAKEN
    }
    rows = [t for t in scored if t.degradation != AS_TAKEN]
    left = {code: [t for t in rows if code in t.notes] for code in WIDENING_NOTES}
    found: dict[str, Any] = {}
    while left := {code: group for code, group in left.items() if group}:
        groups = {code: _paired(group, usual) for code, group in left.items()}
        code = max(groups, key=lambda each: _mean_ratio(groups[each]))
        found[code] = _factors(groups[code], levels)
        taken = {id(t) for t in left.pop(code)}
        left = {other: [t for t in group if id(t) not in taken] for other, group in left.items()}
    silent = [t for t in rows if not set(t.notes) & set(WIDENING_NOTES)]
    if silent:
        found[""] = _factors(_paired(silent, usual), levels)
    return found


def _paired(group: Sequence[Trial], usual: Mapping[tuple[int, str], Prediction]) -> dict[str, _Rows]:
    predictions = [t.prediction for t in group]
    before = [usual[p.seed, p.image] for p in predictions]
    images = np.asarray([p.image for p in predictions])
    return {score: _Rows(images, _errors(predictions, score), _errors(before, score)) for score in SCORES}


def _errors(predictions: Sequence[Prediction], score: str) -> _Floats:
    scores = np.asarray([getattr(p, score) for p in predictions], dtype=np.float64)
    truths = np.asarray([getattr(p, f"true_{score}") for p in predictions], dtype=np.float64)
    return np.asarray(truths - scores.clip(0, MAXIMA[SCORES.index(score)]))


def _factors(rows: Mapping[str, _Rows], levels: Sequence[float]) -> dict[str, Any]:
    """Each score's factor at each level; at a level that needs more pictures, that of the level under it."""
    pictures = max(each.pictures for each in rows.values())
    found: dict[str, Any] = {"pictures": pictures}
    for score, each in rows.items():
        if pictures < FEWEST or not np.isfinite(each.errors).all():
            continue
        found[score], ratio, source = {}, 1.0, levels[0]
        for level in levels:
            if pictures >= needed(level):
                ratio, source = offset(each.errors, level) / offset(each.usual, level), level
            found[score][f"{level:g}"] = {"ratio": ratio, "factor": max(1.0, ratio), "measured_at": source}
    return found


def needed(level: float) -> int:
    """Pictures from which on a conformal interval of this level is not just the largest error."""
    return ceil(round(2 / (1 - level), 9)) - 1


def _mean_ratio(rows: Mapping[str, _Rows]) -> float:
    """How much larger the errors are on average over both scores."""
    ratios = [np.abs(each.errors).mean() / max(np.abs(each.usual).mean(), 1e-9) for each in rows.values()]
    return float(np.mean(ratios))
