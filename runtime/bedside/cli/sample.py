"""``bedside sample``: an X-ray to try things on."""

# ruff: noqa: PLC0415 - see bedside.cli

from __future__ import annotations

from pathlib import Path

import click

from bedside.cli.console import emit, printable


@click.command(short_help="Write a sample X-ray: a computed phantom, no patient.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace PATH if it exists.")
def sample(*, path: Path, force: bool) -> None:
    """Write a sample chest X-ray to PATH, as a DICOM file.

    It is the projection of a chest phantom that is computed on the spot: no patient was ever in it.
    """
    from bedside.errors import OutputError
    from bedside.sample import write_sample

    if path.exists() and not force:
        raise OutputError(
            "output-exists", "there is a file of that name; give another, or --force to replace it"
        )
    write_sample(path)
    emit(
        f"wrote {printable(str(path))}: a computed chest phantom, no patient; now: bedside score {printable(str(path))}"
    )
