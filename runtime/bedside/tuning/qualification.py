"""Tuning a bundle on this device, read top to bottom: list, try, refuse, time, rank."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from bedside.backends import Tuning
from bedside.backends.base import Progress
from bedside.bundle import Bundle
from bedside.errors import BackendError, BedsideError, BundleError, OutputError
from bedside.fitness import doubt_engine
from bedside.isolation import Limits
from bedside.provenance import BundleRef
from bedside.tuning.bench import Bench, Inputs, Opener, isolate, make_input
from bedside.tuning.candidates import Candidate, Choice, list_candidates
from bedside.tuning.key import PlanKey, key_for
from bedside.tuning.outcome import Outcome
from bedside.tuning.plan import Plan, Planned
from bedside.tuning.plans import Plans
from bedside.tuning.report import Report
from bedside.verification import verify_golden

__all__ = ["Request", "keep", "tune"]

ROUNDS: Final = 8
"""Turns that each candidate has: an even number, since every other one goes through them backwards."""
BUILD_S: Final = 300.0
"""Patience with the start of a candidate: TensorRT takes minutes where it has no timing cache."""
RUN_S: Final = 60.0
"""Patience with one run: the slowest network here takes a second on two cores."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to tune, and how."""

    choice: Choice = field(default_factory=Choice)
    """What is tried."""
    setup: Tuning = field(default_factory=Tuning)
    """How each candidate is set up; its cache and progress are chosen here."""
    rounds: int = ROUNDS
    """Turns that each candidate has; at least 1."""
    limits: Limits = field(default_factory=lambda: Limits(BUILD_S, RUN_S))
    """How long a candidate may take to open, and to run once."""

    def __post_init__(self) -> None:
        """Check the range."""
        if self.rounds < 1:
            raise BackendError("engine-unsupported", f"rounds must be at least 1, not {self.rounds}")


def tune(
    bundle: Bundle,
    request: Request | None = None,
    *,
    plans: Plans,
    progress: Progress | None = None,
    opener: Opener | None = None,
) -> Report:
    """Try everything that could run a bundle here, and rank what answers as the reference does. Keeps no plan.

    No engine is loaded into this process.

    Args:
        bundle: The bundle.
        request: What to try; None for all that is installed.
        plans: Where engines may keep what they build. A folder that can't be written costs them that, no more.
        progress: Told of each candidate and round, and of the steps of a build.
        opener: Builds a candidate in another process; None for the real ones.

    Raises:
        MissingExtraError: A backend that was asked for is not installed, or none is.
        BundleError: ``bundle-precision``; or the golden vectors or the parity report are broken.
    """
    request = request or Request()
    candidates = list_candidates(bundle, request.choice)
    key = key_for(bundle, tuning=request.setup)
    inputs = make_input(bundle, request.setup)
    shape = next(iter(inputs.values())).shape
    tell = progress or _tell_nobody
    plans.sweep()
    outcomes: dict[Candidate, Outcome] = {}
    setups: dict[Candidate, Tuning] = {}
    kept: set[Path | None] = set()
    try:
        with Bench(opener or isolate(bundle, request.limits)) as bench:
            for number, candidate in enumerate(candidates):
                tell(f"trying {candidate}", number, len(candidates))
                setups[candidate] = replace(
                    request.setup,
                    cache=_make_folder(plans, key, candidate),
                    progress=_under(candidate, progress),
                )
                outcomes[candidate] = _try(bench, bundle, candidate, setups[candidate])
            for number in range(request.rounds):
                tell("timing", number, request.rounds)
                turn = [each for each in candidates if outcomes[each].passed]
                for candidate in turn if number % 2 == 0 else reversed(turn):
                    outcomes[candidate] = _time(bench, outcomes[candidate], setups[candidate], inputs)
            tell("timing", request.rounds, request.rounds)
        report = Report(
            bundle=BundleRef(bundle.manifest.name, bundle.manifest.version, bundle.digest),
            key=key,
            made=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            shape=shape,
            rounds=request.rounds,
            outcomes=tuple(outcomes.values()),
        )
        kept = {outcome.folder for outcome in report.ranking}
    finally:
        for setup in setups.values():
            if setup.cache not in kept:
                plans.discard(setup.cache)
    return report


