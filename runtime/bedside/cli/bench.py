"""``bedside bench``: how long a study takes here, from file to result, and what that rests on."""

# ruff: noqa: PLC0415 - see bedside.cli

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bedside.cli.console import emit, printable, tell
from bedside.cli.engine import auto_options, threads_option
from bedside.cli.quantities import duration

if TYPE_CHECKING:
    from bedside.bench import Comparison, Run, Settings

__all__ = ["bench"]

INVALID: Final = 1
"""Exit code where numbers are not to be used, or not all were measured."""
GENERATORS: Final = ("auto", "loadgen", "bedside")
"""As `bedside.bench.generators.CHOICES`, which ``--help`` does not import; a test holds them alike."""
STANDARD_OUTPUT: Final = Path("-")
PAGES: Final = (".html", ".htm")
"""Endings of a page's name; browsers go by them."""


@click.command(short_help="Measure how long a study takes on this machine, and what it costs.")
@click.argument("bundle", required=False)
@click.option(
    "--input",
    "inputs",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="PATH",
    help="X-ray, folder of X-rays, or CT scan; can be given several times.  [default: a computed phantom]",
)
@auto_options
@threads_option
@click.option(
    "--watchdog",
    callback=duration,
    metavar="TIME",
    help="Run the engine in a process of its own, as bedside score --watchdog does.",
)
@click.option(
    "--duration",
    "shortest",
    callback=duration,
    metavar="TIME",
    help="Shortest run of a scenario; MLPerf's is 600s.  [default: 5s for X-rays]",
)
@click.option(
    "--queries",
    type=click.IntRange(1, 10_000_000),
    metavar="N",
    help="Fewest studies of a scenario.  [default: 100 X-rays, 5 scans]",
)
@click.option(
    "--latency-bound",
    callback=duration,
    metavar="TIME",
    help="Search the highest rate of arrivals with 99 in 100 studies done within TIME.  "
    "[default: 5 times the median; for CT no search]",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    metavar="N",
    help="Of the order of the studies, and of their arrivals.",
)
@click.option(
    "--generator",
    type=click.Choice(GENERATORS),
    default="auto",
    show_default=True,
    help="What issues the queries: MLPerf's loadgen, or bedside's own; auto takes loadgen where it is.",
)
@click.option("--long", "is_long", is_flag=True, help="Also leave the machine alone for a minute, twice.")
@click.option("--quick", is_flag=True, help="A few seconds, to see that it works; the numbers say little.")
@click.option(
    "--scratch",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where results are written in the meantime.  [default: the system's temporary folder]",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="Write everything, with every study, to FILE; - prints that alone.",
)
@click.option(
    "--report",
    "page_path",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="Also make a page with pictures, for a browser without a network; the pictures lie beside it as PNG.",
)
@click.option(
    "--compare",
    type=click.Path(path_type=Path),
    nargs=2,
    metavar="OLD NEW",
    help="Measure nothing: compare two such files.",
)
@click.pass_context
def bench(  # noqa: PLR0913 - click hands over each option
    ctx: click.Context,
    /,
    *,
    bundle: str | None,
    inputs: tuple[Path, ...],
    backend: str,
    precision: str | None,
    cache: Path | None,
    threads: int | None,
    watchdog: float | None,
    generator: str,
    scratch: Path | None,
    json_path: Path | None,
    page_path: Path | None,
    compare: tuple[Path, Path] | None,
    **amount: Any,
) -> None:
    """Measure BUNDLE on this machine: studies from file to written result, stage by stage, cold and hot.

    By MLPerf's rules, which is no result of MLPerf: one study after the other (single stream), all at once (offline),
    and at random times, as many as a bound on the latency allows (server). First results of a fresh process, of an
    engine that has kept nothing, and after a pause. Energy above idle, where the machine tells it. The golden inputs
    run first, on the very engine: what it answers, and whether the machine throttled, decide whether the numbers are
    valid.

    --compare gives ratios of two runs with intervals, and says which are noise. --report needs the extra bench.

    Exit code: 0 if the numbers are valid and complete, 1 if not, 2 if nothing could be started or written, 130 if
    interrupted; what was finished by then is kept. Not for clinical use.
    """
    if compare is not None:
        if bundle is not None or inputs:
            raise click.UsageError("--compare measures nothing: leave out BUNDLE and --input")
        _compare(*compare, json_path, page_path)
        return
    if bundle is None:
        raise click.UsageError("give a BUNDLE to measure, or --compare OLD NEW")
    from bedside.bench import Request, measure
    from bedside.bundle import Bundle
    from bedside.cli.bench_report import describe, progress
    from bedside.cli.interruption import deferred_interrupt
    from bedside.errors import OutputError

    _try_output(json_path, page_path)
    opened = Bundle.open(bundle)
    request = Request(
        backend,
        precision,
        threads,
        watchdog_s=watchdog,
        cache=cache,
        inputs=inputs,
        settings=_choose(opened.manifest.task, amount),
        generator=generator,
        scratch=scratch,
    )
    with deferred_interrupt() as check, progress(check, shown=sys.stderr.isatty()) as listener:
        outcome = measure(opened, request, listener)
    if json_path != STANDARD_OUTPUT:
        emit(describe(outcome.run))
    _write(json_path, outcome.run.to_json())
    if page_path is not None:
        _write_page(page_path, outcome.run)
    if isinstance(outcome.error, (KeyboardInterrupt, OutputError)):
        raise outcome.error
    if not (outcome.run.valid and outcome.run.complete):
        ctx.exit(INVALID)


def _choose(task: str, amount: Mapping[str, Any]) -> Settings:
    """The settings that the options for how much come to."""
    from bedside.bench import LONG, settings_for

    settings = replace(settings_for(task, quick=amount["quick"]), seed=amount["seed"])
    if amount["shortest"] is not None:
        settings = replace(settings, duration_s=amount["shortest"])
    if amount["queries"] is not None:
        settings = replace(settings, queries=amount["queries"])
    if amount["latency_bound"] is not None:
        settings = replace(settings, server=True, latency_bound_ms=amount["latency_bound"] * 1e3)
    return replace(settings, idles=(*settings.idles, LONG)) if amount["is_long"] else settings


def _compare(old: Path, new: Path, json_path: Path | None, page_path: Path | None) -> None:
    from bedside.bench import compare_runs, read_run
    from bedside.cli.bench_report import describe_comparison

    _try_output(json_path, page_path)
    runs = read_run(old), read_run(new)
    found = compare_runs(*runs)
    if json_path != STANDARD_OUTPUT:
        emit(describe_comparison(found))
    _write(json_path, found.to_json())
    if page_path is not None:
        _write_page(page_path, *runs, found=found)


def _try_output(json_path: Path | None, page_path: Path | None) -> None:
    """Refuse files that can't be written, or made, before minutes are spent on them."""
    from bedside.errors import OutputError
    from bedside.results import prepare_folder

    for option, path in (("--json", json_path), ("--report", page_path)):
        if path is None or (option == "--json" and path == STANDARD_OUTPUT):
            continue
        if path.is_dir():
            raise OutputError("output-not-writable", f"{option} names a folder; give the name of a file")
        prepare_folder(path.parent)
    if page_path is not None:
        from bedside.bench.report import require_plots

        require_plots()
        if page_path.suffix.lower() not in PAGES:
            raise click.UsageError(f"--report makes a page; give a name that ends in {PAGES[0]}")


def _write_page(path: Path, *runs: Run, found: Comparison | None = None) -> None:
    """The page of a run, or of a comparison and its two runs."""
    from bedside.bench.report import Page, comparison_section, run_section, write_page

    compared = [] if found is None else [comparison_section(found)]
    title = "bedside bench" if found is None else "bedside bench: an old run, and a new one"
    sections = [*compared, *map(run_section, runs)]
    write_page(Page(title, tuple(sections)), path)
    tell(f"a page with pictures is in {printable(str(path))}")


def _write(path: Path | None, record: dict[str, Any]) -> None:
    if path is None:
        return
    from bedside.results import write_bytes
    from bedside.tables import json_line

    if path == STANDARD_OUTPUT:
        emit(json_line(record))
    else:
        write_bytes(path, f"{json_line(record)}\n".encode())
        tell(f"all figures are in {printable(str(path))}")
