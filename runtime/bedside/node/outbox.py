"""Sends results on: a thread for each destination. Not for clinical use.

At the destination each result is there once, however often sending was cut: SOP Instance UIDs are derived from what was
analysed and by what (`bedside.results.dicom.identity`), so that an object that is sent again is known there. If some
objects of a delivery were taken before it was cut, taking them again changes nothing.

A delivery that fails is tried again after ``first_wait_s``, doubled each time up to ``longest_wait_s``, less up to a
quarter by chance so that several nodes do not come at once. Beside that, the destination as a whole is left alone after
a failure that is not of the results alone (an `UntakenError`): no delivery is begun until ``first_wait_s`` have passed,
doubled with each such failure in a row, and the first that is begun then is the test. So one that is down is not
hammered however much waits for it, and results that it won't take hold up no others. This rest is forgotten when the
node ends.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Final

from bedside.errors import BedsideError, InternalError
from bedside.node.desk import Desk
from bedside.node.entries import Delivery
from bedside.node.failures import StoppedError, UntakenError
from bedside.node.network import Destination
from bedside.node.parcels import find_files
from bedside.node.store import send_by_store
from bedside.node.stow import send_by_stow

__all__ = ["Outbox"]

log = logging.getLogger(__name__)

LOOK_S: Final = 5.0
"""How often the queue is looked at unasked: for what is due again, and for what another process made due."""
_JITTER: Final = 0.25
"""Most that a wait is shortened by."""
_DOUBLINGS: Final = 64
"""More make no wait longer than any that can be told."""


class Outbox:
    """Sends what is due to one destination, one delivery after the other.

    Args:
        desk: Of the queue.
        root: Of the spool.
        name: Of the destination.
        destination: Where it is, and how often it is tried.
        calling: Our AE title, where the destination has no other for us.
        told: Called, from the thread, after each delivery that was tried and recorded, with what went wrong if it did.
        clock: Seconds since 1970.
    """

    def __init__(  # noqa: PLR0913 - what a node consists of
        self,
        desk: Desk,
        root: Path,
        name: str,
        destination: Destination,
        *,
        calling: str,
        told: Callable[[Delivery, BedsideError | None], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._desk = desk
        self._root = root
        self._name = name
        self._destination = destination
        self._calling = calling
        self._told = told
        self._clock = clock
        self._failures = 0
        self._rest_until = time.monotonic()
        self._woken = Event()
        self._ending = Event()
        self._thread = Thread(
            target=self._serve, name=f"outbox {name}", daemon=True
        )  # it may hang in the network

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Say that there is something to send."""
        self._woken.set()

    def stop(self, timeout: float) -> bool:
        """End before the next object; what was not sent whole stays due, and the try does not count.

        Args:
            timeout: Seconds to wait for that.

        Returns:
            Whether it has ended.
        """
        self._ending.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def _serve(self) -> None:
        while not self._ending.is_set():
            rest = self._rest_until - time.monotonic()
            if rest > 0:
                self._ending.wait(rest)
                continue
            self._woken.clear()
            try:
                if not self._send_next():
                    self._woken.wait(min(LOOK_S, self._destination.first_wait_s))
            except StoppedError:
                return
            except Exception as problem:  # noqa: BLE001 - told; what was due is still due
                error = problem if isinstance(problem, BedsideError) else InternalError.of(problem)
                log.error("sending to %s: %s", self._name, error.message)
                self._rest()

    def _send_next(self) -> bool:
        """Try the delivery that is due, and record what came of it. False if there is none.

        Raises:
            StoppedError: The node is to end, and it was not sent whole.
            BedsideError: The queue can't be read or written.
        """
        now, longest = self._clock(), self._destination.longest_wait_s
        delivery = self._desk.ask(lambda queue: queue.due(now, longest_wait=longest, destination=self._name))
        if delivery is None:
            return False
        error = self._try(delivery)
        at = self._clock()
        if error is None:
            self._desk.ask(lambda queue: queue.delivered(delivery, at))
        else:
            tries = delivery.attempts + 1
            next_at = at + self._wait(tries) if tries < self._destination.tries else None
            self._desk.ask(lambda queue: queue.put_off(delivery, error, at, next_at=next_at))
        if error is None or isinstance(error, UntakenError):
            self._failures = 0
        else:
            self._rest()
        self._told(delivery, error)
        return True

    def _try(self, delivery: Delivery) -> BedsideError | None:
        """Send a delivery; returns why it was not taken."""
        try:
            files = find_files(self._root / delivery.path)
            if self._destination.url is not None:
                send_by_stow(files, self._destination, stopped=self._ending.is_set)
            else:
                send_by_store(files, self._destination, calling=self._calling, stopped=self._ending.is_set)
        except StoppedError:
            raise
        except BedsideError as error:
            return error
        except Exception as problem:  # noqa: BLE001 - a defect costs this delivery a try, and not the thread
            return InternalError.of(problem)
        return None

    def _rest(self) -> None:
        """Leave the destination alone for a while."""
        self._failures += 1
        self._rest_until = time.monotonic() + self._wait(self._failures)

    def _wait(self, failures: int) -> float:
        """Seconds to wait after so many failures."""
        wait = self._destination.first_wait_s * 2.0 ** min(failures - 1, _DOUBLINGS)
        return min(wait, self._destination.longest_wait_s) * random.uniform(1 - _JITTER, 1)  # noqa: S311 - no secret
