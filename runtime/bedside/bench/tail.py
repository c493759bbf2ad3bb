"""The tail of latencies: MLPerf's percentiles, and its estimate from few queries.

MLPerf's early stopping (inference_rules.adoc, "Early Stopping Criterion"): of n queries, t may be slower than a time x,
and still it is sure, at a confidence of 99 %, that a share p of all queries is faster than x, where at most t of n
would be slower with a probability of at most 1 % if only a share p were. Tested against ``mlcommons-loadgen``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

__all__ = ["confirms", "early_estimate", "fewest_queries", "percentile"]

CONFIDENCE: Final = 0.99
"""MLPerf's."""


def percentile(ordered: Sequence[float], share: float) -> float:
    """MLPerf's percentile of latencies in ascending order: that of place n times the share, from 0."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def early_estimate(ordered: Sequence[float], share: float) -> float | None:
    """A time that, at 99 % confidence, a ``share`` of all queries stays below; None from too few of them.

    Args:
        ordered: Latencies in ascending order.
        share: E.g. 0.9.
    """
    slower = _most_slower(len(ordered), share)
    return ordered[len(ordered) - slower] if slower >= 1 else None


def fewest_queries(share: float, slower: int = 1) -> int:
    """Fewest queries from which an estimate comes; or that confirm a bound which ``slower`` of them exceed."""
    low, high = slower, slower + 1
    while not confirms(high, slower, share):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if confirms(middle, slower, share) else (middle, high)
    return high


def confirms(count: int, slower: int, share: float) -> bool:
    """Whether ``slower`` of ``count`` queries over a bound confirm that a ``share`` of all stays below it."""
    return slower <= _most_slower(count, share)


def _most_slower(count: int, share: float) -> int:
    """Most queries over a bound that still confirm it; -1 where even none would not do.

    Adds up the binomial distribution of slower ones, each with a probability of ``1 - share``.
    """
    total, slower = 0.0, 0
    whole = math.lgamma(count + 1)
    while slower <= count:
        ways = whole - math.lgamma(slower + 1) - math.lgamma(count - slower + 1)
        total += math.exp(ways + (count - slower) * math.log(share) + slower * math.log1p(-share))
        if total > 1 - CONFIDENCE:
            break
        slower += 1
    return slower - 1
