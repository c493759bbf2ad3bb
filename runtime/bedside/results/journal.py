"""The journal of a batch: a result a line, safe against kills. Not for clinical use."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

from bedside.disk import told
from bedside.errors import OutputError
from bedside.results.files import checked, sync_folder
from bedside.severity import SCHEMA, SeverityResult
from bedside.tables import json_line

__all__ = ["JOURNAL", "Journal", "Run"]

JOURNAL: Final = "results.jsonl"
"""Name of the journal in an output folder."""
STATUSES: Final = ("ok", "refused", "failed")
"""Every `SeverityResult.status`."""


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
        self.path = checked(folder) / JOURNAL
        """Where it lies."""
        self._run = run
        self._entries: dict[_Key, _Entry] = {}
        self._end = 0
        with told():
            self._descriptor = os.open(
                self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666
            )
        try:
            with told():
                self._lock()
                self._read(resume=resume)
                os.ftruncate(self._descriptor, self._end)
                os.lseek(self._descriptor, self._end, os.SEEK_SET)
                os.fsync(self._descriptor)
                sync_folder(self.path.parent)
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
        with told():
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
