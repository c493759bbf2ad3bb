"""The engine's process: how it is started, listened to and ended."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from bedside.errors import BackendError
from bedside.isolation.wire import MAX_BYTES, pack, unpack

__all__ = ["EngineProcess", "ProcessEndedError"]

_BOOT: Final = (
    "import importlib, sys; module, count, *rest = sys.argv[1:]; count = int(count); sys.path[:] = rest[count:]; "
    "importlib.import_module(module).main(*map(int, rest[:count]))"
)
"""Modules come from where this process has them: ``-m`` would look into the working directory first."""
_WORKER: Final = "bedside.isolation.worker"
_LOOK_S: Final = 1.0
"""How often the process is looked at while nothing comes from it: something that it started may hold its end open."""
_END_S: Final = 5.0
"""Patience with a process that was asked to end, or was killed: the rest is the system's doing."""
_NAP_S: Final = 0.002
_TAIL_BYTES: Final = 4096
"""Kept of what the process printed last."""
_MAX_LINE: Final = 120
"""Characters of it that go into a message."""
_ESCAPE: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_PATH: Final = re.compile(r"\S*[/\\]\S*")


class ProcessEndedError(Exception):
    """The process ended without an answer."""


class EngineProcess:
    """A fresh interpreter that runs a worker, in a session and process group of its own.

    Args:
        shared: Descriptors of memory that both see, such as the input's and the outputs'; stay open here.
        module: Of the worker, whose ``main`` is called with the descriptors of the channel and of the lifeline, and
            with ``shared``.

    Raises:
        BackendError: ``engine-failed`` if no process can be started.
    """

    def __init__(self, shared: Sequence[int] = (), module: str = _WORKER) -> None:
        if not sys.executable:
            raise BackendError(
                "engine-unsupported", "this Python can't start another; run the engine in its own process"
            )
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        lifeline, end = os.pipe()
        self._lifeline = os.fdopen(end, "wb", 0)
        given = (theirs.fileno(), lifeline, *shared)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this very interpreter
                [
                    *(sys.executable, "-c", _BOOT, module, str(len(given))),
                    *(str(descriptor) for descriptor in given),
                    *(os.path.abspath(entry) for entry in sys.path),  # noqa: PTH100 - of strings, "" too
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=given,
                start_new_session=True,
            )
        except OSError as error:
            self._channel.close()
            self._lifeline.close()
            raise BackendError(
                "engine-failed",
                f"no process can be started for the engine ({error.strerror}); free some memory",
            ) from error
        finally:
            theirs.close()
            os.close(lifeline)
        if self._process.stdout is None:
            raise ValueError("a process that was started with a pipe has none")
        self._printed = self._process.stdout
        os.set_blocking(self._printed.fileno(), False)
        self._tail = b""
        self._poll = select.poll()
        self._poll.register(self._channel, select.POLLIN)
        self._poll.register(self._printed, select.POLLIN)

    @property
    def number(self) -> int:
        """Its process number, which is that of its group as well."""
        return self._process.pid

    def send(self, message: Mapping[str, object]) -> None:
        """Say something to it.

        Raises:
            ProcessEndedError: It has ended.
        """
        try:
            self._channel.send(pack(message))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ProcessEndedError from error

    def receive(self, deadline: float | None) -> dict[str, Any]:
        """The next message from it.

        Args:
            deadline: By `time.monotonic`; None to wait for ever.

        Raises:
            ProcessEndedError: It ended instead.
            TimeoutError: Nothing came.
        """
        while True:
            left = _LOOK_S if deadline is None else min(_LOOK_S, deadline - time.monotonic())
            if left < 0:
                raise TimeoutError
            ready = {descriptor for descriptor, _ in self._poll.poll(left * 1e3)}
            if self._printed.fileno() in ready and not self._listen():
                self._poll.unregister(self._printed)
            if self._channel.fileno() in ready:
                try:
                    data = self._channel.recv(MAX_BYTES)
                except ConnectionResetError as error:
                    raise ProcessEndedError from error
                if not data:
                    raise ProcessEndedError
                return unpack(data)
            if not ready and self._ended():
                raise ProcessEndedError

    def describe_end(self) -> str:
        """How it ended, after `close` or `kill`, e.g. ``died of SIGSEGV``."""
        code = self._process.returncode
        if code is None:
            return "does not end, though killed,"
        if code == -signal.SIGKILL:
            return "was killed (SIGKILL, as the system does where memory runs out)"
        if code < 0:
            return f"died of {_name(-code)}"
        return f"ended by itself (exit code {code})"

    def last_words(self, hidden: Sequence[str]) -> str:
        """What it printed last, in brackets, without paths; empty if it printed nothing.

        Args:
            hidden: Paths that may hold spaces; others are found by their slashes.
        """
        line = _last_line(self._tail, hidden)
        return f" ({line})" if line else ""

    def close(self) -> None:
        """Have it end, politely at first."""
        self._channel.close()
        self.end()

    def end(self) -> None:
        """Give it a moment to end by itself, then kill its group, whatever is left of it."""
        until = time.monotonic() + _END_S
        while not self._ended() and time.monotonic() < until:
            time.sleep(_NAP_S)
            self._listen()
        self.kill()

    def kill(self) -> None:
        """Kill it, and all that it started."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.number, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):  # a driver may hold it; the system ends it later
                self._process.wait(_END_S)
        if not self._printed.closed:
            self._listen()
            self._printed.close()
        self._channel.close()
        self._lifeline.close()

    def _ended(self) -> bool:
        """Whether it has ended. It is looked at and not waited for, so that nobody else gets its number, or group's."""
        try:
            return os.waitid(os.P_PID, self.number, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
        except ChildProcessError:  # where the user's program takes all its children
            return True

    def _listen(self) -> bool:
        """Take what it printed, and keep the end of it; False where it has closed that."""
        try:
            data = os.read(self._printed.fileno(), MAX_BYTES)
        except BlockingIOError:
            return True
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        return bool(data)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _last_line(tail: bytes, hidden: Sequence[str]) -> str:
    text = _ESCAPE.sub("", tail.decode(errors="replace"))
    for path in hidden:
        text = text.replace(path, "(path)")
    lines = [
        "".join(letter if letter.isprintable() else " " for letter in line) for line in text.splitlines()
    ]
    told = [" ".join(_PATH.sub("(path)", line).split()) for line in lines]
    return next((line[:_MAX_LINE] for line in reversed(told) if any(map(str.isalnum, line))), "")
