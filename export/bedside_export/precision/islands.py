"""Which few nodes have to stay float32 for the whole to stay inside its tolerance: found by trying.

find_islands   the search
Aim            what it looks for, and how long
Islands        what it found, and what it tried
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["GROUPS", "NEAR", "TRIALS", "Aim", "Islands", "find_islands"]

GROUPS: Final = 24
"""Groups of neighbours that the nodes are first tried in: a stage of a network, or a block."""
TRIALS: Final = 160
"""Most trials."""
NEAR: Final = 2.0
"""In parts of what is allowed: where all in the low precision is no farther off, the search begins there, and adds
what stays float32; few groups do then. Else it begins in float32, where each group's share is told apart from the
others', at the price of running nearly all in float32, once for each group."""

Difference = Callable[[frozenset[str]], float]
"""Nodes that stay float32 -> the difference from the reference, in parts of what is allowed; infinite where an
answer is not finite."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What a search looks for, and how long."""

    margin: float = 1.0
    """Share of what is allowed that it aims at, for what it does not see."""
    enough: float = 1.0
    """There is no search where all in the low precision is no farther off, in parts of what is allowed: an island costs
    time on every picture, and the comparison on other pictures comes after this one."""
    beginnings: bool = False
    """Take the shortest beginning of the graph that does, if less than half of it does: an engine runs that as a
    network of its own, where single nodes cost it a conversion each."""
    most: int = TRIALS
    """Most trials; with 1 there is no search."""


@dataclass(frozen=True, slots=True)
class Islands:
    """What a search found."""

    nodes: tuple[str, ...]
    """Nodes that stay float32, in the graph's order."""
    difference: float
    """With them, in parts of what is allowed."""
    without: float
    """With none."""
    trials: int
    """How many sets were tried."""

    @property
    def found(self) -> bool:
        """Whether the answer is inside its tolerance."""
        return self.difference <= 1


class _Out(Exception):  # noqa: N818 - no error: the search ends with what it has
    """No trials are left."""


class _Trials:
    """Remembers what was tried."""

    def __init__(self, difference: Difference, most: int, limit: float) -> None:
        self._difference = difference
        self._most = most
        self._limit = limit
        self.known: dict[frozenset[str], float] = {}

    def ask(self, kept: frozenset[str]) -> float:
        if kept not in self.known:
            if len(self.known) >= self._most:
                raise _Out
            value = self._difference(kept)
            self.known[kept] = math.inf if math.isnan(value) else value
        return self.known[kept]

    def fits(self, kept: frozenset[str]) -> bool:
        return self.ask(kept) <= self._limit


def find_islands(
    difference: Difference,
    candidates: Sequence[str],
    *,
    required: frozenset[str] = frozenset(),
    aim: Aim = Aim(),
) -> Islands:
    """Look for a small set of nodes that, kept in float32, bring the difference to 1 or less.

    First the groups of neighbours are ranked by what they do to the difference: near the tolerance (`NEAR`) each
    alone is kept in float32, far from it each alone is put into the low precision. They are kept from the worst to the
    least, as few as do; then of what is kept, halves of groups are let go, from the least to the worst, as long as the
    difference allows. The set is small, and not proven the smallest.

    Args:
        difference: Tries a set; slow.
        candidates: Names of nodes, in the graph's order.
        required: Nodes that stay float32 in any case.
        aim: What is looked for, and how long.

    Returns:
        The best set; `Islands.found` says whether it does.
    """
    trials = _Trials(difference, aim.most, aim.margin)
    everything = frozenset(candidates) | required
    without = trials.ask(required)
    best = required
    if without > aim.enough and aim.most > 1:
        best = everything
        try:
            beginning = _search_beginnings(trials, candidates, required) if aim.beginnings else None
            best = beginning or _search(trials, list(candidates), required)
        except _Out:
            fitting = [
                kept for kept, value in trials.known.items() if value <= aim.margin and kept >= required
            ]
            best = min(fitting, key=len, default=min(trials.known, key=lambda kept: trials.known[kept]))
    order = {name: place for place, name in enumerate(candidates)}
    nodes = sorted(best, key=lambda name: order.get(name, -1))
    return Islands(tuple(nodes), trials.known.get(best, math.inf), without, len(trials.known))


def _search_beginnings(
    trials: _Trials, candidates: Sequence[str], required: frozenset[str]
) -> frozenset[str] | None:
    low, high = 0, len(candidates) // 2  # keeping none does not
    if not trials.fits(frozenset(candidates[:high]) | required):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if trials.fits(frozenset(candidates[:middle]) | required):
            high = middle
        else:
            low = middle
    return frozenset(candidates[:high]) | required


def _search(trials: _Trials, candidates: list[str], required: frozenset[str]) -> frozenset[str]:
    near = trials.ask(required) <= NEAR
    if not near and not trials.fits(frozenset(candidates) | required):
        return min(trials.known, key=lambda kept: trials.known[kept])
    size = math.ceil(len(candidates) / GROUPS)
    groups = [candidates[start : start + size] for start in range(0, len(candidates), size)]
    groups = _rank(trials, groups, required, near=near)
    count = _count_kept(trials, groups, required)
    if count is None:
        return min(trials.known, key=lambda kept: trials.known[kept])
    kept = _join(groups[:count]) | required
    queue = list(reversed(groups[:count]))
    while queue:
        group = queue.pop(0)
        without = kept - frozenset(group) | required
        if without == kept:
            continue
        try:
            fits = trials.fits(without)
        except _Out:
            break
        if fits:
            kept = without
        elif len(group) > 1:
            half = len(group) // 2
            queue[:0] = [group[:half], group[half:]]
    return kept


def _rank(
    trials: _Trials, groups: list[list[str]], required: frozenset[str], *, near: bool
) -> list[list[str]]:
    """The groups, from the one that costs the answer most to the one that costs it least."""
    everything = _join(groups) | required

    def cost(group: list[str]) -> float:
        if near:
            return -trials.ask(frozenset(group) | required)
        return trials.ask(everything - frozenset(group) | required)

    return sorted(groups, key=cost, reverse=True)


def _count_kept(trials: _Trials, groups: list[list[str]], required: frozenset[str]) -> int | None:
    """How many of the groups, from the first, have to be kept; None where all of them don't do."""

    def fits(count: int) -> bool:
        return trials.fits(_join(groups[:count]) | required)

    low, high = 0, 1  # keeping none does not
    while not fits(high):
        if high == len(groups):
            return None
        low, high = high, min(2 * high, len(groups))
    while high - low > 1:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle
    return high


def _join(groups: Sequence[Sequence[str]]) -> frozenset[str]:
    return frozenset(name for group in groups for name in group)