def keep(report: Report, plans: Plans) -> Path | None:
    """Write the plans that follow from a report, or remove the one that it disproves.

    Returns:
        The file of the plan that serves who leaves the threads open; None if nothing qualified.

    Raises:
        OutputError: ``cache-not-writable``; ``disk-full``.
    """
    try:
        written = [
            plans.write(Plan(replace(report.key, threads=threads), report.made, ranking))
            for threads, ranking in _by_threads(report, plans).items()
        ]
    except OutputError:
        for outcome in report.ranking:
            plans.discard(outcome.folder)
        raise
    if written:
        return written[0]
    if not all(each.unavailable for each in report.outcomes):
        plans.forget(report.key)
    return None


def _by_threads(report: Report, plans: Plans) -> dict[int | None, tuple[Planned, ...]]:
    """What qualified, for who leaves the threads open, and for who asks for one of the counts that were tried."""
    planned = [_plan(outcome, plans) for outcome in report.ranking]
    counts = dict.fromkeys((None, *(each.threads for each in planned)))
    return {
        count: tuple(each for each in planned if count in (None, each.threads)) for count in counts if planned
    }


def _plan(outcome: Outcome, plans: Plans) -> Planned:
    worst, engine, median = outcome.worst, outcome.engine, outcome.median_ms
    if worst is None or engine is None or median is None:
        raise ValueError("what qualified has a verdict and times")
    folder, files = plans.seal(outcome.folder)
    return Planned(
        backend=outcome.candidate.backend,
        version=engine.version,
        precision=outcome.candidate.precision,
        threads=outcome.candidate.threads,
        worst=worst.score,
        difference=float(worst.difference),
        tolerance=float(worst.tolerance),
        median_ms=median,
        folder=folder,
        files=files,
    )


def _try(bench: Bench, bundle: Bundle, candidate: Candidate, setup: Tuning) -> Outcome:
    """Build a candidate and run the golden inputs on it. It stays open if it passed."""
    outcome = Outcome(candidate, folder=setup.cache)
    start = time.perf_counter()
    try:
        engine = bench.take(candidate, setup)
        outcome = replace(outcome, engine=engine.info, open_s=time.perf_counter() - start)
        outcome = replace(outcome, verdict=verify_golden(bundle, engine))
        doubts = doubt_engine(bundle, engine.info)
        outcome = replace(
            outcome, doubt="; ".join(doubt.text for doubt in doubts), peak_bytes=bench.weigh(candidate)
        )
    except BedsideError as error:
        if isinstance(error, BundleError) and error.code != "bundle-precision":
            raise
        if (
            isinstance(error, OutputError) and setup.cache is not None
        ):  # it can't be kept, which `keep` will tell
            bench.drop(candidate)
            return _try(bench, bundle, candidate, replace(setup, cache=None))
        outcome = replace(outcome, error=error)
    if not outcome.passed:
        bench.drop(candidate)
    return outcome


def _time(bench: Bench, outcome: Outcome, setup: Tuning, inputs: Inputs) -> Outcome:
    """Give a candidate that passed its turn; what breaks in it counts as if it had never passed."""
    candidate, setup = outcome.candidate, replace(setup, cache=outcome.folder)
    pictures = len(next(iter(inputs.values())))
    try:
        bench.take(candidate, setup, outcome.peak_bytes or 0)
        times = tuple(spent / pictures for spent in bench.run(candidate, inputs))
        return replace(
            outcome,
            times_ms=(*outcome.times_ms, *times),
            peak_bytes=max(outcome.peak_bytes or 0, bench.weigh(candidate) or 0) or None,
        )
    except (BackendError, OutputError) as error:
        bench.drop(candidate)
        return replace(outcome, error=error, times_ms=())


def _make_folder(plans: Plans, key: PlanKey, candidate: Candidate) -> Path | None:
    """Where a candidate may keep what it builds; None where the cache can't be written, which `keep` will tell."""
    try:
        return plans.make_folder(key, candidate)
    except OutputError:
        return None


def _under(candidate: Candidate, progress: Progress | None) -> Progress | None:
    """A listener to the steps of a candidate's build, which tells the candidate with them."""
    if progress is None:
        return None

    def step(phase: str, done: int, total: int) -> None:
        progress(f"{candidate}: {phase}", done, total)

    return step


def _tell_nobody(_phase: str, _done: int, _total: int) -> None:
    pass
