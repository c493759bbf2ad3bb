"""One run against another: ratios of what was measured alike, with intervals, and which of them are noise.

A ratio is new to old: under 1 is faster. Its interval (`bedside.bench.bootstrap`) knows nothing of what changes between
runs and not in one, such as where memory lies: so a difference counts only if it is also over `NOISE`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from bedside.bench.bootstrap import LEVEL, Statistic, find_interval, mean, median, percentile_at
from bedside.bench.conditions import note_load
from bedside.bench.figures import STAGES, Scenario
from bedside.bench.record import Run
from bedside.errors import RefusedError
from bedside.provenance import NOTICE
from bedside.tuning.outcome import NOISE

__all__ = ["LEVEL", "SCHEMA", "Comparison", "Ratio", "compare_runs"]

SCHEMA: Final = "bedside.bench-comparison/1"
"""Version of the JSON; its schema is ``schemas/bench-comparison-1.schema.json``."""
FEWEST: Final = 5
"""Fewest values, on the lesser side of what is compared, that have an interval: 10 for a median, 500 for a p99."""
RESOLUTION_MS: Final = 1e-4
"""What a run is rounded to: nothing took less."""
SMALL_MS: Final = 0.05
"""Medians under this are not compared: a clock and a scheduler are worth as much."""
WORDS: Final = ("faster", "slower", "noise", "too few to tell")
"""Every verdict; of rates and energies as well, where faster is better."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """One quantity in both runs."""

    of: str
    """Scenario or start."""
    quantity: str
    """E.g. ``p90``, or a stage."""
    unit: str
    """``ms``, ``a second`` or ``J``."""
    old: float
    """In the old run."""
    new: float
    """In the new run."""
    ratio: float
    """New to old."""
    low: float | None
    """Of its interval; None without one."""
    high: float | None
    """The same."""
    verdict: str
    """One of `WORDS`."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs side by side."""

    ratios: tuple[Ratio, ...]
    """What both have."""
    differs: tuple[str, ...]
    """What was not the same, so that a ratio is not of the software alone."""
    doubts: tuple[str, ...]
    """Why a run may not be used, or not be trusted."""

    def to_json(self) -> dict[str, Any]:
        """It as an object of `SCHEMA`, ready for `json.dumps`."""
        return {
            "schema": SCHEMA,
            "level": LEVEL,
            "noise": NOISE,
            "ratios": [_rounded(asdict(each)) for each in self.ratios],
            "differs": list(self.differs),
            "doubts": list(self.doubts),
            "notice": NOTICE,
        }


def compare_runs(old: Run, new: Run, *, seed: int = 0) -> Comparison:
    """Compare two runs, paired by scenario, stage and start.

    Args:
        old: What is compared with.
        new: What is compared.
        seed: Of the bootstrap.

    Raises:
        RefusedError: ``not-comparable`` for runs of different tasks, or with nothing in common.
    """
    if old.task != new.task:
        raise RefusedError(
            "not-comparable", f"one run is of {old.task} and the other of {new.task}; compare two of one task"
        )
    random = np.random.default_rng(seed)
    ratios = (*_streams(old, new, random), *_starts(old, new, random), *_figures(old, new))
    if not ratios:
        raise RefusedError(
            "not-comparable", "the runs have nothing in common that was finished; measure again"
        )
    return Comparison(ratios, tuple(_differences(old, new)), tuple(_doubts(old, new)))


def _streams(old: Run, new: Run, random: np.random.Generator) -> Iterator[Ratio]:
    """Percentiles and stages of the scenarios that both have."""
    for name in ("single-stream", "offline"):
        before, after = old.scenario(name), new.scenario(name)
        if before is None or after is None or before.latency is None or after.latency is None:
            continue
        if name == "single-stream":
            columns = (before.queries.latency_ms, after.queries.latency_ms)
            for title, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
                fewest = round(FEWEST / (1 - share))
                yield _ratio(name, title, columns, percentile_at(share), random, fewest=fewest)
        else:
            columns = (before.queries.service_ms, after.queries.service_ms)
            yield _ratio(name, "mean of a study", columns, mean, random)
        if name == "single-stream":
            yield from _stages(before, after, random)


def _stages(before: Scenario, after: Scenario, random: np.random.Generator) -> Iterator[Ratio]:
    for stage in STAGES:
        columns = tuple(each.queries.stages_ms.get(stage, ()) for each in (before, after))
        if all(columns) and max(median(np.asarray(column)) for column in columns) >= SMALL_MS:
            yield _ratio(before.name, stage, (columns[0], columns[1]), median, random)


def _starts(old: Run, new: Run, random: np.random.Generator) -> Iterator[Ratio]:
    others = {start.kind: start for start in new.starts}
    for start in old.starts:
        other = others.get(start.kind)
        if other is not None and start.total_ms and other.total_ms:
            yield _ratio(start.kind, "first result", (start.total_ms, other.total_ms), median, random)


