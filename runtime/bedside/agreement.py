"""Agreement between readers, beyond chance and with confidence intervals.

    bland_altman                 bias and limits of agreement of two readers' measurements
    intraclass_correlations      the six of Shrout and Fleiss, any number of readers
    cohen_kappa, tabulate        two readers' categories
    fleiss_kappa, count_votes    several readers' categories

Quantiles of distributions are scipy's, Cohen's kappa with its variance is that of statsmodels: the extra ``stats``.
Of the libraries that know intraclass correlation with intervals, none is under a permissive licence, so its few
formulas are here. What is not defined, as any correlation of constant values, is None, never 1 or NaN.
Not for clinical use.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside.errors import MissingExtraError

__all__ = [
    "BlandAltman",
    "Interval",
    "bland_altman",
    "cohen_kappa",
    "count_votes",
    "fleiss_kappa",
    "intraclass_correlations",
    "require_libraries",
    "tabulate",
]

EXTRA: Final = "stats"
"""The extra that brings the libraries."""
LEVEL: Final = 0.95
"""Level of the confidence intervals, and share of differences within the limits of agreement."""
PACKAGES: Final = ("scipy", "statsmodels")
"""What this module needs of the extra."""
ROUNDING: Final = 1e-12
"""Variance below this share of the mean square of the values is rounding, not variance."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval, of the level that was asked for."""

    value: float
    """The estimate."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""


@dataclass(frozen=True, slots=True)
class BlandAltman:
    """How far a second reader's measurements differ from the first's, in their unit."""

    count: int
    """Pairs of measurements."""
    bias: Interval
    """Mean of second less first."""
    sd: float
    """Standard deviation of the differences (n - 1)."""
    lower: Interval
    """Lower limit of agreement."""
    upper: Interval
    """Upper limit: about 95 % of differences lie between the two, if they are normally distributed."""
    level: float
    """Of the intervals and of the limits, e.g. 0.95."""


def require_libraries(*more: str) -> None:
    """See that the libraries are installed, before any work is done.

    Args:
        more: Packages of the extra that are wanted too, such as ``matplotlib``.

    Raises:
        MissingExtraError: The first that is not.
    """
    for package in (*PACKAGES, *more):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError.of(package, EXTRA, "agreement between readers")


def bland_altman(first: npt.ArrayLike, second: npt.ArrayLike, *, level: float = LEVEL) -> BlandAltman | None:
    """Bias and limits of agreement after Bland and Altman.

    The limits are bias -+ z sd (z = 1.96 for 95 %). Intervals by Student's t with n - 1 degrees of freedom; the
    limits' standard error is ``sd sqrt(1 / n + z^2 / (2 (n - 1)))`` (Bland and Altman 1999, Stat Methods Med Res 8:135,
    section 2.3; it is their 3 sd^2 / n of 1986 before rounding). They are approximate, and wide where n is small.

    Args:
        first: ``(n,)`` measurements of the reference.
        second: ``(n,)`` of the other reader, of the same cases in the same order.
        level: See `BlandAltman`.

    Returns:
        None for fewer than two cases: one difference has no spread.

    Raises:
        MissingExtraError: The extra ``stats`` is not installed.
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.ndim != 1 or one.shape != other.shape:
        raise ValueError(f"measurements of {one.shape} and {other.shape} are no pairs")
    count = len(one)
    if count < 2:
        return None
    stats = _library("scipy.stats")
    difference = other - one
    bias, sd = float(difference.mean()), float(difference.std(ddof=1))
    z = float(stats.norm.ppf((1 + level) / 2))
    t = float(stats.t.ppf((1 + level) / 2, count - 1))
    reach = t * sd * sqrt(1 / count)
    limit_reach = t * sd * sqrt(1 / count + z**2 / (2 * (count - 1)))
    lower, upper = bias - z * sd, bias + z * sd
    return BlandAltman(
        count,
        Interval(bias, bias - reach, bias + reach),
        sd,
        Interval(lower, lower - limit_reach, lower + limit_reach),
        Interval(upper, upper - limit_reach, upper + limit_reach),
        level,
    )


