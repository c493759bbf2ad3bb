"""``bedside rules``: which rule of a node takes a study, and why."""

# ruff: noqa: PLC0415 - see bedside.cli

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from bedside.cli.console import emit, field, printable, tell

if TYPE_CHECKING:
    from bedside.dicom.archive import Archive
    from bedside.node.rules import Decision, Traits

__all__ = ["rules"]

UNMATCHED = 1
"""Exit code where no rule takes a study, or a file can't be read."""


class _Found(NamedTuple):
    """Files that every rule sees alike, of one series."""

    series: int
    """Its place among those of the path, from 1."""
    files: int
    traits: Traits


@click.command(short_help="Say which rule of a node takes a study, and why.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The node's node.toml.",
)
@click.option(
    "--calling-ae", default="", metavar="TITLE", help="AE title of the sender, for rules that ask for it."
)
@click.option(
    "--called-ae", default="", metavar="TITLE", help="AE title that it calls, for rules that ask for it."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each series.")
@click.pass_context
def rules(
    ctx: click.Context,
    /,
    *,
    paths: tuple[Path, ...],
    config: Path,
    calling_ae: str,
    called_ae: str,
    as_json: bool,
) -> None:
    """Say which rule of a node takes a study, and for each of the others why it does not.

    PATH is a DICOM file, a folder of them, or a zip of one; of several files of a series that all rules see alike, one
    answer is given. What the files hold is not told, since a description can name a patient: only whether it is what a
    rule asks for. A file that can't be read is told by its place among those that look like pictures, in the order of
    their names, and the rest goes on.

    Exit code: 0, 1 if no rule takes some study or a file can't be read, 2 if the configuration is wrong. Not for
    clinical use.
    """
    from bedside.node.config import read_config
    from bedside.node.rules import choose, explain
    from bedside.tables import json_line

    wanted = read_config(config).rules
    all_taken = True
    for path in paths:
        found, unreadable = _read(path, calling_ae, called_ae)
        all_taken = all_taken and not unreadable
        several = len({each.series for each in found}) > 1
        for series, files, traits in found:
            taken = choose(wanted, traits)
            decisions = explain(wanted, traits)
            all_taken = all_taken and taken is not None
            if as_json:
                told = {"source": str(path), "series": series, "files": files}
                told |= {"rule": taken and taken.name, "bundle": taken and taken.bundle}
                emit(json_line(told | {"rules": [_record(each) for each in decisions]}))
                continue
            number = f", series {series}" if several else ""
            emit(f"{printable(str(path))}{number}: {files} {'file' if files == 1 else 'files'}")
            for each in decisions:
                emit(field(each.rule.name, each.text.removeprefix(f"{each.rule.name}: ")))
            if taken is None:
                emit(field("", "no rule takes it"))
    if not all_taken:
        ctx.exit(UNMATCHED)


def _read(path: Path, calling_ae: str, called_ae: str) -> tuple[list[_Found], int]:
    """What rules look at, for each series; and how many files and folders can't be read, which are told."""
    from bedside.errors import BedsideError
    from bedside.node.traits import parse_labels

    counts: dict[tuple[str, Traits], int] = {}
    try:
        archive, unreadable = _open(path)
    except BedsideError as error:
        tell(f"{printable(str(path))}: {error.message} [{error.code}]")
        return [], 1
    with closing(archive):
        for number in range(len(archive)):
            try:
                with archive.open(number) as stream:
                    labels = parse_labels(stream, calling_ae=calling_ae, called_ae=called_ae)
            except BedsideError as error:
                if error.code == "not-an-image" and len(archive) > 1 and not archive.is_named_dicom(number):
                    continue
                unreadable += 1
                tell(
                    f"{printable(str(path))}: file {number + 1} of {len(archive)}: {error.message} [{error.code}]"
                )
                continue
            key = (labels.series, labels.traits)
            counts[key] = counts.get(key, 0) + 1
    if not counts and not unreadable:
        unreadable = 1
        tell(f"{printable(str(path))}: no DICOM file there")
    numbers = {uid: number for number, uid in enumerate(dict.fromkeys(uid for uid, _ in counts), 1)}
    return [_Found(numbers[uid], files, traits) for (uid, traits), files in counts.items()], unreadable


def _open(path: Path) -> tuple[Archive, int]:
    """Files of a path, and how many folders in it can't be searched, which are told."""
    from bedside.dicom.archive import Files, open_archive
    from bedside.inputs import Inputs

    inputs = Inputs([path])
    if inputs.single:
        return open_archive(path), 0
    files = Files([source.path for source in inputs])
    for _, reason in inputs.unlisted:
        tell(
            f"{printable(str(path))}: a folder in it can't be searched ({reason}); check its permissions [not-readable]"
        )
    return files, len(inputs.unlisted)


def _record(decision: Decision) -> dict[str, Any]:
    """A rule's answer as an object of JSON."""
    return {
        "name": decision.rule.name,
        "matches": decision.holds,
        "earlier": decision.earlier,
        "clauses": [
            {"attribute": clause.attribute, "wanted": clause.wanted, "holds": clause.holds}
            for clause in decision.clauses
        ],
    }
