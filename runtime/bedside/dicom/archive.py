"""The files of a folder, of a zip of one, or one file alone, to be opened by number."""

from __future__ import annotations

import io
import os
import stat
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, Final, Protocol

from bedside.errors import InputError
from bedside.files import open_input

__all__ = ["Archive", "open_archive"]

MAX_FILES: Final = 100_000
"""Most files that are looked at: of the largest studies, ten times over."""
MAX_MEMBER_BYTES: Final = 1 << 26
"""Most bytes of one file of a zip, which is inflated into memory: a slice of 4,096 x 4,096 in 32 bits."""
ZIP_START: Final = (b"PK\x03\x04", b"PK\x05\x06")
"""First bytes of a zip file, and of an empty one."""
SUFFIXES: Final = frozenset({".dcm", ".dicom", ".dic", ".ima"})
"""A file with one of these is told of where it can't be read as DICOM."""
LARGE_BYTES: Final = 1 << 22
"""A file of a zip over this size has many frames, and is inflated but once."""
METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""Ways of packing that are read."""
DICOMDIR: Final = "DICOMDIR"
"""The index of a DICOM medium (PS3.10, 8.6): DICOM, and no picture."""


class Archive(Protocol):
    """Files in a fixed order. May be used from several threads."""

    def __len__(self) -> int:
        """How many files there are."""
        ...

    def open(self, number: int) -> AbstractContextManager[BinaryIO]:
        """One file, open for reading and seeking.

        Raises:
            InputError: It can't be read.
        """
        ...

    def is_named_dicom(self, number: int) -> bool:
        """Whether a file's name says that it is DICOM."""
        ...

    def close(self) -> None:
        """Free what is open."""
        ...


class Files:
    """Files as they lie on the disk.

    Args:
        paths: The files.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        """How many files there are."""
        return len(self._paths)

    def open(self, number: int) -> AbstractContextManager[BinaryIO]:
        """As of `Archive`."""
        return open_input(self._paths[number])

    def is_named_dicom(self, number: int) -> bool:
        """As of `Archive`."""
        return self._paths[number].suffix.lower() in SUFFIXES

    def close(self) -> None:
        """Nothing is held open."""


class Zip:
    """The members of a zip file, inflated in memory as far as they are read, and never written anywhere.

    Args:
        path: The zip file.

    Raises:
        InputError: ``not-readable`` where it is damaged, encrypted or beyond a limit.
    """

    def __init__(self, path: Path) -> None:
        with _told():
            self._zip = zipfile.ZipFile(path)
        members = sorted(self._zip.infolist(), key=lambda member: member.filename)
        self._members = [member for member in members if _is_shown(member)]
        self._lock = threading.Lock()
        self._large: tuple[int, bytes] | None = None
        try:
            _check_count(len(self._members))
            _check_open(self._members)
        except InputError:
            self.close()
            raise

    def __len__(self) -> int:
        """How many files there are."""
        return len(self._members)

    @contextmanager
    def open(self, number: int) -> Iterator[BinaryIO]:
        """As of `Archive`."""
        member = self._members[number]
        if member.file_size == 0:
            raise InputError("empty-file", "the file has no bytes; export or copy it again")
        if member.file_size > MAX_MEMBER_BYTES:
            raise InputError(
                "not-readable", f"a file of the zip is over {MAX_MEMBER_BYTES} bytes; give it unpacked"
            )
        with _told():
            if member.file_size > LARGE_BYTES:
                yield io.BytesIO(self._inflate(number))
            else:
                with self._zip.open(member) as packed, io.BufferedReader(_Member(packed, member)) as stream:
                    yield stream

    def is_named_dicom(self, number: int) -> bool:
        """As of `Archive`."""
        return PurePosixPath(self._members[number].filename).suffix.lower() in SUFFIXES

    def close(self) -> None:
        """Close the zip file."""
        self._zip.close()

    def _inflate(self, number: int) -> bytes:
        """A large member, held until the next one: its frames are read one by one."""
        with self._lock:
            if self._large is None or self._large[0] != number:
                self._large = None
                self._large = (number, self._zip.read(self._members[number]))
            return self._large[1]


class _Member(io.RawIOBase):
    """A member of a zip, inflated no further than it is read, so that a header costs a header."""

    def __init__(self, packed: IO[bytes], member: zipfile.ZipInfo) -> None:
        super().__init__()
        self._packed = packed
        self._size = member.file_size
        self._data = bytearray()
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # no Buffer before 3.12
        end = self._position + len(buffer)
        if end > len(self._data):
            self._data += self._packed.read(end - len(self._data))
        found = self._data[self._position : end]
        buffer[: len(found)] = found
        self._position += len(found)
        return len(found)


def open_archive(path: str | os.PathLike[str]) -> Archive:
    """The files that ``path`` stands for, in the order of their names.

    A folder is searched with the folders in it. Hidden files and DICOMDIR are left out; links to folders are
    not followed, since they may lead in circles.

    Raises:
        InputError: ``not-found``, ``not-readable``, ``empty-file``.
    """
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for a name that is too long
        try:
            paths = sorted(_walk(Path(path)))
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno else "an I/O error"
            raise InputError(
                "not-readable", f"a folder can't be searched ({reason}); check its permissions"
            ) from error
        return Files(paths)
    with open_input(path) as stream:
        return Zip(Path(path)) if stream.read(4) in ZIP_START else Files([Path(path)])


def _walk(folder: Path) -> Iterator[Path]:
    """All files under ``folder`` that may be slices."""
    stack = [folder]
    count = 0
    while stack:
        with os.scandir(stack.pop()) as found:
            for entry in found:
                if entry.name.startswith(".") or entry.name.upper() == DICOMDIR:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    stack.append(Path(entry.path))
                elif _is_regular(entry):
                    count += 1
                    _check_count(count)
                    yield Path(entry.path)


def _is_regular(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file: a pipe would wait for ever, and a broken link leads nowhere."""
    try:
        return stat.S_ISREG(entry.stat().st_mode)
    except FileNotFoundError:
        return False


def _is_shown(member: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(member.filename).parts
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not (hidden or member.is_dir() or not parts or parts[-1].upper() == DICOMDIR)


def _check_count(count: int) -> None:
    if count > MAX_FILES:
        raise InputError("not-readable", f"more than {MAX_FILES} files; give the folder of one study")


def _check_open(members: list[zipfile.ZipInfo]) -> None:
    if any(member.flag_bits & 1 for member in members):
        raise InputError("not-readable", "the zip file is encrypted; give it without a password")
    if any(member.compress_type not in METHODS for member in members):
        raise InputError("not-readable", "the zip file is packed in an unusual way; pack it by deflating")


@contextmanager
def _told() -> Iterator[None]:
    """Tell of defects of a zip file by code."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(
            "not-readable", "the zip file is damaged, or packed in an unknown way; pack it again"
        ) from error
