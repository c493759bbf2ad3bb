"""A node's worker without an engine: what it does is said in the object's StudyDescription.

    answer      writes a report and says ``ok``
    refuse      writes a report and says why there is no answer
    fail        writes a report that an engine failed
    full        says that the disk is full
    crash       dies of SIGSEGV
    hang        says nothing any more
    slow        takes two seconds
    late        answers, but not before the file ``go`` is in the folder above the spool

``explain`` writes a report always. The report is no DICOM but one in name: the node does not look into it.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pydicom

from bedside.errors import BackendError, BedsideError, OutputError, RefusedError
from bedside.isolation.wire import MAX_BYTES, pack, pack_error, unpack
from bedside.isolation.worker import end_with

REPORT = "made-report.dcm"


def main(channel: int, lifeline: int) -> None:
    end_with(lifeline)
    with socket.socket(fileno=channel) as connection:
        while data := connection.recv(MAX_BYTES):
            ((what, order),) = unpack(data).items()
            connection.send(pack(_obey(what, order)))
    os._exit(0)


def _obey(what: str, order: dict[str, Any]) -> dict[str, object]:
    if what == "open":
        return _done("ok", None)
    out = Path(order["out"])
    if what == "explain":
        (out / REPORT).write_text("failed")
        return _done("failed", BackendError("engine-crashed", "it crashed"))
    source = Path(order["source"])
    first = min(source.iterdir()) if source.is_dir() else source
    todo = str(pydicom.dcmread(first, stop_before_pixels=True).get("StudyDescription", "answer"))
    return _run(todo, source, out)


def _run(todo: str, source: Path, out: Path) -> dict[str, object]:
    if todo == "crash":
        print(f"the last words about {source}", flush=True)  # noqa: T201 - as an engine would
        os.kill(os.getpid(), signal.SIGSEGV)
    if todo == "hang":
        time.sleep(3600)
    if todo == "full":
        return {"error": pack_error(OutputError("disk-full", "no space"))}
    if todo == "slow":
        time.sleep(2)
    if todo == "late":
        while not (out.parents[2] / "go").exists():
            time.sleep(0.01)
    (out / REPORT).write_text(todo)
    if todo == "refuse":
        return _done("refused", RefusedError("wrong-view", "a lateral view"))
    if todo == "fail":
        return _done("failed", BackendError("engine-failed", "no memory on the device"))
    return _done("ok", None)


def _done(status: str, error: BedsideError | None) -> dict[str, object]:
    return {"done": {"status": status, "error": None if error is None else pack_error(error)}}
