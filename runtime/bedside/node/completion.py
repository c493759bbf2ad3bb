"""When a study has all that it will have: at once, by number, by the end of an association, or by quiet time.

What was awaited when the node ended is awaited anew: the clock here is one that only rises, and starts with the node.
Not for clinical use.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from threading import Lock

from bedside.errors import OutputError
from bedside.node.config import Completion as Choice
from bedside.node.desk import Desk
from bedside.node.entries import Counted, Study

__all__ = ["Completion"]


class Completion:
    """Moves studies from received to ready.

    Args:
        desk: Of the queue.
        choice: What completes a series.
        ready: Called when one is ready.
        clock: Seconds that only rise.
    """

    def __init__(
        self,
        desk: Desk,
        choice: Choice,
        ready: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._desk = desk
        self._choice = choice
        self._ready = ready
        self._clock = clock
        self._lock = Lock()
        self._last: dict[int, float] = {}

    def resume(self, studies: Collection[Study], *, alone: Collection[str]) -> None:
        """Go on after a start.

        Args:
            studies: All that are received.
            alone: Names of the rules that take each picture by itself.
        """
        for study in studies:
            if study.rule in alone or (self._choice.expected and study.instances == study.expected):
                self._complete(study.id)
            else:
                self._await(study.id)

    def arrived(self, counted: Counted, *, alone: bool) -> None:
        """An instance was counted.

        Args:
            counted: What came of it.
            alone: Whether it is a study by itself.
        """
        enough = counted.expected is not None and counted.instances >= counted.expected
        if counted.outcome in {"known", "other-pixels"}:
            with self._lock:  # sent again: what is still awaited stays so, from now on
                if counted.study in self._last:
                    self._last[counted.study] = self._clock()
        elif alone or (self._choice.expected and enough):
            self._complete(counted.study)
        else:
            self._await(counted.study)

    def ended(self, studies: Collection[int]) -> None:
        """An association came to an orderly end that sent instances of these studies."""
        if self._choice.association_end:
            for study in studies:
                self._complete(study)

    def look(self) -> None:
        """Complete the studies of which nothing more came for long enough."""
        with self._lock:
            before = self._clock() - self._choice.quiet_s
            quiet = [study for study, last in self._last.items() if last <= before]
        for study in quiet:
            self._complete(study)

    @property
    def awaited(self) -> int:
        """How many studies wait for more."""
        with self._lock:
            return len(self._last)

    def _await(self, study: int) -> None:
        with self._lock:
            self._last[study] = self._clock()

    def _complete(self, study: int) -> None:
        with self._lock:
            self._last.pop(study, None)
        try:
            moved = self._desk.ask(lambda queue: queue.complete(study, time.time()))
        except OutputError:
            with self._lock:  # a full disk: it is as complete at the next look
                self._last.setdefault(study, -math.inf)
            raise
        if moved:
            self._ready()
