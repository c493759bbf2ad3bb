"""What the commands print with: results to standard output, all else to standard error."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence

import click

from bedside.disk import FULL
from bedside.errors import OutputError

__all__ = ["columns", "emit", "field", "mute_stdout", "printable", "tell"]

LABEL = 20
"""Width of the labels of `field`."""
WIDTH = 100
"""Longest line of `field`, where the terminal is wider."""


def emit(text: str) -> None:
    """Write a line to standard output, at once.

    Raises:
        OutputError: ``disk-full``; ``output-not-writable``, also where the reader has gone (``| head``).
    """
    try:
        click.echo(_encodable(text))
    except OSError as error:
        if error.errno in FULL:
            raise OutputError(
                "disk-full", "no space left to write standard output; write it elsewhere"
            ) from error
        reason = (
            "its reader has gone"
            if error.errno == errno.EPIPE
            else os.strerror(error.errno or errno.EIO).lower()
        )
        raise OutputError(
            "output-not-writable", f"standard output can't be written ({reason}); what follows is not told"
        ) from error


def tell(text: str) -> None:
    """Write a line to standard error. Where nobody listens there, nobody is told."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def mute_stdout() -> None:
    """Send what is left in the buffer of standard output nowhere: it would fail again when Python ends."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def printable(text: str) -> str:
    """Text, such as a file name, on one line and without what a terminal would obey."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode()
        for letter in text
    )


def field(label: str, value: str) -> str:
    """A label and its value, wrapped to the terminal."""
    width = max(LABEL * 2, min(WIDTH, shutil.get_terminal_size().columns))
    return textwrap.fill(
        printable(value),
        width,
        initial_indent=f"  {label:<{LABEL - 2}} ",
        subsequent_indent=" " * (LABEL + 1),
        break_long_words=False,
        break_on_hyphens=False,
    )


def columns(rows: Iterable[Sequence[str]]) -> str:
    """Rows in columns as wide as they need; the first row is their heading."""
    table = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    )


def _encodable(text: str) -> str:
    """What the encoding of standard output can't hold, as escapes: a name may be no text at all."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
