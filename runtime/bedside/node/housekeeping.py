"""Forgets what is old: studies with their images and results, and the audit log. Not for clinical use."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from bedside.node.audit import Audit
from bedside.node.config import Retention
from bedside.node.desk import Desk
from bedside.node.spool import Spool, remove

__all__ = ["Housekeeping"]

log = logging.getLogger(__name__)

EVERY_S: Final = 300.0
"""Between two rounds."""
_HOUR_S: Final = 3600.0


class Housekeeping:
    """Makes its round now and then.

    Args:
        spool: Where files are removed.
        desk: Of the queue.
        retention: How long what is kept.
        audit: The audit log.
        clock: Seconds that only rise.
    """

    def __init__(
        self,
        spool: Spool,
        desk: Desk,
        retention: Retention,
        audit: Audit,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._desk = desk
        self._retention = retention
        self._audit = audit
        self._clock = clock
        self._last = clock()
        self._due = True

    def look(self) -> None:
        """Make a round, if it is time for one.

        Raises:
            OutputError: Something can't be removed.
        """
        elapsed = self._clock() - self._last
        if elapsed < EVERY_S and not self._due:
            return
        self._last += elapsed
        self._due = False
        finished_s, failed_s = self._retention.sent_h * _HOUR_S, self._retention.failed_h * _HOUR_S
        self._desk.ask(lambda queue: queue.age(elapsed))
        gone = self._desk.ask(lambda queue: queue.expire(finished_s, failed_s))
        remove(self._spool.root, gone)
        if gone:
            log.info("%d files and folders were past their time, and are removed", len(gone))
            self._audit.write("expired", files=len(gone))
        self._audit.expire()
