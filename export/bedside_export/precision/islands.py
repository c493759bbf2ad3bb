"""Which few nodes have to stay float32 for the whole to stay inside its tolerance: found by trying.

find_islands   the search
Islands        what it found, and what it tried
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["GROUPS", "TRIALS", "Islands", "find_islands"]

GROUPS: Final = 24
"""Groups of neighbours that the nodes are first tried in: a stage of a network, or a block."""
TRIALS: Final = 160
"""Most trials."""

Difference = Callable[[frozenset[str]], float]
"""Nodes that stay float32 -> the difference from the reference, in parts of what is allowed; infinite where an
answer is not finite."""


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
    margin: float = 1.0,
    beginnings: bool = False,
    most: int = TRIALS,
) -> Islands:
    """Look for a small set of nodes that, kept in float32, bring the difference to 1 or less.

    First each group of neighbours alone is put into the low precision, all else being float32: what it does there is
    its share of the difference. The groups are kept from the worst to the least, as few as do; then of what is kept,
    halves of groups are let go, from the least to the worst, as long as the difference allows. The set is small, and
    not proven the smallest.

    Args:
        difference: Tries a set; slow.
        candidates: Names of nodes, in the graph's order.
        required: Nodes that stay float32 in any case.
        margin: Share of what is allowed that a search aims at, for what it does not see. There is none where all
            in the low precision is inside what is allowed: an island costs time on every picture, and the comparison
            on other pictures comes after this one.
        beginnings: Take the shortest beginning of the graph that does, if less than half of it does: an engine runs
            that as a network of its own, where single nodes cost it a conversion each.
        most: Most trials; with 1 there is no search.

    Returns:
        The best set; `Islands.found` says whether it does.
    """
    trials = _Trials(difference, most, margin)
    everything = frozenset(candidates) | required
    without = trials.ask(required)
    best = required
    if without > 1 and most > 1:
        best = everything
        try:
            beginning = _search_beginnings(trials, candidates, required) if beginnings else None
            best = beginning or _search(trials, list(candidates), required)
        except _Out:
            fitting = [kept for kept, value in trials.known.items() if value <= margin and kept >= required]
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
    everything = frozenset(candidates) | required
    if not trials.fits(everything):
        return min(trials.known, key=lambda kept: trials.known[kept])
    size = math.ceil(len(candidates) / GROUPS)
    groups = [candidates[start : start + size] for start in range(0, len(candidates), size)]
    share = {tuple(group): trials.ask(everything - frozenset(group) | required) for group in groups}
    groups.sort(key=lambda group: share[tuple(group)], reverse=True)
    low, high = 0, len(groups)  # keeping the first `high` does
    while high - low > 1:
        middle = (low + high) // 2
        if trials.fits(_join(groups[:middle]) | required):
            high = middle
        else:
            low = middle
    kept = _join(groups[:high]) | required
    trials.ask(kept)
    queue = list(reversed(groups[:high]))
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


def _join(groups: Sequence[Sequence[str]]) -> frozenset[str]:
    return frozenset(name for group in groups for name in group)
