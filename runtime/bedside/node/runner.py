"""Runs one study after the other, each in a process that can crash or hang without taking the node with it.

Not for clinical use.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

from bedside.errors import BackendError, BedsideError, InputError, InternalError, OutputError, RefusedError
from bedside.isolation.process import EngineProcess, ProcessEndedError
from bedside.isolation.wire import pack_error, unpack_error
from bedside.node.chronicle import Chronicle
from bedside.node.desk import Desk
from bedside.node.entries import Made, Study, Work
from bedside.node.jobs import Job
from bedside.node.spool import Spool, remove

__all__ = ["Runner", "Terms"]

log = logging.getLogger(__name__)

OPEN_S: Final = 900.0
"""For an engine to open: some compile for minutes on a small device."""
EXPLAIN_S: Final = 60.0
"""For the report of a study without an answer."""
LOOK_S: Final = 1.0
"""How often the queue is looked at when nobody says that there is something: a person's command does not."""
PAUSE_S: Final = 10.0
"""After results could not be written, and after a worker could not be started."""
_LISTEN_S: Final = 0.25
"""How long the worker is waited for before it is looked whether the node is to end."""
_FINAL: Final = (InputError, RefusedError)
"""Of the input: another try would say the same."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a study is given."""

    deadline_s: float
    """For a run; a worker that takes longer is stopped."""
    grace_s: float
    """For a run to end when the node is stopped."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How a run ended."""

    status: str
    """``ok``, ``refused`` or ``failed``; ``given-back`` where the node was stopped."""
    error: BedsideError | None
    """Why there is no answer."""
    told: bool
    """Whether what was written says so."""


class _StoppedError(Exception):
    """The node is to end, and the worker has had its time."""


