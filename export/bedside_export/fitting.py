"""A head fitted to scored pictures: ridge regression, with its error measured on patients it has not seen.

    measure_inputs   pictures -> what the head is to read
    fit_head         that and the scores -> a `Fit`, whose head is one linear map

Not for clinical use.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from bedside.bundle import Input, Interval
from bedside.cxr import preprocess
from bedside.errors import BedsideError
from bedside.reading import read_radiograph
from bedside_export.errors import ExportError
from bedside_export.heads import LEVEL, LUNG_OPACITY, SCORES, Head
from bedside_export.models import Classifier
from bedside_export.scores import ScoreTable

__all__ = ["ALPHAS", "INPUTS", "Fit", "fit_head", "input_labels", "measure_inputs"]

INPUTS: Final[dict[str, tuple[str, ...] | None]] = {
    "one": (LUNG_OPACITY,),
    "four": (LUNG_OPACITY, "Pneumonia", "Infiltration", "Consolidation"),
    "eighteen": (),
    "features": None,
}
"""Choice -> labels that the head reads: those of Cohen et al. 2020; all trained ones for ``eighteen``; None for
the pooled features."""
ALPHAS: Final = tuple(float(alpha) for alpha in np.logspace(-2, 5, 15))
"""Strengths of regularisation to choose from."""
FOLDS: Final = 5
"""Parts that the patients are divided into, for choosing and for measuring."""

_Float64 = npt.NDArray[np.float64]
_Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted head and how it was found."""

    head: Head
    """What the bundle uses."""
    alphas: tuple[float, float]
    """Regularisation of each score's regression."""
    errors: tuple[float, float]
    """Mean absolute error of each score over patients not seen, in score units."""


def input_labels(choice: str, classifier: Classifier) -> tuple[str, ...] | None:
    """Labels of the logits that a choice of `INPUTS` reads from a network; None for its features.

    Raises:
        ExportError: The network was not trained on one of them.
    """
    wanted = INPUTS[choice]
    known = tuple(
        label for label, trained in zip(classifier.labels, classifier.trained, strict=True) if trained
    )
    if wanted is None:
        return None
    if missing := [label for label in wanted if label not in known]:
        raise ExportError(
            f"the weights were not trained on {missing[0]!r}, which {choice!r} reads; take other inputs"
        )
    return wanted or known


def measure_inputs(
    classifier: Classifier, images: Iterable[Path], spec: Input, *, labels: tuple[str, ...] | None
) -> _Float64:
    """What the network says of each picture, as the head is to read it.

    Args:
        classifier: The network.
        images: Picture files.
        spec: The bundle's input rule.
        labels: Logits to take, in order; None for the pooled features.

    Returns:
        ``(N, labels or features)``; logits before any sigmoid.

    Raises:
        ExportError: A picture can't be read; the message says which row of the table.
    """
    rows = []
    for number, path in enumerate(images, 2):
        try:
            picture = torch.from_numpy(preprocess(read_radiograph(path), spec))
        except BedsideError as error:
            raise ExportError(f"the table of scores, row {number}: {error.message}") from error
        with torch.inference_mode():
            pooled = F.relu(classifier.features(picture)).mean((2, 3))
            rows.append((pooled if labels is None else classifier.logits(pooled))[0].double().numpy())
    values: _Float64 = np.stack(rows)
    if not np.isfinite(values).all():
        raise ExportError("the network answers NaN or infinity on a picture of the table; check its weights")
    return values if labels is None else values[:, [classifier.labels.index(label) for label in labels]]


