"""CT scans, one after the other: the files of each are on the disk before the next is read.

    with Scans(segmenter, ScanOutput(folder)) as scans:
        for segmented in scans.run(sources):
            ...

The label map and the report of a scan come first and its JSON last, so that where a JSON is, all is; what an
interruption leaves before that is removed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from bedside.errors import BedsideError, InternalError
from bedside.manifest import Manifest
from bedside.nifti.writing import NiftiWriter
from bedside.opacification import SCHEMA, OpacificationResult
from bedside.results import prepare_folder, scan_name, scan_stem, write_report, write_result_json
from bedside.scan import Scan
from bedside.segmentation import LabelSink, Request
from bedside.segmenter import CtSegmenter

__all__ = ["Recorder", "ScanOutput", "ScanSource", "Scans", "Segmented"]


@dataclass(frozen=True, slots=True)
class ScanSource:
    """One scan to be segmented."""

    path: Path
    """As it was given."""
    series: str | None = None
    """Series Instance UID, where the path holds several."""


@dataclass(frozen=True, slots=True)
class ScanOutput:
    """Where results go, and which."""

    folder: Path
    """Made if it is not there."""
    probabilities: bool = False
    """Whether to write a map of each tissue's probability."""
    resume: bool = False
    """Whether to leave out scans that have a result of the same bundle and engine there."""


@dataclass(frozen=True, slots=True)
class Segmented:
    """What came of one scan."""

    result: OpacificationResult
    """Without its pictures."""
    files: dict[str, str]
    """What was written: kind (``labels``, ``report``, ``result``, ...) -> file name in the output folder."""


class Recorder(Protocol):
    """Writes results in a form of its own, beside the JSON: `bedside.results.dicom.scans.ScanRecorder`."""

    def claim(self, stem: str) -> None:
        """Make sure that a scan's results may be written, before it is read.

        Raises:
            OutputError: ``output-exists``.
        """

    def open(self, scan: Scan) -> LabelSink:
        """Take the labels of a scan.

        Raises:
            RefusedError: It can't be written in that form.
        """

    def record(self, source: ScanSource, stem: str, result: OpacificationResult) -> OpacificationResult:
        """Write what came of a scan; returns it.

        Raises:
            OutputError: It could not be written.
        """


