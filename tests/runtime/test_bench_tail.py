from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside.bench.tail import confirms, early_estimate, fewest_queries, percentile


@pytest.mark.parametrize(("share", "fewest"), [(0.9, 64), (0.99, 662)])
def test_fewest_queries_are_mlperfs(share: float, fewest: int) -> None:
    # as mlcommons-loadgen 6.0.17 says: "Need to process at least 64 queries for early stopping"
    assert fewest_queries(share) == fewest
    latencies = [float(number) for number in range(fewest)]
    assert early_estimate(latencies, share) == fewest - 1
    assert early_estimate(latencies[:-1], share) is None


def test_estimate_discards_as_many_as_mlperf() -> None:
    # mlcommons-loadgen 6.0.17 on 756 queries: "Would discard 55 highest latency queries"
    latencies = [float(number) for number in range(756)]
    assert early_estimate(latencies, 0.9) == 756 - 56


def test_bound_is_confirmed_as_by_mlperf() -> None:
    # the same on 190 queries, 1 of them late: "Would need to run at least 472 more queries"
    assert fewest_queries(0.99, slower=1) == 190 + 472
    assert confirms(459, 0, 0.99)
    assert not confirms(458, 0, 0.99)


@given(
    st.integers(1, 60),
    st.integers(0, 10),
    st.sampled_from([Fraction(9, 10), Fraction(1, 2), Fraction(99, 100)]),
)
def test_confirmation_is_the_binomial_distribution(count: int, slower: int, share: Fraction) -> None:
    likely = sum(
        comb(count, late) * share ** (count - late) * (1 - share) ** late
        for late in range(min(slower, count) + 1)
    )
    if abs(float(likely) - 0.01) > 1e-9:
        assert confirms(count, min(slower, count), float(share)) == (likely <= Fraction(1, 100))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
def test_percentile_is_one_of_the_values_and_estimates_are_not_below_it(
    values: list[float], share: float
) -> None:
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in ordered
    assert sum(value < found for value in ordered) <= share * len(ordered)
    estimate = early_estimate(ordered, share)
    assert estimate is None or estimate >= found


def test_a_long_run_is_counted_too() -> None:
    assert 270_336 * 0.01 * 0.9 < 270_336 - fewest_at(270_336) < 270_336 * 0.01


def fewest_at(count: int) -> int:
    """Place of the p99 estimate among so many."""
    latencies = range(count)
    estimate = early_estimate([float(each) for each in latencies], 0.99)
    assert estimate is not None
    return int(estimate)
