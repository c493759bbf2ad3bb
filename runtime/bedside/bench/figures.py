"""What a run of ``bedside bench`` consists of; `bedside.bench.record` has the whole.

The dataclasses have the names of the JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

__all__ = [
    "STAGES",
    "Difference",
    "Energy",
    "Generator",
    "Idle",
    "Latency",
    "Parity",
    "Queries",
    "Sample",
    "Scenario",
    "Search",
    "Settings",
    "Start",
    "StudyEnergy",
]

STAGES: Final = ("read", "decode", "preprocess", "inference", "interpret", "write", "other")
"""Stages of a study in their order. ``read``: the files' bytes from storage. ``decode``: bytes to pixels, header and
checks, with the copy of the bytes out of the system's cache. ``other``: what lies between the stages."""


@dataclass(frozen=True, slots=True)
class Idle:
    """How long, and how often, the machine is left alone."""

    seconds: float
    """Before each study."""
    times: int
    """How many studies."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured."""

    duration_s: float = 5.0
    """Shortest single stream, offline and server run; MLPerf has 600."""
    queries: int = 100
    """Fewest queries of each of them."""
    seed: int = 0
    """Of the order of the samples, and of the arrivals."""
    starts: int = 3
    """Fresh processes; 0 for none."""
    idles: tuple[Idle, ...] = (Idle(1.0, 3), Idle(10.0, 2))
    """When studies come after a pause."""
    offline: bool = True
    """Whether the offline scenario runs."""
    server: bool = True
    """Whether the server scenario runs."""
    latency_bound_ms: float | None = None
    """What the server scenario holds its 99th percentile to; None for 5 times the median of the single stream."""
    search_steps: int = 5
    """Halvings in the search for the highest rate."""
    idle_power_s: float = 3.0
    """How long idle power is measured, before and after; 0 measures no energy."""


@dataclass(frozen=True, slots=True)
class Generator:
    """What issued the queries."""

    name: str
    """``mlcommons-loadgen``, MLPerf's own; or ``bedside``, which follows the same rules."""
    version: str
    """Of that."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One input, without its name."""

    shape: tuple[int, ...]
    """Pixels ``(H, W)``, or voxels ``(Z, Y, X)``."""
    bytes: int
    """Of its files."""
    files: int
    """How many those are."""


@dataclass(frozen=True, slots=True)
class Queries:
    """Every query of a run, a column a quantity."""

    samples: tuple[int, ...] = ()
    """Index into `Run.samples`."""
    at_ms: tuple[float, ...] = ()
    """When it came, since the run began."""
    latency_ms: tuple[float, ...] = ()
    """From when it came to when its result was written; what it waited is in it."""
    service_ms: tuple[float, ...] = ()
    """What its study took, from file to written result."""
    stages_ms: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """One of `STAGES` -> what each query spent in it."""


@dataclass(frozen=True, slots=True)
class Latency:
    """A run's latencies in short. Percentiles are MLPerf's: of n in order, that of place n times the share."""

    mean_ms: float
    """Mean of all."""
    p50_ms: float
    """Half are faster."""
    p90_ms: float
    """Nine of ten are faster."""
    p99_ms: float
    """99 in 100 are faster."""
    max_ms: float
    """The longest."""
    p90_early_ms: float | None
    """MLPerf's estimate by early stopping: with a confidence of 99 %, nine of ten are faster. None: too few queries."""
    p99_early_ms: float | None
    """The same of 99 in 100."""
    p90_needs: int
    """Fewest queries for the first estimate."""
    p99_needs: int
    """Fewest queries for the second."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run of a scenario."""

    name: str
    """``single-stream``: the next comes when the last is done; ``offline``: all at once; ``server``: at random."""
    generator: Generator
    """What issued the queries."""
    seconds: float
    """From its first query to its last result."""
    queries: Queries
    """All that were answered."""
    latency: Latency | None
    """In short; None where none was answered."""
    per_second: float | None
    """Studies a second; None where none was answered."""
    complete: bool
    """Whether it ran to its end."""
    full_length: bool
    """Whether it ran for MLPerf's 600 s, with enough queries for its estimate."""
    rate_per_second: float | None = None
    """Of a server run: arrivals a second, on average."""
    bound_ms: float | None = None
    """Of a server run: what the 99th percentile had to stay below."""
    over_bound: int | None = None
    """Of a server run: queries that took longer."""
    held: bool | None = None
    """Of a server run: whether at most 1 in 100 did."""
    confirmed: bool | None = None
    """Of a server run: whether so many did not that MLPerf's early stopping takes it for sure, at 99 %."""


@dataclass(frozen=True, slots=True)
class Search:
    """The highest rate that the server scenario held; its runs are among `Run.scenarios`."""

    bound_ms: float
    """What the 99th percentile had to stay below."""
    bound_from: str
    """Where the bound comes from."""
    best_per_second: float | None
    """Highest rate that was held, also when it was run again with other arrivals; None if none was."""
    step_per_second: float
    """How finely it was searched."""
    confirmed: bool
    """Whether MLPerf's early stopping takes that rate for sure."""


@dataclass(frozen=True, slots=True)
class Start:
    """First results."""

    kind: str
    """E.g. ``cold process``, ``cold engine cache``, ``after 10 s``."""
    total_ms: tuple[float, ...] = ()
    """Each time: from the start of the process, or the arrival of the study, to the written result."""
    parts_ms: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Part -> what it took each time: ``interpreter and imports``, ``open``, and the stages of the study."""
    skipped: str = ""
    """Why it was not measured; empty where it was."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How far one answer lay from the reference's."""

    of: str
    """E.g. ``extent``."""
    difference: float | None
    """Largest over the golden inputs; None where an answer was not finite."""
    tolerance: float
    """What the bundle allows."""


@dataclass(frozen=True, slots=True)
class Parity:
    """What came of the bundle's golden inputs on exactly this engine."""

    passed: bool
    """Whether all is within tolerance."""
    golden_inputs: int
    """How many there were."""
    differences: tuple[Difference, ...]
    """One a quantity."""


@dataclass(frozen=True, slots=True)
class StudyEnergy:
    """Energy of the studies of one scenario."""

    scenario: str
    """Its name."""
    studies: int
    """How many."""
    seconds: float
    """How long they took."""
    total_j: float
    """Of all sources together, idle power included."""
    per_study_j: float
    """Above idle, for one study; the mean of idle power before and after is what is taken off."""
    per_study_low_j: float
    """With the higher idle power taken off."""
    per_study_high_j: float
    """With the lower."""
    domains_j: dict[str, float]
    """Source and domain -> joules; some hold others."""


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy a study, or why there is none."""

    measured: bool
    """Whether there are joules."""
    reason: str = ""
    """Why it is not measurable here, or what is not; empty where all is."""
    counted: tuple[str, ...] = ()
    """Domains whose sum is counted."""
    idle_before_w: float | None = None
    """Mean power of the machine left alone, before; None where it was not measured."""
    idle_after_w: float | None = None
    """The same, after."""
    studies: tuple[StudyEnergy, ...] = ()
    """One a scenario."""
