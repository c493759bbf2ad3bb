"""What is said between the two processes: one JSON object a message, no code in it.

To the engine     {"open": {...}}                           once; then
                  {"run": shape of the input}
From the engine   {"info": {...}}                           it is open
                  {"progress": [phase, done, total]}        any number before that
                  {"outputs": [[name, dtype, shape, offset], ...]}
                  {"error": [class, code, message]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from bedside.backends.base import Progress, Tuning
from bedside.errors import BackendError, BedsideError

__all__ = ["MAX_BYTES", "pack", "pack_error", "pack_tuning", "unpack", "unpack_error", "unpack_tuning"]

MAX_BYTES: Final = 1 << 16
"""Of one message; a socket passes more than three times as many at once."""
_MAX_TEXT: Final = 2000
"""Characters of an error's message, which are some hundred."""


def pack(message: Mapping[str, object]) -> bytes:
    """A message as it is sent."""
    return json.dumps(message, separators=(",", ":")).encode()


def unpack(data: bytes) -> dict[str, Any]:
    """A message as it was sent."""
    message: dict[str, Any] = json.loads(data)
    return message


def pack_error(error: BedsideError) -> list[str]:
    """An error's class, or the one of `bedside.errors` that it is of, its code and message."""
    kind = next((kind for kind in type(error).__mro__ if kind in BedsideError.__subclasses__()), type(error))
    return [kind.__name__, error.code, error.message[:_MAX_TEXT]]


def unpack_error(parts: list[str]) -> BedsideError:
    """The error again, of its own class where `bedside.errors` has it."""
    name, code, message = parts
    kinds = {kind.__name__: kind for kind in BedsideError.__subclasses__()}
    return kinds.get(name, BackendError)(code, message)


def pack_tuning(tuning: Tuning) -> dict[str, object]:
    """All of it but what it tells its progress to."""
    values = {field.name: getattr(tuning, field.name) for field in fields(tuning)}
    del values["progress"]
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def unpack_tuning(values: Mapping[str, Any], progress: Progress | None) -> Tuning:
    """The tuning again, which tells its progress to ``progress``."""
    tile, cache = values["tile"], values["cache"]
    return Tuning(
        **{
            **values,
            "tile": None if tile is None else tuple(tile),
            "cache": None if cache is None else Path(cache),
            "progress": progress,
        }
    )
