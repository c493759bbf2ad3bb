"""Many X-rays, one after the other: each result is on the disk before the next input is read.

    with Batch(scorer, output) as batch:
        for scored in batch.run(Inputs(paths)):
            ...

A killed run keeps what it had, and `Output.resume` goes on with it. Memory does not grow with the inputs: what is
handed out holds no picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol

from bedside.bundle import Manifest
from bedside.errors import BedsideError, BundleError, InternalError
from bedside.inputs import Source
from bedside.results import Journal, Run, heatmap_name, prepare_folder, write_csv, write_heatmap
from bedside.scorer import CxrScorer
from bedside.severity import SeverityResult

__all__ = ["TABLE", "Batch", "Output", "Recorder", "Scored"]

TABLE: Final = "results.csv"
"""Name of the table in an output folder."""


@dataclass(frozen=True, slots=True)
class Output:
    """Where a batch writes, and what."""

    folder: Path
    """Made if it is not there."""
    heatmap: bool = False
    """Whether to draw a heatmap of each scored picture."""
    resume: bool = False
    """Whether to go on with the results that are there."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What came of one input."""

    result: SeverityResult
    """Without its picture."""
    files: dict[str, str]
    """What was written beside it: kind (``heatmap``) -> file name in the output folder."""


class Recorder(Protocol):
    """Writes results in a form of its own, beside the journal: `bedside.results.dicom.xrays.XrayRecorder`."""

    def claim(self, source: Source) -> None:
        """Make sure that an input's results may be written, before it is scored.

        Raises:
            OutputError: ``output-exists``.
        """

    def record(self, source: Source, result: SeverityResult) -> SeverityResult:
        """Write what came of an input; returns it, or what it is if it can't be written in that form.

        Raises:
            OutputError: It could not be written.
        """


class Batch:
    """Scores inputs one by one, and writes each result as it comes. Use it in a ``with`` statement.

    Args:
        scorer: What scores; stays open.
        output: Where to write; None to write nothing.
        force: Score also what is refused otherwise; see `CxrScorer.score`.
        recorder: Gets each result with its picture, before the journal does.

    Raises:
        OutputError: The folder can't be written, holds results that are not to be gone on with, or is in use.
        BundleError: ``bundle-task`` if heatmaps are wanted and the bundle gives none.
    """

    def __init__(
        self,
        scorer: CxrScorer,
        output: Output | None = None,
        *,
        force: bool = False,
        recorder: Recorder | None = None,
    ) -> None:
        self._scorer = scorer
        self._recorder = recorder
        self._output = output
        self._force = force
        self._journal: Journal | None = None
        self.counts: Counter[str] = Counter()
        """Status -> how many results this run made."""
        self.earlier: Counter[str] = Counter()
        """Status -> how many inputs were passed over, since they were done in an earlier run."""
        if output is not None:
            if output.heatmap:
                _require_heatmaps(scorer.bundle.manifest)
            engine = scorer.engine
            kinds = ("heatmap",) if output.heatmap else ()
            run = Run(scorer.bundle.digest, engine.backend, engine.precision, force, kinds)
            self._journal = Journal(prepare_folder(output.folder), run, resume=output.resume)

    @property
    def complete(self) -> bool:
        """Whether every input so far has a score, from this run or an earlier one."""
        return (self.counts + self.earlier).keys() <= {"ok"}

    def run(self, inputs: Iterable[Source]) -> Iterator[Scored]:
        """Score the inputs in order. Each result is written before it is yielded.

        Raises:
            OutputError: A result could not be written; those before it are.
        """
        for source in inputs:
            if not self._passes_over(source):
                yield self._score(source)

    def close(self) -> None:
        """Write the table of all results, and unlock the folder."""
        if self._journal is not None and self._output is not None:
            with self._journal as journal:
                write_csv(self._output.folder / TABLE, journal.records())
            self._journal = None

    def __enter__(self) -> Batch:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write the table, also where the run was interrupted, but not where writing failed; unlock the folder."""
        if self._journal is not None and isinstance(error, BedsideError):
            self._journal.close()
        else:
            self.close()

    def _passes_over(self, source: Source) -> bool:
        if self._journal is None or self._output is None or not self._output.resume:
            return False
        name = str(source.path)
        if not self._journal.done(name):
            return False
        self.earlier[self._journal.status_of(name) or ""] += 1
        return True

    def _score(self, source: Source) -> Scored:
        draw = self._output is not None and self._output.heatmap
        if self._recorder is not None:
            self._recorder.claim(source)
        keep = draw or self._recorder is not None
        result = self._scorer.score(source.path, force=self._force, keep_picture=keep)
        if self._recorder is not None:
            result = self._recorder.record(source, result)
        files = {}
        if self._output is not None and draw and result.status == "ok":
            name = heatmap_name(source.path, source.root)
            try:
                write_heatmap(self._output.folder / name, result)
                files["heatmap"] = name
            except BedsideError:
                raise
            except Exception as problem:  # noqa: BLE001 - as in scoring: told, and the other inputs go on
                result = replace(result, severity=None, error=InternalError.of(problem))
        result = replace(result, radiograph=None, frame=None)
        if self._journal is not None:
            self._journal.append(result, files)
        self.counts[result.status] += 1
        return Scored(result, files)


def _require_heatmaps(manifest: Manifest) -> None:
    if all(output.meaning != "activation-map" for output in manifest.outputs):
        raise BundleError(
            "bundle-task", "the bundle gives no activation map, so there are no heatmaps; leave out --heatmap"
        )
