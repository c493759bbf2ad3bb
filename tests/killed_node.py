"""A node that is killed wherever something on the disk changes, and started again: python killed_node.py FOLDER HOW.

once            killed once at each point, one after the other
replaced        the same, while whole objects take the places of cut ones whose results were sent
a number        killed again and again, at points by chance from that seed, until it comes to its end; an X-ray and a
                slice are cut at first, and whole before the series is run, and after the X-ray's results were sent

It prints a line of JSON for each life and the next start: what is there in the end.

A point is before each file that is opened for writing, renamed or removed, each folder that is made or removed, each
fsync, and each commit of the queue, and after the last two. The node's own code runs, but for the engine's process and
the network: a worker that writes a report, and a destination that is a folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import bedside.node.outbox
from bedside.node.look import Look
from bedside.node.network import Destination
from bedside.node.outbox import Outbox
from bedside.node.runner import Runner, Terms
from bedside.node.wholeness import judge_pixels
from made_node import JOBS, Parts, make_parts, write_picture, write_slice

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
TRIES = 100
"""More than it is killed: nothing is set aside."""


class Killer:
    """Kills this process at its ``number``-th point."""

    def __init__(self, number: int) -> None:
        self._left = number
        self.points = 0

    def point(self) -> None:
        self.points += 1
        if self.points == self._left:
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        sys.addaudithook(self._hear)
        os.fsync = self._around(os.fsync)
        connect = sqlite3.connect

        def connect_to(*given: Any, **named: Any) -> Any:
            return connect(*given, factory=self._connection(), **named)

        sqlite3.connect = connect_to

    def _hear(self, event: str, told: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and isinstance(told[2], int) and told[2] & WRITING):
            self.point()

    def _around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any) -> Any:
            self.point()
            answer = function(*given)
            self.point()
            return answer

        return called

    def _connection(self) -> type[sqlite3.Connection]:
        killer = self

        class Connection(sqlite3.Connection):
            def execute(self, statement: str, *given: Any) -> sqlite3.Cursor:
                if statement != "COMMIT":
                    return super().execute(statement, *given)
                cursor: sqlite3.Cursor = killer._around(super().execute)(statement)
                return cursor

        return Connection


class StandIn(Runner):
    """A runner whose worker is this process."""

    def _ask(self, what: str, told: Mapping[str, object], limit_s: float) -> dict[str, Any]:
        source, out = Path(str(told["source"])), Path(str(told["out"]))
        files = sorted(source.iterdir()) if source.is_dir() else [source]
        digest = hashlib.sha256(b"".join(sorted(path.read_bytes() for path in files))).hexdigest()
        (out / "made-heatmap.dcm").write_text(f"heatmap {digest}")
        (out / "made-report.dcm").write_text(f"report {digest} {len(files)}")
        return {"done": {"status": "ok", "error": None}}


def live(folder: Path) -> None:
    """Start a node, and let it do all that there is to do."""
    shelf = folder / "pacs"
    shelf.mkdir(exist_ok=True)

    def send(files: Sequence[Path], *_: object, **__: object) -> None:
        for path in files:
            text = path.read_text()
            kind, digest = text.split()[:2]
            with (folder / "sendings").open("a") as log:
                log.write(f"{kind} {digest}\n")
            (shelf / f"{kind}-{digest}").write_text(text)

    setattr(bedside.node.outbox, "send_by_store", send)  # noqa: B010 - it is no name of its interface
    with make_parts(folder, tries=TRIES) as parts:
        parts.spool.sweep(parts.desk.ask(lambda queue: queue.paths()))
        parts.desk.ask(lambda queue: queue.recover(0.0))
        parts.completion.resume(parts.desk.ask(lambda queue: queue.studies(["received"])), alone=["xray"])
        runner = StandIn(parts.spool, parts.desk, JOBS, Terms(1.0, 0.0), parts.chronicle, lambda: None)
        outbox = Outbox(
            parts.desk,
            parts.spool.root,
            "pacs",
            Destination(ae_title="PACS", host="localhost"),
            calling="BEDSIDE",
            told=parts.chronicle.delivered,
        )
        busy = True
        while busy:
            busy = parts.watcher.look() > 0
            if go_on(folder, "c2.dcm"):
                parts.watcher.look()
            parts.clock.now += 60.0
            parts.completion.look()
            work = parts.desk.ask(lambda queue: queue.claim(0.0))
            if work is not None:
                runner._run(work)
            busy = outbox._send_next() or work is not None or busy or "received" in parts.states()
            busy = busy or go_on(folder, "x2.dcm")


def go_on(folder: Path, name: str) -> bool:
    """Write the rest of a file that was cut short; False if that is done."""
    whole = folder / "whole" / name
    if not whole.exists():
        return False
    whole.replace(folder / "in" / name)
    return True


def look(folder: Path) -> dict[str, object]:
    """What is there in the end."""
    with make_parts(folder, tries=TRIES) as parts:
        studies = parts.studies()
        with Look(parts.spool.queue) as queue:
            shipments = {study.unit: queue.shipments(study.id) for study in studies}
        return {
            "states": {study.unit: study.state for study in studies},
            "instances": {study.unit: study.instances for study in studies},
            "results": {
                unit: len({(each.digest, each.generation) for each in told})
                for unit, told in shipments.items()
            },
            "pacs": sorted(path.read_text().split()[0] for path in (folder / "pacs").iterdir()),
            "most_sendings": max(Counter((folder / "sendings").read_text().splitlines()).values()),
            "left": len([path for path in (folder / "in").rglob("*") if path.is_file()]),
            "incoming": len(list(parts.spool.incoming.iterdir())),
            "stray": len(_stray(parts)),
            "missing": len(_missing(parts)),
            "cut": len([name for name in parts.stored() if not _is_whole(parts.spool.root / name)]),
            "audit": all("event" in event for event in parts.events()),
        }


def _is_whole(path: Path) -> bool:
    with path.open("rb") as stream:
        return judge_pixels(stream) == "whole"


def _stray(parts: Parts) -> set[str]:
    held = parts.desk.ask(lambda queue: queue.paths())
    there = parts.stored() | {parts.spool.name(path) for path in parts.spool.results.iterdir()}
    return there - held


def _missing(parts: Parts) -> list[str]:
    held = parts.desk.ask(lambda queue: queue.paths())
    return [name for name in held if not (parts.spool.root / name).exists()]


def in_child(work: Callable[[], None]) -> int:
    """Do something in a process of its own; returns its exit code, or the negative number of its signal."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told below, by its exit code
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def live_until(folder: Path, number: int) -> None:
    Killer(number).install()
    live(folder)


