"""``bedside compare``: how well readers agree, on labels, volumes or scores."""

# ruff: noqa: PLC0415 - see bedside.cli

from __future__ import annotations

import sys
from pathlib import Path

import click

from bedside.cli.console import emit, printable, tell


def _parse_labels(
    _ctx: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> tuple[frozenset[int], ...]:
    """Label numbers with commas between, a set each time the option is given."""
    found = []
    for value in values:
        numbers = [number.strip() for number in value.split(",")]
        if not all(number.isascii() and number.isdigit() and 1 <= int(number) <= 255 for number in numbers):
            raise click.BadParameter(
                f"{value!r} is not numbers from 1 to 255 with commas between, such as 3,4"
            )
        found.append(frozenset(map(int, numbers)))
    return tuple(found)


@click.command(short_help="Compare readers: label maps, or results of bedside.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="A B [C ...]")
@click.option(
    "--labels",
    callback=_parse_labels,
    multiple=True,
    metavar="N,N",
    help="Which labels are opacity; give it once for all, or once for each reader.  "
    "[default: as the results beside the label maps say]",
)
@click.option(
    "--json",
    "document",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write all of it as JSON.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE.png",
    help="Also draw scatter and Bland-Altman plots as PNG.",
)
def compare(
    *, paths: tuple[Path, ...], labels: tuple[frozenset[int], ...], document: Path | None, plot: Path | None
) -> None:
    """Compare what readers say of the same cases. A is the reference.

    Each is a NIfTI label map, a folder of them, or results of bedside segment or bedside score: the folder, or the
    .json or .jsonl file in it. Cases are matched by the names of files, or of what the results are of.

    Label maps: Dice, IoU, volumes and the distance between surfaces of each case. Over all cases: bias and limits of
    agreement (Bland and Altman), intraclass correlation, Cohen's and Fleiss' kappa. Needs the extra 'stats'.

    Exit code: 0, or 2 if it can't be compared. Not for clinical use.
    """
    if len(paths) < 2:
        raise click.UsageError("give two or more to compare; the first is the reference")
    if len(labels) not in (0, 1, len(paths)):
        raise click.UsageError(
            f"--labels is given {len(labels)} times: give it once, or once for each reader"
        )
    from bedside.agreement import require_libraries

    require_libraries(*(["matplotlib"] if plot is not None else []))
    from functools import partial

    from tqdm import tqdm

    from bedside import comparison
    from bedside.cli.comparison import describe
    from bedside.results import write_bytes
    from bedside.tables import json_line

    bar = partial(tqdm, unit="case", leave=False, dynamic_ncols=True, disable=not sys.stderr.isatty())
    found = comparison.compare(paths, labels, progress=bar)
    for case, reason in found.left_out.items():
        tell(f"note: {printable(case)} is left out: {printable(reason)}")
    emit(describe(found))
    if document is not None:
        write_bytes(document, f"{json_line(found.to_json())}\n".encode("ascii"))
    if plot is not None:
        write_bytes(plot, comparison.draw(found))
