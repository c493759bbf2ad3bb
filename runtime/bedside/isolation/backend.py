"""An engine in a process of its own, as its user sees it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside.backends.base import Arrays, EngineInfo, Tuning, check_inputs
from bedside.bundle import Bundle
from bedside.errors import BackendError, BedsideError
from bedside.isolation.memory import SharedMemory
from bedside.isolation.process import EngineProcess, ProcessEndedError
from bedside.isolation.wire import pack_tuning, unpack_error
from bedside.warmup import usual_shape

__all__ = ["IsolatedBackend", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an engine may take before it counts as hung."""

    open_s: float | None = None
    """Seconds from starting its process to the open engine; None for as long as it takes."""
    run_s: float | None = None
    """Seconds for one run; None for as long as it takes. The first run of a shape has `open_s`, as engines
    compile then."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for limit in (self.open_s, self.run_s):
            if limit is not None and not (limit > 0 and math.isfinite(limit)):
                raise BackendError(
                    "engine-unsupported", f"an engine's time must be over 0 seconds, not {limit:g}"
                )


_NO_LIMITS: Final = Limits()


class IsolatedBackend:
    """See `bedside.backends.base.Backend`; use it in a ``with`` statement, or close it.

    Where the bundle fixes the size of its pictures, the engine has run once when it is open.
    What the engine prints stays with it. After a crash or a hang the next run starts it anew. An answer is copied out
    of the memory that both processes see, since it is the caller's to keep.

    Args:
        name: One of `bedside.backends.BACKENDS`; or ``module:function``, which is imported there and called as a leaf
            is.
        bundle: Opened again in the other process, from where it lies.
        precision: One of `bedside.backends.PRECISIONS`.
        threads: Threads inside one inference; None leaves it to the engine.
        tuning: How it is set up beyond that; its progress is told in this process.
        limits: How long it may take.

    Raises:
        BackendError: ``engine-crashed`` if its process ends, by a signal or by itself; ``engine-hung`` if it takes
            longer than it may, and was killed.
        BedsideError: Whatever `bedside.backends.open_backend` raises there.
    """

    def __init__(
        self,
        name: str,
        bundle: Bundle,
        *,
        precision: str = "fp32",
        threads: int | None = None,
        tuning: Tuning | None = None,
        limits: Limits = _NO_LIMITS,
    ) -> None:
        tuning = tuning or Tuning()
        location = str(Path(bundle.location).absolute())
        self._title = f"the engine {name} {precision}"
        self._input = bundle.manifest.input
        self._limits = limits
        self._progress = tuning.progress
        self._hidden = [location] + ([] if tuning.cache is None else [str(tuning.cache)])
        self._order: dict[str, object] = {
            "name": name,
            "location": location,
            "digest": bundle.digest,
            "precision": precision,
            "threads": threads,
            "tuning": pack_tuning(tuning),
            "progress": tuning.progress is not None,
        }
        self._process: EngineProcess | None = None
        self._given = SharedMemory.create("bedside-input")
        self._answers = SharedMemory.create("bedside-outputs")
        self._shapes: set[tuple[int, ...] | None] = set()
        self._closed = False
        try:
            self._info = self._start()
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> EngineInfo:
        """What runs there."""
        return self._info

    @property
    def process(self) -> int | None:
        """Number of the engine's process; None while there is none."""
        return None if self._process is None else self._process.number

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> Arrays:
        """Run the network once; see `bedside.backends.base.Backend.run`.

        Raises:
            BackendError: ``engine-failed``; ``engine-crashed`` or ``engine-hung`` as in opening it.
        """
        if self._closed:
            raise BackendError("engine-failed", "the engine is closed; open it again")
        check_inputs(inputs, self._input)
        if self._process is None:
            self._info = self._start()
        array = inputs[self._input.name]
        self._given.reserve(array.nbytes)
        np.copyto(self._given.view(array.shape, "float32"), array)
        known = array.shape in self._shapes
        answer = self._ask(
            {"run": array.shape}, self._limits.run_s if known else self._limits.open_s, "running"
        )
        self._shapes.add(array.shape)
        return {
            name: np.array(self._answers.view(shape, dtype, offset))
            for name, dtype, shape, offset in answer["outputs"]
        }

    def close(self) -> None:
        """End the process: politely, and after some seconds by force."""
        self._closed = True
        self._end()
        self._given.close()
        self._answers.close()

    def _start(self) -> EngineInfo:
        self._shapes = {usual_shape(self._input)}
        self._process = EngineProcess((self._given.descriptor, self._answers.descriptor))
        try:
            answer = self._ask({"open": self._order}, self._limits.open_s, "opening")
        except BedsideError:
            self._end()
            raise
        return EngineInfo(**answer["info"])

    def _end(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    def _ask(self, order: Mapping[str, object], limit_s: float | None, doing: str) -> dict[str, Any]:
        """Have something done there.

        Raises:
            BackendError: ``engine-crashed``; ``engine-hung``.
            BedsideError: What the other side raised.
        """
        process = self._process
        if process is None:
            raise ValueError("there is no process to ask")
        deadline = None if limit_s is None else time.monotonic() + limit_s
        try:
            process.send(order)
            while "progress" in (answer := process.receive(deadline)):
                if self._progress is not None:
                    self._progress(*answer["progress"])
        except ProcessEndedError as error:
            self._end()
            raise BackendError(
                "engine-crashed",
                f"{self._title} {process.describe_end()} in {doing} the model{process.last_words(self._hidden)}; try "
                "another engine or precision",
            ) from error
        except TimeoutError as error:
            process.kill()
            self._process = None
            raise BackendError(
                "engine-hung",
                f"{self._title} was stopped after {limit_s:g} s without an answer in {doing} the model; allow it more "
                "time, or try another engine",
            ) from error
        except (
            BaseException
        ):  # Ctrl-C, or the listener to its progress: the answer that may still come is of no use
            process.kill()
            self._process = None
            raise
        if "error" in answer:
            problem = unpack_error(answer["error"])
            if problem.code == "engine-crashed":
                self._end()
            raise problem
        return answer

    def __enter__(self) -> IsolatedBackend:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the process."""
        self.close()
