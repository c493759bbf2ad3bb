"""``bedside doctor``: what is here, what is missing, and the command that fixes it."""

# ruff: noqa: PLC0415 - see bedside.cli

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bedside.cli.console import emit, printable, tell

if TYPE_CHECKING:
    from bedside.doctor import Check

UNABLE: Final = 1
"""Exit code where the base job can't run."""
_FOOTER: Final = (
    "What is missing is optional. A precision that runs may still be too inexact for a bundle, or slow:\n"
    "bedside verify BUNDLE and bedside tune BUNDLE tell."
)
_WIDTH: Final = 100
"""Longest line, where the terminal is wider."""


@click.command(short_help="Say what is here, what is missing, and what fixes it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where tuned plans are kept.  [default: the user's cache folder]",
)
@click.pass_context
def doctor(ctx: click.Context, *, as_json: bool, cache: Path | None) -> None:
    """Say what hardware, drivers, engines and codecs are here, what is missing, and the command that fixes it.

    Each engine is imported, and runs a built-in bundle once in each precision, in a process of its own. Nothing is
    installed or kept. What is told names no patient, host or user, and may be shown to others.

    Exit code: 0 if the base job can run (an engine works, and a built-in bundle is whole), 1 if not.
    """
    import json

    from bedside.doctor import AREAS, examine
    from bedside.version import __version__

    listening = sys.stderr.isatty() and not as_json
    found = examine(cache=cache, report=lambda area: tell(f"looking at {area} ...") if listening else None)
    if as_json:
        emit(json.dumps(found.to_json(), allow_nan=False))
    else:
        emit(f"bedside {__version__}. Not for clinical use.")
        for area in AREAS:
            checks = [check for check in found.checks if check.area == area]
            if checks:
                emit(f"\n{area}")
            for check in checks:
                emit(_describe(check))
        emit(f"\n{found.verdict}")
        if found.able:
            emit(_FOOTER)
    if not found.able:
        ctx.exit(UNABLE)


def _describe(check: Check) -> str:
    """A check as a line, wrapped, and its fix on a line that is never wrapped, to be copied."""
    indent = " " * 32
    text = textwrap.fill(
        printable(check.text),
        max(len(indent) * 2, min(_WIDTH, shutil.get_terminal_size().columns)),
        initial_indent=f"  {check.status:<8} {check.name:<20} ",
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"{text}\n{indent}-> {printable(check.fix)}" if check.fix else text
