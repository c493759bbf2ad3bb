"""Small files of /sys, /proc and /etc, under a root that tests can put elsewhere.

What is missing, unreadable, empty or no number is None: a reading that a device does not have is no failure.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["ROOT", "Tree"]

ROOT: Final = Path("/")
"""Where a device's own files are."""


@dataclass(frozen=True, slots=True)
class Tree:
    """The files of a device."""

    root: Path = ROOT
    """The folder that holds ``sys``, ``proc``, ``etc`` and ``var``."""

    def text(self, path: str | Path) -> str | None:
        """Content of a file without white space and NUL bytes at its ends; None if there is none."""
        try:
            # half the time of Path.open, which a reading of dozens of files once a second is worth
            with open(f"{self.root}/{path}", "rb", buffering=0) as file:  # noqa: PTH123
                data = file.read()
        except (OSError, ValueError):  # EAGAIN and EINVAL too: a sensor that is switched off
            return None
        return data.decode("utf-8", "replace").strip(" \t\r\n\0") or None

    def has(self, path: str | Path) -> bool:
        """Whether there is a file, folder or device of that name; false where that can't be seen."""
        return os.path.exists(f"{self.root}/{path}")  # noqa: PTH110 - Path.exists raises on what can't be seen

    def number(self, path: str | Path) -> int | None:
        """A file's whole number; None if it holds none."""
        text = self.text(path)
        try:
            return None if text is None else int(text)
        except ValueError:
            return None

    def find(self, pattern: str) -> tuple[Path, ...]:
        """Paths that match a pattern, relative to the root, in the order of the numbers in their names."""
        try:
            found = [path.relative_to(self.root) for path in self.root.glob(pattern)]
        except OSError:
            return ()
        return tuple(sorted(found, key=_natural))


def _natural(path: Path) -> tuple[tuple[str, int], ...]:
    parts = []
    for part in path.parts:
        name = part.rstrip("0123456789")
        digits = part[len(name) :]
        parts.append((name, int(digits) if digits else -1))
    return tuple(parts)
