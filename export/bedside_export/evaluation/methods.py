"""Ways to a score that are compared: regressions on what a network says, a bundle's own scores, and the plain mean.

methods_of_network     the rows of Cohen et al. 2020: one output, 4, 18, 1024 features
methods_of_bundle      a bundle's scores as they are, and with a line fitted to them
outcome_of_method      predictions of the pictures that each split holds out
outcome_of_recipe      the same, as a recipe wrote them down that trained a network anew for each split
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression

from bedside_export.errors import ExportError
from bedside_export.evaluation.splits import Halves
from bedside_export.fitting import INPUTS, input_labels, measure_inputs
from bedside_export.heads import BOUNDS, SCORES
from bedside_export.models import Classifier
from bedside_export.scores import ScoreTable, read_rows
from bedside_export.severity import input_rule

__all__ = [
    "MEAN",
    "Method",
    "Outcome",
    "methods_of_bundle",
    "methods_of_network",
    "outcome_of_method",
    "outcome_of_recipe",
]

Float = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """One way to predict both scores."""

    name: str
    """A row of the table."""
    parameters: str
    """What is fitted to the training half, as the paper counts it: weights + constants of each score."""
    inputs: tuple[Float, Float] | None
    """For each score ``(N, K)``; None where the training half's mean is all that is known."""
    fitted: bool = True
    """Whether a regression is fitted to the training half; else the one input is the prediction."""


MEAN: Final = Method("mean of the training half", "0+1", None)
"""Knows no picture: every other method is compared with it."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a method predicted of pictures whose patients it had not seen."""

    name: str
    """A row of the table."""
    parameters: str
    """See `Method`."""
    predicted: Float
    """``(splits, N, 2)``; NaN where the split does not measure the picture."""
    baseline: Float
    """The same of the training half's mean, of the same splits."""


def methods_of_network(classifier: Classifier, table: ScoreTable) -> tuple[list[Method], list[str]]:
    """The methods of Cohen et al. 2020; the network sees each picture once.

    Returns:
        The methods, and notes on those that the network has no outputs for.

    Raises:
        ExportError: A picture can't be read.
    """
    pooled = measure_inputs(classifier, table.images, input_rule(classifier), labels=None)
    layer = classifier.logits
    logits = pooled @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
    methods, notes = [], []
    for choice in INPUTS:
        try:
            labels = input_labels(choice, classifier)
        except ExportError:
            notes.append(f"no regression on {choice!r} outputs: the weights were not trained on all of them")
            continue
        columns = None if labels is None else [classifier.labels.index(label) for label in labels]
        values = pooled if columns is None else logits[:, columns]
        count = values.shape[1]
        if columns is None:
            name = f"{count} features"
        else:
            name = f"{labels[0]} output" if labels and count == 1 else f"{count} outputs"
        methods.append(Method(name, f"{count}+1", (values, values)))
    return methods, notes


def methods_of_bundle(name: str, scores: Float) -> list[Method]:
    """A bundle's scores as they are, and each with a line fitted to the training half.

    Args:
        name: The bundle's.
        scores: ``(N, 2)`` from `bedside_export.evaluation.scoring`.
    """
    columns = (scores[:, :1], scores[:, 1:])
    return [
        Method(f"{name}, as it is", "0", columns, fitted=False),
        Method(f"{name}, recalibrated", "1+1", columns),
    ]


def outcome_of_method(method: Method, truth: Float, splits: Sequence[Halves]) -> Outcome:
    """What a method says of the pictures that each split holds out, knowing the other half.

    As in the paper, predictions of a regression are not clipped to the scale.

    Args:
        method: The method.
        truth: ``(N, 2)``.
        splits: The splits.
    """
    predicted = np.full((len(splits), *truth.shape), np.nan)
    for place, half in enumerate(splits):
        for score in range(len(SCORES)):
            predicted[place, half.test, score] = _predict(method, truth[:, score], half, score)
    return Outcome(method.name, method.parameters, predicted, _baseline(truth, splits))


def _predict(method: Method, truth: Float, half: Halves, score: int) -> Float:
    if method.inputs is None:
        blank = np.zeros((len(truth), 1))
        mean = DummyRegressor(strategy="mean").fit(blank[half.train], truth[half.train])
        return np.asarray(mean.predict(blank[half.test]), np.float64)
    inputs = method.inputs[score]
    if not method.fitted:
        return np.asarray(inputs[half.test, 0], np.float64)
    line = LinearRegression().fit(inputs[half.train], truth[half.train])
    return np.asarray(line.predict(inputs[half.test]), np.float64)


def _baseline(truth: Float, splits: Sequence[Halves]) -> Float:
    """`MEAN`'s predictions of the splits."""
    predicted = np.full((len(splits), *truth.shape), np.nan)
    for place, half in enumerate(splits):
        for score in range(len(SCORES)):
            predicted[place, half.test, score] = _predict(MEAN, truth[:, score], half, score)
    return predicted


def outcome_of_recipe(path: Path, table: ScoreTable) -> Outcome:
    """Predictions that a recipe wrote down, of networks that it trained anew without each split's held-out patients.

    Args:
        path: CSV with the columns ``seed``, ``image``, ``extent`` (0 to 8) and ``opacity`` (0 to 6), a row for each
            split and picture held out, as `bedside_export.recipes.cxr.severity` writes it. Pictures that the
            table doesn't hold are left out; scores are clipped as a runtime does it.
        table: The scored pictures.

    Raises:
        ExportError: The file can't be read, has a row with no number, one picture twice in a split, or no picture of
            the table; a patient is predicted in one picture of a split and not in another (that may have been
            learnt from); see `Halves.check`.
    """
    rows, _ = read_rows(path, ("seed", "image", *SCORES), what="the table of predictions")
    places = {image.name: place for place, image in enumerate(table.images)}
    found: dict[str, dict[int, list[float]]] = {}
    for number, row in rows:
        place = places.get(row["image"] or "")
        if place is None:
            continue
        of = found.setdefault(row["seed"] or "", {})
        if place in of:
            raise ExportError(f"the table of predictions, row {number}: the split has this picture before")
        of[place] = _clip(row, number, table.bounds)
    if not found:
        raise ExportError("the table of predictions names no picture of the table of scores; give another")
    predicted = np.full((len(found), *table.scores.shape), np.nan)
    splits = []
    for split, (seed, of) in enumerate(found.items()):
        test = np.array(sorted(of), np.int64)
        half = Halves(seed, np.setdiff1d(np.arange(len(table.images)), test), test)
        half.check(table.patients)
        splits.append(half)
        for place, scores in of.items():
            predicted[split, place] = scores
    name = f"held-out predictions, {len(splits)} splits of their own"
    return Outcome(name, "", predicted, _baseline(table.scores, splits))


def _clip(row: Mapping[str, str], number: int, bounds: Sequence[tuple[float, float]]) -> list[float]:
    """Both scores, clipped to the recipe's scales and mapped to the table's."""
    values = []
    for score, (low, high), (least, most) in zip(SCORES, BOUNDS, bounds, strict=True):
        try:
            value = float(row[score] or "")
        except ValueError:
            value = float("nan")
        if not np.isfinite(value):
            raise ExportError(f"the table of predictions, row {number}: {score} must be a number; mend it")
        share = (min(max(value, low), high) - low) / (high - low)
        values.append(least + share * (most - least))
    return values
