"""A tuned plan: what runs a bundle best on this device, as it was measured. It is read as strictly as a bundle."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Final

from bedside.backends import BACKENDS, PRECISIONS
from bedside.contract import Stored
from bedside.records import build, parse
from bedside.tuning.candidates import Candidate
from bedside.tuning.key import PlanKey, canonical

__all__ = ["ENGINES", "MAX_PLAN_BYTES", "SCHEMA", "Plan", "Planned", "decode", "encode"]

SCHEMA: Final = "bedside.plan/1"
"""The one schema of plans that this runtime reads."""
MAX_PLAN_BYTES: Final = 1 << 20
"""A plan is a few KiB; more is refused unread."""
ENGINES: Final = "engines"
"""Folder of the cache that holds what engines build."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One engine that qualified."""

    backend: str
    """One of `bedside.backends.BACKENDS`."""
    version: str
    """Version of the engine's library, as the engine itself told it."""
    precision: str
    """One of `bedside.backends.PRECISIONS`."""
    threads: int | None
    """Threads inside one inference; None where left to the engine."""
    worst: str
    """What differed most from the reference, measured by its tolerance."""
    difference: float
    """By how much, in clinical units."""
    tolerance: float
    """How much the bundle allows."""
    median_ms: float
    """Median time of a run, ms a picture or tile."""
    folder: str = ""
    """Where it keeps what it built, by path from the cache folder; empty if it keeps nothing."""
    files: dict[str, Stored] = field(default_factory=dict)
    """The built engines there, by path from there."""

    def __post_init__(self) -> None:
        """Check what types alone do not say."""
        if self.backend not in BACKENDS or self.precision not in PRECISIONS:
            raise ValueError("it names an engine or precision that this version does not know")
        if not 0 <= self.difference <= self.tolerance or not 0 < self.median_ms < math.inf:
            raise ValueError("it names an engine that did not qualify")
        parts = PurePosixPath(self.folder).parts
        if (parts and (len(parts) != 3 or parts[0] != ENGINES)) or (self.files and not parts):
            raise ValueError("it names a folder that is not one of built engines")
        if any(
            PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts
            for name in (self.folder, *self.files)
        ):
            raise ValueError("it names a file outside of the cache")

    @property
    def candidate(self) -> Candidate:
        """What is to be opened."""
        return Candidate(self.backend, self.precision, self.threads)


@dataclass(frozen=True, slots=True)
class Plan:
    """What runs a bundle best, for one key."""

    key: PlanKey
    """What it holds for."""
    made: str
    """When it was measured, UTC, ISO 8601."""
    ranking: tuple[Planned, ...]
    """Every engine that qualified, the best first."""

    def __post_init__(self) -> None:
        """Refuse a plan of nothing."""
        if not self.ranking:
            raise ValueError("it names no engine")


def encode(plan: Plan) -> bytes:
    """A plan as its file: the canonical JSON of its content, and the hash of that."""
    content = asdict(plan)
    digest = hashlib.sha256(canonical(content)).hexdigest()
    return canonical({"schema": SCHEMA, "sha256": digest, "plan": content}) + b"\n"


def decode(text: bytes) -> Plan:
    """The plan that a file holds.

    Raises:
        ValueError: It is altered, malformed, or of another schema.
    """
    if len(text) > MAX_PLAN_BYTES:
        raise ValueError(f"over {MAX_PLAN_BYTES >> 20} MiB")
    raw = parse(text)
    if not isinstance(raw, dict) or not {"schema", "sha256", "plan"} == raw.keys():
        raise ValueError("not a plan of bedside")
    if raw["schema"] != SCHEMA:
        raise ValueError(f"of schema {json.dumps(raw['schema'])[:40]}, not {SCHEMA}")
    plan = build(Plan, raw["plan"])
    if encode(plan) != text:  # every byte: also what reads the same and was not written so
        raise ValueError("altered since it was written")
    return plan
