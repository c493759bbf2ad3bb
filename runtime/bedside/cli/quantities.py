"""Amounts of memory and time on the command line: callbacks of click's options."""

from __future__ import annotations

import re
from typing import Final

import click

from bedside.errors import BedsideError
from bedside.memory import parse_size

__all__ = ["duration", "size"]

_SECONDS: Final = {"": 1.0, "s": 1.0, "ms": 1e-3, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|)\s*")


def size(_ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """``512MiB``, as bytes."""
    try:
        return None if value is None else parse_size(value)
    except BedsideError as error:
        raise click.BadParameter(error.message, param=param) from error


def duration(_ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """``10s``, as seconds."""
    if value is None:
        return None
    found = _DURATION.fullmatch(value)
    if found is None or not float(found[1]):
        raise click.BadParameter(f"{value!r} is not a time; give it as 10s, 500ms or 24h", param=param)
    return float(found[1]) * _SECONDS[found[2]]
