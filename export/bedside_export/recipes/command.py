"""The command line of the recipes that write the built-in bundles.

bundle_command   from a function that builds a bundle
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import click

from bedside_export.recipes.precisions import add_to_bundle
from bedside_export.writer import check_free

__all__ = ["bundle_command"]


class _Engine(Protocol):
    """What an engine answered."""

    @property
    def backend(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def reason(self) -> str: ...


class _Report(Protocol):
    """What came of exporting."""

    @property
    def engines(self) -> Sequence[_Engine]: ...


class _Build(Protocol):
    """Writes a bundle of what was trained."""

    def __call__(self, trained: Path, out: Path, *, version: str, force: bool) -> _Report: ...


def bundle_command(build: _Build, text: str) -> click.Command:
    """A command that writes a bundle, and its lower precisions where the data is at hand.

    Args:
        build: Exports what was trained, at fp32.
        text: The command's help.
    """

    @click.command(help=text)
    @click.option("--trained", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
    @click.option("--out", type=click.Path(path_type=Path), required=True, help="The bundle to write.")
    @click.option("--version", default="1.0.0", show_default=True, help="Version of the bundle.")
    @click.option("--force", is_flag=True, help="Replace a bundle that is there.")
    @click.option(
        "--data",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="The folder that the recipe learned from: also makes bf16, fp16 and int8, calibrated on it.",
    )
    def main(trained: Path, out: Path, *, version: str, force: bool, data: Path | None) -> None:
        if data is None:
            for report in build(trained, out, version=version, force=force).engines:
                click.echo(f"{report.backend} {report.precision}: {report.status} {report.reason}")
            return
        check_free(out, force=force)
        with tempfile.TemporaryDirectory(prefix="bedside-recipe-") as folder:
            written = Path(folder) / out.name
            build(trained, written, version=version, force=False)
            for trial in add_to_bundle(written, data, out=out, say=click.echo):
                click.echo(trial.describe())

    return main
