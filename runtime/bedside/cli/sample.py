"""``bedside sample``: an X-ray, or a CT, to try things on."""

# ruff: noqa: PLC0415 - see bedside.cli

from __future__ import annotations

from pathlib import Path

import click

from bedside.cli.console import emit, printable


@click.command(short_help="Write a sample X-ray or CT: a computed phantom, no patient.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--ct", is_flag=True, help="Write a CT series, into the folder PATH.")
@click.option("--force", is_flag=True, help="Replace PATH if it exists.")
def sample(*, path: Path, ct: bool, force: bool) -> None:
    """Write a sample chest X-ray to PATH, as a DICOM file; or a sample CT, as a folder of them.

    It is made of a chest phantom that is computed on the spot: no patient was ever in it.
    """
    from bedside.errors import OutputError

    if path.exists() and not force:
        raise OutputError(
            "output-exists", "there is a file or folder of that name; give another, or --force to replace it"
        )
    shown = printable(str(path))
    if ct:
        from bedside.sample_ct import write_series

        count = write_series(path)
        emit(
            f"wrote {count} slices to {shown}: a computed chest phantom, no patient; now: bedside segment {shown}"
        )
        return
    from bedside.sample import write_sample

    write_sample(path)
    emit(f"wrote {shown}: a computed chest phantom, no patient; now: bedside score {shown}")