def intraclass_correlations(ratings: npt.ArrayLike, *, level: float = LEVEL) -> dict[str, Interval] | None:
    """The six intraclass correlations of Shrout and Fleiss 1979 (Psychol Bull 86:420), with their intervals.

    ``ICC(2,1)`` is the one for agreement of readers who stand for any such readers: bias between them lowers it.
    ``ICC(3,1)`` looks at consistency only, ``ICC(1,1)`` is for readers that differ from case to case; ``k`` in place
    of 1 is for the mean of all the readers.

    Args:
        ratings: ``(n, k)``, n cases by k readers, none missing.
        level: Of the intervals.

    Returns:
        Name, such as ``ICC(2,1)`` -> estimate; None for fewer than two cases or readers, and where the cases do not
        differ: a correlation is about telling them apart. Correlations of means can be minus infinity.

    Raises:
        MissingExtraError: The extra ``stats`` is not installed.
    """
    table = np.asarray(ratings, np.float64)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise ValueError("ratings are a finite (cases, readers) table")
    n, k = table.shape
    if min(n, k) < 2:
        return None
    squares = _mean_squares(table)
    if squares.cases <= ROUNDING * float(np.square(table).mean()):
        return None
    f = _library("scipy.stats").f
    tail = (1 + level) / 2
    of_within, of_error = n * (k - 1), (n - 1) * (k - 1)
    return {
        **_from_ratio(1, squares, k, f.ppf(tail, n - 1, of_within), f.ppf(tail, of_within, n - 1)),
        **_from_agreement(squares, n, k, tail, f),
        **_from_ratio(3, squares, k, f.ppf(tail, n - 1, of_error), f.ppf(tail, of_error, n - 1)),
    }


def tabulate(first: Sequence[int], second: Sequence[int], categories: Sequence[int]) -> npt.NDArray[np.int64]:
    """Count two readers' categories against each other: ``(K, K)``, the first reader's in rows.

    Args:
        first: A category of each case.
        second: The same of the other reader.
        categories: All that there are, in order; also those that nobody used.
    """
    place = {category: index for index, category in enumerate(categories)}
    table = np.zeros((len(place), len(place)), np.int64)
    for one, other in zip(first, second, strict=True):
        table[place[one], place[other]] += 1
    return table


def cohen_kappa(table: npt.ArrayLike, *, weights: str | None = None, level: float = LEVEL) -> Interval | None:
    """Cohen's kappa of two readers, with its large-sample interval (Fleiss, Cohen and Everitt 1969).

    Args:
        table: ``(K, K)`` counts, as of `tabulate`.
        weights: None for names; ``linear`` or ``quadratic`` for ordered categories, where a near miss counts less.
        level: Of the interval. Cases have to be independent for it: voxels are not.

    Returns:
        None where both readers used one and the same category only, or nothing was counted.

    Raises:
        MissingExtraError: The extra ``stats`` is not installed.
    """
    if weights not in (None, "linear", "quadratic"):
        raise ValueError(f"weights are None, 'linear' or 'quadratic', not {weights!r}")
    counts = np.asarray(table, np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f"a table of {counts.shape} is not square")
    rows, columns = counts.sum(axis=1), counts.sum(axis=0)
    if np.count_nonzero(rows + columns) < 2:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):  # of a variance that is 0 but for rounding
        found = _library("statsmodels.stats.inter_rater").cohens_kappa(counts, wt=weights)
    reach = float(_library("scipy.stats").norm.ppf((1 + level) / 2)) * sqrt(max(float(found.var_kappa), 0.0))
    value = float(found.kappa)
    return Interval(value, max(value - reach, -1.0), min(value + reach, 1.0))


def count_votes(ratings: npt.ArrayLike, categories: Sequence[int]) -> npt.NDArray[np.int64]:
    """How many readers gave each case each category: ``(n, K)`` from ``(n, k)`` categories."""
    table = np.asarray(ratings)
    return np.stack([(table == category).sum(axis=1) for category in categories], axis=1)


