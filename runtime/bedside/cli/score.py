"""``bedside score``: X-rays in, severity out."""

# ruff: noqa: PLC0415 - see bedside.cli

from __future__ import annotations

import sys
from pathlib import Path

import click

from bedside.cli.console import printable, tell
from bedside.cli.engine import auto_options, guard_options, threads_option

INCOMPLETE = 1
"""Exit code where some inputs have no score."""


@click.command(short_help="Score chest X-rays: files, or folders of them.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write results.jsonl (a result a line, as they come) and results.csv (at the end) into FOLDER.",
)
@click.option("--heatmap", is_flag=True, help="Also draw into FOLDER what each score rests on, as PNG.")
@click.option("--resume", is_flag=True, help="Go on with the results in FOLDER: score only what is not done.")
@click.option(
    "--dicom",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write DICOM into FOLDER: a report (SR), the heatmap and its map, or a report of why there is no score.",
)
@click.option("--overwrite", is_flag=True, help="Replace the DICOM results of an earlier run.")
@click.option("--json", "form", flag_value="json", help="Print one JSON object a line for each input.")
@click.option("--csv", "form", flag_value="csv", help="Print a table of comma-separated values.")
@click.option(
    "--bundle", metavar="BUNDLE", help="A bundle's folder, zip file or name.  [default: the built-in one]"
)
@auto_options
@threads_option
@guard_options
@click.option(
    "--force", is_flag=True, help="Score also what is no frontal chest X-ray by its header or its looks."
)
@click.pass_context
def score(  # noqa: PLR0913 - click hands over each option
    ctx: click.Context,
    *,
    paths: tuple[Path, ...],
    out: Path | None,
    heatmap: bool,
    resume: bool,
    dicom: Path | None,
    overwrite: bool,
    form: str | None,
    bundle: str | None,
    backend: str,
    precision: str | None,
    cache: Path | None,
    threads: int | None,
    watchdog: float | None,
    fallback: bool,
    force: bool,
) -> None:
    """Score how severe COVID-19 looks in chest X-rays: geographic extent and degree of opacity.

    PATH is a DICOM, PNG, JPEG or TIFF file, or a folder, which is searched with the folders in it.

    Exit code: 0 if every input has a score, 1 if some failed or were refused, 2 if nothing could be started or
    written, 130 if interrupted. Not for clinical use.
    """
    if out is None and (heatmap or resume):
        raise click.UsageError(
            f"--{'heatmap' if heatmap else 'resume'} needs --out, the folder of the results"
        )
    if overwrite and dicom is None:
        raise click.UsageError("--overwrite needs --dicom, the folder of the DICOM results")
    from bedside.batch import Batch, Output
    from bedside.cli.interruption import deferred_interrupt
    from bedside.cli.report import Report
    from bedside.engines import Auto
    from bedside.errors import OutputError
    from bedside.guard import Guard
    from bedside.inputs import Inputs
    from bedside.scorer import open_cxr

    inputs = Inputs(paths, output=dicom if out is None else out)
    if inputs.takes_output:
        name = "dicom" if out is None else "out"
        raise click.UsageError(f"--{name} is a folder that is scored; give another, which may lie in it")
    inputs.require_any()
    folder = recorder = None
    if dicom is not None:
        from bedside.results.dicom.folder import ResultFolder
        from bedside.results.dicom.xrays import XrayRecorder

        folder = ResultFolder(dicom, replace=overwrite or resume)
        recorder = XrayRecorder(folder)
    output = None if out is None else Output(out, heatmap=heatmap, resume=resume)
    with (
        open_cxr(
            bundle,
            backend,
            precision=precision,
            threads=threads,
            guard=Guard(watchdog, fallback),
            auto=Auto(cache),
        ) as scorer,
        Batch(scorer, output, force=force, recorder=recorder) as batch,
    ):
        report = Report(form or ("detail" if inputs.single else "rows"), scorer.bundle.manifest, output)
        try:
            with (
                deferred_interrupt() as check,
                report.progress(inputs, shown=not inputs.single and sys.stderr.isatty()) as step,
            ):
                for scored in batch.run(inputs):
                    step(scored)
                    check()
        except (KeyboardInterrupt, OutputError):
            if out is not None:
                tell(
                    f"{batch.counts.total()} new results are in {printable(str(out))}; --resume goes on from there"
                )
            raise
    report.finish(batch, inputs)
    if folder is not None:
        tell(f"{folder.written} DICOM objects are in {printable(str(dicom))}")
    if not batch.complete or inputs.unlisted:
        ctx.exit(INCOMPLETE)
