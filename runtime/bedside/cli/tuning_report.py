"""What ``bedside tune`` prints: what came of each engine, which is the best, and where that is kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bedside.bundle import Bundle
from bedside.cli.console import columns, emit, field, printable
from bedside.memory import MIB
from bedside.provenance import NOTICE
from bedside.tables import json_line
from bedside.tuning import Found, Outcome, Plans, Report

__all__ = ["TuningReport"]

HEAD = (
    "",
    "engine",
    "precision",
    "threads",
    "verdict",
    "worst difference",
    "open s",
    "median ms",
    "p90 ms",
    "peak MiB",
)
BAR = "{desc}|{bar}| {n_fmt}/{total_fmt} [{elapsed}]"
"""Without a rate: steps take from a second to minutes."""
NUMBERS = 4
"""How many columns at the end are numbers, which stand below their last digit."""


class TuningReport:
    """Prints a tuning, or a plan.

    Args:
        bundle: The opened bundle.
        as_json: Whether to print one JSON object.
    """

    def __init__(self, bundle: Bundle, *, as_json: bool) -> None:
        self._bundle = bundle
        self._as_json = as_json

    @contextmanager
    def progress(self, *, shown: bool) -> Iterator[Callable[[str, int, int], None] | None]:
        """Show how far the tuning is on standard error; yields what is to be called with each step."""
        if not shown:
            yield None
            return
        from tqdm import tqdm  # noqa: PLC0415 - only for a terminal

        with tqdm(total=1, file=sys.stderr, leave=False, dynamic_ncols=True, bar_format=BAR) as bar:

            def step(phase: str, done: int, total: int) -> None:
                bar.set_description_str(f"{printable(phase)} ", refresh=False)
                bar.total, bar.n = total, done
                bar.refresh()

            yield step

    def table(self, report: Report) -> None:
        """Print what came of each candidate."""
        if self._as_json:
            return
        self._head(report.key.device)
        shape = " x ".join(map(str, report.shape))
        emit(
            field(
                "timed",
                f"an input of {shape}, in {report.rounds} round{'s' * (report.rounds > 1)}; ms a picture or tile",
            )
        )
        emit("")
        places = {outcome.candidate: place for place, outcome in enumerate(report.ranking, 1)}
        ordered = sorted(
            report.outcomes, key=lambda each: places.get(each.candidate, len(report.outcomes) + 1)
        )
        emit(_table([_row(each, places.get(each.candidate)) for each in ordered]))
        emit("")
        for number, each in enumerate(each for each in ordered if not each.passed):
            emit(field("" if number else "notes", f"{each.candidate}: {_reason(each)}"))

    def finish(self, report: Report, kept: Path | None) -> None:
        """Print what is the best, and where it is kept.

        Args:
            report: What came of the tuning.
            kept: The plan's file; None if none was written.
        """
        if self._as_json:
            emit(json_line(report.to_json(None if kept is None else str(kept))))
            return
        if not report.ranking:
            emit(field("best", "none: no engine qualified, so --backend auto stays with onnxruntime fp32"))
        else:
            best = report.ranking[0]
            emit(field("best", f"{best.candidate}, {_number(best.median_ms, 1)} ms"))
        if kept is not None:
            emit(field("plan", f"{kept}; --backend auto uses it"))
        emit(NOTICE)

    def show(self, found: Found, device: str, plans: Plans) -> None:
        """Print the plan that serves, or why none does."""
        self._head(device)
        emit(field("cache", str(plans.folder)))
        plan = found.plan
        if plan is None:
            emit(field("plan", "none: --backend auto runs onnxruntime fp32; bedside tune makes a plan"))
        else:
            emit(field("plan", f"{plans.path(plan.key)}, made {plan.made}"))
            for place, planned in enumerate(plan.ranking, 1):
                told = (
                    f"{planned.candidate}, {planned.median_ms:.1f} ms; {planned.worst} differs by "
                    f"{planned.difference:.2g} (at most {planned.tolerance:g}); version {_short(planned.version)}"
                )
                emit(field("best" if place == 1 else f"then ({place})", told))
        for rejected in found.rejected:
            emit(field("not used", f"{rejected.name}: {'; '.join(rejected.reasons)}"))
        emit(NOTICE)

    def _head(self, device: str) -> None:
        manifest = self._bundle.manifest
        emit(field("bundle", f"{manifest.name} {manifest.version}, sha256 {self._bundle.digest[:12]}"))
        emit(field("device", device))


def _row(outcome: Outcome, place: int | None) -> tuple[str, ...]:
    candidate, worst = outcome.candidate, outcome.worst
    return (
        "" if place is None else "best" if place == 1 else str(place),
        f"{candidate.backend} {_short(outcome.engine.version)}" if outcome.engine else candidate.backend,
        candidate.precision,
        "" if candidate.threads is None else str(candidate.threads),
        outcome.word,
        "" if worst is None else f"{worst.score} {worst.difference:.2g} (at most {worst.tolerance:g})",
        _number(outcome.open_s, 1),
        _number(outcome.median_ms, 1),
        _number(outcome.p90_ms, 1),
        _number(None if outcome.peak_bytes is None else outcome.peak_bytes / MIB, 0),
    )


def _reason(outcome: Outcome) -> str:
    """Why a candidate did not qualify."""
    if outcome.error is not None:
        return f"{outcome.word}: {outcome.error.message} [{outcome.error.code}]"
    worst = outcome.worst
    told = (
        [] if worst is None or worst.passed else [f"{worst.score} differs by more than {worst.tolerance:g}"]
    )
    return f"{outcome.word}: {'; '.join([*told, *([outcome.doubt] if outcome.doubt else [])])}"


def _table(rows: list[tuple[str, ...]]) -> str:
    """Rows below `HEAD`, numbers to the right of their columns, and no column that is empty."""
    table = [HEAD, *rows]
    first = len(HEAD) - NUMBERS
    widths = [max(len(row[column]) for row in table) for column in range(len(HEAD))]
    shown = [column for column in range(len(HEAD)) if column == 0 or any(row[column] for row in rows)]
    return columns(
        [row[column].rjust(widths[column]) if column >= first else row[column] for column in shown]
        for row in table
    )


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _short(version: str) -> str:
    """``2026.4.1`` of ``2026.4.1-22982-e213a147257-releases/2026/4``."""
    return version.partition("-")[0]
