"""A study from file to written result, stage by stage, as ``bedside score`` and ``bedside segment`` do it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from bedside.backends.base import Backend, EngineInfo
from bedside.batch import Batch, Output
from bedside.bench.figures import STAGES, Difference, Parity, Sample
from bedside.bundle import Bundle
from bedside.engines import Auto, EngineRequest, open_engine
from bedside.errors import BundleError
from bedside.guard import Guard
from bedside.inputs import Source
from bedside.reading import load_decoders, read_radiograph
from bedside.results import prepare_folder
from bedside.scanning import open_scan
from bedside.scans import ScanOutput, Scans, ScanSource
from bedside.scorer import CxrScorer
from bedside.segmenter import CtSegmenter
from bedside.verification import verify_golden

__all__ = ["Answer", "Order", "Studies"]

BLOCK_BYTES: Final = 1 << 20
"""How much of a file is read at once; small enough to stay in a core's cache."""
OF_SCORING: Final = {"read": "decode"}
"""Stage of `CxrScorer.score` -> the same here, where it has another name."""
OF_SEGMENTING: Final = {"open": "decode", "read": "decode", "plan": "preprocess", "measure": "interpret"}
"""Stage of `CtSegmenter.segment` -> the same here, where it has another name."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is measured, and how."""

    location: str
    """Of the bundle."""
    digest: str
    """Of the same."""
    backend: str
    """One of `bedside.backends.BACKENDS`, or ``auto``."""
    precision: str | None
    """One of `bedside.backends.PRECISIONS`; None for fp32, or with ``auto`` for what is best."""
    threads: int | None
    """Threads inside one inference; None leaves it to the engine."""
    watchdog_s: float | None
    """Seconds after which an engine in a process of its own counts as hung; None has it in this one."""
    cache: str | None
    """Folder of plans and built engines."""
    scratch: str
    """Folder that results are written to, in a folder of this process' own; exists."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a study took."""

    done_ns: int
    """When its result was written, by `time.monotonic_ns`, which all processes share."""
    service_ms: float
    """All of it."""
    stages_ms: dict[str, float]
    """One of `bedside.bench.figures.STAGES` -> time in it."""


class Studies:
    """Opens a bundle on an engine, and does studies one after the other. Use it in a ``with`` statement.

    Args:
        order: What is measured, and how.
        opener: Opens the engine.

    Raises:
        BedsideError: As `bedside.scorer.open_cxr` and `bedside.segmenter.open_ct`; ``bundle-altered`` if the bundle is
            not the one that was ordered; OutputError if the scratch folder can't be written.
    """

    def __init__(
        self, order: Order, opener: Callable[[Bundle, EngineRequest], Backend] = open_engine
    ) -> None:
        self._bundle = Bundle.open(Path(order.location))
        if self._bundle.digest != order.digest:
            raise BundleError("bundle-altered", "the bundle was changed since it was opened; open it again")
        load_decoders()
        request = EngineRequest(
            order.backend,
            order.precision,
            order.threads,
            guard=Guard(order.watchdog_s),
            auto=Auto(None if order.cache is None else Path(order.cache)),
        )
        scratch = prepare_folder(Path(order.scratch) / f"results-{os.getpid()}")
        self._backend = opener(self._bundle, request)
        self._paths: list[Path] = []
        self._buffer = bytearray(BLOCK_BYTES)
        try:
            self._job: _Scoring | _Segmenting = (
                _Segmenting(CtSegmenter(self._bundle, self._backend), scratch)
                if self._bundle.manifest.task == "ct-opacity"
                else _Scoring(CxrScorer(self._bundle, self._backend), scratch)
            )
        except BaseException:
            self._backend.close()
            raise

    @property
    def engine(self) -> EngineInfo:
        """What runs the network."""
        return self._backend.info

    def add(self, path: Path) -> int:
        """Take a file, or a scan's folder, as the next sample; returns its number."""
        self._paths.append(path)
        return len(self._paths) - 1

    def look(self, sample: int) -> Sample:
        """Read a sample, and say how large it is.

        Raises:
            BedsideError: Why it can't be read.
        """
        path = self._paths[sample]
        sizes = [each.stat().st_size for each in _files(path)]
        shape = self._job.look(path)
        return Sample(shape, sum(sizes), len(sizes))

    def verify(self) -> Parity:
        """Run the golden inputs on this very engine.

        Raises:
            BedsideError: As `bedside.verification.verify_golden`.
        """
        verdict = verify_golden(self._bundle, self._backend)
        finite = float("inf")
        return Parity(
            verdict.passed,
            verdict.images,
            tuple(
                Difference(each.score, each.difference if each.difference < finite else None, each.tolerance)
                for each in verdict.agreements
            ),
        )

    def run(self, sample: int) -> Answer:
        """Do a sample's study, from file to written result.

        Raises:
            BedsideError: Why it has no answer, or can't be written.
        """
        path = self._paths[sample]
        begin = time.monotonic_ns()
        for each in _files(path):
            self._fetch(each)
        fetched = time.monotonic_ns()
        told = self._job.run(path)
        done = time.monotonic_ns()
        stages = dict.fromkeys(STAGES, 0.0)
        stages["read"] = (fetched - begin) / 1e6
        for stage, spent in told.items():
            name = self._job.names.get(stage, stage)
            if name != "total":
                stages[name] += spent
        stages["write"] += max(0.0, (done - fetched) / 1e6 - told["total"])
        if not self._job.overlapping:
            inside = sum(spent for stage, spent in told.items() if stage != "total")
            stages["other"] = max(0.0, told["total"] - inside)
        return Answer(done, (done - begin) / 1e6, stages)

    def close(self) -> None:
        """Free the engine, and finish what is written."""
        self._job.close()

    def __enter__(self) -> Studies:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Free the engine."""
        self.close()

    def _fetch(self, path: Path) -> None:
        """Have a file's bytes come from storage into the system's cache."""
        with path.open("rb", buffering=0) as stream:
            while stream.readinto(self._buffer):
                pass


class _Scoring:
    """X-rays, as ``bedside score --out`` has them."""

    names: Mapping[str, str] = OF_SCORING
    overlapping = False

    def __init__(self, scorer: CxrScorer, scratch: Path) -> None:
        self._scorer = scorer
        self._batch = Batch(scorer, Output(scratch / "scores"))

    def look(self, path: Path) -> tuple[int, ...]:
        return read_radiograph(path).pixels.shape

    def run(self, path: Path) -> dict[str, float]:
        (scored,) = self._batch.run([Source(path)])
        return scored.result.raise_for_status().timing_ms

    def close(self) -> None:
        self._batch.close()
        self._scorer.close()


class _Segmenting:
    """CT scans, as ``bedside segment --out`` has them."""

    names: Mapping[str, str] = OF_SEGMENTING
    overlapping = True

    def __init__(self, segmenter: CtSegmenter, scratch: Path) -> None:
        self._segmenter = segmenter
        self._scans = Scans(segmenter, ScanOutput(scratch / "volumes"))

    def look(self, path: Path) -> tuple[int, ...]:
        scan = open_scan(path)
        try:
            return scan.grid.shape
        finally:
            scan.close()

    def run(self, path: Path) -> dict[str, float]:
        (segmented,) = self._scans.run([ScanSource(path)])
        return segmented.result.raise_for_status().timing_ms

    def close(self) -> None:
        self._segmenter.close()


def _files(path: Path) -> Iterator[Path]:
    """The files of a sample: itself, or those in its folder."""
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            each = Path(folder, name)
            if each.is_file():
                yield each
