"""What the commands of ``bedside-export`` share: paths, text files, and lines on stderr."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from bedside_export.errors import ExportError

__all__ = ["PATH", "read_text", "say"]

PATH: Final = click.Path(path_type=Path)
"""A path, of a file that may not be there."""


def read_text(path: Path) -> str:
    """The content of a licence file."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError("the licence text can't be read as UTF-8; give a text file") from error


def say(line: str) -> None:
    """Tell what is being done."""
    click.echo(line, err=True)
