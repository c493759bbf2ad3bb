"""The other side: opens one engine, and runs it when asked to, until the one who asks is gone."""

from __future__ import annotations

import fcntl
import importlib
import os
import select
import signal
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from bedside.backends import Backend, open_backend
from bedside.backends.base import Arrays
from bedside.bundle import Bundle
from bedside.errors import BackendError, BedsideError, BundleError, InternalError
from bedside.isolation.memory import ALIGNMENT, SharedMemory
from bedside.isolation.wire import MAX_BYTES, pack, pack_error, unpack, unpack_tuning
from bedside.warmup import usual_shape, warm_up

__all__ = ["end_with", "main"]

_EXPENDABLE: Final = "500"
"""Added to the share of memory, in thousandths, by which the system chooses what to kill where memory runs out: an
engine can be started again, its user can't."""

_Place = tuple[str, str, tuple[int, ...], int]
"""An output's name, type, shape, and where it begins in the shared memory, in bytes."""


def main(channel: int, lifeline: int, given: int, answers: int) -> None:
    """Serve until the other end of the channel is closed.

    Args:
        channel: Descriptor of the socket that orders come from.
        lifeline: Descriptor of a pipe that nobody writes to, and whose other end the parent holds.
        given: Descriptor of the memory that inputs lie in.
        answers: Descriptor of the memory for outputs.
    """
    end_with(lifeline)
    for descriptor in (channel, lifeline, given, answers):
        os.set_inheritable(descriptor, False)
    with suppress(OSError):  # a container may forbid it
        Path("/proc/self/oom_score_adj").write_text(_EXPENDABLE)
    with socket.socket(fileno=channel) as connection, suppress(BrokenPipeError, ConnectionResetError):
        _Server(connection, SharedMemory(given), SharedMemory(answers)).serve()
    os._exit(0)  # the engine is closed: what its library does at exit can only go wrong


class _Server:
    def __init__(self, connection: socket.socket, given: SharedMemory, answers: SharedMemory) -> None:
        self._connection = connection
        self._given = given
        self._answers = answers
        self._input = ""

    def serve(self) -> None:
        order = self._receive()
        if order is None:
            return
        try:
            backend = self._open(order["open"])
        except Exception as problem:  # noqa: BLE001 - all of it is told on the other side
            self._tell_error(problem)
            return
        self._send({"info": asdict(backend.info)})
        while (order := self._receive()) is not None:
            try:
                outputs = backend.run({self._input: self._given.view(order["run"], "float32")})
                self._send({"outputs": self._put(outputs)})
            except (BrokenPipeError, ConnectionResetError):
                raise
            except Exception as problem:  # noqa: BLE001 - all of it is told on the other side
                self._tell_error(problem)
        backend.close()

    def _open(self, order: Mapping[str, Any]) -> Backend:
        bundle = Bundle.open(Path(order["location"]))
        if bundle.digest != order["digest"]:
            raise BundleError("bundle-altered", "the bundle was changed since it was opened; open it again")
        self._input = bundle.manifest.input.name
        module, _, opener = order["name"].rpartition(":")
        backend: Backend = (
            getattr(importlib.import_module(module), opener) if module else partial(open_backend, opener)
        )(
            bundle,
            precision=order["precision"],
            threads=order["threads"],
            tuning=unpack_tuning(order["tuning"], self._tell_progress if order["progress"] else None),
        )
        spec = bundle.manifest.input
        warm_up(backend, spec, usual_shape(spec))
        return backend

    def _put(self, outputs: Arrays) -> list[_Place]:
        """Lay outputs into the shared memory; returns where each of them lies."""
        places: list[_Place] = []
        end = 0
        for name, array in outputs.items():
            places.append((name, array.dtype.str, array.shape, end))
            end = -(-(end + array.nbytes) // ALIGNMENT) * ALIGNMENT
        self._answers.reserve(max(end, ALIGNMENT))
        for (_, dtype, shape, offset), array in zip(places, outputs.values(), strict=True):
            np.copyto(self._answers.view(shape, dtype, offset), array)
        return places

    def _receive(self) -> dict[str, Any] | None:
        data = self._connection.recv(MAX_BYTES)
        return unpack(data) if data else None

    def _send(self, message: Mapping[str, object]) -> None:
        self._connection.send(pack(message))

    def _tell_progress(self, phase: str, done: int, total: int) -> None:
        self._send({"progress": [phase, done, total]})

    def _tell_error(self, problem: Exception) -> None:
        if isinstance(problem, MemoryError):
            problem = BackendError(
                "engine-crashed", "the engine ran out of memory; use another one, or free some"
            )
        elif not isinstance(problem, BedsideError):
            problem = InternalError.of(problem)
        self._send({"error": pack_error(problem)})


def end_with(lifeline: int) -> None:
    """Have the system kill this process and its group once nobody holds the other end of ``lifeline``.

    The signal of a descriptor that has become ready (fcntl(2), F_SETSIG) comes also while the engine hangs or holds the
    interpreter. PR_SET_PDEATHSIG would come when the thread ends that started this process.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(lifeline, select.POLLHUP)
    if poll.poll(0):  # it is gone already, and no signal will come
        os._exit(1)
