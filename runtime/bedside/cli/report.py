"""What ``bedside score`` prints: each result as it comes, and what came of all."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bedside.backends.base import EngineInfo
from bedside.batch import TABLE, Batch, Output, Scored
from bedside.bundle import Manifest
from bedside.cli.console import emit, printable, tell
from bedside.cli.detail import describe, describe_row, head_rows
from bedside.inputs import Inputs
from bedside.provenance import NOTICE
from bedside.results import JOURNAL
from bedside.tables import csv_header, csv_line, csv_row, json_line

__all__ = ["Report"]


class Report:
    """Prints results.

    Args:
        form: ``json``, ``csv``, ``rows`` (a line each) or ``detail`` (a block each).
        manifest: Of the bundle that scores.
        output: Where the results are written, if anywhere.
    """

    def __init__(self, form: str, manifest: Manifest, output: Output | None) -> None:
        self._form = form
        self._manifest = manifest
        self._output = output
        self._engine: EngineInfo | None = None
        self._start = time.perf_counter()

    @contextmanager
    def progress(self, inputs: Inputs, *, shown: bool) -> Iterator[Callable[[Scored], None]]:
        """Show how far the run is on standard error; yields what is to be called with each result."""
        if self._form == "csv":
            emit(csv_line(csv_header()).rstrip("\n"))
        elif self._form == "rows":
            emit(head_rows(self._manifest))
        if not shown:
            yield self._show
            return
        from tqdm import tqdm  # noqa: PLC0415 - only for a terminal

        total = inputs.count()
        with tqdm(total=total, file=sys.stderr, unit="image", leave=False, dynamic_ncols=True) as bar:

            def step(scored: Scored) -> None:
                bar.clear()
                self._show(scored)
                bar.total = total - inputs.skipped
                bar.update()
                bar.refresh()

            yield step

    def finish(self, batch: Batch, inputs: Inputs) -> None:
        """Tell what came of all inputs, once everything is written."""
        for folder, reason in inputs.unlisted:
            message = f"the folder can't be searched ({reason}); check its permissions"
            tell(f"{printable(str(folder))}: {message} [not-readable]")
        if inputs.skipped:
            files = "1 file that is" if inputs.skipped == 1 else f"{inputs.skipped} files that are"
            tell(f"note: skipped {files} hidden, or no DICOM, PNG, JPEG or TIFF")
        put = emit if self._form in ("rows", "detail") else tell
        if not inputs.single or batch.earlier:
            put(self._sum_up(batch))
            if self._engine is not None and self._engine.chosen != "asked":
                put(f"engine: {self._engine.line}")
        if self._output is not None:
            heatmaps = " and heatmaps" if self._output.heatmap else ""
            put(f"results are in {printable(str(self._output.folder))}: {JOURNAL}, {TABLE}{heatmaps}")
        if self._form in ("rows", "detail") and batch.counts["ok"]:
            put(NOTICE)

    def _show(self, scored: Scored) -> None:
        result = scored.result
        self._engine = result.engine
        if self._form == "json":
            emit(json_line(result.to_json(scored.files)))
        elif self._form == "csv":
            emit(csv_line(csv_row(result.to_json(scored.files)).values()).rstrip("\n"))
        elif result.error is None:
            emit(
                describe_row(result)
                if self._form == "rows"
                else describe(scored, self._manifest, self._output)
            )
        if result.error is not None:
            tell(f"{printable(result.source)}: {printable(result.error.message)} [{result.error.code}]")

    def _sum_up(self, batch: Batch) -> str:
        parts = [f"{batch.counts['ok']} scored"]
        parts += [
            f"{batch.counts[status]} {status}" for status in ("refused", "failed") if batch.counts[status]
        ]
        if batch.earlier:
            refused = batch.earlier["refused"]
            parts.append(
                f"{batch.earlier.total()} done earlier" + (f" ({refused} of them refused)" if refused else "")
            )
        return f"{', '.join(parts)}, in {time.perf_counter() - self._start:.1f} s"
