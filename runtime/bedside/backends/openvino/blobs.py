"""Compiled models on disk: whole, of this machine and this bundle, or not there at all.

OpenVINO has a cache of its own, and reads back what it wrote with a byte flipped, as if it were the network. So each
file here begins with the SHA-256 of the rest.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from bedside.backends.explanation import explain_cache

__all__ = ["Blobs"]

_HASH_BYTES: Final = hashlib.sha256().digest_size


class Blobs:
    """A folder of compiled models.

    Args:
        folder: Need not be there; is made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, key: str) -> bytes | None:
        """What is kept under ``key``; None if there is nothing, or it is not as it was written."""
        try:
            data = self._path(key).read_bytes()
        except OSError:
            return None
        blob = data[_HASH_BYTES:]
        return blob if blob and hashlib.sha256(blob).digest() == data[:_HASH_BYTES] else None

    def write(self, key: str, blob: bytes) -> None:
        """Keep ``blob``, in place of what was there. Others see the old file or the new one, never a part.

        Raises:
            OutputError: ``disk-full``; ``cache-not-writable``.
        """
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(blob).digest())
                    file.write(blob)
                Path(name).replace(path)
            except BaseException:
                with suppress(OSError):
                    Path(name).unlink()
                raise
        except OSError as error:
            raise explain_cache(error) from error

    def _path(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.blob"
