"""Engines that crash, hang, chatter and eat memory, to be opened in a process of their own: ``crashing_engines:NAME``.

A network here is the tiny bundle's: its severity is the mean of the picture and the double of it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from bedside.backends import EngineInfo, FakeBackend, Tuning
from bedside.backends.base import Arrays
from bedside.bundle import Bundle
from bedside.errors import BackendError, RefusedError

Floats = npt.NDArray[np.float32]
Respond = Callable[[Mapping[str, Floats]], Arrays]

LIMIT_BYTES = 256 << 20
"""What `eats_memory` may take more than it has: enough to see it grow, and no burden for a machine."""


class StandIn(FakeBackend):
    """An engine that answers with what ``respond`` makes of the inputs."""

    def __init__(self, respond: Respond, info: EngineInfo) -> None:
        super().__init__(respond)
        self._info = info


def _running(respond: Respond) -> Callable[..., StandIn]:
    def open_it(bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> StandIn:
        return StandIn(respond, EngineInfo("stand-in", "1.2", precision, "CPU", threads))

    return open_it


def _opening(fail: Callable[[], object]) -> Callable[..., StandIn]:
    def open_it(bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> StandIn:
        fail()
        return StandIn(answer, EngineInfo("stand-in", "1.2", precision, "CPU", threads))

    return open_it


def _closing(fail: Callable[[], object]) -> Callable[..., StandIn]:
    class Closing(StandIn):
        def close(self) -> None:
            fail()

    def open_it(bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> StandIn:
        return Closing(answer, EngineInfo("stand-in", "1.2", precision, "CPU", threads))

    return open_it


def answer(inputs: Mapping[str, Floats]) -> Arrays:
    """Mean of each picture and the double of it; the pictures; and their largest values as float64."""
    images = inputs["image"]
    means = images.mean(axis=(1, 2, 3))
    return {
        "severity": np.stack([means, 2 * means], axis=1),
        "seen": images[:, :, ::-1],
        "largest": images.max(axis=(1, 2, 3)).astype(np.float64),
    }


def segfault() -> None:
    """Read what is not there."""
    ctypes.string_at(0)


def hang() -> None:
    """Wait for what never comes."""
    signal.pause()


def hang_in_c() -> None:
    """Compute, in one call that never lets go of the interpreter, for longer than anybody waits."""
    pow(3, 10**9)


def leave() -> None:
    """End the process without a word."""
    os._exit(7)


def eat_memory() -> None:
    """Take memory until there is none to be had."""
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: PTH123, SIM115
    resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT_BYTES, used + LIMIT_BYTES))
    held = []
    while True:
        held.append(np.ones(1 << 20))


def chatter() -> None:
    """Print more than any pipe holds, as compilers may."""
    for _ in range(40):
        os.write(2, b"warning: a line that nobody reads\n" * 1000)
        os.write(1, b"and another\n" * 1000)


def chatter_and_segfault() -> None:
    """Both."""
    chatter()
    segfault()


def start_another() -> None:
    """Start a process, as compilers may, tell its number, and hang."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    os.write(2, f"started {child.pid}\n".encode())
    hang()


def _after(fail: Callable[[], object]) -> Respond:
    """Fail where the first pixel says 0, else answer. Black is none of it: an engine is warmed up with that."""

    def respond(inputs: Mapping[str, Floats]) -> Arrays:
        if inputs["image"].flat[0] == 0:
            fail()
        return answer(inputs)

    return respond


def _raise(error: Exception) -> None:
    raise error


def _die_with_words() -> None:
    os.write(2, b"\x1b[31mfatal: no tactic for /home/someone/model.onnx, layer 7\x1b[0m\n\n")
    os.abort()


good = _running(answer)
segfaults = _running(_after(segfault))
segfaults_opening = _opening(segfault)
killed = _running(_after(lambda: os.kill(os.getpid(), signal.SIGKILL)))
leaves = _running(_after(leave))
leaves_opening = _opening(leave)
aborts = _opening(_die_with_words)
hangs = _running(_after(hang))
hangs_opening = _opening(hang)
hangs_closing = _closing(hang)
segfaults_closing = _closing(segfault)
hangs_in_c = _running(_after(hang_in_c))
hangs_with_another = _running(_after(start_another))
chatters = _running(_after(chatter))
chatters_and_crashes = _running(_after(chatter_and_segfault))
eats_memory = _running(_after(eat_memory))
fails = _running(
    _after(lambda: _raise(BackendError("engine-failed", "no kernel for this layer; use another")))
)
refuses_opening = _opening(lambda: _raise(RefusedError("not-hu", "an error of another class")))
breaks = _running(_after(lambda: _raise(KeyError("a surprise"))))
breaks_opening = _opening(lambda: _raise(KeyError("a surprise")))


def tells_progress(bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> StandIn:
    """Tells three steps of its opening."""
    for step in range(3):
        if tuning.progress is not None:
            tuning.progress("building", step + 1, 3)
    return StandIn(answer, EngineInfo("stand-in", "1.2", precision, "CPU", threads))


def builds_for_ever(bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> StandIn:
    """Tells progress, and never comes to an end."""
    while True:
        if tuning.progress is not None:
            tuning.progress("building", 0, 1)
        time.sleep(0.01)


def tells_tuning(bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> StandIn:
    """Says how it was set up as its device."""
    return StandIn(answer, EngineInfo("stand-in", "1.2", precision, repr(tuning), threads))


def _segfault_on_pictures(inputs: Mapping[str, Floats]) -> Arrays:
    """Bear black, which an engine is warmed up with, and nothing else."""
    if np.ptp(inputs["image"]) > 0:
        segfault()
    return answer(inputs)


segfaults_on_pictures = _running(_segfault_on_pictures)
