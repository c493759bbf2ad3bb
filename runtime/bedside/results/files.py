"""Files that appear whole or not at all, and failures to write that say what to do. Not for clinical use."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bedside.disk import told
from bedside.errors import OutputError

__all__ = ["atomic", "checked", "prepare_folder", "sync_folder", "write_bytes"]


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file that appears under ``path``, whole and on the disk, when the ``with`` block ends without an error.

    Until then it is a hidden ``.part`` file beside; if anything fails, that is removed, and what was at ``path``
    stays as it was.

    Raises:
        OutputError: ``disk-full``; ``output-not-writable``. Any OSError of the block counts as one of writing.
    """
    target = checked(path)
    part = target.parent / f".bedside-{secrets.token_hex(8)}.part"
    with told():
        if target.exists() and not target.is_file():
            raise OutputError(
                "output-not-writable", "the output is a folder or a device; give the name of a file"
            )
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with open(descriptor, "wb") as stream:  # noqa: PTH123 - a descriptor has no path
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(target)
            sync_folder(target.parent)
        finally:
            part.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a whole file, as `atomic` does.

    Raises:
        OutputError: ``disk-full``; ``output-not-writable``.
    """
    with atomic(path) as stream:
        stream.write(data)


def prepare_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder with its parents, and try that a file can be written in it.

    Raises:
        OutputError: ``output-not-writable``; ``disk-full``.
    """
    folder = checked(path)
    trial = folder / f".bedside-{secrets.token_hex(8)}.part"
    with told():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            trial.write_bytes(b"bedside")
        finally:
            trial.unlink(missing_ok=True)
    return folder


def checked(path: str | os.PathLike[str]) -> Path:
    """A path that the system can at least be asked for.

    Raises:
        OutputError: ``output-not-writable`` where it holds what no name can.
    """
    try:
        unusable = b"\0" in os.fsencode(path)
    except UnicodeEncodeError:
        unusable = True
    if unusable:
        raise OutputError(
            "output-not-writable", "the output's name holds what no file name can; give another"
        )
    return Path(path)


def sync_folder(folder: Path) -> None:
    """Have a folder's own entries on the disk, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that does not sync folders
            raise
    finally:
        os.close(descriptor)
