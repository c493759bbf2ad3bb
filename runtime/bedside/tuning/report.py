"""What a tuning found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from bedside.provenance import NOTICE, BundleRef
from bedside.tuning.key import PlanKey
from bedside.tuning.outcome import NOISE, Outcome, rank

__all__ = ["SCHEMA", "Report"]

SCHEMA: Final = "bedside.tuning/1"
"""Version of the JSON; its schema is ``schemas/tuning-1.schema.json``."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a tuning found."""

    bundle: BundleRef
    """What was tuned."""
    key: PlanKey
    """What it holds for, with the threads left open."""
    made: str
    """When it ended, UTC, ISO 8601."""
    shape: tuple[int, ...]
    """Of the input that was timed, ``(N, C, ...)``."""
    rounds: int
    """How often each candidate had its turn."""
    outcomes: tuple[Outcome, ...]
    """One a candidate, in the order in which they were tried."""

    @property
    def ranking(self) -> tuple[Outcome, ...]:
        """Those that qualified, the best first."""
        return rank(self.outcomes)

    def to_json(self, kept: str | None) -> dict[str, Any]:
        """The report as an object of `SCHEMA`, ready for `json.dumps`.

        Args:
            kept: The file of the plan that was written; None if none was.
        """
        places = {outcome.candidate: place for place, outcome in enumerate(self.ranking, 1)}
        return {
            "schema": SCHEMA,
            "bundle": asdict(self.bundle),
            "key": {**asdict(self.key), "tile": None if self.key.tile is None else list(self.key.tile)},
            "made": self.made,
            "shape": list(self.shape),
            "rounds": self.rounds,
            "noise": NOISE,
            "candidates": [each.to_json(places.get(each.candidate)) for each in self.outcomes],
            "plan": kept,
            "notice": NOTICE,
        }
