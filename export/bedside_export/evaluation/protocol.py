"""The protocol of Cohen et al. 2020 from a table of scored X-rays to what is reported; no reading, no writing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.agreement import BlandAltman, bland_altman
from bedside_export.evaluation.methods import MEAN, Method, Outcome, outcome_of_method
from bedside_export.evaluation.splits import Halves
from bedside_export.evaluation.statistics import RangeError, Summary, average, divide_ranges, summarise
from bedside_export.heads import SCORES
from bedside_export.scores import ScoreTable

__all__ = ["PROTOCOL", "Evaluation", "Row", "evaluate"]

PROTOCOL: Final = (
    "Random halves of the patients (GroupShuffleSplit of scikit-learn, train_size 0.5, seeds from 0); linear "
    "regression (least squares) on the training half, measured on the other; mean and standard deviation over the "
    "splits. Cohen et al. 2020, arXiv 2005.11856. Intervals at 95 % of patients drawn again."
)

Float = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """One method on one score."""

    method: str
    """Its name."""
    parameters: str
    """What is fitted to the training half."""
    summary: Summary
    """Errors over the splits."""
    ranges: list[RangeError]
    """Errors by range of the experts' score."""
    limits: BlandAltman | None
    """Mean prediction of each picture less the experts' score; None for fewer than two pictures. Its intervals take
    pictures as independent, which several of one patient are not."""
    splits: int
    """How many."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What came of it."""

    table: ScoreTable
    """What was measured on."""
    rows: dict[str, list[Row]]
    """Score -> a row for each method, in order."""
    outcomes: list[Outcome]
    """The predictions, in the same order."""
    notes: list[str]
    """What a reader has to know."""

    def mean_prediction(self, outcome: Outcome, score: int) -> Float:
        """``(N,)``: mean over the splits that held a picture out; NaN where none did."""
        return average(outcome.predicted[:, :, score])


def evaluate(
    table: ScoreTable,
    splits: Sequence[Halves],
    methods: Sequence[Method],
    *,
    others: Sequence[Outcome] = (),
    notes: Sequence[str] = (),
) -> Evaluation:
    """Measure each method on each split.

    Args:
        table: Scored pictures with their patients.
        splits: Checked: no patient on both sides.
        methods: What is compared; the training half's mean is added as the last.
        others: Outcomes that were measured elsewhere, on splits of their own.
        notes: Passed on.
    """
    outcomes = [outcome_of_method(method, table.scores, splits) for method in (*methods, MEAN)]
    outcomes = [*others, *outcomes]
    rows = {name: [_row(outcome, table, score) for outcome in outcomes] for score, name in enumerate(SCORES)}
    return Evaluation(table, rows, outcomes, list(notes))


def _row(outcome: Outcome, table: ScoreTable, score: int) -> Row:
    truth = table.scores[:, score]
    predicted = outcome.predicted[:, :, score]
    mean = average(predicted)
    known = np.isfinite(mean)
    return Row(
        outcome.name,
        outcome.parameters,
        summarise(predicted, outcome.baseline[:, :, score], truth, table.patients),
        divide_ranges(predicted, truth, table.bounds[score]),
        bland_altman(truth[known], mean[known]),
        len(predicted),
    )
