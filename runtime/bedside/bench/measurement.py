"""What is timed, in its order; each part is kept as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bedside.bench.energy import Recorder, Window, account
from bedside.bench.figures import Energy, Scenario, Search, Settings, Start
from bedside.bench.generators import Generators
from bedside.bench.scenarios import FULL_S, OFFLINE, SERVER, STREAM, Tally, allowed_over, search_rate, serve
from bedside.bench.starts import COLD_PROCESS, Firsts, start_cold, start_uncached, wait_idle
from bedside.bench.study import Order
from bedside.bench.subject import Subject
from bedside.bench.traffic import Load
from bedside.results import prepare_folder

__all__ = ["Listener", "Measurement"]

BOUND: Final = 5.0
"""Times the median of the single stream that a server's studies may take, where no bound is given."""
TRIAL_BOUNDS: Final = 20.0
"""A run of a server is at least so many times as long as its bound: in a shorter one, a queue that only grows would
not be seen."""
HASTE: Final = 2.0
"""A run is planned as if studies could be so many times faster than they were, so that it does not end too early."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told how far a measurement is. What either raises ends it."""

    report: Callable[[str, int, int], None] = lambda _phase, _done, _total: None
    """Called with the phase, its steps done, and about how many there are."""
    check: Callable[[], None] = lambda: None
    """Called while something is waited for."""