class Scans:
    """Segments scans one by one, and writes each result as it comes.

    Args:
        segmenter: What segments; stays open.
        output: Where to write; None to write nothing.
        request: How to segment; its series, sink and pictures are set here.
        recorder: Gets the labels, and each result with its pictures, before its JSON is written.

    Raises:
        OutputError: The folder can't be written.
    """

    def __init__(
        self,
        segmenter: CtSegmenter,
        output: ScanOutput | None = None,
        *,
        request: Request | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._segmenter = segmenter
        self._recorder = recorder
        self._output = output
        self._request = request or Request()
        self.counts: Counter[str] = Counter()
        """Status -> how many results this run made."""
        self.earlier = 0
        """How many scans were left out, since they were done in an earlier run."""
        if output is not None:
            prepare_folder(output.folder)

    @property
    def complete(self) -> bool:
        """Whether every scan so far has volumes."""
        return self.counts.keys() <= {"ok"}

    def run(self, sources: Iterable[ScanSource]) -> Iterator[Segmented]:
        """Segment the scans in order. Each result is written before it is yielded.

        Raises:
            OutputError: A result could not be written; those before it are.
        """
        for source in sources:
            stem = scan_stem(source.path, series=source.series or "")
            if self._is_done(stem):
                self.earlier += 1
                continue
            segmented = self._segment(source, stem)
            self.counts[segmented.result.status] += 1
            yield segmented

    def _is_done(self, stem: str) -> bool:
        if self._output is None or not self._output.resume:
            return False
        path = self._output.folder / scan_name(stem, "result")
        try:
            record = json.loads(path.read_bytes())
        except (OSError, ValueError):  # not there, or not a result: then it is to be made
            return False
        engine = self._segmenter.engine
        return isinstance(record, dict) and (
            record.get("schema") == SCHEMA
            and record.get("status") == "ok"
            and record.get("bundle", {}).get("digest") == self._segmenter.bundle.digest
            and record.get("engine", {}).get("backend") == engine.backend
            and record.get("engine", {}).get("precision") == engine.precision
        )

    def _segment(self, source: ScanSource, stem: str) -> Segmented:
        files: dict[str, str] = {}
        with ExitStack() as discard, ExitStack() as undo:
            maps = _Maps(self._output, stem, self._segmenter.bundle.manifest)
            discard.callback(maps.discard)
            takers = [] if self._recorder is None else [self._recorder.open]
            if self._recorder is not None:
                self._recorder.claim(stem)
            if self._output is not None:
                takers.append(maps.open)
            result = self._segmenter.segment(
                source.path,
                replace(
                    self._request,
                    series=source.series,
                    sink=partial(_open_all, takers) if takers else None,
                    keep_pictures=bool(takers),
                ),
            )
            name = scan_name(stem, "result")
            if self._output is not None and result.status == "ok":
                undo.callback(self._remove, maps.names, scan_name(stem, "report"), name)
                self._remove(name)  # of an earlier run: it must not stand beside the new labels
                files |= maps.save()
                result = self._report(result, stem, files)
            if self._recorder is not None:
                result = self._recorder.record(source, stem, result)
            if self._output is not None:
                files["result"] = name
                write_result_json(self._output.folder / name, result.to_json(files))
            undo.pop_all()
        return Segmented(replace(result, pictures=()), files)

    def _remove(self, *names: str | Iterable[str]) -> None:
        """Remove files of the output folder, those that are there."""
        folder = self._output.folder if self._output is not None else Path()
        for each in names:
            for name in (each,) if isinstance(each, str) else each:
                (folder / name).unlink(missing_ok=True)

    def _report(self, result: OpacificationResult, stem: str, files: dict[str, str]) -> OpacificationResult:
        folder = self._output.folder if self._output is not None else Path()
        try:
            write_report(folder / scan_name(stem, "report"), result)
            files["report"] = scan_name(stem, "report")
        except BedsideError:
            raise
        except Exception as problem:  # noqa: BLE001 - as in segmenting: told, and the other scans go on
            return replace(result, opacification=None, error=InternalError.of(problem))
        return result


def _open_all(takers: Sequence[Callable[[Scan], LabelSink]], scan: Scan) -> LabelSink:
    return _All([take(scan) for take in takers])


class _All:
    """Several sinks as one."""

    def __init__(self, sinks: Sequence[LabelSink]) -> None:
        self._sinks = sinks

    def put(
        self,
        index: int,
        labels: npt.NDArray[np.uint8],
        probabilities: Callable[[], npt.NDArray[np.float32]],
    ) -> None:
        """Hand one slice to each."""
        for sink in self._sinks:
            sink.put(index, labels, probabilities)


class _Maps:
    """The label and probability maps of one scan: a `bedside.segmentation.LabelSink`."""

    def __init__(self, output: ScanOutput | None, stem: str, manifest: Manifest) -> None:
        self._output = output
        self._stem = stem
        self._manifest = manifest
        self._stack = ExitStack()
        self._labels: NiftiWriter | None = None
        self._classes: list[NiftiWriter] = []
        self._files: dict[str, str] = {}

    def open(self, scan: Scan) -> _Maps:
        """Begin the files of a scan."""
        self._labels = self._begin("labels", scan_name(self._stem, "labels"), scan)
        if self._output is not None and self._output.probabilities:
            for label, tissue in enumerate(self._manifest.tissues):
                name = f"{self._stem}-probability-{label}.nii.gz"
                self._classes.append(self._begin(f"probability-{label}", name, scan, tissue.name))
        return self

    def put(
        self,
        index: int,
        labels: npt.NDArray[np.uint8],
        probabilities: Callable[[], npt.NDArray[np.float32]],
    ) -> None:
        """Write one slice of each."""
        if self._labels is not None:
            self._labels.write(index, labels)
        if self._classes:
            for writer, plane in zip(self._classes, probabilities(), strict=True):
                writer.write(index, plane)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the files that were begun."""
        return tuple(self._files.values())

    def save(self) -> dict[str, str]:
        """Finish the files; returns kind -> name."""
        self._stack.close()
        return self._files

    def discard(self) -> None:
        """Remove what was not saved."""
        self._stack.__exit__(_Discarded, _Discarded(), None)

    def _begin(self, kind: str, name: str, scan: Scan, tissue: str = "") -> NiftiWriter:
        folder = self._output.folder if self._output is not None else Path()
        writer = NiftiWriter(
            folder / name,
            scan.grid,
            kind="labels" if kind == "labels" else "probability",
            name="".join(letter for letter in tissue if letter.isascii())[:15],
            layout=getattr(scan, "layout", None),
        )
        self._files[kind] = name
        return self._stack.enter_context(writer)


class _Discarded(Exception):  # noqa: N818 - a signal to the writers, never raised
    """What is not saved."""
