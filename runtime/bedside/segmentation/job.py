"""What happens to one scan: read, predict and measure, all at once.

While the network works on some slices, the next are decoded and those before are measured and handed on. Networks
that see slices take them from coarse to fine, so that at any time the volume can be estimated; networks of volumes
take them in order. What is held does not grow with the number of slices, but for a few kilobytes each.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from bedside.backends import Backend
from bedside.ct import Tally, interpret
from bedside.ct.quality import check_found, check_tile
from bedside.ct.sampling import FEWEST, Estimate, coarse_to_fine
from bedside.dicom import DicomSeries
from bedside.errors import LimitError
from bedside.hounsfield import check_hu, sample_slices
from bedside.manifest import Manifest
from bedside.opacification import Opacification, OpacificationResult, Picture
from bedside.scan import Entry, Scan
from bedside.scanning import open_scan
from bedside.segmentation.budget import Warm, fit_memory
from bedside.segmentation.network import Segmentor
from bedside.timing import Stages

__all__ = ["UNREAD", "Job", "LabelSink", "Progress", "Request"]

UNREAD: Final = 255
"""Label of a slice that was not read before the deadline."""
N_PICTURES: Final = 12
"""Slices that a report shows."""
N_PROBES: Final = 9
"""Slices that are looked at before the network runs: enough to meet lung and soft tissue in any chest."""
RESERVE_S: Final = 0.3
"""Kept of a deadline for the end: measuring what is still on its way, and adding up."""
PATIENCE: Final = 1.5
"""How many times longer than the slabs before the next one may take, where there is a deadline."""
QUICK: Final = 0.1
"""Share of the time to a deadline that one slab may take."""

_Labels = npt.NDArray[np.uint8]
_Float32 = npt.NDArray[np.float32]


class LabelSink(Protocol):
    """Takes the labels of a scan, slice by slice, in any order. Slices that never come were not read."""

    def put(self, index: int, labels: _Labels, probabilities: Callable[[], _Float32]) -> None:
        """Take a slice.

        Args:
            index: Which slice of the scan.
            labels: ``(Y, X)`` uint8.
            probabilities: Gives the probabilities ``(K, Y, X)`` float32, which takes its time.
        """


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a scan is."""

    done: int
    """Slices that were measured."""
    total: int
    """Slices of the scan."""
    estimate: Estimate | None
    """Opacified volume of the whole scan by now, mL; None while too few slices are in."""
    predicted_bytes: int
    """Most memory that the plan foretells, bytes."""


@dataclass(frozen=True, slots=True)
class Request:
    """How one scan is to be segmented."""

    series: str | None = None
    """Series Instance UID, where the input holds several series."""
    allow_missing: bool = False
    """Fill in slices that can't be read; the ledger says so."""
    orientation: str | None = None
    """Where the axes i, j, k of a NIfTI file point, e.g. ``RAS``, where the file does not say it."""
    memory_bytes: int | None = None
    """Most that this process and its children may hold, proportional set size; None for no limit."""
    deadline_s: float | None = None
    """Seconds from the call to the answer, which then may rest on a sample of the slices; None for all slices."""
    keep_pictures: bool = False
    """Keep some slices in the result, as a report needs them: 1 MiB each."""
    sink: Callable[[Scan], LabelSink] | None = None
    """Called once with the scan, when its labels are about to come; takes them from a thread of its own."""
    progress: Callable[[Progress], None] | None = None
    """Called after each slab, from the calling thread. What it raises ends the scan, and is raised."""


@dataclass(frozen=True, slots=True)
class _Slab:
    slices: Sequence[int]
    hu: _Float32
    """``(n, Y, X)``."""
    images: _Float32
    """``(n, C, h, w)``."""


