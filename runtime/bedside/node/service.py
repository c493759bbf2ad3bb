"""The node, all of it together. Not for clinical use.

with Node(config) as node:
    node.start()
    ... until somebody says so ...
    node.stop()
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Final

from bedside.errors import BedsideError, InternalError
from bedside.node.audit import Audit
from bedside.node.chronicle import Chronicle
from bedside.node.completion import Completion
from bedside.node.config import Config
from bedside.node.desk import Desk
from bedside.node.health import HealthServer
from bedside.node.housekeeping import Housekeeping
from bedside.node.intake import Intake
from bedside.node.jobs import open_jobs
from bedside.node.metrics import Metrics
from bedside.node.outbox import Outbox
from bedside.node.receiver import Receiver
from bedside.node.runner import Runner, Terms
from bedside.node.spool import Spool
from bedside.node.watcher import Watcher

__all__ = ["Node"]

log = logging.getLogger(__name__)

OWN_TITLE: Final = "BEDSIDE"
"""AE title towards destinations, where there is no receiver and none is given."""
ROUND_S: Final = 0.5
"""How often quiet time and watched folders are looked at."""
PAUSE_S: Final = 5.0
"""After a round that failed."""
FAREWELL_S: Final = 5.0
"""For associations to come to their end when the node does, and for its threads."""


class Node:
    """A node that is made and checked, and does nothing yet.

    Args:
        config: What it is told, with absolute paths, as `read_config` gives it.

    Raises:
        BedsideError: Something of the configuration can't be used: says what.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        with ExitStack() as stack:
            self._jobs = open_jobs(config)
            self._spool = stack.enter_context(Spool(Path(config.spool)))
            self._desk = stack.enter_context(Desk(self._spool.queue, tries=config.tries))
            self._audit = stack.enter_context(Audit(self._spool.audit, keep_days=config.retention.audit_days))
            self._metrics = Metrics(
                studies=lambda: self._desk.ask(lambda queue: queue.counts()),
                deliveries=lambda: self._desk.ask(lambda queue: queue.unsent()),
                free_bytes=lambda: self._spool.free_mib() * 2**20,
            )
            self._chronicle = Chronicle(self._audit, self._metrics)
            self._runner = Runner(
                self._spool,
                self._desk,
                self._jobs,
                Terms(config.deadline_s, config.grace_s),
                self._chronicle,
                self._finished,
            )
            self._completion = Completion(self._desk, config.complete, self._runner.wake)
            self._intake = Intake(
                self._spool, self._desk, config.rules, self._jobs, self._completion, self._chronicle
            )
            self._receiver = self._make_receiver()
            self._watchers = [
                Watcher(each, self._intake, self._spool, free_mib=config.free_mib) for each in config.watch
            ]
            self._outboxes = self._make_outboxes()
            self._housekeeping = Housekeeping(self._spool, self._desk, config.retention, self._audit)
            self._health = self._make_health()
            self._stop = Event()
            self._started = False
            rounds = [
                (self._completion.look, self._housekeeping.look),
                *((each.look,) for each in self._watchers),
            ]
            # A folder that hangs, as one of the network may, is to hold up neither the others nor the end.
            self._rounds = [
                Thread(target=self._go_round, args=(each,), name="round", daemon=True) for each in rounds
            ]
            self._stack = stack.pop_all()

    def __enter__(self) -> Node:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and let go of the spool."""
        try:
            self.stop()
        finally:
            self._stack.close()

    def start(self, *, listen: bool = True) -> None:
        """Open the engines, go on with what is in the queue, and begin to listen.

        Args:
            listen: False to open the engines alone, as a check.

        Raises:
            BedsideError: An engine can't be opened, or a port can't be listened on.
        """
        if not listen:
            self._runner.open()
            return
        swept = self._spool.sweep(self._desk.ask(lambda queue: queue.paths()))
        again = self._desk.ask(lambda queue: queue.recover(time.time()))
        if swept or again:
            log.info(
                "after the last end: %d studies run again, %d files that broke off are removed", again, swept
            )
        if self._health is not None:
            self._health.start()
        self._runner.open()
        alone = {name for name, job in self._jobs.items() if job.alone}
        self._completion.resume(self._desk.ask(lambda queue: queue.studies(["received"])), alone=alone)
        self._runner.start()
        for outbox in self._outboxes:
            outbox.start()
        for each in self._rounds:
            each.start()
        self._started = True
        if self._receiver is not None:
            self._receiver.start()
        self._chronicle.node("started", rules=len(self._config.rules))

    def stop(self) -> None:
        """End in order: receive no more, let the running study end or give it back, then let go."""
        if self._stop.is_set():
            return
        if self._receiver is not None:
            self._receiver.stop(FAREWELL_S)
        self._stop.set()
        until = time.monotonic() + max(FAREWELL_S, self._config.grace_s)
        for outbox in self._outboxes:
            outbox.stop(0.0)  # all of them are told, and end while the runner does
        self._runner.stop()
        for outbox in self._outboxes:
            outbox.stop(max(0.0, until - time.monotonic()))
        for each in self._rounds:
            if each.is_alive():
                each.join(max(0.0, until - time.monotonic()))
        if self._health is not None:
            self._health.stop()
        if self._started:
            self._chronicle.node("stopped")

    def not_live(self) -> list[str]:
        """What is broken for good; empty if nothing is."""
        if not self._started or self._stop.is_set():
            return []
        told = ["a round has ended" for each in self._rounds if not each.is_alive()]
        told += ["the runner has ended"] * (not self._runner.alive)
        return told + ["a sender has ended" for outbox in self._outboxes if not outbox.alive]

    def not_ready(self) -> list[str]:
        """Why it can't do all of its work now; empty if it can."""
        if self._stop.is_set() or not self._started:
            return ["the node is starting or ending"]
        told = self.not_live()
        if self._receiver is not None:
            told += self._receiver.problems()
        told += [self._runner.problem] if self._runner.problem else []
        return told + [watcher.problem for watcher in self._watchers if watcher.problem]

    def _make_receiver(self) -> Receiver | None:
        if self._config.receiver is None:
            return None
        return Receiver(
            self._config.receiver,
            self._spool,
            self._intake,
            self._completion,
            self._chronicle,
            free_mib=self._config.free_mib,
            drop_unmatched=self._config.unmatched == "drop",
        )

    def _make_outboxes(self) -> list[Outbox]:
        receiver = self._config.receiver
        own_title = OWN_TITLE if receiver is None else receiver.ae_title
        return [
            Outbox(
                self._desk,
                self._spool.root,
                name,
                destination,
                calling=destination.calling_ae_title or own_title,
                told=self._chronicle.delivered,
            )
            for name, destination in self._config.destinations.items()
        ]

    def _make_health(self) -> HealthServer | None:
        if self._config.health is None:
            return None
        return HealthServer(self._config.health, self._metrics, live=self.not_live, ready=self.not_ready)

    def _finished(self) -> None:
        for outbox in self._outboxes:
            outbox.wake()

    def _go_round(self, looks: Sequence[Callable[[], object]]) -> None:
        """Look after what nobody else tells of. What goes wrong is told, and tried again in the next round."""
        while not self._stop.wait(ROUND_S):
            for look in looks:
                try:
                    look()
                except Exception as problem:  # noqa: BLE001 - as told above
                    error = problem if isinstance(problem, BedsideError) else InternalError.of(problem)
                    log.error("%s", error.message)
                    self._stop.wait(PAUSE_S)
