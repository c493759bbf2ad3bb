"""The node's folder on the disk: what arrives, what was made of it, and the queue. Not for clinical use.

    incoming/   files on their way in; nothing refers to them, and a start removes them
    images/     instances, a folder for each unit; names are hashes and chance: none says who the patient is
    results/    a folder for each run
    audit/      what happened, and the key of its marks
    queue.db    what each of them is
    lock        held by the node while it runs

A file is moved to its place when it is whole and on the disk, and counted in the queue after that; what a cut leaves
without an entry is removed at the next start, and its sender, who never got a success, sends it again. No name is used
twice, so that nothing is removed that came after.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Final

from bedside.disk import told
from bedside.errors import NodeError
from bedside.node.entries import Arrival, Study
from bedside.node.traits import Labels
from bedside.results.files import prepare_folder, sync_folder

__all__ = ["QUEUE", "Spool", "remove"]

QUEUE: Final = "queue.db"
"""Name of the queue's file."""
_BLOCK: Final = 1 << 20
"""Bytes that are hashed at once."""
_META: Final = 132
"""Where the meta header begins, after preamble and ``DICM`` (PS3.10, 7.1)."""
_GROUP_LENGTH: Final = b"\x02\x00\x00\x00UL\x04\x00"
"""(0002,0000) File Meta Information Group Length, of which the value follows."""
_TRIES: Final = 10
"""To move a file into a folder that is removed at the same moment, because it was empty."""


class Spool:
    """The folder, held for one node.

    Args:
        root: The folder; made where it is absent, for its owner alone.

    Raises:
        NodeError: ``spool-in-use``.
        OutputError: It can't be written.
    """

    def __init__(self, root: Path) -> None:
        with told():
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root = prepare_folder(root)
        self.incoming, self.images, self.results, self.audit = (
            prepare_folder(self.root / name) for name in ("incoming", "images", "results", "audit")
        )
        self.queue = self.root / QUEUE
        with told():
            self._lock: IO[bytes] = (self.root / "lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise NodeError(
                "spool-in-use", "another node holds this spool; stop it, or give another folder as spool"
            ) from error

    def __enter__(self) -> Spool:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the folder."""
        self._lock.close()

    def part(self) -> Path:
        """A name for a file on its way in, which nothing has yet."""
        return self.incoming / f"{secrets.token_hex(8)}.part"

    def weigh(self, part: Path, unit: str, labels: Labels) -> Arrival:
        """What a whole file in `incoming` is, for the queue, and where it is to lie: a name that nothing has yet.

        Args:
            part: The file.
            unit: What it is run with: UID of its series, or its own.
            labels: What it says of itself.

        Raises:
            OutputError: ``output-not-writable``: it can't be read back.
        """
        target = self.images / _hashed(unit) / f"{_hashed(labels.sop)}-{secrets.token_hex(4)}.dcm"
        with told(), part.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            return Arrival(unit, labels.study, labels.sop, self.name(target), _hash_content(stream), size)

    def place(self, part: Path, arrival: Arrival) -> None:
        """Move a whole file from `incoming` to its place, where it is on the disk.

        Args:
            part: The file, on the same disk.
            arrival: What `weigh` says of it.

        Raises:
            OutputError: ``disk-full``; ``output-not-writable``. The file stays where it is.
        """
        target = self.root / arrival.path
        folder = target.parent
        with told():
            with part.open("rb+") as stream:
                os.fsync(stream.fileno())
            for left in reversed(range(_TRIES)):
                folder.mkdir(exist_ok=True)
                try:
                    part.replace(target)
                    break
                except FileNotFoundError:
                    if not left or not part.exists():
                        raise
            sync_folder(folder)
            sync_folder(self.images)

    def result_folder(self, study: Study, digest: str) -> Path:
        """Where the results of a run go. It is empty: what a cut left of the run before is removed.

        Raises:
            OutputError: It can't be written.
        """
        folder = self.results / f"{study.id}-{study.generation}-{digest[:12]}"
        with told():
            if folder.exists():
                shutil.rmtree(folder)
        return prepare_folder(folder)

    def name(self, path: Path) -> str:
        """What the queue calls a file or a folder of the spool."""
        return str(path.relative_to(self.root))

    def sweep(self, held: Collection[str]) -> int:
        """Remove what was on its way in, and what the queue does not refer to; returns how many files and folders.

        Raises:
            OutputError: It can't be removed.
        """
        with told():
            stray = [*self.incoming.iterdir()]
            stray += [path for path in self.images.glob("*/*") if self.name(path) not in held]
            stray += [path for path in self.results.iterdir() if self.name(path) not in held]
            for path in stray:
                _remove(path)
            for folder in self.images.iterdir():
                with suppress(OSError):  # it is not empty
                    folder.rmdir()
        return len(stray)

    def free_mib(self) -> float:
        """Space that is left on its disk, MiB."""
        return shutil.disk_usage(self.root).free / 2**20


def remove(root: Path, paths: Collection[str]) -> None:
    """Remove files and folders that the queue has let go.

    Args:
        root: Of the spool.
        paths: Below it, as `Queue.purge` names them. One that is gone already is no error.

    Raises:
        OutputError: One can't be removed.
    """
    with told():
        for name in paths:
            path = root / name
            _remove(path)
            if path.parent.parent == root / "images":
                with suppress(OSError):  # it is not empty
                    path.parent.rmdir()


def _hash_content(stream: BinaryIO) -> str:
    """SHA-256 of the data set: of what follows the meta header, in which each sender names itself."""
    head = stream.read(_META + len(_GROUP_LENGTH) + 4)
    start = 0
    if head[128:_META] == b"DICM" and head[_META : _META + len(_GROUP_LENGTH)] == _GROUP_LENGTH:
        start = len(head) + int.from_bytes(head[-4:], "little")
    stream.seek(start)
    digest = hashlib.sha256()
    while block := stream.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _hashed(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:24]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
