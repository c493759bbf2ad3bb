"""A folder of built engines that ONNX Runtime reads unchecked, with the hashes of its files.

A plan is code: who can write into the folder decides what runs. The hashes find damage, not malice.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Final

from bedside.backends.explanation import explain_cache

__all__ = ["seal", "unseal"]

SEAL: Final = "sealed.json"
"""Name of the file that has the hashes: name -> SHA-256."""


def unseal(folder: Path) -> None:
    """Make a folder ready: what is in it is as it was sealed, and where nothing is, something can be kept.

    Raises:
        OutputError: ``cache-not-writable`` or ``disk-full`` if it can't be made, or what is damaged not be removed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sealed = _read_seal(folder)
        files = _hash_files(folder)
        for name, digest in files.items():
            if sealed.get(name) != digest:
                (folder / name).unlink()
        if not sealed or sealed != files:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(bytes(1 << 16))
    except OSError as error:
        raise explain_cache(error) from error


def seal(folder: Path) -> None:
    """Note the hashes of what is in the folder now; nothing is written if they are noted already.

    Raises:
        OutputError: ``cache-not-writable``; ``disk-full``.
    """
    try:
        files = _hash_files(folder)
        if files != _read_seal(folder):
            part = folder / f"{SEAL}.part"
            part.write_text(json.dumps(files, indent=2), encoding="utf-8")
            part.replace(folder / SEAL)
    except OSError as error:
        raise explain_cache(error) from error


def _read_seal(folder: Path) -> dict[str, str]:
    try:
        sealed = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return sealed if isinstance(sealed, dict) else {}


def _hash_files(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(SEAL)
    }
