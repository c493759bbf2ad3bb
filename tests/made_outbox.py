"""An outbox with results to send, in a test.

add_result        a study with results that wait for the destination
sending           an outbox at work
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bedside.errors import BedsideError
from bedside.node.desk import Desk
from bedside.node.entries import Arrival, Delivery, Made, Shipment
from bedside.node.network import Destination
from bedside.node.outbox import Outbox
from bedside.node.queue import Queue
from made_peers import CANARY, make_objects

Told = list[tuple[Delivery, BedsideError | None]]
SOON_S: Final = 30.0
"""Longest wait for what should come at once."""


def add_result(
    desk: Desk, root: Path, number: int, *, kinds: tuple[str, ...] = ("heatmap", "map", "report")
) -> int:
    """A study with results that wait for the destination; returns its number."""
    folder = root / f"{number}-{CANARY}"
    make_objects(folder, kinds, number)
    (folder / "result.json").write_text("{}")

    def enter(queue: Queue) -> int:
        now = time.time()
        study = queue.add(
            Arrival(f"1.{number}", "1.2.3", f"1.{number}", f"{number}.dcm", "0", 1), "all", now
        ).study
        queue.complete(study, now)
        work = queue.claim(now)
        assert work is not None
        queue.finish(work.study, Made("f" * 64, folder.name, ["pacs"]), now)
        return study

    return desk.ask(enter)


def shipment(desk: Desk, study: int) -> Shipment:
    (found,) = desk.ask(lambda queue: queue.shipments(study))
    return found


def state_of(desk: Desk, study: int) -> str:
    return desk.ask(lambda queue: queue.study(study)).state


@contextmanager
def sending(
    desk: Desk, root: Path, destination: Destination, told: Told, *, clock: Callable[[], float] = time.time
) -> Iterator[Outbox]:
    outbox = Outbox(
        desk, root, "pacs", destination, calling="BEDSIDE", told=lambda *args: told.append(args), clock=clock
    )
    outbox.start()
    try:
        yield outbox
    finally:
        assert outbox.stop(SOON_S)
        assert not outbox.alive
