"""``bedside trend``: how one patient's scores and volumes went over several studies."""

# ruff: noqa: PLC0415 - see bedside.cli

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bedside.cli.console import emit, printable, tell
from bedside.cli.engine import auto_options, guard_options, threads_option

if TYPE_CHECKING:
    from bedside.bundle import Bundle

__all__ = ["trend"]

INCOMPLETE = 1
"""Exit code where some studies are left out."""


def _parse_at(
    _ctx: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> list[tuple[str, str]]:
    pairs = [value.rpartition("=") for value in values]
    for name, equals, time in pairs:
        if not (name and equals and time):
            raise click.BadParameter("give FILE=TIME, such as chest-2.png=2020-03-01T08:30")
    return [(name, time) for name, _, time in pairs]


@click.command(short_help="Follow one patient: scores and volumes over several studies.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@click.option(
    "--at",
    multiple=True,
    callback=_parse_at,
    metavar="FILE=TIME",
    help="When a study was, e.g. 2020-03-01T08:30, or a number of days; for files that don't say it.",
)
@click.option(
    "--times",
    type=click.Path(path_type=Path),
    metavar="FILE.csv",
    help="A table of such times, with the columns source and time.",
)
@click.option(
    "--patient",
    metavar="N|FILE",
    help="Which patient, where there are several: by number, or by a DICOM file of theirs.",
)
@click.option("--same-patient", is_flag=True, help="Take all studies as one patient's, whatever they say.")
@click.option("--json", "form", flag_value="json", help="Print one JSON object.")
@click.option("--csv", "form", flag_value="csv", help="Print a table of comma-separated values.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Also draw it as PNG.")
@click.option(
    "--bundle",
    metavar="BUNDLE",
    help="The bundle that scores, or that the results are of: a folder, zip file or name.  "
    "[default: the built-in ones]",
)
@auto_options
@threads_option
@guard_options
@click.option("--force", is_flag=True, help="Score also what says itself that it is no frontal chest X-ray.")
@click.pass_context
def trend(  # noqa: PLR0913 - click hands over each option
    ctx: click.Context,
    /,
    *,
    paths: tuple[Path, ...],
    at: list[tuple[str, str]],
    times: Path | None,
    patient: str | None,
    same_patient: bool,
    form: str | None,
    plot: Path | None,
    bundle: str | None,
    force: bool,
    **engine: Any,
) -> None:
    """Follow one patient: scores and volumes in order of time, and which change is more than noise.

    PATH is a folder or a JSON file of results, as bedside score and bedside segment write with --out; or a DICOM, PNG,
    JPEG or TIFF file, or a folder of them, which is scored first. With --bundle of a CT bundle it is a scan, as for
    bedside segment.

    Times and patients are read from the DICOM files that the results name. What a change has to be over is measured,
    and stands in the bundle; it is each change's by itself, so that of many some go over it by chance. A change that
    is over it comes of the picture, and need not be the patient's: posture, breath and tubes change pictures too.

    Results of different bundles are refused. Those of another precision are not, and widen what counts as noise by
    the tolerance that the bundle states.

    Exit code: 0, 1 if some studies are left out, 2 if nothing can be followed, 130 if interrupted. Not for clinical
    use.
    """
    if same_patient and patient is not None:
        raise click.UsageError(
            "--patient chooses between patients, and --same-patient says that there is one"
        )
    from bedside.bundle import Bundle
    from bedside.cli.trend_report import describe
    from bedside.dicom import Marks
    from bedside.results import write_png
    from bedside.tables import csv_cell, csv_line, json_line
    from bedside.trend import Request, follow_up, page
    from bedside.trend.document import HEADER, rows, write_document
    from bedside.trend.moments import parse_moment
    from bedside.trend.occasions import patient_of, read_times
    from bedside.trend.sources import find_manifest, sort_paths

    told = [(name, parse_moment(time)) for name, time in at]
    told += [] if times is None else read_times(times)
    marks = Marks()
    wanted = None if patient is None else int(patient) if patient.isdecimal() else patient_of(patient, marks)
    opened = None if bundle is None else Bundle.open(bundle)
    records, pictures = sort_paths(paths)
    if pictures:
        records += _answer(pictures, opened, _options(**engine), force=force)
    found = follow_up(
        records,
        Request(told, wanted, same_patient, marks),
        manifest_of=lambda ref: find_manifest(ref, opened),
    )
    for each in found.left_out:
        tell(f"{printable(each.source)}: left out: {printable(each.reason)}")
    if form == "json":
        emit(json_line(write_document(found)))
    elif form == "csv":
        for row in (HEADER, *rows(found)):
            emit(csv_line(map(csv_cell, row)).rstrip("\n"))
    else:
        emit(describe(found))
    if plot is not None:
        write_png(plot, page.render(found))
    if found.left_out:
        ctx.exit(INCOMPLETE)


def _options(  # what `open_cxr` and `open_ct` take
    *,
    backend: str,
    precision: str | None,
    cache: Path | None,
    threads: int | None,
    watchdog: float | None,
    fallback: bool,
) -> dict[str, Any]:
    from bedside.engines import Auto
    from bedside.guard import Guard

    return {
        "backend": backend,
        "precision": precision,
        "threads": threads,
        "guard": Guard(watchdog, fallback),
        "auto": Auto(cache),
    }


def _answer(
    paths: list[Path], bundle: Bundle | None, engine: dict[str, Any], *, force: bool
) -> Iterator[dict[str, Any]]:
    """The results of pictures, or of scans where the bundle is for those."""
    from tqdm import tqdm

    from bedside.inputs import Inputs
    from bedside.scorer import open_cxr
    from bedside.segmenter import open_ct

    scans = bundle is not None and bundle.manifest.task == "ct-opacity"
    inputs = Inputs(paths)
    if not scans:
        inputs.require_any()
    sources = paths if scans else [source.path for source in inputs]
    for folder, reason in inputs.unlisted:
        message = f"the folder can't be searched ({reason}); check its permissions"
        tell(f"{printable(str(folder))}: {message} [not-readable]")
    shown = tqdm(sources, unit="study", leave=False, dynamic_ncols=True, disable=not sys.stderr.isatty())
    if scans:
        with open_ct(bundle, **engine) as segmenter:
            for path in shown:
                yield segmenter.segment(path).to_json()
    else:
        with open_cxr(bundle, **engine) as scorer:
            for path in shown:
                yield scorer.score(path, force=force).to_json()
