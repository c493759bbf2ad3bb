"""Everything that bedside writes: files that appear whole or not at all, the journal of a batch, tables, pictures.

    write_bytes, atomic       one file: whole or not at all, and the old one untouched if it fails
    prepare_folder            a batch's output folder, tried before the first input is read
    Journal                   results.jsonl: a result a line, safe against kills, goes on where it stopped
    write_csv                 the same results for a spreadsheet (`bedside.tables` has their text)
    write_heatmap             one result's picture; `heatmap_name` names it

Every failure to write is an `OutputError`: ``disk-full``, ``output-exists`` or ``output-not-writable``. Needs a
POSIX system, for its file lock. Not for clinical use.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, BinaryIO, Final

from PIL import Image, PngImagePlugin

from bedside.errors import OutputError
from bedside.heatmap import render
from bedside.severity import NOTICE, SCHEMA, SeverityResult
from bedside.tables import csv_header, csv_line, csv_row, json_line
from bedside.version import __version__

__all__ = [
    "JOURNAL",
    "Journal",
    "Run",
    "atomic",
    "heatmap_name",
    "prepare_folder",
    "write_bytes",
    "write_csv",
    "write_heatmap",
]

JOURNAL: Final = "results.jsonl"
"""Name of the journal in an output folder."""
STATUSES: Final = ("ok", "refused", "failed")
"""Every `SeverityResult.status`."""
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""No space, no quota, and over the file size that the system or its limits allow."""
PNG_EFFORT: Final = 1
"""zlib's level: the fastest. Someone waits for the picture, and a disk does not mind its size."""


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file that appears under ``path``, whole and on the disk, when the ``with`` block ends without an error.

    Until then it is a hidden ``.part`` file beside; if anything fails, that is removed, and what was at ``path``
    stays as it was.

    Raises:
        OutputError: ``disk-full``; ``output-not-writable``. Any OSError of the block counts as one of writing.
    """
    target = _checked(path)
    part = target.parent / f".bedside-{secrets.token_hex(8)}.part"
    with _told():
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
            _sync_folder(target.parent)
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
    folder = _checked(path)
    trial = folder / f".bedside-{secrets.token_hex(8)}.part"
    with _told():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            trial.write_bytes(b"bedside")
        finally:
            trial.unlink(missing_ok=True)
    return folder


@dataclass(frozen=True, slots=True)
class Run:
    """What a batch scores with: an earlier result counts for it only if it came of the same."""

    digest: str
    """Of the bundle."""
    backend: str
    """Name of the engine."""
    precision: str
    """As asked for."""
    force: bool = False
    """Whether refusals are overridden."""
    files: tuple[str, ...] = ()
    """Kinds of file wanted beside each score, e.g. ``("heatmap",)``."""


_Key = tuple[str, str, str, str]
"""Source, bundle digest, backend, precision."""


@dataclass(frozen=True, slots=True)
class _Entry:
    start: int
    """Where its line begins, in bytes."""
    status: str
    forced: bool
    files: frozenset[str]


class Journal:
    """``results.jsonl`` of an output folder: one result a line, on the disk before `append` returns.

    It is locked while it is open, so that a second run into the same folder is refused. Where an input has more
    than one line (it failed, and was tried again), the last one counts.

    Args:
        folder: The output folder, which exists.
        run: What this batch scores with.
        resume: Go on with the journal that is there. A line that a killed run left unfinished is cut off.

    Raises:
        OutputError: ``output-exists`` if there are results and not ``resume``, or if the file there is no journal
            of this schema; ``output-not-writable``, also while another run writes there; ``disk-full``.
    """

    def __init__(self, folder: str | os.PathLike[str], run: Run, *, resume: bool = False) -> None:
        self.path = _checked(folder) / JOURNAL
        """Where it lies."""
        self._run = run
        self._entries: dict[_Key, _Entry] = {}
        self._end = 0
        with _told():
            self._descriptor = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666
            )
        try:
            with _told():
                self._lock()
                self._read(resume=resume)
                os.ftruncate(self._descriptor, self._end)
                os.lseek(self._descriptor, self._end, os.SEEK_SET)
                os.fsync(self._descriptor)
                _sync_folder(self.path.parent)
        except BaseException:
            os.close(self._descriptor)
            raise

    def status_of(self, source: str) -> str | None:
        """``ok``, ``refused`` or ``failed``: what this journal says of ``source`` for this run's engine and bundle."""
        entry = self._entry(source)
        return None if entry is None else entry.status

    def done(self, source: str) -> bool:
        """Whether ``source`` need not be tried again in this run.

        So it is where it was scored or refused with the same bundle (by digest), backend and precision. A failed
        one is tried again; so is a refused one where this run forces, one that was forced where this run does
        not, and one that lacks a file which this run wants. Whether the input has changed since is not looked at.
        """
        entry = self._entry(source)
        if entry is None or entry.status == "failed":
            return False
        if entry.status == "refused":
            return not self._run.force
        return entry.forced <= self._run.force and entry.files.issuperset(self._run.files)

    def append(self, result: SeverityResult, files: dict[str, str] | None = None) -> None:
        """Add a result; if that fails, nothing of it is left in the file.

        Args:
            result: Any result, whatever its status.
            files: What was written beside it: kind (``heatmap``) -> file name.

        Raises:
            OutputError: ``disk-full``; ``output-not-writable``.
        """
        record = result.to_json(files)
        line = memoryview(f"{json_line(record)}\n".encode("ascii"))
        start = self._end
        with _told():
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
                os.fsync(self._descriptor)
            except BaseException:
                os.ftruncate(self._descriptor, start)
                os.lseek(self._descriptor, start, os.SEEK_SET)
                raise
        self._end = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        self._note(start, record)

    def records(self) -> Iterator[dict[str, Any]]:
        """What counts of all that is recorded, earlier runs' too, as the objects of `SeverityResult.to_json`."""
        with self.path.open("rb") as stream:
            for start in sorted(entry.start for entry in self._entries.values()):
                stream.seek(start)
                yield json.loads(stream.readline())

    def close(self) -> None:
        """Unlock it. Closing twice is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Journal:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Unlock it."""
        self.close()

    def _lock(self) -> None:
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            raise OutputError(
                "output-not-writable", f"{JOURNAL} there is not a regular file; give another folder"
            )
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                "output-not-writable",
                "another run writes into this folder; wait for its end, or give another folder",
            ) from error

    def _read(self, *, resume: bool) -> None:
        if not resume and os.fstat(self._descriptor).st_size:
            raise OutputError(
                "output-exists",
                "the folder holds results of an earlier run; go on with --resume, or give another folder",
            )
        with open(self._descriptor, "rb", closefd=False) as stream:
            for number, line in enumerate(stream, 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    record = json.loads(line)
                    if record["schema"] != SCHEMA or record["status"] not in STATUSES:
                        raise ValueError("another schema")  # noqa: TRY301 - told like the other ways to be no result
                    self._note(self._end, record)
                except (ValueError, LookupError, TypeError, RecursionError) as error:
                    raise OutputError(
                        "output-exists",
                        f"line {number} of {JOURNAL} is not a result of schema {SCHEMA}; give another folder",
                    ) from error
                self._end += len(line)

    def _note(self, start: int, record: Mapping[str, Any]) -> None:
        engine = record["engine"]
        key = (record["source"], record["bundle"]["digest"], engine["backend"], engine["precision"])
        self._entries[key] = _Entry(start, record["status"], record["forced"], frozenset(record["files"]))

    def _entry(self, source: str) -> _Entry | None:
        return self._entries.get((source, self._run.digest, self._run.backend, self._run.precision))


def write_csv(path: str | os.PathLike[str], records: Iterable[Mapping[str, Any]]) -> None:
    """Write a table of results with its header, UTF-8, as `atomic` does.

    Args:
        path: The file.
        records: What `SeverityResult.to_json` gives, or `Journal.records`.

    Raises:
        OutputError: ``disk-full``; ``output-not-writable``.
    """
    with atomic(path) as stream:
        stream.write(csv_line(csv_header()).encode())
        for record in records:
            stream.write(csv_line(csv_row(record).values()).encode())


def heatmap_name(source: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> str:
    """A file name for an input's heatmap, of at most 114 characters, safe on any file system.

    It begins with what can be read of the input's path, and holds 64 bits of the SHA-256 of ``source`` as it is
    given: inputs of one name in different folders, or that differ only in case, have different names.

    Args:
        source: The input.
        root: The folder that was given, if the input was found in one: its part of the path is left out.
    """
    path = PurePath(source)
    inside = path.relative_to(root) if root is not None and path.is_relative_to(root) else PurePath(path.name)
    stem = str(inside.with_suffix("") if inside.name else path.name)
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", stem)[-80:].strip("._-") or "image"
    return f"{readable}-{hashlib.sha256(os.fsencode(source)).hexdigest()[:16]}-heatmap.png"


def write_heatmap(path: str | os.PathLike[str], result: SeverityResult, *, score: str = "extent") -> None:
    """Write a scored result's picture with the activation over it, a PNG.

    Raises:
        BundleError: ``bundle-task`` if the bundle gives no activation map.
        OutputError: ``disk-full``; ``output-not-writable``.
        ValueError: If the result has no score.
    """
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", f"bedside {__version__}")
    text.add_text("Disclaimer", NOTICE)
    picture = Image.fromarray(render(result, score=score))
    data = io.BytesIO()
    picture.save(data, "PNG", compress_level=PNG_EFFORT, pnginfo=text)
    write_bytes(path, data.getvalue())


@contextmanager
def _told() -> Iterator[None]:
    """Turn an OSError into the OutputError that says what to do, without the file's name."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else "an I/O error"
        if error.errno in FULL:
            raise OutputError(
                "disk-full", f"the output can't be written ({reason}); free space or write elsewhere"
            ) from error
        raise OutputError(
            "output-not-writable",
            f"the output can't be written ({reason}); give a folder that exists and that you may write to",
        ) from error


def _checked(path: str | os.PathLike[str]) -> Path:
    try:
        unusable = b"\0" in os.fsencode(path)
    except UnicodeEncodeError:
        unusable = True
    if unusable:
        raise OutputError(
            "output-not-writable", "the output's name holds what no file name can; give another"
        )
    return Path(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that does not sync folders
            raise
    finally:
        os.close(descriptor)
