"""Statistics of agreement, against published worked examples and other libraries."""

from __future__ import annotations

import importlib.util
import math
import sys

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bedside.agreement import (
    Interval,
    bland_altman,
    cohen_kappa,
    count_votes,
    fleiss_kappa,
    intraclass_correlations,
    require_libraries,
    tabulate,
)
from bedside.errors import MissingExtraError

pytest.importorskip("statsmodels", reason="needs the extra stats")

WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI_WRIGHT = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]
"""Bland and Altman 1986, Lancet 327:307: peak expiratory flow, L/min, of 17 subjects, first readings."""

SHROUT_FLEISS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
"""Shrout and Fleiss 1979, Psychol Bull 86:420, table 2: six targets by four judges."""

FLEISS_1971 = """
444444 222555 233335 555555 222444 113333 333355 113334 114444 555555 144444 124444 222333 144444 224445
333335 111455 111112 224444 133555 555555 244444 224555 114444 144445 222224 111155 224444 133333 555555
"""
"""Fleiss 1971, Psychol Bull 76:378, table 1: 30 patients, six psychiatrists each, five diagnoses."""


TWELVE_BY_THREE = """
-2.68 -0.39 -1.19   -2.31  0.43 -1.77    0.96  1.04  1.03   -1.11  0.19 -1.67
-4.85 -2.28 -2.63   -2.25  0.66 -0.32    2.13  3.91  3.02   -0.14  2.49  2.38
-2.94 -3.59 -1.84   -4.78 -3.23 -4.78   -4.51 -0.63 -1.16   -0.40  1.22 -0.76
"""
"""Made up: twelve cases by three readers, of differing bias."""


