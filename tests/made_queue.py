"""A node's queue in a test, and the way of a study through it.

arrival, ready    an instance, and a study that has all of them
claim, run        the study that is run next, and its results
due               what is to be sent next
"""

from __future__ import annotations

from typing import Final

from bedside.errors import BackendError, NodeError, RefusedError
from bedside.node.entries import Arrival, Delivery, Made, Work
from bedside.node.queue import Queue

NIGHT: Final = 1_000_000.0
"""When all of it happens."""
HUNG: Final = BackendError("engine-hung", "no answer")
DOWN: Final = NodeError("not-delivered", "refused")


def arrival(number: int = 1, series: str = "1.2", content: str = "a") -> Arrival:
    return Arrival(series, "1", f"{series}.{number}", f"in/{series}/{number}", content * 64, 100)


def ready(queue: Queue, series: str = "1.2", slices: int = 2) -> int:
    for number in range(slices):
        counted = queue.add(arrival(number, series), "ct", NIGHT + number)
        assert (counted.outcome, counted.instances) == ("new", number + 1)
    assert queue.complete(counted.study, NIGHT + 10)
    return counted.study


def claim(queue: Queue, at: float = NIGHT + 20) -> Work:
    work = queue.claim(at)
    assert work is not None
    return work


def made(*destinations: str, path: str = "out/1", error: RefusedError | None = None) -> Made:
    return Made("d" * 64, path, destinations, error)


def run(queue: Queue, study: int, *destinations: str, path: str = "") -> None:
    work = claim(queue)
    assert work.study.id == study
    assert queue.finish(work.study, made(*destinations, path=path or f"out/{study}"), NIGHT + 30)


def due(queue: Queue, at: float = NIGHT + 30, to: str | None = None) -> Delivery:
    delivery = queue.due(at, longest_wait=60, destination=to)
    assert delivery is not None
    return delivery
