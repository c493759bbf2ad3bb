"""Which study goes to which bundle, and why. Not for clinical use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bedside.backends import BACKENDS, PRECISIONS

__all__ = ["Clause", "Decision", "Rule", "Traits", "choose", "explain"]

_LISTED: Final = ("modality", "body_part", "view", "calling_ae", "called_ae")
"""What a rule names by lists."""
_DESCRIBED: Final = ("series_description", "study_description")
"""What a rule names by patterns."""
_ENGINES: Final = ("auto", *BACKENDS)
MAX_NAME: Final = 64
"""Characters of a rule's name, which is a column of tables."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What rules look at; texts as the object has them, empty where it has none."""

    modality: str = ""
    """Modality (0008,0060)."""
    body_part: str = ""
    """BodyPartExamined (0018,0015), or what AnatomicRegionSequence comes to."""
    view: str = ""
    """ViewPosition (0018,5101), or what ViewCodeSequence comes to."""
    series_description: str = ""
    """SeriesDescription (0008,103E)."""
    study_description: str = ""
    """StudyDescription (0008,1030)."""
    calling_ae: str = ""
    """AE title of the sender; empty for a watched folder."""
    called_ae: str = ""
    """AE title that the sender called; empty for a watched folder."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Studies that go to a bundle: every clause that is given must hold; the first rule that holds decides."""

    name: str
    """What logs and the queue call it."""
    bundle: str
    """Name or path of the bundle."""
    modality: tuple[str, ...] = ()
    """Any of these; all if empty, and so on."""
    body_part: tuple[str, ...] = ()
    """Any of these; ``""`` stands for an object that does not say."""
    view: tuple[str, ...] = ()
    """Any of these; ``""`` stands for an object that does not say."""
    series_description: str | None = None
    """Regular expression that is found in it, upper and lower case alike."""
    study_description: str | None = None
    """Regular expression that is found in it, upper and lower case alike."""
    calling_ae: tuple[str, ...] = ()
    """Any of these."""
    called_ae: tuple[str, ...] = ()
    """Any of these."""
    backend: str = "auto"
    """Engine, as of ``bedside score``."""
    precision: str | None = None
    """Precision, as of ``bedside score``; the engine's own if None."""
    labelmap: bool = False
    """Whether a CT's segmentation is a label map, as of ``bedside segment``."""
    memory_mib: float | None = None
    """Most memory for a CT, MiB, as of ``bedside segment --memory``; no bound if None."""
    destinations: tuple[str, ...] = ()
    """Names of those that get the results."""

    def __post_init__(self) -> None:
        """Check what types alone do not say."""
        if not (self.name.strip() and len(self.name) <= MAX_NAME):
            raise ValueError(f"name must have 1 to {MAX_NAME} characters")
        if not self.bundle.strip():
            raise ValueError("bundle is empty; give the name or the path of one")
        if self.backend not in _ENGINES:
            raise ValueError(f"backend must be one of {', '.join(_ENGINES)}")
        if self.precision is not None and self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}")
        if len(set(self.destinations)) < len(self.destinations):
            raise ValueError("destinations names one twice")
        if self.memory_mib is not None and not self.memory_mib > 0:
            raise ValueError("memory_mib must be more than 0")
        for name in _DESCRIBED:
            pattern = getattr(self, name)
            if pattern is None:
                continue
            try:
                re.compile(pattern)
            except (re.error, OverflowError, RecursionError) as error:
                why = error.msg if isinstance(error, re.error) else "too large"
                raise ValueError(f"{name} is no regular expression ({why})") from error

    def clauses(self, traits: Traits) -> Iterator[Clause]:
        """Each clause that the rule has, and whether it holds."""
        for name in _LISTED:
            wanted: tuple[str, ...] = getattr(self, name)
            if wanted:
                given = getattr(traits, name)
                holds = _plain(given) in {_plain(each) for each in wanted}
                yield Clause(name, " or ".join(repr(each) for each in wanted), holds)
        for name in _DESCRIBED:
            pattern = getattr(self, name)
            if pattern is not None:
                holds = re.search(pattern, getattr(traits, name), re.IGNORECASE) is not None
                yield Clause(name, f"/{pattern}/", holds)


@dataclass(frozen=True, slots=True)
class Clause:
    """One condition of a rule, tried on a study. It never holds the study's own value, which can name a patient."""

    attribute: str
    """Field of `Traits`."""
    wanted: str
    """What the rule asks for."""
    holds: bool
    """Whether the study has it."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A rule, tried on a study."""

    rule: Rule
    """The rule."""
    clauses: tuple[Clause, ...]
    """All of its conditions."""
    earlier: str | None = None
    """Name of the rule before it that took the study."""

    @property
    def holds(self) -> bool:
        """Whether every clause holds."""
        return all(clause.holds for clause in self.clauses)

    @property
    def text(self) -> str:
        """One line: whether it took the study, and why not."""
        missed = [f"{c.attribute} is not {c.wanted}" for c in self.clauses if not c.holds]
        if missed:
            return f"{self.rule.name}: no; {'; '.join(missed)}"
        if self.earlier is not None:
            return f"{self.rule.name}: would match, but {self.earlier} comes first"
        found = [f"{c.attribute} is {c.wanted}" for c in self.clauses] or ["it asks for nothing"]
        return f"{self.rule.name}: yes, bundle {self.rule.bundle}; {'; '.join(found)}"


def choose(rules: Sequence[Rule], traits: Traits) -> Rule | None:
    """The first rule that holds, or None."""
    return next((rule for rule in rules if all(clause.holds for clause in rule.clauses(traits))), None)


def explain(rules: Sequence[Rule], traits: Traits) -> tuple[Decision, ...]:
    """Every rule, in order, and why it took the study or did not."""
    taken = choose(rules, traits)
    decisions = []
    passed = False
    for rule in rules:
        earlier = taken.name if passed and taken is not None else None
        decisions.append(Decision(rule, tuple(rule.clauses(traits)), earlier))
        passed = passed or rule is taken
    return tuple(decisions)


def _plain(text: str) -> str:
    """As DICOM compares codes: without padding, in capitals."""
    return text.strip(" \0").upper()