def ends(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def kappa(table: npt.NDArray[np.int64], weights: str | None) -> float:
    found = cohen_kappa(table, weights=weights)
    assert found is not None
    return found.value


class TestBlandAltman:
    def test_published_bias_and_its_interval(self) -> None:
        found = bland_altman(MINI_WRIGHT, WRIGHT)  # the paper subtracts the mini meter from the large one
        assert found is not None
        assert found.count == 17
        assert found.bias.value == pytest.approx(-2.1, abs=0.05)
        assert found.sd == pytest.approx(38.8, abs=0.05)
        assert (found.bias.low, found.bias.high) == pytest.approx((-22.0, 17.8), abs=0.1)

    def test_published_limits(self) -> None:
        # the paper rounds 1.96 to 2: -79.7 and 75.5 L/min
        found = bland_altman(MINI_WRIGHT, WRIGHT)
        assert found is not None
        assert found.bias.value - 2 * found.sd == pytest.approx(-79.7, abs=0.1)
        assert found.lower.value == pytest.approx(-2.118 - 1.95996 * 38.765, abs=0.01)
        assert found.upper.value == pytest.approx(-2.118 + 1.95996 * 38.765, abs=0.01)

    def test_published_intervals_of_the_limits_are_as_wide(self) -> None:
        # -114.3 to -45.1 and 40.9 to 110.1: 34.6 to each side, from 3 s2 / n, which is 3.04 s2 / n before rounding
        found = bland_altman(MINI_WRIGHT, WRIGHT)
        assert found is not None
        for limit in (found.lower, found.upper):
            assert limit.high - limit.value == pytest.approx(34.6 * math.sqrt(3.04 / 3), abs=0.1)
            assert limit.value - limit.low == pytest.approx(limit.high - limit.value)

    def test_intervals_hold_what_they_promise(self) -> None:
        rng = np.random.default_rng(1)
        draws = rng.normal(2, 5, (600, 30))
        found = [bland_altman(np.zeros(30), draw) for draw in draws]
        truths = {"bias": 2.0, "lower": 2 - 1.95996 * 5, "upper": 2 + 1.95996 * 5}
        for name, truth in truths.items():
            inside = [getattr(each, name).low <= truth <= getattr(each, name).high for each in found]
            # 95 %, within 4 standard errors of 600 draws, sqrt(0.95 x 0.05 / 600) = 0.9 %
            assert np.mean(inside) == pytest.approx(0.95, abs=0.036), name

    def test_swapping_the_readers_turns_the_sign(self) -> None:
        there, back = bland_altman(WRIGHT, MINI_WRIGHT), bland_altman(MINI_WRIGHT, WRIGHT)
        assert there is not None
        assert back is not None
        assert there.bias.value == -back.bias.value
        assert there.upper.high == pytest.approx(-back.lower.low)

    def test_readers_that_always_agree_have_limits_of_nought(self) -> None:
        found = bland_altman([1, 2, 3], [1, 2, 3])
        assert found is not None
        assert ends(found.bias) == ends(found.lower) == ends(found.upper) == (0, 0, 0)

    @pytest.mark.parametrize("values", [[], [1.0]])
    def test_fewer_than_two_cases_have_no_limits(self, values: list[float]) -> None:
        assert bland_altman(values, values) is None

    def test_what_is_no_pairs_is_a_defect_of_the_caller(self) -> None:
        with pytest.raises(ValueError, match="no pairs"):
            bland_altman([1, 2], [1, 2, 3])


class TestIntraclassCorrelation:
    def test_published_example(self) -> None:
        found = intraclass_correlations(SHROUT_FLEISS)
        assert found is not None
        # Shrout and Fleiss 1979, table 4
        published = {"ICC(1,1)": 0.17, "ICC(2,1)": 0.29, "ICC(3,1)": 0.71}
        published |= {"ICC(1,k)": 0.44, "ICC(2,k)": 0.62, "ICC(3,k)": 0.91}
        assert {name: round(each.value, 2) for name, each in found.items()} == published

    def test_intervals_of_the_published_example(self) -> None:
        found = intraclass_correlations(SHROUT_FLEISS)
        assert found is not None
        # intraclass_corr of pingouin 0.6.1 on the same table; R's psych documents the same
        known = {
            "ICC(1,1)": (-0.13, 0.72),
            "ICC(2,1)": (0.02, 0.76),
            "ICC(3,1)": (0.34, 0.95),
            "ICC(1,k)": (-0.88, 0.91),
            "ICC(2,k)": (0.07, 0.93),
            "ICC(3,k)": (0.68, 0.99),
        }
        assert {name: (round(each.low, 2), round(each.high, 2)) for name, each in found.items()} == known

    def test_another_table_agrees_with_pingouin(self) -> None:
        table = np.array(TWELVE_BY_THREE.split(), np.float64).reshape(12, 3)
        found = intraclass_correlations(table)
        assert found is not None
        # pingouin 0.6.1; its ICC(A,.) and ICC(C,.) are (2,.) and (3,.)
        known = {
            "ICC(1,1)": (0.7138362686467341, 0.43, 0.9),
            "ICC(2,1)": (0.7279320978845434, 0.28, 0.91),
            "ICC(3,1)": (0.8541535747536182, 0.67, 0.95),
            "ICC(1,k)": (0.8821242457715075, 0.7, 0.96),
            "ICC(2,k)": (0.8892170411604315, 0.54, 0.97),
            "ICC(3,k)": (0.946148491587109, 0.86, 0.98),
        }
        for name, (value, low, high) in known.items():
            assert found[name].value == pytest.approx(value, abs=1e-12), name
            assert (round(found[name].low, 2), round(found[name].high, 2)) == (low, high), name

    def test_a_constant_bias_lowers_agreement_and_not_consistency(self) -> None:
        cases = np.arange(8.0)
        found = intraclass_correlations(np.stack([cases, cases + 3], axis=1))
        assert found is not None
        assert found["ICC(3,1)"].value == pytest.approx(1)
        # between cases 12, between readers 36, no error: 12 / (12 + 2 * 36 / 8)
        assert found["ICC(2,1)"].value == pytest.approx(12 / 21)
        assert found["ICC(2,1)"].low < found["ICC(2,1)"].value < found["ICC(2,1)"].high

    def test_readers_that_always_agree_have_a_correlation_of_one(self) -> None:
        found = intraclass_correlations([[1, 1, 1], [5, 5, 5], [2, 2, 2]])
        assert found is not None
        for each in found.values():
            assert ends(each) == pytest.approx((1, 1, 1))

    @pytest.mark.parametrize(
        "table",
        [[[1.0, 2.0]], [[1.0], [2.0]], [[4.0, 4.0], [4.0, 4.0]], [[0.1, 0.3], [0.3, 0.1]], [[1.1, 7.3]] * 5],
    )
    def test_no_correlation_of_one_case_one_reader_or_cases_that_do_not_differ(
        self, table: list[list[float]]
    ) -> None:
        assert intraclass_correlations(table) is None

    @settings(max_examples=60)
    @given(
        arrays(
            np.float64, st.tuples(st.integers(2, 6), st.integers(2, 4)), elements=st.integers(0, 9).map(float)
        )
    )
    def test_estimates_lie_in_their_intervals_whatever_the_unit(self, table: npt.NDArray[np.float64]) -> None:
        found, moved = intraclass_correlations(table), intraclass_correlations(3 * table + 100)
        assume(found is not None)
        assert found is not None
        assert moved is not None
        for name, each in found.items():
            assert each.value <= 1 + 1e-12
            assert moved[name].value == pytest.approx(each.value, abs=1e-6)
            if not name.startswith("ICC(2"):  # whose interval is an approximation, and may miss its estimate
                assert each.low - 1e-9 <= each.value <= each.high + 1e-9

    def test_missing_ratings_are_a_defect_of_the_caller(self) -> None:
        with pytest.raises(ValueError, match="finite"):
            intraclass_correlations([[1.0, math.nan], [1.0, 2.0]])


class TestCohen:
    def test_published_example(self) -> None:
        # Fleiss 1981, Statistical methods for rates and proportions, table 13.1: kappa 0.676
        table = [[75, 1, 4], [5, 4, 1], [0, 0, 10]]
        found = cohen_kappa(table)
        assert found is not None
        assert found.value == pytest.approx((0.89 - 0.66) / (1 - 0.66))
        assert found.value == pytest.approx(0.676, abs=0.0005)
        assert found.low < found.value < found.high

    def test_interval_is_that_of_the_large_sample_variance(self) -> None:
        # Fleiss, Cohen and Everitt 1969, Psychol Bull 72:323, for two categories
        n, table = 50, np.array([[20, 5], [10, 15]])
        p = table / n
        rows, columns = p.sum(axis=1), p.sum(axis=0)
        agreed, chance = float(np.trace(p)), float(rows @ columns)
        first = sum(p[i, i] * ((1 - chance) - (rows[i] + columns[i]) * (1 - agreed)) ** 2 for i in range(2))
        second = (1 - agreed) ** 2 * sum(p[i, 1 - i] * (columns[i] + rows[1 - i]) ** 2 for i in range(2))
        third = (agreed * chance - 2 * chance + agreed) ** 2
        error = math.sqrt((first + second - third) / (n * (1 - chance) ** 4))
        found = cohen_kappa(table)
        assert found is not None
        assert found.value == pytest.approx((agreed - chance) / (1 - chance)) == pytest.approx(0.4)
        assert found.high - found.value == pytest.approx(1.959964 * error, rel=1e-6)

    def test_quadratic_weights_by_definition(self) -> None:
        rng = np.random.default_rng(2)
        table = rng.integers(0, 9, (5, 5))
        expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
        off = np.subtract.outer(np.arange(5), np.arange(5)) ** 2
        found = cohen_kappa(table, weights="quadratic")
        assert found is not None
        assert found.value == pytest.approx(1 - (off * table).sum() / (off * expected).sum())

    def test_a_near_miss_counts_less_where_categories_are_ordered(self) -> None:
        near = tabulate([0, 1, 2, 3], [0, 1, 2, 2], range(4))
        far = tabulate([0, 1, 2, 3], [0, 1, 2, 0], range(4))
        assert kappa(near, "quadratic") > kappa(near, None)
        assert kappa(near, "quadratic") > kappa(far, "quadratic")

    @pytest.mark.parametrize("weights", [None, "linear", "quadratic"])
    def test_full_agreement_is_one(self, weights: str | None) -> None:
        found = cohen_kappa([[3, 0, 0], [0, 4, 0], [0, 0, 0]], weights=weights)
        assert found is not None
        assert ends(found) == pytest.approx((1, 1, 1))

    def test_one_reader_who_always_says_the_same_is_agreement_by_chance(self) -> None:
        found = cohen_kappa([[5, 7], [0, 0]])
        assert found is not None
        assert found.value == pytest.approx(0)

    @pytest.mark.parametrize("table", [[[9, 0], [0, 0]], [[0, 0], [0, 0]]])
    def test_a_single_category_has_no_kappa(self, table: list[list[int]]) -> None:
        assert cohen_kappa(table) is None

    @pytest.mark.parametrize("weights", ["cubic", "toeplitz"])
    def test_unknown_weights_are_a_defect_of_the_caller(self, weights: str) -> None:
        with pytest.raises(ValueError, match="weights"):
            cohen_kappa([[1, 0], [0, 1]], weights=weights)

    def test_a_table_that_is_not_square_is_a_defect_of_the_caller(self) -> None:
        with pytest.raises(ValueError, match="square"):
            cohen_kappa([[1, 0, 2], [0, 1, 3]])


class TestFleiss:
    def test_published_example(self) -> None:
        ratings = [[int(digit) for digit in patient] for patient in FLEISS_1971.split()]
        assert fleiss_kappa(count_votes(ratings, range(1, 6))) == pytest.approx(0.430, abs=0.0005)

    @settings(max_examples=30)
    @given(arrays(np.int64, st.tuples(st.integers(1, 12), st.integers(3, 6)), elements=st.integers(0, 3)))
    def test_agrees_with_statsmodels(self, ratings: npt.NDArray[np.int64]) -> None:
        inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
        votes = count_votes(ratings, range(4))
        found = fleiss_kappa(votes)
        if len(np.unique(ratings)) == 1:
            assert found is None
        else:
            assert found == pytest.approx(inter_rater.fleiss_kappa(votes))

    def test_a_repeated_row_is_as_many_subjects(self) -> None:
        rows, times = np.array([[3, 0], [2, 1], [0, 3]]), np.array([5, 2, 9])
        assert fleiss_kappa(rows, times) == pytest.approx(fleiss_kappa(np.repeat(rows, times, axis=0)))

    def test_full_agreement_is_one_and_a_single_category_has_none(self) -> None:
        assert fleiss_kappa([[3, 0], [0, 3]]) == pytest.approx(1)
        assert fleiss_kappa([[3, 0], [3, 0]]) is None
        assert fleiss_kappa([[3, 0], [0, 3]], [0, 0]) is None

    @pytest.mark.parametrize("votes", [[[3, 0], [1, 1]], [[1, 0], [0, 1]]])
    def test_missing_readers_and_single_ones_are_a_defect_of_the_caller(self, votes: list[list[int]]) -> None:
        with pytest.raises(ValueError, match="same number of readers"):
            fleiss_kappa(votes)


@pytest.mark.parametrize("package", ["scipy", "statsmodels", "matplotlib"])
def test_without_the_extra_the_error_names_it(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else there(name))
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*bedside\[stats\]"):
        require_libraries("matplotlib")


def test_a_library_that_vanishes_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(MissingExtraError, match=r"'scipy'.*bedside\[stats\]"):
        bland_altman([1, 2], [2, 3])