def _figures(old: Run, new: Run) -> Iterator[Ratio]:
    """What is one figure a run, and has no interval."""
    if old.search and new.search and _alike(old.search.bound_ms, new.search.bound_ms):
        before, after = old.search.best_per_second, new.search.best_per_second
        if before and after:
            yield Ratio(
                "server",
                "highest rate",
                "a second",
                before,
                after,
                after / before,
                None,
                None,
                "too few to tell",
            )
    spent = {each.scenario: each.per_study_j for each in new.energy.studies}
    for study in old.energy.studies:
        joules = spent.get(study.scenario)
        if joules is not None and joules > 0 and study.per_study_j > 0:
            yield Ratio(
                study.scenario,
                "energy a study",
                "J",
                study.per_study_j,
                joules,
                joules / study.per_study_j,
                None,
                None,
                "too few to tell",
            )


def _ratio(
    of: str,
    quantity: str,
    columns: tuple[Sequence[float], Sequence[float]],
    statistic: Statistic,
    random: np.random.Generator,
    *,
    fewest: int = 2 * FEWEST,
) -> Ratio:
    before, after = (np.maximum(np.asarray(column, np.float64), RESOLUTION_MS) for column in columns)
    old, new = float(statistic(before)), float(statistic(after))
    if min(len(before), len(after)) < fewest:
        return Ratio(of, quantity, "ms", old, new, new / old, None, None, "too few to tell")
    low, high = find_interval(before, after, statistic, random)
    return Ratio(of, quantity, "ms", old, new, new / old, low, high, _judge(new / old, low, high))


def _judge(ratio: float, low: float, high: float) -> str:
    if low <= 1 <= high or abs(ratio - 1) <= NOISE:
        return "noise"
    return "faster" if ratio < 1 else "slower"


def _alike(old: float, new: float) -> bool:
    return abs(new / old - 1) <= NOISE


def _differences(old: Run, new: Run) -> Iterator[str]:
    """What was not the same, the gravest first."""
    pairs = {
        "machine": (old.conditions.device.name, new.conditions.device.name),
        "driver or instructions": (old.conditions.device.fingerprint, new.conditions.device.fingerprint),
        "cores": (old.conditions.device.logical_cores, new.conditions.device.logical_cores),
        "limit of the processor": (old.conditions.device.cpu_limit, new.conditions.device.cpu_limit),
        "power mode": (old.conditions.before.power_mode, new.conditions.before.power_mode),
        "system": (old.conditions.system, new.conditions.system),
        "bundle": (_bundle(old), _bundle(new)),
        "backend": (old.engine.backend, new.engine.backend),
        "engine's version": (old.engine.version, new.engine.version),
        "device": (old.engine.device, new.engine.device),
        "precision": (old.engine.precision, new.engine.precision),
        "threads": (old.engine.threads, new.engine.threads),
        "engine's place": (_place(old), _place(new)),
        "sizes of the input": (_sizes(old), _sizes(new)),
        "generator": (_generator(old), _generator(new)),
    }
    for name, (before, after) in pairs.items():
        if before != after and not (
            name == "driver or instructions" and pairs["machine"][0] != pairs["machine"][1]
        ):
            yield f"{name}: {_told(before)}, then {_told(after)}"
    then, now = old.conditions.versions, new.conditions.versions
    for name in sorted(then.keys() | now.keys()):
        if then.get(name) != now.get(name):
            yield f"{name}: {then.get(name, 'not installed')}, then {now.get(name, 'not installed')}"


def _doubts(old: Run, new: Run) -> Iterator[str]:
    for name, run in (("old", old), ("new", new)):
        if not run.valid or not run.complete:
            state = "is not valid" if not run.valid else "is not complete"
            yield f"the {name} run {state}: {'; '.join(run.reasons)}"
        for note in note_load(run.conditions):
            yield f"the {name} run: {note}"


def _bundle(run: Run) -> str:
    return f"{run.bundle.name} {run.bundle.version}, sha256 {run.bundle.digest[:12]}"


def _place(run: Run) -> str:
    return "a process of its own" if run.watched else "the process of the study"


def _sizes(run: Run) -> str:
    sizes = sorted({sample.shape for sample in run.samples})
    told = ", ".join(" x ".join(map(str, size)) for size in sizes[:3])
    return f"{len(run.samples)} of {told}{' and others' if len(sizes) > 3 else ''}"


def _generator(run: Run) -> str:
    stream = run.scenario("single-stream")
    return "none" if stream is None else f"{stream.generator.name} {stream.generator.version}"


def _told(value: object) -> str:
    return "not told" if value is None else str(value)


def _rounded(record: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in record.items()}
