"""What is measured, as the one who measures sees it: a process that does studies, and may die of one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol

from bedside.backends.base import EngineInfo
from bedside.bench.figures import Parity, Sample
from bedside.bench.study import Answer, Order
from bedside.errors import BackendError, BedsideError
from bedside.isolation.process import EngineProcess, ProcessEndedError
from bedside.isolation.wire import unpack_error
from bedside.records import build

__all__ = ["ProcessSubject", "Subject"]

OPEN_S: Final = 600.0
"""Longest that a process may take to open its engine: some compile for minutes on a small device."""
STUDY_S: Final = 1800.0
"""Longest that a study may take: half an hour, far over the longest scan on the smallest device."""
MODULE: Final = "bedside.bench.worker"


class Subject(Protocol):
    """Does studies, one at a time."""

    @property
    def engine(self) -> EngineInfo:
        """What runs the network."""

    def add(self, path: Path) -> int:
        """Take a file, or a scan's folder, as the next sample; returns its number."""

    def look(self, sample: int) -> Sample:
        """Read a sample, and say how large it is."""

    def verify(self) -> Parity:
        """Run the golden inputs."""

    def run(self, sample: int) -> Answer:
        """Do a sample's study, from file to written result."""

    def peak_bytes(self) -> int | None:
        """Most memory that it held; None where that is not told."""

    def __enter__(self) -> Subject:
        """Return itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it."""


class ProcessSubject:
    """A `Subject` in a process of its own, started afresh. Use it in a ``with`` statement.

    Args:
        order: What it does, and how.

    Raises:
        BackendError: ``engine-crashed`` if the process ends; ``engine-hung`` if it does not answer.
        BedsideError: What `bedside.bench.study.Studies` raises there.
    """

    def __init__(self, order: Order) -> None:
        self.started_ns = time.monotonic_ns()
        """Before the process was there."""
        self._hidden = [order.location, order.scratch]
        self._process = EngineProcess(module=MODULE)
        try:
            answer = self._ask({"open": asdict(order)}, OPEN_S)
        except BaseException:
            self.close()
            raise
        self.begun_ns: int = answer["begun_ns"]
        """When its interpreter had started; what is imported comes after, but for what messages need."""
        self.opened_ns: int = answer["opened_ns"]
        """When its engine was open."""
        self._engine = build(EngineInfo, answer["engine"])

    @property
    def engine(self) -> EngineInfo:
        """What runs the network, as it was opened."""
        return self._engine

    @property
    def process(self) -> int:
        """Number of the process."""
        return self._process.number

    def add(self, path: Path) -> int:
        """See `Subject.add`."""
        number: int = self._ask({"add": str(path.absolute())}, STUDY_S)["sample"]
        self._hidden.append(str(path.absolute()))
        return number

    def look(self, sample: int) -> Sample:
        """See `Subject.look`."""
        return build(Sample, self._ask({"look": sample}, STUDY_S)["look"])

    def verify(self) -> Parity:
        """See `Subject.verify`."""
        return build(Parity, self._ask({"verify": True}, STUDY_S)["parity"])

    def run(self, sample: int) -> Answer:
        """See `Subject.run`."""
        return Answer(**self._ask({"run": sample}, STUDY_S)["answer"])

    def peak_bytes(self) -> int | None:
        """See `Subject.peak_bytes`."""
        peak: int | None = self._ask({"memory": True}, STUDY_S)["peak_bytes"]
        return peak

    def close(self) -> None:
        """End the process: politely, and after some seconds by force."""
        self._process.close()

    def __enter__(self) -> ProcessSubject:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the process; at once where it is not to be waited for."""
        if isinstance(error, KeyboardInterrupt):
            self._process.kill()
        else:
            self.close()

    def _ask(self, order: Mapping[str, object], limit_s: float) -> dict[str, Any]:
        process = self._process
        try:
            process.send(order)
            answer = process.receive(time.monotonic() + limit_s)
        except ProcessEndedError as error:
            process.end()
            raise BackendError(
                "engine-crashed",
                f"the process that was measured {process.describe_end()}{process.last_words(self._hidden)}; try "
                "another engine or precision",
            ) from error
        except TimeoutError as error:
            process.kill()
            raise BackendError(
                "engine-hung",
                f"the process that was measured gave no answer in {limit_s:g} s, and was stopped; try another engine",
            ) from error
        if "error" in answer:
            problem: BedsideError = unpack_error(answer["error"])
            raise problem
        return answer