class Job:
    """One scan's way through. Used once.

    Args:
        manifest: Of the bundle.
        backend: An engine that holds its model.
        request: How.
        warm: What the engine ran before, in other jobs; added to.
    """

    def __init__(
        self, manifest: Manifest, backend: Backend, request: Request, warm: Warm | None = None
    ) -> None:
        self.clock = Stages()
        """Runs from here on."""
        self.ledger: tuple[Entry, ...] = ()
        """Of the scan, also where it is refused later."""
        self.series = ""
        """Series Instance UID, where there is one."""
        self.predicted_bytes = 0
        """What the plan foretold; 0 before there is one."""
        self._manifest = manifest
        self._backend = backend
        self._request = request
        self._warm = warm

    def run(self, source: str | Path | Scan, blank: OpacificationResult) -> OpacificationResult:
        """Segment the scan; returns ``blank``, filled in.

        Raises:
            BedsideError: Whatever keeps it from an answer.
        """
        with ExitStack() as stack:
            with self.clock.measure("open"):
                scan = self._open(source, stack)
                check_hu(sample_slices(scan.read, scan.grid.shape[0], N_PROBES))
            with self.clock.measure("plan"):
                fit = fit_memory(
                    self._manifest,
                    self._backend,
                    scan.grid,
                    limit=self._request.memory_bytes,
                    pictures=N_PICTURES if self._request.keep_pictures else 0,
                    warm=self._warm,
                )
            self.predicted_bytes = fit.predicted_bytes
            tally = Tally(scan.grid, self._manifest.tissues)
            packed: dict[int, bytes] | None = {} if self._request.keep_pictures else None
            sink = None if self._request.sink is None else self._request.sink(scan)
            work = _Work(scan, fit.segmentor, tally, sink, packed, self.clock)
            if fit.segmentor.plan.volumetric:
                self._run_in_order(work, fit.slab)
            else:
                self._run_slices(work, fit.slab)
            self.ledger = scan.ledger  # a slice that could not be decoded may have been added
            with self.clock.measure("interpret"):
                found = interpret(tally, self._manifest, scan.ledger)
                notes = check_found(found) + check_tile(fit.segmentor.plan, self._manifest)
                pictures = () if packed is None else _take_pictures(scan, found, packed)
        return replace(
            blank,
            opacification=found,
            quality=notes,
            shape=scan.grid.shape,
            spacing_mm=scan.grid.spacing_mm,
            pictures=pictures,
        )

    def _open(self, source: str | Path | Scan, stack: ExitStack) -> Scan:
        if not isinstance(source, str | Path):
            scan: Scan = source
        else:
            request = self._request
            scan = open_scan(
                source,
                series=request.series,
                allow_missing=request.allow_missing,
                orientation=request.orientation,
            )
            stack.callback(scan.close)
        self.ledger = scan.ledger
        if isinstance(scan, DicomSeries):
            self.series = scan.instances.series_uid
        return scan

    def _run_slices(self, work: _Work, most: int) -> None:
        n = work.scan.grid.shape[0]
        ordered = work.segmentor.context and self._request.deadline_s is None
        order = deque(range(n) if ordered else coarse_to_fine(n).tolist())
        start = self.clock.elapsed_s
        done = 0
        with (
            ThreadPoolExecutor(1, "bedside-read") as reader,
            ThreadPoolExecutor(1, "bedside-measure") as measurer,
        ):
            behind: Future[None] | None = None
            first = most if self._request.deadline_s is None else 1
            ahead: Future[_Slab] | None = reader.submit(work.load, _pop(order, first))
            while ahead is not None:
                slab = ahead.result()
                following = _pop(order, self._pace(len(slab.slices), done, most, start))
                ahead = reader.submit(work.load, following) if following else None
                probabilities = work.predict(slab)
                if behind is not None:
                    behind.result()
                behind = measurer.submit(work.finish, slab, probabilities)
                done += len(slab.slices)
                self._tell(work, done)
            if behind is not None:
                behind.result()
        if done < min(FEWEST, n):
            needed = (self.clock.elapsed_s - start) / done * FEWEST * PATIENCE + start + RESERVE_S
            raise LimitError(
                "deadline-too-short",
                f"{done} slices were measured before the deadline, and {FEWEST} are the fewest that tell a volume; "
                f"give about {needed:.0f} s",
            )

    def _pace(self, ahead: int, done: int, most: int, start: float) -> int:
        """How many slices to take next, while ``ahead`` are on their way: 0 where the deadline would be missed."""
        if self._request.deadline_s is None:
            return most
        left = self._request.deadline_s - RESERVE_S - self.clock.elapsed_s
        if done == 0:
            return 1 if left > 0 else 0
        each = (self.clock.elapsed_s - start) / done
        slices = max(1, min(most, int(self._request.deadline_s * QUICK / each)))
        return slices if (ahead + slices) * each * PATIENCE <= left else 0

    def _run_in_order(self, work: _Work, slab: int) -> None:
        if self._request.deadline_s is not None:
            raise LimitError(
                "deadline-too-short",
                "this bundle's network takes volumes, so it can't answer on a sample of slices; leave --deadline out",
            )
        n = work.scan.grid.shape[0]
        held: deque[tuple[int, _Float32]] = deque()

        def load() -> Iterator[_Float32]:
            with ThreadPoolExecutor(1, "bedside-read") as reader:
                chunks = [range(first, min(n, first + slab)) for first in range(0, n, slab)]
                ahead = reader.submit(work.load, chunks[0])
                for following in [*chunks[1:], None]:
                    loaded = ahead.result()
                    if following is not None:
                        ahead = reader.submit(work.load, following)
                    held.extend(zip(loaded.slices, loaded.hu, strict=True))
                    yield loaded.images

        done = 0
        for probabilities in work.stream(load()):
            ready = [held.popleft() for _ in range(len(probabilities))]
            hu = np.stack([each for _, each in ready])
            work.finish(_Slab([index for index, _ in ready], hu, hu[:0]), probabilities)
            done += len(ready)
            self._tell(work, done)

    def _tell(self, work: _Work, done: int) -> None:
        if self._request.progress is not None:
            n = work.scan.grid.shape[0]
            estimate = None if work.segmentor.plan.volumetric else work.tally.opacity_so_far()
            self._request.progress(Progress(done, n, estimate, self.predicted_bytes))


