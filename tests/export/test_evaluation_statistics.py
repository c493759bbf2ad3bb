"""Errors over splits, patients and ranges, against scikit-learn's and scipy's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from bedside_export.evaluation.statistics import METRICS, average, divide_ranges, summarise

Float = npt.NDArray[np.float64]


def _made(count: int, *, patients: int, splits: int, seed: int = 0) -> tuple[Float, Float, list[str]]:
    """Scores, predictions of half of them in each split, and patients."""
    random = np.random.default_rng(seed)
    truth = random.uniform(0, 8, count)
    predicted = truth + random.normal(0, 1, (splits, count))
    predicted[random.uniform(size=predicted.shape) < 0.5] = np.nan
    return truth, predicted, [str(i % patients) for i in range(count)]


class TestStatistics:
    def test_each_metric_is_the_mean_over_splits_of_scikit_learns_and_scipys(self) -> None:
        truth, predicted, patients = _made(40, patients=20, splits=7)
        baseline = np.where(np.isfinite(predicted), 3.0, np.nan)
        found = summarise(predicted, baseline, truth, patients, resamples=10)
        wanted: dict[str, list[float]] = {name: [] for name in METRICS}
        ratios = []
        for row in predicted:
            y, p = truth[np.isfinite(row)], row[np.isfinite(row)]
            wanted["mae"].append(mean_absolute_error(y, p))
            wanted["mse"].append(mean_squared_error(y, p))
            wanted["r2"].append(r2_score(y, p))
            wanted["correlation"].append(pearsonr(y, p).statistic)
            ratios.append(mean_absolute_error(y, np.full(len(y), 3.0)))
        for name in METRICS:
            assert found.metrics[name].mean == pytest.approx(np.mean(wanted[name]), abs=1e-9)
            assert found.metrics[name].sd == pytest.approx(np.std(wanted[name], ddof=1), abs=1e-9)
        assert found.ratio.mean == pytest.approx(np.mean(wanted["mae"]) / np.mean(ratios))

    def test_a_constant_prediction_has_correlation_0(self) -> None:
        truth, predicted, patients = _made(20, patients=20, splits=3)
        flat = np.where(np.isfinite(predicted), 4.0, np.nan)
        found = summarise(flat, flat, truth, patients, resamples=10)
        assert found.metrics["correlation"].mean == 0
        assert (found.ratio.mean, found.ratio.low, found.ratio.high) == (1, 1, 1)

    def test_pictures_of_one_patient_are_drawn_together(self) -> None:
        """A second copy of each picture adds nothing: the interval must not narrow."""
        truth, predicted, patients = _made(30, patients=30, splits=4)
        once = summarise(predicted, predicted, truth, patients)
        twice = summarise(
            np.tile(predicted, 2), np.tile(predicted, 2), np.tile(truth, 2), [*patients, *patients]
        )
        for name in METRICS:
            assert twice.metrics[name].low == pytest.approx(once.metrics[name].low)
            assert twice.metrics[name].high == pytest.approx(once.metrics[name].high)
        apart = summarise(
            np.tile(predicted, 2), np.tile(predicted, 2), np.tile(truth, 2), [str(i) for i in range(60)]
        )
        width = once.metrics["mae"].high - once.metrics["mae"].low
        assert apart.metrics["mae"].high - apart.metrics["mae"].low < 0.85 * width

    def test_the_interval_holds_the_true_error_about_as_often_as_it_says(self) -> None:
        inside = 0
        for seed in range(100):
            random = np.random.default_rng(seed)
            truth = random.uniform(0, 8, 60)
            predicted = (truth + random.normal(0, 1, 60))[None]
            found = summarise(predicted, predicted, truth, [str(i) for i in range(60)], resamples=400)
            mae = found.metrics["mae"]
            inside += mae.low <= np.sqrt(2 / np.pi) <= mae.high  # of a Gaussian of deviation 1
        assert 88 <= inside <= 100

    def test_errors_are_told_by_range_of_the_score(self) -> None:
        truth = np.array([0.0, 1.9, 2.0, 5.0, 8.0, 7.0])
        predicted = np.array([[1, 1.9, 3, 5, 6, np.nan], [3, 1.9, 1, np.nan, 6, np.nan]])
        ranges = divide_ranges(predicted, truth, (0.0, 8.0))
        assert [(one.low, one.high, one.pictures) for one in ranges] == [
            (0, 2, 2), (2, 4, 1), (4, 6, 1), (6, 8, 1),
        ]  # fmt: skip
        assert [one.mae for one in ranges] == pytest.approx([1, 1, 0, 2])
        assert [one.bias for one in ranges] == pytest.approx([1, 0, 0, -2])
        empty = divide_ranges(predicted[:, :2], truth[:2], (0.0, 8.0))[3]
        assert (empty.pictures, empty.mae, empty.bias) == (0, None, None)

    def test_a_picture_that_no_split_measures_has_no_mean(self) -> None:
        np.testing.assert_array_equal(
            average(np.array([[1.0, np.nan, np.nan], [3.0, 4.0, np.nan]])), [2, 4, np.nan]
        )
