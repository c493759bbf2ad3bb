"""Folders whose files are taken in. Not for clinical use."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bedside.disk import FULL
from bedside.errors import InputError, OutputError, RefusedError
from bedside.node.config import Watch
from bedside.node.intake import FOLDER, Intake
from bedside.node.spool import Spool
from bedside.node.wholeness import judge_pixels

__all__ = ["Watcher"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Look:
    """A file as it was seen."""

    size: int
    """Bytes."""
    changed_ns: int
    """Its modification time."""


class Watcher:
    """Takes in the files of one folder, and of those in it, once they have not changed for a while.

    A file is gone from the folder when it lies in the spool and in the queue, and not before. What is not taken (no
    DICOM, no rule) stays where it is, and is tried again when it has changed or the node starts anew. So does what was
    taken and ends before its pixel data do, since its writer may go on: once it is whole, it takes the place of what
    was taken of it. Hidden files, ``.part`` and ``.tmp`` are somebody's work; links are not followed.

    Args:
        watch: The folder.
        intake: Where its files go.
        spool: Whose disk they go to.
        free_mib: Of the disk that stay free.
        clock: Seconds that only rise: a clock that is set tells nothing of how old a file is.
    """

    def __init__(
        self,
        watch: Watch,
        intake: Intake,
        spool: Spool,
        *,
        free_mib: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = Path(watch.folder)
        self._settle_s = watch.settle_s
        self._intake = intake
        self._spool = spool
        self._free_mib = free_mib
        self._clock = clock
        self._seen: dict[Path, tuple[_Look, float]] = {}
        self._left: dict[Path, _Look] = {}
        self._closed: set[Path] = set()
        self.problem = ""
        """Why it can't work now; empty if it can."""

    def look(self) -> int:
        """Take in what has settled; returns how many files were."""
        taken = 0
        try:
            found = dict(self._find())
        except OSError as error:
            self._say(f"a watched folder can't be read ({error.strerror})")
            return 0
        self._left = {path: look for path, look in self._left.items() if found.get(path) == look}
        now = self._clock()
        seen = {}
        for path, look in found.items():
            if path in self._left:
                continue
            known = self._seen.get(path)
            since = known[1] if known is not None and known[0] == look else now
            seen[path] = (look, since)
        self._seen = seen
        problem = ""
        for path, (look, since) in seen.items():
            if now - since < self._settle_s:
                continue
            if self._spool.free_mib() < self._free_mib:
                problem = "the spool's disk is nearly full; what lies in watched folders waits"
                break
            try:
                taken += self._take(path, look)
            except OutputError as error:
                problem = error.message
                break
        self._say(problem)
        return taken

    def _take(self, path: Path, look: _Look) -> int:
        """Take in one file; returns how many were: 1, or 0 where it was not taken."""
        part = self._spool.part()
        try:
            _copy(path, part)
            if not _is_as_seen(path, look):  # its writer only paused; what was copied is half of it
                return 0
            with part.open("rb") as stream:
                cut = judge_pixels(stream) == "cut"
            self._intake.take(part, FOLDER)
        except (InputError, RefusedError) as error:
            log.warning("a file of a watched folder was left there [%s]: %s", error.code, error.message)
            self._left[path] = look
            return 0
        except FileNotFoundError:  # somebody took it away
            return 0
        except PermissionError:
            log.warning("a file of a watched folder was left there: it can't be read")
            self._left[path] = look
            return 0
        finally:
            part.unlink(missing_ok=True)
        if cut:
            log.warning(
                "a file of a watched folder ends early: it was taken in as it is, and left there, where its writer may "
                "go on; if nobody does, copy it again"
            )
            self._left[path] = look
            return 1
        try:
            if _is_as_seen(path, look):  # else it is another file by now, which is looked at anew
                path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("a file of a watched folder was taken in, and can't be removed (%s)", error.strerror)
            self._left[path] = look
        return 1

    def _find(self) -> Iterator[tuple[Path, _Look]]:
        """All files that may be taken.

        Raises:
            OSError: The folder itself can't be read. One that lies in it is left out, and told of once.
        """
        folders = [self._folder]
        while folders:
            for entry in self._list(folders.pop()):
                if entry.name.startswith(".") or entry.name.endswith((".part", ".tmp")):
                    continue
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISDIR(found.st_mode):
                    folders.append(Path(entry.path))
                elif stat.S_ISREG(found.st_mode):
                    yield Path(entry.path), _Look(found.st_size, found.st_mtime_ns)

    def _list(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as found:
                entries = list(found)
        except OSError as error:
            if folder == self._folder:
                raise
            if not isinstance(error, FileNotFoundError) and folder not in self._closed:
                log.warning("a folder in a watched one can't be read, and is left out (%s)", error.strerror)
                self._closed.add(folder)
            return []
        self._closed.discard(folder)
        return entries

    def _say(self, problem: str) -> None:
        if problem and problem != self.problem:
            log.error("%s", problem)
        self.problem = problem


def _is_as_seen(path: Path, look: _Look) -> bool:
    """Whether a file has not changed since.

    Raises:
        FileNotFoundError: It is gone.
    """
    found = path.stat(follow_symlinks=False)
    return _Look(found.st_size, found.st_mtime_ns) == look


def _copy(path: Path, part: Path) -> None:
    """A copy in the spool, which `Spool.place` has on the disk.

    Raises:
        OutputError: The copy can't be written.
    """
    with path.open("rb") as source:
        try:
            with part.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        except OSError as error:
            raise OutputError(
                "disk-full" if error.errno in FULL else "output-not-writable",
                f"the spool can't be written ({error.strerror}); what lies in watched folders waits",
            ) from error
