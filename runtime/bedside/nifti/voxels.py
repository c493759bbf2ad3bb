"""Slices of a NIfTI file in canonical order, without holding the volume and without mapping it into memory.

A plain file whose slices lie in one piece is read where it is. What is gzipped, or stored in another order than
slice by slice, is brought once into an unnamed temporary file, slice by slice: gzip has no random access, and
slices are asked for in any order. That file needs the volume's size on the disk for as long as the scan is open.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from bedside.disk import FULL, reason
from bedside.errors import InputError, OutputError
from bedside.files import open_input
from bedside.nifti.content import (
    GZIP,
    PART_BYTES,
    Inflated,
    Plain,
    Source,
    ends_early,
    parts,
    read_head,
    unreadable,
)
from bedside.nifti.geometry import find_affine
from bedside.nifti.header import is_header, parse_header
from bedside.nifti.layout import find_layout

__all__ = ["BUFFER_BYTES", "Voxels", "is_nifti"]

BUFFER_BYTES: Final = 1 << 22
"""What turning a volume into slices holds at a time, 4 MiB, or one plane of the file."""
_MOST_DEFLATED: Final = 1032
"""Deflate makes bytes at most this many times smaller (zlib's technical notes)."""
_LARGE_TEMPORARY: Final = Path("/var/tmp")  # noqa: S108 - the file has no name: nobody can lie in wait for it
"""Where large temporary files go (file-hierarchy(7)): /tmp may be kept in memory."""


class Voxels:
    """A file's array. Use it from one thread at a time; close it after use.

    Args:
        path: The file, ``.nii`` or ``.nii.gz``; which of them is told by its content.
        orientation: Where the file's axes i, j, k point, for one that does not say it.
        buffer_bytes: What may be held at a time while the file is brought into slices; at least one plane is.

    Raises:
        InputError: ``not-found``, ``not-readable``, ``empty-file``, ``broken-nifti``.
        RefusedError: ``improper-geometry``, ``multi-frame``, ``colour``, ``not-hu``.
        OutputError: ``disk-full``, ``output-not-writable``: of the temporary file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        orientation: str | None = None,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        with open_input(path) as stream:
            self._descriptor = os.dup(stream.fileno())
        try:
            self._open(orientation, buffer_bytes)
        except BaseException:
            self.close()
            raise
        rest = [n for axis, n in enumerate(self.fields.shape) if axis != self.layout.axes[0]]
        self._buffer = bytearray(self.fields.nbytes // self.grid.shape[0])
        self._plane = np.frombuffer(self._buffer, self.fields.dtype).reshape(rest)

    def plane(self, index: int) -> npt.NDArray[Any]:
        """A canonical slice, ``(Y, X)``, with the file's type, unscaled: a view of a buffer, good until the next call.

        Raises:
            InputError: ``broken-nifti``, ``not-readable``.
            IndexError: No such slice.
        """
        slices = self.grid.shape[0]
        if not 0 <= index < slices:
            raise IndexError(f"slice {index} of {slices}")
        view = memoryview(self._buffer)
        start = self._base + self.layout.stored_index(index, slices) * len(view)
        done = 0
        try:
            while done < len(view):
                got = os.preadv(self._descriptor, [view[done:]], start + done)
                if not got:
                    raise ends_early()
                done += got
        except OSError as error:
            raise unreadable() from error
        return self.layout.to_canonical(self._plane)

    def close(self) -> None:
        """Close the file, or remove the temporary one. Closing twice is harmless."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self, orientation: str | None, buffer_bytes: int) -> None:
        stream = Plain(self._descriptor)
        gzipped = stream.read(2) == GZIP
        stream.rewind()
        source: Source = Inflated(stream) if gzipped else stream
        self.fields = parse_header(read_head(source))
        """The header."""
        affine, self.entries = find_affine(self.fields, orientation)
        """What the header's geometry gave rise to."""
        self.layout = find_layout(affine)
        """How the canonical axes lie in the file."""
        self.grid = self.layout.canonical_grid(self.fields.shape, affine)
        """Where the voxels are, in canonical order."""
        self._base = self.fields.offset
        needed = self._base + self.fields.nbytes
        size = os.fstat(self._descriptor).st_size
        if needed > (size * _MOST_DEFLATED if gzipped else size):
            raise ends_early()
        if gzipped or not self.layout.by_slices:
            stream.rewind()
            brought = self._bring(Inflated(stream) if gzipped else stream, buffer_bytes)
            self.close()
            self._descriptor, self._base = brought, 0

    def _bring(self, source: Source, buffer_bytes: int) -> int:
        """Copy the voxels, slice by slice, into an unnamed file; return its descriptor."""
        fields = self.fields
        with _temporary(fields.nbytes) as target:
            for _ in parts(source, fields.offset):  # the header and its extensions
                pass
            if self.layout.by_slices:
                for part in parts(source, fields.nbytes):
                    with _told(fields.nbytes):
                        target.write(part)
            else:
                self._turn(source, target, buffer_bytes)
            while source.read(PART_BYTES):  # to the checksum
                pass
            with _told(fields.nbytes):
                target.flush()
            return os.dup(target.fileno())

    def _turn(self, source: Source, target: BinaryIO, buffer_bytes: int) -> None:
        """Write slices of planes that are none, a few planes at a time."""
        fields, axis = self.fields, self.layout.axes[0]
        depth = fields.shape[0]
        plane = fields.nbytes // depth
        step = max(1, buffer_bytes // plane)
        for start in range(0, depth, step):
            planes = min(step, depth - start)
            data = b"".join(parts(source, planes * plane))
            block = np.frombuffer(data, fields.dtype).reshape(planes, *fields.shape[1:])
            with _told(fields.nbytes):
                _spread(target, np.moveaxis(block, axis, 0), start, depth)


def _spread(target: BinaryIO, block: npt.NDArray[Any], start: int, depth: int) -> None:
    """Write planes of a file that are no slices, but hold a line of each.

    Args:
        target: The temporary file: slice by slice, each of ``depth`` lines.
        block: ``(slice, plane, along the line)``.
        start: Which of the file's planes comes first.
        depth: How many planes the file has.
    """
    for index, lines in enumerate(block):
        target.seek((index * depth + start) * lines[0].nbytes)
        target.write(lines.tobytes())


def is_nifti(path: str | os.PathLike[str]) -> bool:
    """Whether a file claims to be NIfTI (or Analyze), gzipped or not, by its first bytes.

    Raises:
        InputError: ``not-found``, ``not-readable``, ``empty-file``.
    """
    with open_input(path) as stream:
        head = stream.read(4)
        if head[:2] == GZIP:
            stream.seek(0)
            try:
                head = Inflated(stream).read(4)
            except InputError:
                return False
    return is_header(head)


@contextmanager
def _temporary(needed: int) -> Iterator[BinaryIO]:
    """An unnamed file, on a disk with so much space, in bytes."""
    folder = _LARGE_TEMPORARY if os.access(_LARGE_TEMPORARY, os.W_OK | os.X_OK) else None
    with _told(needed):
        stream = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed below
    try:
        with _told(needed):
            disk = os.fstatvfs(stream.fileno())
            if disk.f_bavail * disk.f_frsize < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield stream
    finally:
        with suppress(OSError):  # what a full disk left in its buffer, and what was told of already
            stream.close()


@contextmanager
def _told(needed: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        room = f"reading this file needs {needed / 2**20:.0f} MiB of temporary space"
        if error.errno in FULL:
            raise OutputError("disk-full", f"{room}, which the disk lacks; free it") from error
        raise OutputError(
            "output-not-writable", f"{room}, and failed ({reason(error)}); check the disk"
        ) from error