def fleiss_kappa(votes: npt.ArrayLike, repeats: npt.ArrayLike | None = None) -> float | None:
    """Fleiss' kappa of several readers (Fleiss 1971, Psychol Bull 76:378).

    A library takes one row a subject, which tens of millions of voxels do not fit: here equal rows stand once.

    Args:
        votes: ``(n, K)``, how many readers gave subject n category K, as of `count_votes`; two readers or more.
        repeats: ``(n,)``, how many subjects each row stands for; one each unless given.

    Returns:
        None where only one category was ever used, or no subject is there.
    """
    table = np.asarray(votes, np.float64)
    times = np.ones(len(table)) if repeats is None else np.asarray(repeats, np.float64)
    if table.ndim != 2 or times.shape != table.shape[:1]:
        raise ValueError(f"votes of {table.shape} with repeats of {times.shape} are no table of subjects")
    if times.sum() == 0:
        return None
    readers = table.sum(axis=1)
    if readers.min() != readers.max() or readers[0] < 2:
        raise ValueError("each subject needs the same number of readers, two or more")
    k = float(readers[0])
    share = times @ table / (times.sum() * k)  # of each category
    agreed = times @ ((table * table).sum(axis=1) - k) / (times.sum() * k * (k - 1))
    by_chance = float(share @ share)
    if np.count_nonzero(share) < 2:
        return None
    return (float(agreed) - by_chance) / (1 - by_chance)


@dataclass(frozen=True, slots=True)
class _MeanSquares:
    cases: float
    """Between cases, n - 1 degrees of freedom (BMS)."""
    readers: float
    """Between readers, k - 1 (JMS)."""
    error: float
    """What is left, (n - 1)(k - 1) (EMS)."""
    within: float
    """Within cases, n (k - 1) (WMS)."""


def _mean_squares(table: npt.NDArray[np.float64]) -> _MeanSquares:
    """Analysis of variance of a complete two-way table."""
    n, k = table.shape
    centred = table - table.mean()
    of_case, of_reader = centred.mean(axis=1), centred.mean(axis=0)
    left = centred - of_case[:, None] - of_reader
    within = centred - of_case[:, None]
    return _MeanSquares(
        k * float(of_case @ of_case) / (n - 1),
        n * float(of_reader @ of_reader) / (k - 1),
        float(np.square(left).sum()) / ((n - 1) * (k - 1)),
        float(np.square(within).sum()) / (n * (k - 1)),
    )


def _from_ratio(form: int, squares: _MeanSquares, k: int, shrink: float, grow: float) -> dict[str, Interval]:
    """ICC(1, .) and ICC(3, .): functions of the ratio of two mean squares, which follows F."""
    cases, noise = squares.cases, squares.within if form == 1 else squares.error

    def single(between: float) -> float:
        return (between - noise) / (between + (k - 1) * noise)

    def mean(between: float) -> float:
        return 1 - noise / between

    ends = (cases, cases / float(shrink), cases * float(grow))
    return {
        f"ICC({form},1)": Interval(*(single(end) for end in ends)),
        f"ICC({form},k)": Interval(*(mean(end) for end in ends)),
    }


def _from_agreement(squares: _MeanSquares, n: int, k: int, tail: float, f: Any) -> dict[str, Interval]:
    """ICC(2, .), with the interval by Satterthwaite's degrees of freedom (Shrout and Fleiss 1979, p. 424)."""
    cases, readers, error = squares.cases, squares.readers, squares.error
    value = (cases - error) / (cases + (k - 1) * error + k * (readers - error) / n)
    # their formula with F_J = JMS / EMS, times EMS squared above and below: also right without error
    part = error * (n * (1 + (k - 1) * value) - k * value)
    above = (k - 1) * (n - 1) * (k * value * readers + part) ** 2
    below = (n - 1) * (k * value * readers) ** 2 + part**2
    if below > 0:
        freedom = above / below
        shrink, grow = float(f.ppf(tail, n - 1, freedom)), float(f.ppf(tail, freedom, n - 1))
        rest = k * readers + (k * n - k - n) * error
        low = n * (cases - shrink * error) / (shrink * rest + n * cases)
        high = n * (grow * cases - error) / (rest + n * grow * cases)
    else:
        low = high = value

    def mean(single: float) -> float:
        return k * single / (1 + (k - 1) * single) if 1 + (k - 1) * single > 0 else -inf

    return {
        "ICC(2,1)": Interval(value, low, high),
        "ICC(2,k)": Interval(mean(value), mean(low), mean(high)),
    }


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError.of(name.partition(".")[0], EXTRA, "agreement between readers") from error
