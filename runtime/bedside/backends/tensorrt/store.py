"""The folder of built engines, and of what shortens the next build."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

from bedside.backends.explanation import explain_cache
from bedside.backends.tensorrt.enginefile import MAX_HEADER, PREFIX, Header, Wanted, read_header, unpack
from bedside.errors import BackendError

__all__ = ["Store", "load", "name_engine"]

_SUFFIX: Final = ".engine"
_DIGEST: Final = hashlib.sha256().digest_size


class Store:
    """A folder of engines. Nothing in it is believed: what is altered or foreign is as if it were not there.

    Args:
        folder: Made when the first file is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make the folder, and try that a file can be written in it: a build takes long.

        Raises:
            OutputError: ``cache-not-writable``; ``disk-full``.
        """
        trial = self.folder / f".bedside-{secrets.token_hex(8)}.trial"
        self._write(trial, b"bedside")
        trial.unlink(missing_ok=True)

    def find(self, wanted: Wanted) -> Path | None:
        """The first engine whose header says that it is the one; None if there is none."""
        for path in self._engines(wanted.backend):
            try:
                with path.open("rb") as stream:
                    header = read_header(stream.read(PREFIX + MAX_HEADER))
            except (OSError, BackendError):
                continue  # what can't be read is not here: another is looked for, or built
            if next(header.misfits(wanted), None) is None:
                return path
        return None

    def save(self, header: Header, data: bytes) -> Path:
        """Write an engine, under a name that follows from what it is; replaces one of that name.

        Raises:
            OutputError: ``cache-not-writable``; ``disk-full``.
        """
        path = self.folder / name_engine(header)
        self._write(path, data)
        return path

    def read_blob(self, name: str) -> bytes:
        """What `write_blob` wrote; empty if it is not there, or altered."""
        try:
            data = (self.folder / name).read_bytes()
        except OSError:
            return b""
        digest, blob = data[:_DIGEST], data[_DIGEST:]
        return blob if hashlib.sha256(blob).digest() == digest else b""

    def write_blob(self, name: str, blob: bytes) -> None:
        """Write bytes with their hash before them.

        Raises:
            OutputError: ``cache-not-writable``; ``disk-full``.
        """
        self._write(self.folder / name, hashlib.sha256(blob).digest() + blob)

    def _engines(self, backend: str) -> Iterator[Path]:
        try:
            yield from sorted(self.folder.glob(f"*.{backend}{_SUFFIX}"))
        except OSError:
            return

    def _write(self, path: Path, data: bytes) -> None:
        part = path.with_name(f".bedside-{secrets.token_hex(8)}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("xb") as stream:
                    stream.write(data)
                    stream.flush()
                    os.fsync(stream.fileno())
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise explain_cache(error) from error


def load(path: Path, wanted: Wanted) -> tuple[Header, bytes]:
    """Read and check the engine at ``path``.

    Raises:
        BackendError: ``engine-foreign`` if it can't be read, is altered, or is not the one that is wanted.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else "an I/O error"
        raise BackendError(
            "engine-foreign", f"the built engine can't be read ({reason}); build it again here"
        ) from error
    header, plan = unpack(data, wanted)
    return header, bytes(plan)


def name_engine(header: Header) -> str:
    """The name of an engine's file: the bundle, the precision, the GPUs, and a digest of all that it is for."""
    identity = [header.bundle, header.version, asdict(header.recipe), header.site and asdict(header.site)]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    gpus = "sm" + "-".join(each.replace(".", "") for each in header.recipe.capabilities)
    target = gpus if header.site is None else f"sm{header.site.capability.replace('.', '')}"
    return f"{header.name}.{header.recipe.precision}.{target}.{digest}.{header.backend}{_SUFFIX}"
