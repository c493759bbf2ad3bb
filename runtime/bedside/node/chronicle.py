"""What happens in a node, told to the log, to the audit log and to the metrics, without saying to whom.

Not for clinical use.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Protocol

from bedside.errors import BedsideError, OutputError
from bedside.node.audit import Audit
from bedside.node.entries import Arrival, Counted, Delivery, Study
from bedside.node.metrics import Metrics

if TYPE_CHECKING:
    from bedside.node.jobs import Job

__all__ = ["Chronicle", "Origin"]

log = logging.getLogger(__name__)


class Origin(Protocol):
    """Where an object comes from: `bedside.node.intake.Sender`."""

    @property
    def kind(self) -> str:
        """``association`` or ``folder``."""

    @property
    def calling_ae(self) -> str:
        """AE title of who sends it."""


class Chronicle:
    """Tells what happens, from any thread.

    Args:
        audit: The audit log.
        metrics: The metrics.
    """

    def __init__(self, audit: Audit, metrics: Metrics) -> None:
        self._audit = audit
        self._metrics = metrics

    def association(self, outcome: str, title: str, address: str) -> None:
        """An association was accepted, rejected, or came to its end.

        Args:
            outcome: ``accepted``, ``released``, ``aborted``, or why it was rejected.
            title: AE title of who called.
            address: Where from.
        """
        self._metrics.association(outcome)
        if outcome not in {"accepted", "released"}:
            log.warning("association from %s: %s", address, outcome)
        self._write("association", outcome=outcome, calling_ae=_printable(title), address=address)

    def node(self, event: str, **facts: float) -> None:
        """The node has started, or ends."""
        self._write(event, **facts)

    def received(self, arrival: Arrival, counted: Counted, sender: Origin) -> None:
        """An instance is on the disk and in the queue."""
        if counted.outcome == "replaced":
            log.info("study %d: an object took the place of one that could not be read", counted.study)
        self._metrics.instance(sender.kind, counted.outcome, arrival.size)
        self._write(
            "received",
            outcome=counted.outcome,
            number=counted.study,
            study=self._audit.mark(arrival.study),
            unit=self._audit.mark(arrival.unit),
            instance=self._audit.mark(arrival.sop),
            calling_ae=_printable(sender.calling_ae),
        )

    def refused(self, code: str, sender: Origin) -> None:
        """An object was not taken."""
        self._metrics.instance(sender.kind, code, 0)
        log.warning("an object was not taken in: %s", code)
        self._write("refused", reason=code, calling_ae=_printable(sender.calling_ae))

    def ran(
        self, study: Study, status: str, seconds: float, error: BedsideError | None, job: Job | None
    ) -> None:
        """A study was run.

        Args:
            study: As it was claimed.
            status: ``ok``, ``refused`` or ``failed``; ``again`` where there will be another try; ``given-back``;
                ``outdated`` where more of the study came, or it was purged, while it ran.
            seconds: How long it took.
            error: Why there is no answer.
            job: How it was run.
        """
        self._metrics.run(status, seconds)
        if status in {"ok", "refused", "failed"}:
            self._metrics.turnaround(max(0.0, time.time() - study.received_at))
        told = f" [{error.code}] {error.message}" if error is not None else ""
        level = logging.INFO if status in {"ok", "refused", "outdated"} else logging.WARNING
        log.log(level, "study %d, rule %s: %s after %.1f s%s", study.id, study.rule, status, seconds, told)
        self._write(
            "ran",
            number=study.id,
            generation=study.generation,
            attempt=study.attempts,
            rule=study.rule,
            bundle=job.digest if job is not None else None,
            status=status,
            code=error.code if error is not None else None,
            study=self._audit.mark(study.study),
            unit=self._audit.mark(study.unit),
        )

    def delivered(self, delivery: Delivery, error: BedsideError | None) -> None:
        """Results were sent to a destination, or it did not take them."""
        outcome = "sent" if error is None else "refused"
        self._metrics.delivery(delivery.destination, outcome)
        if error is None:
            log.info("study %d: sent to %s", delivery.study, delivery.destination)
        else:
            log.warning("study %d: not sent to %s: %s", delivery.study, delivery.destination, error.message)
        self._write(
            "delivery",
            number=delivery.study,
            destination=delivery.destination,
            attempt=delivery.attempts + 1,
            outcome=outcome,
            code=error.code if error is not None else None,
        )

    def _write(self, event: str, **facts: str | float | None) -> None:
        """Add to the audit log. Where that can't be written, what happened has happened all the same."""
        try:
            self._audit.write(event, **facts)
        except OutputError as error:
            log.error("the audit log lacks a line: %s", error.message)

    def worker_restarted(self) -> None:
        """The engine's process was started anew."""
        self._metrics.worker_restarted()


def _printable(title: str) -> str:
    """An AE title from the network: not more than it may be."""
    return "".join(letter for letter in title[:16] if letter.isascii() and letter.isprintable())