def fill(folder: Path) -> None:
    """What the node is to take in: two X-rays and a series of three."""
    for number in (1, 2):
        write_picture(folder / "in" / f"x{number}.dcm", number)
    for number in (1, 2, 3):
        write_slice(folder / "in" / f"c{number}.dcm", number)


def cut(folder: Path) -> None:
    """Leave the beginning of an X-ray and of a slice, for `go_on` to write the rest."""
    (folder / "whole").mkdir()
    for name in ("x2.dcm", "c2.dcm"):
        path = folder / "in" / name
        content = path.read_bytes()
        path.replace(folder / "whole" / name)
        path.write_bytes(content[:-100])


def answer_the_cut(folder: Path) -> None:
    """Have the node answer what is cut, so that the rest comes next."""
    fill(folder)
    cut(folder)
    aside = (folder / "whole").rename(folder / "aside")
    live(folder)
    for path in aside.iterdir():
        path.replace(folder / "in" / path.name)


def kill_once_at_each(folder: Path, prepare: Callable[[Path], None]) -> None:
    code, number = -signal.SIGKILL, 0
    prepared = folder / "0"
    prepare(prepared)
    while code == -signal.SIGKILL:
        number += 1
        here = folder / str(number)
        shutil.copytree(prepared, here)
        code = in_child(partial(live_until, here, number))
        again = in_child(partial(live, here)) if code == -signal.SIGKILL else 0
        print(json.dumps({"point": number, "code": code, "again": again, **look(here)}), flush=True)  # noqa: T201


def kill_again_and_again(folder: Path, seed: int) -> None:
    fill(folder)
    cut(folder)
    chance = random.Random(seed)  # noqa: S311 - no secret
    kills, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        code = in_child(partial(live_until, folder, chance.randint(1, 60)))
        kills += code == -signal.SIGKILL
    print(json.dumps({"kills": kills, "code": code, "again": 0, **look(folder)}), flush=True)  # noqa: T201


WAYS = {"once": fill, "replaced": answer_the_cut}

if __name__ == "__main__":
    where, how = Path(sys.argv[1]), sys.argv[2]
    if how in WAYS:
        kill_once_at_each(where, WAYS[how])
    else:
        kill_again_and_again(where, int(how))
