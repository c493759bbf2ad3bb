"""What ``bedside segment`` prints: each scan as it comes, and what came of all."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bedside.backends.base import EngineInfo
from bedside.bundle import Manifest
from bedside.cli.console import emit, printable, tell
from bedside.cli.volumes import describe, describe_row, head_rows
from bedside.memory import MIB
from bedside.provenance import NOTICE
from bedside.scans import Scans, Segmented
from bedside.segmentation import Progress
from bedside.tables import json_line

__all__ = ["ScanReport"]


class ScanReport:
    """Prints results.

    Args:
        manifest: Of the bundle that segments.
        folder: Where the results are written, if anywhere.
        as_json: Whether to print a JSON object a line.
        single: Whether there is one scan, which is told at length.
    """

    def __init__(self, manifest: Manifest, folder: Path | None, *, as_json: bool, single: bool) -> None:
        self._manifest = manifest
        self._folder = folder
        self._as_json = as_json
        self._single = single
        self._engine: EngineInfo | None = None
        self._start = time.perf_counter()

    @contextmanager
    def progress(self, *, shown: bool) -> Iterator[Callable[[Progress], None] | None]:
        """Show how far each scan is on standard error; yields what is to be called with it."""
        if not shown:
            yield None
            return
        from tqdm import tqdm  # noqa: PLC0415 - only for a terminal

        with tqdm(file=sys.stderr, unit="slice", leave=False, dynamic_ncols=True) as bar:

            def step(progress: Progress) -> None:
                if progress.done < bar.n or bar.total != progress.total:
                    bar.reset(progress.total)
                told = f"plan {progress.predicted_bytes / MIB:.0f} MiB"
                if progress.estimate is not None:
                    estimate = progress.estimate
                    told += f", opacity {estimate.value:.0f} mL ({estimate.low:.0f} to {estimate.high:.0f})"
                bar.set_postfix_str(told, refresh=False)
                bar.update(progress.done - bar.n)

            yield step

    def head(self) -> None:
        """Print the heading, where results are rows."""
        if not self._single and not self._as_json:
            emit(head_rows())

    def show(self, segmented: Segmented) -> None:
        """Print one result."""
        result = segmented.result
        self._engine = result.engine
        folder = self._folder or Path()
        if self._as_json:
            emit(json_line(result.to_json(segmented.files)))
        elif result.error is None:
            paths = {kind: str(folder / name) for kind, name in segmented.files.items()}
            emit(describe(result, self._manifest, paths) if self._single else describe_row(result))
        if result.error is not None:
            tell(f"{printable(result.source)}: {printable(result.error.message)} [{result.error.code}]")

    def finish(self, scans: Scans) -> None:
        """Tell what came of all scans."""
        if self._single and not scans.earlier:
            return
        parts = [f"{scans.counts['ok']} segmented"]
        parts += [
            f"{scans.counts[status]} {status}" for status in ("refused", "failed") if scans.counts[status]
        ]
        if scans.earlier:
            parts.append(f"{scans.earlier} done earlier")
        put = tell if self._as_json else emit
        put(f"{', '.join(parts)}, in {time.perf_counter() - self._start:.1f} s")
        if self._engine is not None and self._engine.chosen != "asked":
            put(f"engine: {self._engine.line}")
        if self._folder is not None:
            put(f"results are in {printable(str(self._folder))}")
        if not self._as_json and not self._single and scans.counts["ok"]:
            put(NOTICE)
