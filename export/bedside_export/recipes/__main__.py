"""A built-in bundle from the data folder, in one command; a run that was stopped goes on where it was.

    python -m bedside_export.recipes cxr --data ../shared/data --lung-masks WHEEL --others PACKAGES --out DIR
    python -m bedside_export.recipes ct --data ../shared/data --out DIR

Trains and measures on held-out patients, trains on all, writes DIR/bundle with every precision, and says whether it
is the bundle that ships, or by how much its figures moved. Hours on two cores; the parts are commands of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import torch

from bedside.bundle import Bundle
from bedside.errors import BedsideError
from bedside_export.errors import ExportError
from bedside_export.recipes.ct import bundle as ct_bundle
from bedside_export.recipes.ct import data as ct_data
from bedside_export.recipes.ct import opacity
from bedside_export.recipes.cxr import bundle as cxr_bundle
from bedside_export.recipes.cxr import data as cxr_data
from bedside_export.recipes.cxr import intervals, repeatability, severity
from bedside_export.recipes.cxr.card import NAME
from bedside_export.recipes.cxr.quality import appearance
from bedside_export.recipes.progress import tell_progress
from bedside_export.recipes.reproduction import reproduce

BUNDLE = "bundle"
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


class _Recipes(click.Group):
    """Recipes whose complaints of the data are a line, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """As `click.Group.invoke`."""
        try:
            return super().invoke(ctx)
        except (cxr_data.DataError, ct_data.DataError, ExportError, BedsideError) as error:
            raise click.ClickException(str(error)) from error


@click.group(
    cls=_Recipes,
    help="Make a built-in bundle again, from the data folder to every precision. Not for clinical use.",
)
def main() -> None:
    """The command line of the module's text."""
    tell_progress()


@main.command(help="The chest X-ray bundle.")
@click.option("--data", type=_FOLDER, required=True, help="Folder that holds cxr/.")
@click.option("--lung-masks", type=click.Path(exists=True, path_type=Path), help="torchxrayvision's wheel.")
@click.option("--others", type=_FOLDER, help="Packages of other pictures; without them nothing is refused.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for all that is made.")
@click.option("--threads", default=2, show_default=True, help="Threads of the training.")
def cxr(data: Path, lung_masks: Path | None, others: Path | None, out: Path, threads: int) -> None:
    """Severity and quality network, their measurements, intervals, repeatability, and the bundle."""
    torch.set_num_threads(threads)
    if others is not None:
        appearance.collect(data, others, out)  # what is missing is told now, not hours later
    severity.evaluate(data, out, lung_masks=lung_masks)
    severity.train(data, out, lung_masks=lung_masks)
    if others is not None:
        appearance.evaluate(data, others, out)
        appearance.train(data, others, out)
    repeatability.main(["--data", str(data), "--splits", str(out), "--threads", str(threads)])
    intervals.main(["--data", str(data), "--measured", str(out)])
    _finish(cxr_bundle.main, NAME, data, out)


@main.command(help="The CT bundle.")
@click.option("--data", type=_FOLDER, required=True, help="Folder that holds ct/.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for all that is made.")
@click.option("--threads", default=2, show_default=True, help="Threads of the training.")
def ct(data: Path, out: Path, threads: int) -> None:
    """Tissue network, its measurement, and the bundle."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    opacity.evaluate(data, out)
    opacity.train(data, out)
    _finish(ct_bundle.main, ct_bundle.NAME, data, out)


def _finish(command: click.Command, name: str, data: Path, out: Path) -> None:
    """Write the bundle and compare it with the one that ships."""
    options = ["--trained", str(out), "--data", str(data), "--out", str(out / BUNDLE), "--force"]
    command.main(options, standalone_mode=False)
    for line in reproduce(Bundle.open(out / BUNDLE), Bundle.open(name)).describe():
        click.echo(line)


if __name__ == "__main__":
    main()