@dataclass(frozen=True, slots=True)
class _Work:
    """The three steps, each of which runs in a thread of its own."""

    scan: Scan
    segmentor: Segmentor
    tally: Tally
    sink: LabelSink | None
    packed: dict[int, bytes] | None
    """Labels, deflated, where pictures are wanted."""
    clock: Stages

    def load(self, slices: Sequence[int]) -> _Slab:
        """Decode slices, with their neighbours where the network sees those, and prepare them."""
        around = [self.segmentor.neighbours(index) for index in slices]
        needed = sorted({index for each in around for index in each})
        place = {index: at for at, index in enumerate(needed)}
        with self.clock.measure("read"):
            hu = self.scan.read(needed)
        with self.clock.measure("preprocess"):
            images = self.segmentor.prepare(hu)[[[place[index] for index in each] for each in around]]
        own = [place[index] for index in slices]
        return _Slab(slices, hu if own == list(range(len(hu))) else hu[own], images)

    def predict(self, slab: _Slab) -> _Float32:
        with self.clock.measure("inference"):
            return self.segmentor.predict(slab.images)

    def stream(self, images: Iterator[_Float32]) -> Iterator[_Float32]:
        answers = self.segmentor.stream(images)
        while True:
            with self.clock.measure("inference"):
                answer = next(answers, None)
            if answer is None:
                return
            yield answer

    def finish(self, slab: _Slab, probabilities: _Float32) -> None:
        """Measure slices and hand their labels on."""
        for index, hu, each in zip(slab.slices, slab.hu, probabilities, strict=True):
            with self.clock.measure("measure"):
                labels = self.segmentor.decide(each)
                self.tally.add(index, hu, labels, each)
            with self.clock.measure("write"):
                if self.packed is not None:
                    self.packed[index] = zlib.compress(labels.tobytes(), 1)
                if self.sink is not None:
                    self.sink.put(index, labels, partial(self.segmentor.spread, each))


def _pop(order: deque[int], count: int) -> list[int]:
    return sorted(order.popleft() for _ in range(min(count, len(order))))


def _take_pictures(scan: Scan, found: Opacification, packed: dict[int, bytes]) -> tuple[Picture, ...]:
    """Slices for a report, evenly spread over the lungs."""
    largest = max(point.lung_cm2 for point in found.curve)
    shown = [point for point in found.curve if point.lung_cm2 > 0.02 * largest]
    first, last = shown[0].index, shown[-1].index
    wanted = np.linspace(first, last, N_PICTURES + 2)[1:-1]
    chosen = sorted({min(shown, key=lambda point: abs(point.index - each)).index for each in wanted})
    _, *plane = scan.grid.shape
    return tuple(
        Picture(
            index=index,
            z_mm=scan.grid.z_mm(index),
            hu=hu,
            labels=np.frombuffer(zlib.decompress(packed[index]), np.uint8).reshape(plane),
            spacing_mm=scan.grid.spacing_mm[1:],
        )
        for index, hu in zip(chosen, scan.read(chosen), strict=True)
    )