class Runner:
    """A thread that runs what is ready.

    Args:
        spool: Where images lie, and results go.
        desk: Of the queue.
        jobs: Name of the rule -> how it is run.
        terms: What a study is given.
        chronicle: Told of each run.
        finished: Called when results are there to be sent.
        worker: Module of the process that runs them.
    """

    def __init__(  # noqa: PLR0913 - what a node consists of
        self,
        spool: Spool,
        desk: Desk,
        jobs: Mapping[str, Job],
        terms: Terms,
        chronicle: Chronicle,
        finished: Callable[[], None],
        *,
        worker: str = "bedside.node.worker",
    ) -> None:
        self._spool = spool
        self._desk = desk
        self._jobs = jobs
        self._terms = terms
        self._chronicle = chronicle
        self._finished = finished
        self._module = worker
        self._quick = tuple(
            name for name, job in jobs.items() if job.alone
        )  # a second each: no CT is to hold them up
        self._worker: EngineProcess | None = None
        self._wake = Event()
        self._stop = Event()
        self._stop_at = 0.0
        self._thread = Thread(target=self._serve, name="runner")
        self.problem = ""
        """Why nothing can be run now; empty if it can."""

    def open(self) -> None:
        """Open the engine of each rule: what can't be opened is told now and not at the first study.

        Raises:
            BedsideError: An engine is not installed, or can't load its bundle.
        """
        for job in self._jobs.values():
            try:
                answer = self._ask("open", {"job": asdict(job)}, OPEN_S)
            except (ProcessEndedError, TimeoutError) as error:
                raise self._end_worker(error) from error
            if "error" in answer:
                self._close_worker()
                raise unpack_error(answer["error"])

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Say that something is ready."""
        self._wake.set()

    def stop(self) -> None:
        """End: a study that runs has its grace, and goes back to the queue after that. Returns when it has."""
        self._stop_at = time.monotonic() + self._terms.grace_s
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._close_worker()

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def _serve(self) -> None:
        stranded: BedsideError | None = None
        while not self._stop.is_set():
            self._wake.clear()
            try:
                if stranded is not None:
                    self._recover(stranded)
                    stranded = None
                work = self._desk.ask(lambda queue: queue.claim(time.time(), first=self._quick))
                if work is None:
                    self.problem = ""
                    self._wake.wait(LOOK_S)
                    continue
                self._run(work)
            except Exception as problem:  # noqa: BLE001 - told; what was claimed runs again
                error = problem if isinstance(problem, BedsideError) else InternalError.of(problem)
                stranded = stranded or error
                self._say(error.message)
                self._stop.wait(PAUSE_S)

    def _run(self, work: Work) -> None:
        """Run a study to its end, whatever that is."""
        study, job = work.study, self._jobs.get(work.study.rule)
        begun = time.monotonic()
        if job is None:
            error = InputError(
                "no-rule", "the configuration has no rule of this name any more; mend it and retry"
            )
            self._desk.ask(lambda queue: queue.set_aside(study, error, time.time()))
            self._chronicle.ran(study, "failed", 0.0, error, None)
            return
        source = self._spool.root / work.instances[0].path
        source = source if job.alone else source.parent
        out = self._spool.result_folder(study, job.digest)
        outcome = self._try(job, source, out)
        status, kept = self._conclude(work.study, job, source, out, outcome)
        if not kept:
            remove(self._spool.root, [self._spool.name(out)])
        self._chronicle.ran(study, status, time.monotonic() - begun, outcome.error, job)
        if isinstance(outcome.error, OutputError):
            self._say(outcome.error.message)
            self._stop.wait(PAUSE_S)
        else:
            self.problem = ""

    def _try(self, job: Job, source: Path, out: Path) -> _Outcome:
        order = {"job": asdict(job), "source": str(source), "out": str(out)}
        try:
            answer = self._ask("run", order, self._terms.deadline_s)
        except _StoppedError:
            self._kill_worker()
            return _Outcome("given-back", None, told=False)
        except (ProcessEndedError, TimeoutError) as problem:
            return _Outcome("failed", self._end_worker(problem), told=False)
        if "error" in answer:
            return _Outcome("failed", unpack_error(answer["error"]), told=False)
        done = answer["done"]
        error = None if done["error"] is None else unpack_error(done["error"])
        return _Outcome(done["status"], error, told=True)

    def _conclude(
        self, study: Study, job: Job, source: Path, out: Path, outcome: _Outcome
    ) -> tuple[str, bool]:
        """Move the study on; returns what to call that, and whether the queue refers to the results."""
        now = time.time()
        error = outcome.error
        if outcome.status == "given-back" or isinstance(error, OutputError):  # no fault of the study's
            self._desk.ask(lambda queue: queue.give_back(study, now))
            return "given-back", False
        made = Made(job.digest, self._spool.name(out), job.destinations, error)
        if error is None or isinstance(error, _FINAL):
            status, told = outcome.status, True
            recorded = self._desk.ask(lambda queue: queue.finish(study, made, now))
        elif self._desk.ask(lambda queue: queue.fail(study, error, now)):
            return "again", False
        else:
            status, told = "failed", outcome.told or self._explain(job, source, out, error)
            recorded = self._desk.ask(
                lambda queue: queue.set_aside(study, error, now, made if told else None)
            )
        self._finished()
        return status if recorded else "outdated", recorded and told

    def _explain(self, job: Job, source: Path, out: Path, error: BedsideError) -> bool:
        """Have the report written that says why there is no answer; returns whether it is there."""
        order = {"job": asdict(job), "source": str(source), "out": str(out), "error": pack_error(error)}
        try:
            answer = self._ask("explain", order, EXPLAIN_S)
        except _StoppedError:
            self._kill_worker()
            return False
        except (ProcessEndedError, TimeoutError) as problem:
            answer = {"error": pack_error(self._end_worker(problem))}
        if "error" in answer:
            log.error(
                "the report of a study without an answer can't be written: %s", unpack_error(answer["error"])
            )
        return "done" in answer

    def _ask(self, what: str, told: Mapping[str, object], limit_s: float) -> dict[str, Any]:
        """Give the worker an order, and wait for its answer.

        Raises:
            ProcessEndedError: It ended.
            TimeoutError: It took too long.
            _StoppedError: The node is to end, and the grace is over.
        """
        if self._worker is None:
            self._worker = EngineProcess(module=self._module)
            self._chronicle.worker_restarted()
        self._worker.send({what: told})
        until = time.monotonic() + limit_s
        while True:
            now = time.monotonic()
            if self._stop.is_set() and now >= self._stop_at:
                raise _StoppedError
            try:
                return self._worker.receive(min(until, now + _LISTEN_S))
            except TimeoutError:
                if now >= until:
                    raise

    def _end_worker(self, problem: ProcessEndedError | TimeoutError) -> BackendError:
        """Get rid of a worker that crashed or hangs; returns what happened."""
        worker, self._worker = self._worker, None
        if worker is None:
            raise ValueError("there is no worker")
        if isinstance(problem, TimeoutError):
            worker.kill()
            return BackendError(
                "engine-hung",
                "the study was not done in its time, and its worker was stopped; raise deadline_s, or take another "
                "engine",
            )
        worker.end()
        words = worker.last_words([str(self._spool.root)])
        return BackendError(
            "engine-crashed",
            f"the worker {worker.describe_end()}{words}; the study is tried again, or set aside",
        )

    def _kill_worker(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def _close_worker(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _recover(self, error: BedsideError) -> None:
        """After a defect or a full disk: what is said to run does not. A full disk is no fault of the study's."""
        free = isinstance(error, OutputError)
        self._desk.ask(lambda queue: queue.recover(time.time(), free=free))

    def _say(self, problem: str) -> None:
        if problem != self.problem:
            log.error("nothing can be run now: %s", problem)
        self.problem = problem