class Measurement:
    """Times a subject. Used once.

    Args:
        subject: What does the studies.
        settings: How much.
        listener: Who is told.
        generators: What makes the queries.
        recorder: What tells energy.
        order: What the subject does, for fresh processes.
        path: A sample, for these.
    """

    def __init__(  # noqa: PLR0913 - each is an end of the wiring
        self,
        subject: Subject,
        settings: Settings,
        listener: Listener,
        generators: Generators,
        recorder: Recorder,
        *,
        order: Order,
        path: Path,
    ) -> None:
        self._subject = subject
        self._settings = settings
        self._listener = listener
        self._generators = generators
        self._recorder = recorder
        self._order = order
        self._path = path
        self._numbers: list[int] = []
        self._idle: list[Window | None] = [None, None]
        self._spent: list[tuple[str, int, Window]] = []
        self.starts: list[Start] = []
        """First results, by now."""
        self.scenarios: list[Scenario] = []
        """Runs, by now; the last may be unfinished."""
        self.search: Search | None = None
        """What the server scenario came to."""
        self.notes: list[str] = []
        """What to know of it."""

    def run(self, numbers: list[int], expected_ms: float, scratch: Path) -> None:
        """Measure all that the settings say.

        Args:
            numbers: Of the samples, by the subject's own.
            expected_ms: What a study takes, about.
            scratch: Folder for engines' caches.

        Raises:
            BedsideError: What a study could not do; what is finished is kept.
        """
        self._numbers = numbers
        settings = self._settings
        self._rest(0)
        hot = self._measure(STREAM, "single stream", self._load(expected_ms), counted=True)
        self._start(scratch)
        if settings.offline:
            self._offline(hot)
        if settings.server:
            self._serve(hot)
        self._rest(1)
        if settings.duration_s < FULL_S:
            self.notes.append(
                f"runs of at least {settings.queries} studies and {settings.duration_s:g} s, "
                f"not of MLPerf's length of {FULL_S:g} s"
            )

    def energy(self, lacking: tuple[str, ...]) -> Energy:
        """What came of it by now.

        Args:
            lacking: Why there are no more meters.
        """
        if self._settings.idle_power_s <= 0:
            return Energy(measured=False, reason="not asked for")
        if not self._recorder.counted:
            return Energy(measured=False, reason=f"not measurable here: {'; '.join(lacking)}")
        before, after = self._idle
        found = account((before, after), self._spent, self._recorder.counted)
        return replace(found, reason=found.reason or "; ".join(lacking))

    def _start(self, scratch: Path) -> None:
        times = self._settings.starts
        cold = Firsts(COLD_PROCESS)
        try:
            for done in range(times):
                self._listener.report("cold starts", done, times)
                start_cold(self._order, self._path, cold)
        finally:
            if times:
                self.starts.append(cold.start())
        if times:
            self._start_uncached(scratch, times)
        for idle in self._settings.idles:
            self._listener.report(f"left alone for {idle.seconds:g} s", 0, idle.times)
            firsts = Firsts(f"after {idle.seconds:g} s")
            try:
                wait_idle(self._subject, self._numbers[0], idle, self._generators.clock, firsts)
            finally:
                self.starts.append(firsts.start())

    def _start_uncached(self, scratch: Path, times: int) -> None:
        folder = prepare_folder(scratch / "caches")
        done = 0

        def step() -> None:
            nonlocal done
            self._listener.report("cold engine caches", done, 2 * times)
            done += 1

        uncached, cached = start_uncached(self._order, self._path, folder, times, step)
        self.starts += [uncached] if cached is None else [uncached, cached]

    def _offline(self, hot: Scenario) -> None:
        load = self._load(_mean_service(hot))
        load = replace(load, rate_per_second=1e3 / _mean_service(hot))
        self._measure(OFFLINE, "offline", load, counted=True)

    def _serve(self, hot: Scenario) -> None:
        settings, latency = self._settings, hot.latency
        if latency is None:
            return
        bound, bound_from = settings.latency_bound_ms, "asked for"
        if bound is None:
            bound, bound_from = BOUND * latency.p50_ms, f"{BOUND:g} times the median of the single stream"
        if latency.p99_ms > bound:
            self.search = Search(bound, bound_from, None, 0.0, confirmed=False)
            self.notes.append("no server was searched: even a study that waits for none may exceed the bound")
            return
        capacity = 1e3 / _mean_service(hot)

        def trial(rate: float, repeat: int) -> Scenario:
            seconds = max(settings.duration_s, TRIAL_BOUNDS * bound / 1e3)
            load = replace(
                self._load(latency.p50_ms),
                duration_s=seconds,
                rate_per_second=rate,
                bound_ms=bound,
                seed=settings.seed + repeat,
            )
            return self._measure(SERVER, f"server, {rate:.3g} a second", load, counted=False)

        best, step, confirmed = search_rate(trial, capacity, settings.search_steps)
        self.search = Search(bound, bound_from, best, step, confirmed)

    def _measure(self, name: str, phase: str, load: Load, *, counted: bool) -> Scenario:
        """Run a scenario, and keep what is finished of it whatever comes."""
        planned = load.queries if name == STREAM else load.planned
        self._listener.report(phase, 0, planned)
        traffic = self._generators.make(name, load)
        tally = Tally(name, traffic, load, self._numbers)
        mark = self._recorder.mark()
        complete = False
        try:
            complete = serve(
                self._subject,
                traffic,
                tally,
                report=lambda done: self._listener.report(phase, done, max(done, planned)),
                give_up=allowed_over(planned) if name == SERVER else None,
            )
        finally:
            scenario = tally.scenario(complete=complete)
            self.scenarios.append(scenario)
            if counted:
                self._spent.append((name, tally.count, self._recorder.since(mark)))
        return scenario

    def _load(self, expected_ms: float) -> Load:
        settings = self._settings
        return Load(
            samples=len(self._numbers),
            queries=settings.queries,
            duration_s=settings.duration_s,
            seed=settings.seed,
            expected_ms=expected_ms / HASTE,
        )

    def _rest(self, place: int) -> None:
        """Take the power of the machine left alone."""
        if not self._recorder.counted:
            return
        self._listener.report("idle power", 0, 1)
        mark = self._recorder.mark()
        self._generators.clock.pause(self._settings.idle_power_s)
        self._idle[place] = self._recorder.since(mark)


def _mean_service(hot: Scenario) -> float:
    times = hot.queries.service_ms
    return sum(times) / len(times)
