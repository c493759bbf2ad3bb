"""One line of what `bedside doctor` says."""

from __future__ import annotations

import getpass
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["STATUSES", "Check", "private", "size"]

STATUSES: Final = ("ok", "missing", "broken", "absent")
"""It is here and works; it is not installed; it is here and does not work; this device has none, which is no fault."""
_MAX_TEXT: Final = 400
"""Longest text, in letters: an engine's own message may be a page."""


@dataclass(frozen=True, slots=True)
class Check:
    """Something that was looked at."""

    area: str
    """What it belongs to, e.g. ``codecs``."""
    name: str
    """What it is, e.g. ``JPEG-LS``."""
    status: str
    """One of `STATUSES`."""
    text: str
    """One line for a person. Names no host and no user."""
    fix: str = ""
    """The command that mends it; empty where nothing is to be mended, or no one command would."""

    def __post_init__(self) -> None:
        """Check the status, and keep the text to one line."""
        if self.status not in STATUSES:
            raise ValueError(f"status must be one of {STATUSES}, not {self.status!r}")
        if "\n" in self.text + self.fix:
            raise ValueError("a check's text and command are one line each")


def private(text: object) -> str:
    """A text on one line, with the user's home as ``~`` and their name out of paths.

    Args:
        text: Anything, such as a path or an error.
    """
    line = " ".join(str(text).split())
    try:
        home, user = str(Path.home()), getpass.getuser()
    except (KeyError, OSError, RuntimeError):  # a user without an entry, as in containers
        home, user = "", ""
    if len(home) > 1:
        line = re.sub(rf"{re.escape(home)}(?=/|\W|$)", "~", line)
    if user:
        line = re.sub(rf"(?<=/){re.escape(user)}(?=/|$|\s)", "USER", line)
    return line if len(line) <= _MAX_TEXT else line[: _MAX_TEXT - 3] + "..."


def size(n_bytes: float) -> str:
    """Bytes for a person, e.g. ``1.5 GiB``."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return (
                f"{n_bytes:.0f} {unit}"
                if unit in {"bytes", "KiB"} or n_bytes >= 100
                else f"{n_bytes:.1f} {unit}"
            )
        n_bytes /= 1024
    return f"{n_bytes:.1f} TiB"
