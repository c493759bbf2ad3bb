"""What the quality network refuses: thresholds and rates out of the cross-validation's answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside.contract import APPEARANCES
from bedside_export.recipes.cxr.quality.packages import PACKAGES
from bedside_export.recipes.cxr.quality.warp import SPOILS

__all__ = ["FRONTAL", "HANDLED", "PHANTOM", "Answers", "choose_thresholds", "describe", "summarise"]

FRONTAL: Final = "frontal"
"""Kind of patients' frontal chest X-rays as they are."""
HANDLED: Final = "frontal, handled"
"""The same at another exposure, turned a little, trimmed, mirrored."""
PHANTOM: Final = "phantom"
"""Of the phantom's X-rays as they are."""

REFUSED: Final = 0.01
"""Share of frontal chest X-rays that the threshold may refuse: half of what is asked for."""
DOUBTED: Final = 0.05
"""Share of frontal chest X-rays that are at least doubted."""
MOST: Final = 0.5
"""Greatest threshold: what is more likely frontal than all else together is not refused."""
SUREST: Final = 0.9
"""Greatest probability that is doubted."""

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a network that has not seen them says of pictures."""

    kinds: tuple[str, ...]
    """`FRONTAL`, `HANDLED`, `PHANTOM`, one of `SPOILS`, or a kind of other pictures."""
    folds: tuple[int, ...]
    """Whose network answered."""
    looks: _Floats
    """``(R, 7)`` float32: probabilities of `bedside.contract.APPEARANCES`."""

    def frontal(self, kind: str) -> npt.NDArray[np.float64]:
        """Probability that each picture of a kind is frontal."""
        return np.asarray(self.looks[self.rows(kind), 0], dtype=np.float64)

    def rows(self, kind: str) -> npt.NDArray[np.intp]:
        """The rows of a kind."""
        return np.flatnonzero(np.asarray(self.kinds) == kind)


def choose_thresholds(frontal: npt.NDArray[np.float64]) -> dict[str, float]:
    """The manifest's thresholds, out of what was said of frontal chest X-rays.

    Args:
        frontal: Their probabilities of being frontal, from networks that had not seen their patients.
    """
    least = min(MOST, float(np.quantile(frontal, REFUSED)))
    sure = min(SUREST, float(np.quantile(frontal, DOUBTED)))
    return {
        "frontal_probability_min": round(least, 3),
        "frontal_probability_sure": round(max(least, sure), 3),
    }


def summarise(answers: Answers) -> dict[str, Any]:
    """Thresholds and rates.

    A fold's pictures are refused by a threshold that was chosen on the other folds' chest X-rays.

    Args:
        answers: Of all folds.
    """
    folds = np.asarray(answers.folds)
    limits = np.empty(len(folds))
    for fold in np.unique(folds):
        rows = answers.rows(FRONTAL)
        learnt = rows[folds[rows] != fold]
        chosen = choose_thresholds(answers.looks[learnt, 0].astype(np.float64))
        limits[folds == fold] = chosen["frontal_probability_min"]
    refused = answers.looks[:, 0] < limits
    called = answers.looks.argmax(axis=1)
    good = (FRONTAL, HANDLED, PHANTOM)
    kinds: dict[str, dict[str, Any]] = {}
    for kind in dict.fromkeys(answers.kinds):
        rows = answers.rows(kind)
        kinds[kind] = {"pictures": len(rows), "refused": round(float(refused[rows].mean()), 5)}
        if kind not in good:
            right = APPEARANCES.index(SPOILS.get(kind, "other"))
            kinds[kind]["named_rightly"] = round(float((called[rows] == right).mean()), 5)
    wrong = [kind for kind in kinds if kind not in good]
    spoilt = np.asarray([kind not in good for kind in answers.kinds])
    return {
        "thresholds": choose_thresholds(answers.frontal(FRONTAL)),
        "false_refusals": {kind: kinds[kind] for kind in good if kind in kinds},
        "others": {
            "pictures": int(spoilt.sum()),
            "refused": round(float(refused[spoilt].mean()), 5),
            "mean_of_kinds": round(float(np.mean([kinds[kind]["refused"] for kind in wrong])), 5),
            "least_of_kinds": min(kinds[kind]["refused"] for kind in wrong),
        },
        "kinds": {kind: kinds[kind] for kind in wrong},
        "sources": [
            {
                "what": package.kind,
                "source": package.file.partition("*")[0].strip("-_"),
                "licence": package.licence,
            }
            for package in PACKAGES
        ],
    }


def describe(quality: dict[str, Any] | None) -> str:
    """The model card's section on what is refused; empty where nothing is.

    Args:
        quality: ``quality-metrics.json``, or None.
    """
    if quality is None:
        return ""
    limits, others = quality["thresholds"], quality["others"]
    refusals = "\n".join(
        f"| {kind} | {found['pictures']} | {found['refused']:.2%} | |"
        for kind, found in quality["false_refusals"].items()
    )
    refused = "\n".join(
        f"| {kind} | {found['pictures']} | {found['refused']:.2%} | {found['named_rightly']:.1%} |"
        for kind, found in quality["kinds"].items()
    )
    sources = "\n".join(f"- {s['what']}: {s['source']}; {s['licence']}" for s in quality["sources"])
    return f"""
## Refusal

A second small network looks at the same picture and says what it looks like: `appearance`. A picture that is frontal
with a probability under {limits["frontal_probability_min"]:g} is refused, unless that is overridden; under
{limits["frontal_probability_sure"]:g} it is noted as doubtful.

{quality["protocol"]}

Held-out pictures that are refused, of all others {others["refused"]:.2%}, of the kinds {others["mean_of_kinds"]:.2%} on
average:

| picture | pictures | refused | cause named rightly |
|---|---|---|---|
{refusals}
{refused}

A mirrored chest X-ray is not refused: it can't be told from one of a heart on the right. Learnt from, besides the
X-rays and the CT above: drawings, projections of CT, and pictures of these packages:

{sources}
"""
