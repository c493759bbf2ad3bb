"""``bedside segment``: CT in, volumes out."""

# ruff: noqa: PLC0415 - see bedside.cli

from __future__ import annotations

import sys
from pathlib import Path

import click

from bedside.cli.console import printable, tell
from bedside.cli.engine import auto_options, guard_options, threads_option
from bedside.cli.quantities import duration, size

__all__ = ["segment"]

INCOMPLETE = 1
"""Exit code where some scans have no volumes."""


@click.command(short_help="Segment chest CT: lungs and opacification in millilitres.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write labels (NIfTI), a report (PNG) and the result (JSON) of each scan into FOLDER.",
)
@click.option("--probabilities", is_flag=True, help="Also write a map of each tissue's probability.")
@click.option("--resume", is_flag=True, help="Leave out scans that have a result in FOLDER.")
@click.option(
    "--dicom",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write DICOM into FOLDER: a segmentation, a report (SR) and key images, or a report of why there are none.",
)
@click.option("--labelmap", is_flag=True, help="Segment as a label map, which older viewers don't know.")
@click.option("--overwrite", is_flag=True, help="Replace the DICOM results of an earlier run.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each scan.")
@click.option(
    "--series",
    metavar="UID",
    multiple=True,
    help="Which series of PATH; can be given several times, or 'all'.",
)
@click.option("--allow-missing", is_flag=True, help="Fill in slices that can't be read; the result says so.")
@click.option(
    "--orientation", metavar="RAS", help="Where the axes of a NIfTI file point, if it does not say it."
)
@click.option("--memory", callback=size, metavar="SIZE", help="Stay below this much memory, e.g. 512MiB.")
@click.option(
    "--deadline",
    callback=duration,
    metavar="TIME",
    help="Answer within TIME, e.g. 10s, from a sample of the slices if need be.",
)
@click.option(
    "--bundle", metavar="BUNDLE", help="A bundle's folder, zip file or name.  [default: the built-in one]"
)
@auto_options
@threads_option
@guard_options
@click.pass_context
def segment(  # noqa: PLR0913 - click hands over each option
    ctx: click.Context,
    *,
    paths: tuple[Path, ...],
    out: Path | None,
    probabilities: bool,
    resume: bool,
    dicom: Path | None,
    labelmap: bool,
    overwrite: bool,
    as_json: bool,
    series: tuple[str, ...],
    allow_missing: bool,
    orientation: str | None,
    memory: int | None,
    deadline: float | None,
    bundle: str | None,
    backend: str,
    precision: str | None,
    cache: Path | None,
    threads: int | None,
    watchdog: float | None,
    fallback: bool,
) -> None:
    """Segment chest CT: volumes of both lungs, and of what is opacified in them.

    PATH is a folder of DICOM files of one series, a zip file of one, a multi-frame DICOM file, or a NIfTI file.

    Exit code: 0 if every scan has volumes, 1 if some failed or were refused, 2 if nothing could be started or
    written, 130 if interrupted. Not for clinical use.
    """
    if out is None and (probabilities or resume):
        name = "probabilities" if probabilities else "resume"
        raise click.UsageError(f"--{name} needs --out, the folder of the results")
    if dicom is None and (labelmap or overwrite):
        name = "labelmap" if labelmap else "overwrite"
        raise click.UsageError(f"--{name} needs --dicom, the folder of the DICOM results")
    if series and len(paths) > 1:
        raise click.UsageError("--series chooses within one PATH; give one")
    from bedside.cli.scan_report import ScanReport
    from bedside.engines import Auto
    from bedside.guard import Guard
    from bedside.scanning import choose_series
    from bedside.scans import ScanOutput, Scans, ScanSource
    from bedside.segmentation import Request
    from bedside.segmenter import open_ct

    chosen = choose_series(paths[0], series) if series else (None,)
    sources = [ScanSource(path, each) for path in paths for each in chosen]
    output = None if out is None else ScanOutput(out, probabilities=probabilities, resume=resume)
    with open_ct(
        bundle,
        backend,
        precision=precision,
        threads=threads,
        guard=Guard(watchdog, fallback),
        auto=Auto(cache),
    ) as segmenter:
        folder = recorder = None
        if dicom is not None:
            from bedside.results.dicom.folder import ResultFolder
            from bedside.results.dicom.scans import ScanRecorder

            folder = ResultFolder(dicom, replace=overwrite or resume)
            recorder = ScanRecorder(folder, segmenter.bundle.manifest.tissues, labelmap=labelmap)
        report = ScanReport(segmenter.bundle.manifest, out, as_json=as_json, single=len(sources) == 1)
        report.head()
        with report.progress(shown=sys.stderr.isatty()) as progress:
            request = Request(
                allow_missing=allow_missing,
                orientation=orientation,
                memory_bytes=memory,
                deadline_s=deadline,
                progress=progress,
            )
            scans = Scans(segmenter, output, request=request, recorder=recorder)
            for segmented in scans.run(sources):
                report.show(segmented)
    report.finish(scans)
    if folder is not None:
        tell(f"{folder.written} DICOM objects are in {printable(str(dicom))}")
    if not scans.complete:
        ctx.exit(INCOMPLETE)
