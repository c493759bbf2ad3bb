"""What came of trying one candidate, and which of them is the best.

Outcome   verdict, times and memory of one candidate
rank      those that qualified, the best first
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from bedside.backends import EngineInfo
from bedside.errors import BedsideError
from bedside.memory import MIB
from bedside.tuning.candidates import BY_EXACTNESS, Candidate
from bedside.verification import UNAVAILABLE, Agreement, Verdict

__all__ = ["NOISE", "Outcome", "rank"]

NOISE: Final = 0.03
"""Share by which medians may differ and count as equal: about what a quiet machine repeats to. An engine that is
faster by less is not worth arithmetic that is less exact."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of trying one candidate."""

    candidate: Candidate
    """What was tried."""
    engine: EngineInfo | None = None
    """What ran; None if it could not be opened."""
    verdict: Verdict | None = None
    """What came of the golden vectors; None if they could not be run."""
    doubt: str = ""
    """Why the bundle's own parity report rules it out; empty where it does not."""
    error: BedsideError | None = None
    """What stopped it, in whichever step."""
    open_s: float | None = None
    """Seconds to start its process, and to build or load the engine."""
    peak_bytes: int | None = None
    """Most memory that its process held."""
    times_ms: tuple[float, ...] = ()
    """Each timed run, ms a picture or tile, without warm-up."""
    folder: Path | None = field(default=None, repr=False)
    """What it keeps in the cache; None for nothing."""

    @property
    def passed(self) -> bool:
        """Whether it may be used: it answers as the reference does."""
        return self.error is None and not self.doubt and self.verdict is not None and self.verdict.passed

    @property
    def unavailable(self) -> bool:
        """Whether this device, engine or bundle does not have it, which is no failure."""
        return self.error is not None and self.error.code in UNAVAILABLE

    @property
    def word(self) -> str:
        """The outcome in a word or two: ``passed``, or what kept it from that."""
        if self.error is not None:
            if self.unavailable:
                return "not here"
            return {"engine-crashed": "crashed", "engine-hung": "hung"}.get(self.error.code, "failed")
        if self.verdict is None or not self.verdict.passed:
            return "out of tolerance"
        return "unfit" if self.doubt else "passed"

    @property
    def worst(self) -> Agreement | None:
        """What differs most from the reference, measured by its tolerance."""
        if self.verdict is None:
            return None
        return max(self.verdict.agreements, key=lambda each: each.difference / each.tolerance)

    @property
    def median_ms(self) -> float | None:
        """Median time of a run."""
        return float(np.median(self.times_ms)) if self.times_ms else None

    @property
    def p90_ms(self) -> float | None:
        """The time that 9 of 10 runs stay below."""
        return float(np.percentile(self.times_ms, 90)) if self.times_ms else None

    def to_json(self, rank: int | None) -> dict[str, Any]:
        """It as an object of a tuning report.

        Args:
            rank: Its place among those that qualified, from 1; None if it did not.
        """
        agreements = self.verdict.agreements if self.verdict else ()
        return {
            "backend": self.candidate.backend,
            "precision": self.candidate.precision,
            "threads": self.candidate.threads,
            "rank": rank,
            "verdict": self.word,
            "error": None if self.error is None else {"code": self.error.code, "message": self.error.message},
            "doubt": self.doubt or None,
            "version": self.engine.version if self.engine else None,
            "device": self.engine.device if self.engine else None,
            "golden_inputs": self.verdict.images if self.verdict else None,
            "differences": [
                {
                    "of": each.score,
                    "difference": each.difference if math.isfinite(each.difference) else None,
                    "tolerance": each.tolerance,
                }
                for each in agreements
            ],
            "open_s": _rounded(self.open_s),
            "median_ms": _rounded(self.median_ms),
            "p90_ms": _rounded(self.p90_ms),
            "runs": len(self.times_ms),
            "peak_mib": _rounded(None if self.peak_bytes is None else self.peak_bytes / MIB),
        }


def rank(outcomes: Iterable[Outcome]) -> tuple[Outcome, ...]:
    """Those that passed and were timed, the best first.

    The best is the fastest by median, unless one of more exact arithmetic is at most `NOISE` slower: then the most
    exact of these, and of several equally exact ones the fastest. The second is the best of what is left, and so on.
    """
    left = [each for each in outcomes if each.passed and each.times_ms]
    ranked = []
    while left:
        limit = min(_median(each) for each in left) * (1 + NOISE)
        near = [each for each in left if _median(each) <= limit]
        best = min(near, key=lambda each: (BY_EXACTNESS.index(each.candidate.precision), _median(each)))
        left.remove(best)
        ranked.append(best)
    return tuple(ranked)


def _median(outcome: Outcome) -> float:
    return float(np.median(outcome.times_ms))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
