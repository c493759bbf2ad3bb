"""Where a bundle's bytes lie: a flat folder or a zip file, read safely, never extracted."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from bedside.errors import BundleError

__all__ = ["Storage", "open_storage"]

MAX_FILES: Final = 64
"""Most files in a bundle."""
MAX_FILE_BYTES: Final = 1 << 30
"""Largest file in a bundle, 1 GiB; an ONNX file without external data can't pass 2 GiB."""
MAX_TOTAL_BYTES: Final = 2 << 30
"""Largest bundle, 2 GiB."""
MAX_DIRECTORY_BYTES: Final = 1 << 20
"""Longest directory of a zip file that is read; `MAX_FILES` entries take some 10 KiB."""
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_ENCRYPTED: Final = 0x1
"""Bit of a zip member's flags."""
_ZIP_ERRORS: Final = (
    OSError,
    EOFError,
    NotImplementedError,
    ValueError,  # a name that is not UTF-8, an offset under zero
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zipfile raises on bytes that are no proper zip file."""


class Storage(Protocol):
    """Reads the files of one bundle by name."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Name of each file -> its size in bytes, as it was when the bundle was opened."""

    def read(self, name: str) -> bytes:
        """The file's bytes, at most one more than its size (so that a file that grew shows).

        Raises:
            BundleError: ``bundle-altered`` if there is no such file or the zip is damaged there;
                ``bundle-broken`` if it can't be read, or is no plain file any more.
        """


def open_storage(path: Path) -> Storage:
    """A folder or a zip file as storage.

    Raises:
        BundleError: ``bundle-unsafe`` for links, folders inside, unsafe names, or over `MAX_FILES`,
            `MAX_FILE_BYTES` or `MAX_TOTAL_BYTES`; ``bundle-broken`` if it is neither, or not readable.
    """
    path = path.resolve()  # where it really lies: links are refused from here on
    try:
        if path.is_dir():
            with os.scandir(path) as entries:
                return _Folder(path, _checked([_entry(entry) for entry in islice(entries, MAX_FILES + 1)]))
        with _open_zip(path) as archive:
            return _Zip(path, _checked([_member(member) for member in archive.infolist()]))
    except BundleError:
        raise
    except _ZIP_ERRORS as error:
        raise BundleError(
            "bundle-broken",
            f"the bundle can't be opened ({_reason(error)}); give a bundle's folder or its zip file",
        ) from error


@dataclass(frozen=True, slots=True)
class _Folder:
    path: Path
    sizes: Mapping[str, int]

    def read(self, name: str) -> bytes:
        size = _size(name, self.sizes)
        try:
            with io.BufferedReader(io.FileIO(self.path / name, opener=_open_plain)) as file:
                return file.read(size + 1)
        except OSError as error:
            raise BundleError(
                "bundle-broken", f"{name!r} can't be read ({_reason(error)}); check the disk"
            ) from error


@dataclass(frozen=True, slots=True)
class _Zip:
    path: Path
    sizes: Mapping[str, int]

    def read(self, name: str) -> bytes:
        size = _size(name, self.sizes)
        try:
            with _open_zip(self.path) as archive, archive.open(_only(archive, name)) as file:
                return file.read(size + 1)
        except _ZIP_ERRORS as error:
            raise BundleError(
                "bundle-altered",
                f"{name!r} can't be read from the zip ({_reason(error)}); copy the bundle again",
            ) from error


class _Capped(io.FileIO):
    """A file that reads at most `limit` bytes at once: zipfile takes the whole directory in one read."""

    limit = MAX_DIRECTORY_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self.limit if size is None or size < 0 else min(size, self.limit))


@contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    with _Capped(path, opener=_open_plain) as file, zipfile.ZipFile(file) as archive:
        file.limit = MAX_FILE_BYTES
        yield archive


def _open_plain(path: str, flags: int) -> int:
    """As `os.open`, for plain files alone: a pipe would block, and a link leads elsewhere."""
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a plain file")
    return descriptor


def _only(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    member = archive.getinfo(name) if name in archive.NameToInfo else None
    if member is None:
        raise zipfile.BadZipFile("it is gone")
    _member(member)
    return member


def _entry(entry: os.DirEntry[str]) -> tuple[str, int]:
    if entry.is_symlink() or not entry.is_file(follow_symlinks=False):
        raise BundleError(
            "bundle-unsafe", f"{entry.name[:100]!r} is a link or a folder; a bundle holds plain files only"
        )
    return entry.name, entry.stat(follow_symlinks=False).st_size


def _member(member: zipfile.ZipInfo) -> tuple[str, int]:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if member.filename.endswith("/") or kind not in (0, stat.S_IFREG) or member.flag_bits & _ENCRYPTED:
        raise BundleError(
            "bundle-unsafe", "the zip holds a folder, a link or an encrypted file; zip plain files only"
        )
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BundleError("bundle-unsafe", "the zip is packed by another method than deflate; zip it again")
    return member.filename, member.file_size


def _checked(files: list[tuple[str, int]]) -> dict[str, int]:
    """Name -> size, where the names are allowed, no two are alike, and the sizes are within bounds."""
    if len(files) > MAX_FILES:
        raise BundleError(
            "bundle-unsafe", f"the bundle has over {MAX_FILES} files; it is not one of bedside's"
        )
    for name, size in files:
        if not _FILE_NAME.fullmatch(name):
            raise BundleError(
                "bundle-unsafe",
                f"the file name {name[:100]!r} is not allowed; a bundle is flat: remove hidden files, and zip "
                "the files, not their folder",
            )
        if size > MAX_FILE_BYTES:
            raise BundleError("bundle-unsafe", f"{name!r} is over {MAX_FILE_BYTES >> 20} MiB")
    if sum(size for _, size in files) > MAX_TOTAL_BYTES:
        raise BundleError("bundle-unsafe", f"the bundle is over {MAX_TOTAL_BYTES >> 20} MiB")
    if len({name.lower() for name, _ in files}) != len(files):
        raise BundleError(
            "bundle-unsafe", "two files have one name, or differ only in case; make the bundle again"
        )
    return dict(files)


def _size(name: str, sizes: Mapping[str, int]) -> int:
    if name not in sizes:
        raise BundleError(
            "bundle-altered", f"the bundle lacks its file {name[:100]!r}; copy it again from where it came"
        )
    return sizes[name]


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
