"""The process that studies run in: see `bedside.bench.subject`.

To it      {"open": Order}, once; then {"add": path}, {"look": number}, {"verify": true}, {"run": number},
           {"memory": true}
From it    {"begun_ns": ..., "opened_ns": ..., "engine": {...}}; {"sample": number}; {"look": Sample};
           {"parity": Parity}; {"answer": Answer}; {"peak_bytes": ...}; or {"error": [class, code, message]}
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bedside.errors import BackendError, BedsideError, InternalError
from bedside.isolation.wire import MAX_BYTES, pack, pack_error, unpack
from bedside.isolation.worker import end_with

__all__ = ["main"]

_PEAK: Final = re.compile(r"^VmHWM:\s*(\d+) kB$", re.MULTILINE)
"""Peak resident size in /proc/PID/status (proc_pid_status(5))."""


def main(channel: int, lifeline: int) -> None:
    """Serve until the other end of the channel is closed.

    Args:
        channel: Descriptor of the socket that orders come from.
        lifeline: Descriptor of a pipe whose other end the parent holds.
    """
    begun_ns = time.monotonic_ns()
    end_with(lifeline)
    for descriptor in (channel, lifeline):
        os.set_inheritable(descriptor, False)
    with socket.socket(fileno=channel) as connection, suppress(BrokenPipeError, ConnectionResetError):
        _serve(connection, begun_ns)
    os._exit(0)  # the engine is closed: what its library does at exit can only go wrong


def _serve(connection: socket.socket, begun_ns: int) -> None:
    order = _receive(connection)
    if order is None:
        return
    from bedside.bench.study import Order, Studies  # noqa: PLC0415 - its imports belong to what is timed

    try:
        studies = Studies(Order(**order["open"]))
    except Exception as problem:  # noqa: BLE001 - all of it is told on the other side
        connection.send(pack({"error": _pack(problem)}))
        return
    opened_ns = time.monotonic_ns()
    connection.send(pack({"begun_ns": begun_ns, "opened_ns": opened_ns, "engine": asdict(studies.engine)}))
    while (order := _receive(connection)) is not None:
        try:
            answer = _obey(studies, order)
        except Exception as problem:  # noqa: BLE001 - all of it is told on the other side
            answer = {"error": _pack(problem)}
        connection.send(pack(answer))
    with suppress(BedsideError):  # nobody listens any more
        studies.close()


def _obey(studies: Any, order: Mapping[str, Any]) -> dict[str, object]:
    if "run" in order:
        return {"answer": asdict(studies.run(order["run"]))}
    if "add" in order:
        return {"sample": studies.add(Path(order["add"]))}
    if "look" in order:
        return {"look": asdict(studies.look(order["look"]))}
    if "verify" in order:
        return {"parity": asdict(studies.verify())}
    found = _PEAK.search(Path("/proc/self/status").read_text())
    return {"peak_bytes": None if found is None else int(found[1]) << 10}


def _receive(connection: socket.socket) -> dict[str, Any] | None:
    data = connection.recv(MAX_BYTES)
    return unpack(data) if data else None


def _pack(problem: Exception) -> list[str]:
    if isinstance(problem, MemoryError):
        problem = BackendError("engine-crashed", "the study ran out of memory; free some")
    elif not isinstance(problem, BedsideError):
        problem = InternalError.of(problem)
    return pack_error(problem)