def fit_head(inputs: _Float64, table: ScoreTable, *, labels: tuple[str, ...] | None) -> Fit:
    """Fit a linear head to the scores.

    Each score has its own ridge regression on standardised inputs. Its regularisation is the one of `ALPHAS`
    with the least mean absolute error in a cross-validation over `FOLDS` groups of patients. The interval is
    from the residuals of pictures of patients that took part in neither fitting nor choosing (a cross-validation
    around that one), at the ranks that hold `LEVEL` of N + 1. Standardisation is folded into the weights.

    Args:
        inputs: ``(N, K)`` from `measure_inputs`.
        table: The scores and the patients.
        labels: What the inputs are; None for the pooled features.

    Raises:
        ExportError: Fewer than twice `FOLDS` patients.
    """
    patients = np.unique(table.patients, return_inverse=True)[1]
    count = int(patients.max()) + 1
    if count < 2 * FOLDS:
        raise ExportError(f"the table of scores has {count} patients; a fit needs at least {2 * FOLDS}")
    weights, constants, alphas, errors, intervals = [], [], [], [], []
    what = f"{inputs.shape[1]} pooled features" if labels is None else f"{len(labels)} logits"
    for name, truth in zip(SCORES, table.scores.T, strict=True):
        residuals = truth - _predict_unseen(inputs, truth, patients)
        alphas.append(_choose(inputs, truth, patients))
        chosen = _regress(inputs, truth, alphas[-1:])
        slope = chosen["ridge"].coef_.ravel() / chosen["scale"].scale_
        weights.append(slope)
        constants.append(float(np.ravel(chosen["ridge"].intercept_)[0] - slope @ chosen["scale"].mean_))
        errors.append(float(np.abs(residuals).mean()))
        low, high = _tails(residuals)
        intervals.append(
            Interval(
                LEVEL,
                below=round(max(0.0, -low), 4),
                above=round(max(0.0, high), 4),
                method=f"residuals of {name} on {count} patients, each left out of fitting and choosing in turn "
                f"({FOLDS} folds); their mean absolute value {errors[-1]:.2f}",
            )
        )
    alone = "" if table.grouped else ", each picture counted as a patient"
    head = Head(
        inputs=labels,
        weight=np.stack(weights),
        constant=np.array(constants),
        source=f"ridge regression on {what}, fitted to {len(inputs)} scored pictures of {count} patients{alone}",
        protocol=f"cross-validation over {FOLDS} groups of patients around the choice of the regularisation; mean "
        f"absolute error {errors[0]:.2f} (extent) and {errors[1]:.2f} (opacity).",
        intervals=(intervals[0], intervals[1]),
    )
    return Fit(head, (alphas[0], alphas[1]), (errors[0], errors[1]))


def _regress(inputs: _Float64, truth: _Float64, alphas: Sequence[float]) -> Pipeline:
    """Ridge regressions of one target on standardised inputs, one for each of ``alphas``, from one decomposition."""
    steps = [("scale", StandardScaler()), ("ridge", Ridge(alpha=np.array(alphas), solver="svd"))]
    return Pipeline(steps).fit(inputs, np.tile(truth[:, None], len(alphas)))


def _choose(inputs: _Float64, truth: _Float64, patients: _Int64) -> float:
    """The one of `ALPHAS` with the least mean absolute error on patients left out; the stronger of equals."""
    predictions = np.empty((len(truth), len(ALPHAS)))
    for seen, unseen in GroupKFold(FOLDS).split(inputs, truth, patients):
        predictions[unseen] = _regress(inputs[seen], truth[seen], ALPHAS).predict(inputs[unseen])
    errors = np.abs(predictions - truth[:, None]).mean(0)
    return ALPHAS[int(np.flatnonzero(errors == errors.min())[-1])]


def _predict_unseen(inputs: _Float64, truth: _Float64, patients: _Int64) -> _Float64:
    """Each picture's score by a regression, and a choice of its regularisation, that know nothing of its patient."""
    predictions = np.empty_like(truth)
    for seen, unseen in GroupKFold(FOLDS).split(inputs, truth, patients):
        alpha = _choose(inputs[seen], truth[seen], patients[seen])
        predictions[unseen] = _regress(inputs[seen], truth[seen], (alpha,)).predict(inputs[unseen]).ravel()
    return predictions


def _tails(residuals: _Float64) -> tuple[float, float]:
    """The residuals between which a new one lies with probability `LEVEL`, by rank among N + 1."""
    ordered = np.sort(residuals)
    rank = min(len(ordered), ceil((len(ordered) + 1) * (1 + LEVEL) / 2))
    return float(ordered[len(ordered) - rank]), float(ordered[rank - 1])
