"""Engines to be tuned, opened in a process of their own as ``tuned_engines:NAME``: right, wrong, slow and broken ones.

A right one answers as the tiny bundle's graph does.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bedside.backends import EngineInfo, FakeBackend, Tuning
from bedside.backends.base import Arrays
from bedside.bundle import Bundle
from bedside.errors import BackendError, OutputError
from bedside.isolation import IsolatedBackend, Limits
from bedside.tuning.bench import Opener
from bedside.tuning.candidates import Candidate
from tiny_bundle import Network

Floats = npt.NDArray[np.float32]
VERSION = "7.1"
"""What all of them say."""
SLOW_S = 0.02
"""What a slow one takes for a run at the least."""


class StandIn(FakeBackend):
    """An engine that answers with what ``respond`` makes of the inputs."""

    def __init__(self, respond: Callable[[Mapping[str, Floats]], Arrays], info: EngineInfo) -> None:
        super().__init__(respond)
        self._info = info


def right(bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> StandIn:
    """Answers as it should."""
    return _engine(_answer, precision, threads)


def slow(bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> StandIn:
    """Answers as it should, after a while."""

    def respond(inputs: Mapping[str, Floats]) -> Arrays:
        time.sleep(SLOW_S)
        return _answer(inputs)

    return _engine(respond, precision, threads)


def wrong(bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> StandIn:
    """Is off by half a point."""
    return _engine(
        lambda inputs: {name: values + 0.5 for name, values in _answer(inputs).items()}, precision, threads
    )


def infinite(bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> StandIn:
    """Overflows."""
    return _engine(
        lambda inputs: {name: values * np.float32(np.inf) for name, values in _answer(inputs).items()},
        precision,
        threads,
    )


def crashes(bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> StandIn:
    """Dies while it is built, as a compiler may."""
    os.kill(os.getpid(), signal.SIGSEGV)
    return _engine(_answer, precision, threads)


def hangs(bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> StandIn:
    """Is never done."""
    time.sleep(600)
    return _engine(_answer, precision, threads)


def lacks(bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> StandIn:
    """Does not have what was asked for."""
    raise BackendError("engine-unsupported", f"this processor has no {precision} arithmetic; ask for fp32")


def tires(bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> StandIn:
    """Runs the three golden inputs, and dies of the next run but one."""
    runs = 0

    def respond(inputs: Mapping[str, Floats]) -> Arrays:
        nonlocal runs
        runs += 1
        if runs > 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return _answer(inputs)

    return _engine(respond, precision, threads)


def builds(bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> StandIn:
    """Keeps what it built in its cache, and tells how far it is."""
    if tuning.progress is not None:
        tuning.progress("compiling layers", 1, 2)
    if tuning.cache is not None:
        (tuning.cache / "model.engine").write_bytes(b"built for this device" * 100)
        (tuning.cache / "layers.timing").write_bytes(b"changes with each use")
    return _engine(_answer, precision, threads)


def keeps(bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> StandIn:
    """Fails where it has a cache that is full."""
    if tuning.cache is not None:
        raise OutputError("disk-full", "no space left in the cache folder; free some")
    return _engine(_answer, precision, threads)


def opener_of(bundle: Bundle, names: Mapping[tuple[str, str], str], limits: Limits | None = None) -> Opener:
    """Opens, for each backend and precision, the stand-in of that name in this module."""

    def opener(candidate: Candidate, tuning: Tuning) -> IsolatedBackend:
        return IsolatedBackend(
            f"{Path(__file__).stem}:{names[candidate.backend, candidate.precision]}",
            bundle,
            precision=candidate.precision,
            threads=candidate.threads,
            tuning=tuning,
            limits=limits or Limits(60, 60),
        )

    return opener


def _engine(
    respond: Callable[[Mapping[str, Floats]], Arrays], precision: str, threads: int | None
) -> StandIn:
    return StandIn(respond, EngineInfo("stand-in", VERSION, precision, "CPU", threads))


def _answer(inputs: Mapping[str, Floats]) -> Arrays:
    return dict(Network().run(inputs["image"]))
