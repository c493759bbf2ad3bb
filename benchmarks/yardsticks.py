"""How long a study takes, as ratios to work that does not change and is done in the same run.

    measure_ratios(Bench(...), rounds)      name -> ratio

What is compared takes turns, so that whatever else the machine does falls on all alike, and the median over the rounds
is taken. Engines have one thread.

NETWORK     a run of the network through bedside's seam, to one of a plain ONNX Runtime session on the same file and
            the same input
REST        a study whose network answers at once what it answered before, to a fixed pass of numpy over as many pixels
WHOLE       a study from file to written result, to the runs of the plain session

Processor time of all threads is what counts: on the wall a study takes half as long again where it has one core and not
two, and any time at all on a machine that is busy. What waits and does not work is counted (`footprint`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime
from footprint import Arrays, Seam

__all__ = ["NETWORK", "REST", "WHOLE", "Bench", "draw_pictures", "measure_ratios", "open_plain"]

NETWORK: Final = "network, to a plain session's"
REST: Final = "all but the network, to a pass of numpy"
WHOLE: Final = "file to result, to a plain session's runs"
_STEP: Final = 4
"""Rows and columns that the pass makes one of."""

Pictures = Sequence[npt.NDArray[np.uint16]]


@dataclass(frozen=True, slots=True)
class Bench:
    """What is timed."""

    study: Callable[[], object]
    """Does the study."""
    seam: Seam
    """Stands in its engine."""
    passed: Sequence[tuple[Arrays, Arrays]]
    """Inputs and outputs of the study's runs of the network."""
    session: onnxruntime.InferenceSession
    """Of `open_plain`."""
    pictures: Pictures
    """Of `draw_pictures`."""


def open_plain(model: bytes) -> onnxruntime.InferenceSession:
    """A session as most people open it, but with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def draw_pictures(shape: Sequence[int], times: int) -> Pictures:
    """Stored pictures of noise, 12 bits a pixel.

    Args:
        shape: Of the study, ``(H, W)`` or ``(Z, Y, X)``.
        times: How often each is passed over, so that a pass takes about as long as what it is held against.
    """
    *count, rows, columns = shape
    random = np.random.Generator(np.random.PCG64(0))
    drawn = [
        random.integers(0, 4096, (rows, columns), np.uint16) for _ in range(int(np.prod(count, dtype=int)))
    ]
    return drawn * times


def measure_ratios(bench: Bench, rounds: int) -> dict[str, float]:
    """Time all in turns; medians over the rounds."""
    taken = [_take_turn(bench) for _ in range(rounds)]
    return {name: statistics.median(each[name] for each in taken) for name in taken[0]}


def _take_turn(bench: Bench) -> dict[str, float]:
    inputs, outputs = zip(*bench.passed, strict=True)

    def run_plain() -> None:
        for each in inputs:
            bench.session.run(None, each)

    def run_ours() -> None:
        for each in inputs:
            bench.seam.engine.run(each)

    def replay() -> None:
        with bench.seam.replay(list(outputs)):
            bench.study()

    plain, ours, whole, rest = (_spend(each) for each in (run_plain, run_ours, bench.study, replay))
    passed = _spend(lambda: _pass_over(bench.pictures))
    return {NETWORK: ours / plain, REST: rest / passed, WHOLE: whole / plain}


def _spend(work: Callable[[], object]) -> float:
    """Seconds of the processor, in all threads."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def _pass_over(pictures: Pictures) -> float:
    """What any preparation of a picture does: to float32, to a window, and to fewer pixels; on one thread."""
    total = 0.0
    for picture in pictures:
        values = picture.astype(np.float32)
        values -= 1024
        values /= 2048
        np.clip(values, 0, 1, out=values)
        rows, columns = (np.arange(0, size, _STEP) for size in values.shape)
        total += float(np.add.reduceat(np.add.reduceat(values, rows), columns, axis=1).max())
    return total
