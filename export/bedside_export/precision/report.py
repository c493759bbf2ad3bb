"""What came of it: the parity report of a bundle with several precisions.

EngineTrial   one engine at one precision
merge         the trials into the report that export wrote
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bedside.verification import Verdict
from bedside_export.precision.gauge import Gap
from bedside_export.precision.material import Material

__all__ = ["EngineTrial", "describe_material", "merge"]


@dataclass(frozen=True, slots=True)
class EngineTrial:
    """One engine at one precision."""

    backend: str
    """Name of the backend."""
    precision: str
    """One of `bedside.contract.RUNS`."""
    version: str = ""
    """Version of the engine's library."""
    unavailable: str = ""
    """Why it can't run here; empty if it can."""
    broken: str = ""
    """How it broke; empty if it did not."""
    golden: Verdict | None = None
    """On the golden inputs, against PyTorch."""
    real: tuple[Gap, ...] = ()
    """On real pictures, against the reference engine."""
    not_finite: tuple[str, ...] = ()
    """Extreme inputs on which an answer holds NaN or infinity."""
    milliseconds: float | None = None
    """Median of a run; of this machine and moment."""

    @property
    def status(self) -> str:
        """``passed``, ``failed`` or ``not-run``."""
        if self.unavailable:
            return "not-run"
        return "failed" if self.reason else "passed"

    @property
    def reason(self) -> str:
        """Why it failed or did not run, in one line."""
        if self.unavailable or self.broken:
            return self.unavailable or self.broken
        problems = []
        if self.golden is not None:
            problems += [
                f"{a.score} is off by {a.difference:.3g} on golden inputs where {a.tolerance:g} is allowed"
                for a in self.golden.agreements
                if not a.passed
            ]
        problems += [
            f"{gap.name} is off by {gap.difference:.3g} on real pictures where {gap.limit:g} is allowed"
            for gap in self.real
            if gap.share > 1
        ]
        if self.not_finite:
            problems.append(f"NaN or infinity on: {', '.join(self.not_finite)}")
        return "; ".join(problems)

    @property
    def share(self) -> float:
        """The greatest difference in parts of what is allowed; infinite where it broke."""
        if self.unavailable or self.broken or self.not_finite:
            return math.inf
        golden = [] if self.golden is None else [a.difference / a.tolerance for a in self.golden.agreements]
        return max([*golden, *(gap.share for gap in self.real)], default=0.0)

    def describe(self) -> str:
        """The trial in one line, for a person."""
        parts = [
            f"{gap.name} {gap.difference:.2g} (worst {gap.worst:.2g}) of {gap.limit:g}" for gap in self.real
        ]
        if self.milliseconds is not None:
            parts.append(f"{self.milliseconds:.1f} ms here")
        detail = "; ".join(part for part in (", ".join(parts), self.reason) if part)
        return f"{self.backend} {self.precision}: {self.status}  {detail}"

    def to_json(self) -> dict[str, Any]:
        """The trial as JSON values; what is infinite is null."""
        found: dict[str, Any] = {
            "backend": self.backend,
            "precision": self.precision,
            "status": self.status,
            "version": self.version,
            "reason": self.reason,
        }
        if self.golden is not None:
            found["golden"] = {
                a.score: {"difference": _round(a.difference), "limit": a.tolerance}
                for a in self.golden.agreements
            }
        if self.real:
            found["real"] = {gap.name: _gap(gap) for gap in self.real}
        return found


def describe_material(material: Material) -> dict[str, Any]:
    """How many pictures, and the hash that names them."""
    return {
        "images": len(material),
        "scans_or_pictures": len(set(material.groups)),
        "sha256": material.sha256,
        "skipped": dict(sorted(material.skipped.items())),
    }


def merge(
    before: Mapping[str, Any], trials: Iterable[EngineTrial], sections: Mapping[str, Any]
) -> dict[str, Any]:
    """The report of the export, with these trials in place of what it says of the same engines.

    What export measured beyond them against PyTorch is kept where the file and its arithmetic are the same: at fp32.

    Args:
        before: The report that is in the bundle.
        trials: What was tried now.
        sections: What else the report is to say.
    """
    old = {(each["backend"], each["precision"]): each for each in before.get("engines", [])}
    entries = []
    for trial in trials:
        known = old.pop((trial.backend, trial.precision), {}) if trial.precision == "fp32" else {}
        old.pop((trial.backend, trial.precision), None)
        entries.append({**known, **trial.to_json()})
    return {**before, **sections, "engines": [*entries, *old.values()]}


def _gap(gap: Gap) -> dict[str, Any]:
    found = {"p99" if gap.median is not None else "all": _round(gap.difference), "worst": _round(gap.worst)}
    if gap.median is not None:
        found["p50"] = _round(gap.median)
    return {**found, "limit": gap.limit}


def _round(value: float) -> float | None:
    """Three significant digits: a report is for reading."""
    return float(f"{value:.3g}") if math.isfinite(value) else None
