"""``bedside bundles``: what ships with bedside."""

# ruff: noqa: PLC0415 - see bedside.cli

from __future__ import annotations

import click

from bedside.cli.console import columns, emit


@click.command(short_help="List the built-in bundles.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each bundle.")
def bundles(*, as_json: bool) -> None:
    """List the built-in bundles: networks with all that a result of theirs depends on."""
    import json

    from bedside.bundle import Bundle, built_in

    rows = [("NAME", "VERSION", "TASK", "LICENCE", "SIZE", "TITLE")]
    for name in built_in():
        manifest = Bundle.open(name).manifest
        size = sum(stored.bytes for stored in manifest.files.values())
        row = (manifest.name, manifest.version, manifest.task, manifest.licence.spdx)
        rows.append((*row, f"{size / 1e6:.1f} MB", manifest.title))
        if as_json:
            keys = ("name", "version", "task", "licence", "bytes", "title")
            emit(json.dumps(dict(zip(keys, (*row, size, manifest.title), strict=True))))
    if not as_json:
        emit(columns(rows) if len(rows) > 1 else "no bundle is built in; export one with bedside-export")
