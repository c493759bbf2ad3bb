"""``bedside inspect``: all that a bundle says of itself."""

# ruff: noqa: PLC0415 - see bedside.cli

from __future__ import annotations

import click

from bedside.cli.console import emit


@click.command(short_help="Show all that a bundle says of itself.")
@click.argument("bundle")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def inspect(*, bundle: str, as_json: bool) -> None:
    """Show all that BUNDLE says of itself: scores or tissues, input, outputs, models, tolerances, licence, files.

    BUNDLE is a folder, a zip file, or the name of a built-in bundle. Its files are checked against their hashes.
    """
    import json

    from bedside.bundle import Bundle
    from bedside.cli.contents import contents_of, describe_contents

    opened = Bundle.open(bundle)
    emit(json.dumps(contents_of(opened)) if as_json else describe_contents(opened))
