"""Which files a list of paths stands for: files as they are named, folders searched for pictures.

Nothing is listed before it is asked for, so that the first of a hundred thousand files comes at once.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bedside.containers import find_format
from bedside.dicom import is_dicom
from bedside.errors import InputError

__all__ = ["Inputs", "Source"]

SUFFIXES: Final = frozenset(
    {".dcm", ".dicom", ".dic", ".ima", ".png", ".jpg", ".jpeg", ".tif", ".tiff"},
)
"""A file of a folder with one of these is an input, whatever it holds; others have to look like one inside."""
DICOMDIR: Final = "DICOMDIR"
"""The index of a DICOM medium (PS3.10, 8.6): DICOM, and no picture."""
HEAD_BYTES: Final = 256
"""Enough to tell the kind of a file."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file to score."""

    path: Path
    """The file: as it was named, or under the folder as that was named."""
    root: Path | None = None
    """The folder that was named, if it was found in one."""


class Inputs:
    """The files that ``paths`` stand for, found while one iterates; iterating again starts anew.

    A file that is named is an input, whatever it is, also if it does not exist. A folder is searched with the
    folders in it, each in the order of its names. In it, a file is an input if its suffix says so (`SUFFIXES`),
    if its content looks like DICOM, PNG, JPEG or TIFF, or if it can't be read, so that it is told of. Hidden
    files, DICOMDIR and all others are skipped. Links to files are followed, links to folders are not: they may
    lead in circles.

    Args:
        paths: Files and folders.
        output: A folder that is not searched, since results are written there.
    """

    def __init__(self, paths: Sequence[Path], *, output: Path | None = None) -> None:
        self._paths = tuple(paths)
        self._output = None if output is None else os.path.realpath(output)
        self.skipped = 0
        """Files (and links to folders) that were passed over so far."""
        self.unlisted: list[tuple[Path, str]] = []
        """Folders that could not be searched, so far, and why."""

    def __iter__(self) -> Iterator[Source]:
        """Find the files, in order."""
        self.skipped = 0
        self.unlisted = []
        for path in self._paths:
            if not _is_folder(path):
                yield Source(path)
                continue
            for entry in _walk(path, self._output, self.unlisted):
                if _is_input(entry):
                    yield Source(Path(entry.path), path)
                else:
                    self.skipped += 1

    @property
    def single(self) -> bool:
        """Whether one file was named, and nothing else."""
        return len(self._paths) == 1 and not _is_folder(self._paths[0])

    @property
    def takes_output(self) -> bool:
        """Whether the output folder is itself one of the folders that were named."""
        return any(os.path.realpath(path) == self._output for path in self._paths if _is_folder(path))

    def require_any(self) -> None:
        """Make sure that there is a first file, before anything is set up for it.

        Raises:
            InputError: ``not-found`` if there is none; ``not-readable`` if a folder can't be searched.
        """
        if next(iter(self), None) is not None:
            return
        if self.unlisted:
            raise InputError(
                "not-readable", f"no folder can be searched ({self.unlisted[0][1]}); check its permissions"
            )
        raise InputError(
            "not-found",
            f"no picture in what was given ({self.skipped} files that are none); name a DICOM, PNG, JPEG or TIFF "
            "file, or a folder that holds some",
        )

    def count(self) -> int:
        """How many files there are, those to be skipped too; no file is opened for it."""
        folders = [path for path in self._paths if _is_folder(path)]
        found = sum(sum(1 for _ in _walk(folder, self._output, [])) for folder in folders)
        return len(self._paths) - len(folders) + found


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises for a name that is too long


def _walk(folder: Path, output: str | None, unlisted: list[tuple[Path, str]]) -> Iterator[os.DirEntry[str]]:
    """All files under ``folder``, without those of the folder ``output`` and of hidden folders."""
    stack = [iter(_list(folder, output, unlisted))]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif not entry.is_dir(follow_symlinks=False):
            yield entry
        elif not entry.name.startswith("."):
            stack.append(iter(_list(Path(entry.path), output, unlisted)))


def _list(folder: Path, output: str | None, unlisted: list[tuple[Path, str]]) -> list[os.DirEntry[str]]:
    if output is not None and os.path.realpath(folder) == output:
        return []
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        unlisted.append((folder, os.strerror(error.errno).lower() if error.errno else "an I/O error"))
        return []


def _is_input(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(".") or entry.name.upper() == DICOMDIR:
        return False
    try:
        mode = entry.stat().st_mode
        if not stat.S_ISREG(mode):  # a pipe would wait for ever; a link to a folder may lead in circles
            return False
        if Path(entry.name).suffix.lower() in SUFFIXES:
            return True
        with Path(entry.path).open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError:
        return True  # the reader will tell why it can't be read
    return is_dicom(head) or bool(find_format(head))
