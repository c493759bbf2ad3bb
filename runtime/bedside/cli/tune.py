"""``bedside tune``: which engine and precision runs a bundle best on this device, and still answers right?"""

# ruff: noqa: PLC0415 - see bedside.cli

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from bedside.cli.engine import BACKENDS, MAX_THREADS, PRECISIONS, cache_option
from bedside.cli.quantities import duration
from bedside.errors import OutputError

__all__ = ["tune"]

NONE: Final = 1
"""Exit code where no engine qualified, or no plan serves."""


def _counts(_ctx: click.Context, _option: click.Parameter, value: str | None) -> tuple[int, ...]:
    parts = [] if value is None else [part.strip() for part in value.split(",")]
    if not all(
        part.isascii() and part.isdecimal() and len(part) < 9 and 0 < int(part) <= MAX_THREADS
        for part in parts
    ):
        raise click.BadParameter(f"give thread counts as 2 or 1,2,4, each at most {MAX_THREADS}")
    return tuple(dict.fromkeys(map(int, parts)))


@click.command(short_help="Find the best engine and precision for a bundle on this device.")
@click.argument("bundle")
@click.option(
    "--backend",
    "backends",
    type=click.Choice(BACKENDS),
    multiple=True,
    help="Engine to try; can be given several times.  [default: all that are installed]",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(PRECISIONS),
    multiple=True,
    help="Arithmetic to try; can be given several times.  [default: all that the bundle has]",
)
@click.option(
    "--threads",
    callback=_counts,
    metavar="N[,M...]",
    help="Thread counts to try; each has a plan, and the best of all.  [default: each engine chooses]",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 1000),
    default=8,
    show_default=True,
    metavar="N",
    help="Turns that each engine has in timing.",
)
@click.option(
    "--build-timeout",
    callback=duration,
    default="300s",
    show_default=True,
    metavar="TIME",
    help="Give up on an engine that takes longer to open.",
)
@click.option(
    "--run-timeout",
    callback=duration,
    default="60s",
    show_default=True,
    metavar="TIME",
    help="Give up on an engine that takes longer for one run.",
)
@cache_option
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
@click.option("--show", is_flag=True, help="Tune nothing: show the plan that is there, or why none is used.")
@click.pass_context
def tune(  # noqa: PLR0913 - click hands over each option
    ctx: click.Context,
    *,
    bundle: str,
    backends: tuple[str, ...],
    precisions: tuple[str, ...],
    threads: tuple[int, ...],
    rounds: int,
    build_timeout: float,
    run_timeout: float,
    cache: Path | None,
    as_json: bool,
    show: bool,
) -> None:
    """Try every engine and precision that could run BUNDLE here, and keep what is best as a plan.

    BUNDLE is a bundle's folder, zip file or name. Each engine is built in a process of its own, where a crash costs a
    line of the report. It runs the golden inputs; what leaves the bundle's tolerances is refused; the rest is timed.
    The best is the fastest, but one of more exact arithmetic that is at most 3 % slower goes first. The plan holds
    for this bundle, device, driver and these engines' versions: --backend auto then uses it.

    Exit code: 0 if a plan is kept, 1 if no engine qualified, 2 if nothing could be tried or the plan can't be kept.
    Not for clinical use.
    """
    if show and as_json:
        raise click.UsageError("--show is for people; the plan's own file, which it names, is JSON")
    from bedside.bundle import Bundle
    from bedside.cli.tuning_report import TuningReport
    from bedside.errors import BackendError
    from bedside.isolation import Limits
    from bedside.tuning import Choice, Plans, Request, keep, key_for
    from bedside.tuning import tune as run

    opened, plans = Bundle.open(bundle), Plans(cache)
    printed = TuningReport(opened, as_json=as_json)
    if show:
        if len(threads) > 1:
            raise click.UsageError("--show takes one thread count")
        key = key_for(opened, threads=threads[0] if threads else None)
        found = plans.find(key)
        printed.show(found, key.device, plans)
        if found.plan is None:
            ctx.exit(NONE)
        return
    request = Request(
        Choice(backends, precisions, threads), rounds=rounds, limits=Limits(build_timeout, run_timeout)
    )
    with printed.progress(shown=sys.stderr.isatty()) as progress:
        report = run(opened, request, plans=plans, progress=progress)
    printed.table(report)
    try:
        kept = keep(report, plans)
    except OutputError:
        printed.finish(report, None)
        raise
    printed.finish(report, kept)
    if not report.ranking:
        if all(each.unavailable for each in report.outcomes):
            raise BackendError("engine-unsupported", "nothing of what was asked for can run here; see above")
        ctx.exit(NONE)
