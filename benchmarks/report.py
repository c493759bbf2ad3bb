"""A page out of benchmarks' files: pictures and tables in one HTML file, for a browser without a network.

    bedside bench cxr-severity-lite --json run.json
    bedside tune cxr-severity-lite --json > tune.json
    python benchmarks/report.py run.json tune.json peers-cxr.json roofline.json batch.json --out page.html

Takes any mix of what ``bedside bench``, ``bedside tune``, `peers.py`, `roofline.py` and `growth.py` write as JSON. Each
file is a part of the page; those that tell how far an engine is from the reference are drawn together, accuracy against
latency. What is told of a bundle by its own parity report, on more and on real inputs, is taken from there where the
bundle is at hand: the built-in ones, and those of ``--bundle``. The pictures also lie beside the page as PNG.

A file that can't be read is told on the page, and ends in exit code 1; the others are drawn. Two such files of one
bundle and task are compared by ``bedside bench --compare OLD NEW --report page.html``. Needs the extra ``bench``, and
neither PyTorch nor an engine: it runs on the device itself. Not for clinical use.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import click
from report_fields import Fields
from report_growth import growth_section
from report_pareto import pareto_sections
from report_peers import peers_section
from report_points import Knowledge, Point, points_of_peers, points_of_run, points_of_tuning, read_knowledge
from report_roofline import roofline_section
from report_tuning import tuning_section

from bedside.bench import read_run
from bedside.bench.record import SCHEMA as BENCH
from bedside.bench.report import Page, Section, Verdict, require_plots, run_section, write_page
from bedside.bundle import built_in
from bedside.errors import BedsideError, InputError
from bedside.files import open_input
from bedside.records import parse
from bedside.tuning.report import SCHEMA as TUNING

MAX_BYTES: Final = 1 << 28
"""Largest file that is read, as of `bedside.bench.record`."""
PEERS: Final = "peers"
KINDS: Final = "bedside bench, bedside tune, peers.py, roofline.py or growth.py"
SECTIONS: Final[dict[str, Callable[[Fields], Section]]] = {
    "growth": growth_section,
    PEERS: peers_section,
    "roofline": roofline_section,
    TUNING: tuning_section,
}
"""``benchmark`` or ``schema`` of a file -> what draws it."""
BROKEN: Final = "NOT READ: nothing of this file is on the page"


def read_part(path: Path, knowledge: Mapping[str, Knowledge]) -> tuple[Section, list[Point]]:
    """A file as a part of a page, and its points of accuracy against latency.

    Raises:
        InputError: The file can't be read; ``not-results`` if it is none of `KINDS`.
    """
    with open_input(path) as stream:
        data = stream.read(MAX_BYTES + 1)
    try:
        record = Fields.of(parse(data))
        kind = record.text_or("schema") or record.text_or("benchmark")
        if kind in SECTIONS:
            return SECTIONS[kind](record), _points_of(kind, record, knowledge)
    except ValueError as error:
        raise InputError(
            "not-results",
            f"the file is no whole result ({str(error)[:200]}); measure again, or copy it again",
        ) from error
    if kind == BENCH:
        run = read_run(path)
        return run_section(run), points_of_run(run, knowledge)
    told = f"is of {kind[:40]!r}" if kind else "does not say what it is"
    raise InputError("not-results", f"the file {told}; give what {KINDS} write with --json")


def _points_of(kind: str, record: Fields, knowledge: Mapping[str, Knowledge]) -> list[Point]:
    if kind == TUNING:
        return points_of_tuning(record, knowledge)
    return points_of_peers(record) if kind == PEERS else []


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE.json...")
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PAGE.html",
    help="The page; its pictures lie beside it.",
)
@click.option("--title", default="bedside: benchmarks", show_default=True, help="Of the page.")
@click.option(
    "--bundle",
    "bundles",
    multiple=True,
    help="Folder or zip file of a bundle that was measured, for its parity report; can be given several times.  "
    "[default: the built-in ones]",
)
def main(*, files: tuple[Path, ...], out: Path, title: str, bundles: tuple[str, ...]) -> None:
    """Make a page with pictures out of benchmarks' JSON files."""
    try:
        require_plots()
        knowledge = read_knowledge(dict.fromkeys((*built_in(), *bundles)))
    except (BedsideError, ValueError) as error:  # ValueError: of a bundle's parity report
        raise click.UsageError(str(error)) from error
    sections: list[Section] = []
    points: list[Point] = []
    broken = 0
    for number, path in enumerate(files, 1):
        try:
            section, found = read_part(path, knowledge)
        except BedsideError as error:
            broken += 1
            told = f"file {number} of {len(files)}"
            click.echo(f"{told}: {error.message} [{error.code}]", err=True)
            sections.append(Section(f"{told[0].upper()}{told[1:]}", Verdict(False, BROKEN, (error.message,))))
            continue
        sections.append(section)
        points += found
    sections += pareto_sections(points)
    try:
        written = write_page(Page(title, tuple(sections)), out)
    except BedsideError as error:
        raise click.ClickException(error.message) from error
    click.echo(f"{len(sections)} parts and {len(written) - 1} pictures", err=True)
    if broken:
        sys.exit(1)


if __name__ == "__main__":
    main()
