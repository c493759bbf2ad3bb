"""Names of output files: safe on any file system, and an input's own. Not for clinical use."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import PurePath
from typing import Final

__all__ = ["SCAN_FILES", "heatmap_name", "scan_name", "scan_stem"]

SCAN_FILES: Final = {
    "result": "-result.json",
    "labels": "-labels.nii.gz",
    "report": "-report.png",
}
"""Kind of file that is written for a scan -> how its name ends."""
READABLE: Final = 80
"""Most characters that a name takes of its input's; with hash and ending it stays far under the 255 of file systems."""
_SCAN_ENDS: Final = re.compile(r"\.(nii(\.gz)?|zip|dcm)$", re.IGNORECASE)
"""What tells an input's format, and nothing of the scan; any other dot may be part of a folder's name."""


def heatmap_name(source: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> str:
    """A file name for an input's heatmap, of at most 114 characters, safe on any file system.

    It begins with what can be read of the input's path, and holds 64 bits of the SHA-256 of ``source`` as it is
    given: inputs of one name in different folders, or that differ only in case, have different names.

    Args:
        source: The input.
        root: The folder that was given, if the input was found in one: its part of the path is left out.
    """
    inside = _inside(source, root)
    stem = str(inside.with_suffix("") if inside.name else PurePath(source).name)
    return f"{_readable(stem) or 'image'}-{_mark(os.fsencode(source))}-heatmap.png"


def scan_stem(
    source: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, *, series: str = ""
) -> str:
    """What the names of all files of one scan begin with, of at most 97 characters, safe on any file system.

    Args:
        source: The input.
        root: The folder that was given, if the input was found in one: its part of the path is left out.
        series: Series Instance UID: it keeps several series of one folder apart. It goes into the name's hash only.
    """
    inside = str(_inside(source, root))
    key = os.fsencode(source) + (b"\0" + series.encode() if series else b"")
    return f"{_readable(_SCAN_ENDS.sub('', inside)) or 'scan'}-{_mark(key)}"


def scan_name(stem: str, kind: str) -> str:
    """The name of one file of a scan.

    Args:
        stem: As `scan_stem` gives it.
        kind: One of `SCAN_FILES`.
    """
    return stem + SCAN_FILES[kind]


def _inside(source: str | os.PathLike[str], root: str | os.PathLike[str] | None) -> PurePath:
    path = PurePath(source)
    return path.relative_to(root) if root is not None and path.is_relative_to(root) else PurePath(path.name)


def _readable(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)[-READABLE:].strip("._-")


def _mark(key: bytes) -> str:
    """64 bits of a hash, in hexadecimal."""
    return hashlib.sha256(key).hexdigest()[:16]
