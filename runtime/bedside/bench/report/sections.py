"""A run of ``bedside bench`` as a part of a page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bedside.bench.record import Run
from bedside.bench.report.conditions import parity_table, run_facts, state_table
from bedside.bench.report.latency import plot_latency, plot_server, scenario_table
from bedside.bench.report.page import Plot, Section, Table, Verdict
from bedside.bench.report.stages import plot_stages, plot_starts

__all__ = ["INTERRUPTED", "INVALID", "judge_run", "run_section"]

INVALID: Final = "NOT VALID: these figures may not be used"
INTERRUPTED: Final = "NOT COMPLETE: only what was measured until it ended"


def run_section(run: Run) -> Section:
    """A run, with its pictures, tables and what it was measured on.

    Raises:
        MissingExtraError: The extra ``bench`` is not installed.
    """
    conditions = run.conditions
    tables: list[Table] = []
    if run.scenarios:
        tables.append(scenario_table(run.scenarios))
    if run.parity is not None:
        tables.append(parity_table(run.parity))
    tables.append(state_table(conditions.before, conditions.after))
    return Section(
        title=f"bedside bench: {run.bundle.name} {run.bundle.version}, {run.engine.backend} {run.engine.precision}",
        verdict=judge_run(run),
        facts=tuple(run_facts(run)),
        plots=tuple(_plots(run)),
        tables=tuple(tables),
        notes=run.notes,
    )


def judge_run(run: Run) -> Verdict:
    """Whether a run may be used."""
    if not run.valid:
        return Verdict(passed=False, word=INVALID, reasons=run.reasons)
    if not run.complete:
        return Verdict(passed=False, word=INTERRUPTED, reasons=run.reasons)
    return Verdict(passed=True, word="Valid and complete", reasons=run.reasons)


def _plots(run: Run) -> Iterator[Plot]:
    verdict = judge_run(run)
    wrong = "" if verdict.passed else f"{verdict.word.partition(':')[0]}: {'; '.join(run.reasons)}"
    caption = f"{run.bundle.name} {run.bundle.version} on {run.engine.line}; {run.conditions.device.name}"
    stream = run.scenario("single-stream")
    if stream is not None and stream.queries.samples:
        yield plot_latency(stream, caption, wrong=wrong)
        if any(stream.queries.stages_ms.values()):
            yield plot_stages(stream, caption, overlapping=run.overlapping, wrong=wrong)
        servers = [each for each in run.scenarios if each.name == "server" and each.queries.samples]
        if servers:
            yield plot_server(stream, servers, run.search, caption, wrong=wrong)
    hot = None if stream is None or stream.latency is None else stream.latency.p50_ms
    starts = plot_starts(run.starts, hot, caption, wrong=wrong)
    if starts is not None:
        yield starts
