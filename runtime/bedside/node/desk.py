"""The queue, from any thread: one thread writes, and everybody waits for it. Not for clinical use."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from bedside.node.queue import Queue

__all__ = ["Desk"]

_Answer = TypeVar("_Answer")


class Desk:
    """A thread that owns the queue.

    Args:
        path: Of the queue.
        tries: As `Queue`.

    Raises:
        OutputError: the queue can't be opened.
    """

    def __init__(self, path: Path, *, tries: int) -> None:
        self._thread = ThreadPoolExecutor(1, "queue")
        try:
            self._queue = self._thread.submit(Queue, path, tries=tries).result()
        except BaseException:
            self._thread.shutdown()
            raise

    def __enter__(self) -> Desk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.submit(self._queue.close).result()
        self._thread.shutdown()

    def ask(self, what: Callable[[Queue], _Answer]) -> _Answer:
        """Do something with the queue; returns, or raises, when it is on the disk."""
        return self._thread.submit(what, self._queue).result()
