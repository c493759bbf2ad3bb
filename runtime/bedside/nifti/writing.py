"""Writing label and probability maps as .nii.gz, slice by slice, in any order.

A slice is deflated when it comes, by whichever thread brings it, and kept so: in memory up to a bound, then in an
unnamed file beside the output. At the end the pieces are joined, in order, into one gzip member, which every reader
takes; nothing is under the output's name before that. Not for clinical use, as each header says.

    labels        uint8, one class number a voxel; 255 in slices that were not read
    probability   uint8, one file a class; 0 to 254 stand for 0 to 1 by ``scl_slope`` 1/254, so that a reader gets
                  the probability to 0.002; 255, in slices that were not read, comes out as 1.004, over any
"""

from __future__ import annotations

import os
import struct
import tempfile
import threading
import zlib
from contextlib import suppress
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from bedside.disk import told
from bedside.nifti.checksum import Appender
from bedside.nifti.header import VERSION_1
from bedside.nifti.layout import Layout
from bedside.results import atomic
from bedside.scan import Grid
from bedside.version import __version__

__all__ = ["NOT_READ", "PROBABILITY_STEPS", "NiftiWriter"]

NOT_READ: Final = 255
"""What a voxel of a slice holds that was never written, of either kind."""
PROBABILITY_STEPS: Final = 254
"""What stands for a probability of 1; even, so that a half is exact."""
SPOOL_BYTES: Final = 1 << 24
"""Deflated slices that are kept in memory, 16 MiB: the labels of about 3,000 slices of 512x512."""
LEVEL: Final = 1
"""zlib's effort: the fastest. Higher ones make labels little smaller."""
NOTICE: Final = f"bedside {__version__}; not for clinical use"
"""``descrip`` of each file."""
FIRST_VOXEL: Final = 352
"""``vox_offset``: the header and the four bytes that say that no extension follows (nifti1.h)."""

_GZIP_HEADER: Final = bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 4, 255])
"""RFC 1952: deflated, no name, no time, fastest, unknown system."""
_LAST_BLOCK: Final = b"\x03\x00"
"""An empty final block of deflate (RFC 1951)."""
_LABEL_INTENT: Final = 1002
"""NIFTI_INTENT_LABEL: each voxel is an index of a table of labels."""
_ESTIMATE_INTENT: Final = 1001
"""NIFTI_INTENT_ESTIMATE: each voxel is an estimate of a parameter, which ``intent_name`` may name."""
_SCANNER: Final = 1
"""NIFTI_XFORM_SCANNER_ANAT: coordinates of the scanner."""
_MILLIMETRES: Final = 2
_ORTHOGONAL: Final = 1e-4
"""Largest cosine between axes that a rotation may stand for: 0.05 mm over half a metre."""


class NiftiWriter:
    """A map that appears under its name, whole, when the ``with`` block ends without an error, or not at all.

    Slices may be written from several threads. A slice that is written again replaces the earlier one.

    Args:
        path: ``.nii.gz``. What is there is replaced.
        grid: Where the voxels are, in canonical order.
        kind: ``labels`` or ``probability``; see the module.
        name: Of what the probability is, at most 15 characters of ASCII.
        layout: In which order of axes to store, e.g. `NiftiScan.layout`, so that the map matches its source voxel
            by voxel; the affine follows. One that is not by slices can't be written so: the map is canonical then.
        memory_bytes: Deflated slices that are kept in memory; more wait on the disk.

    Raises:
        OutputError: ``disk-full``, ``output-not-writable``; in `write` and at the end.
        ValueError: Improper arguments.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        grid: Grid,
        *,
        kind: Literal["labels", "probability"] = "labels",
        name: str = "",
        layout: Layout | None = None,
        memory_bytes: int = SPOOL_BYTES,
    ) -> None:
        if not os.fspath(path).endswith(".nii.gz"):
            raise ValueError("the name of a map must end in .nii.gz")
        if kind not in ("labels", "probability"):
            raise ValueError(f"kind must be labels or probability, not {kind!r}")
        if max(grid.shape) > np.iinfo(np.int16).max:
            raise ValueError("over 32,767 voxels along an axis don't fit into NIfTI-1")
        self._path = Path(path)
        self._grid = grid
        self._kind = kind
        self._layout = layout if layout is not None and layout.by_slices else Layout()
        self._header = make_header(
            self._layout.stored_affine(grid), self._layout.stored_shape(grid.shape), kind, name
        )
        self._spool = tempfile.SpooledTemporaryFile(max_size=max(1, memory_bytes), dir=str(self._path.parent))  # noqa: SIM115
        self._end = 0
        self._pieces: dict[int, _Piece] = {}
        self._lock = threading.Lock()

    def write(self, index: int, values: npt.NDArray[Any]) -> None:
        """Write one slice.

        Args:
            index: On the grid's z axis.
            values: ``(Y, X)``: of labels, any integers from 0 to 254; of a probability, floats, clipped to 0 to 1.

        Raises:
            OutputError: ``disk-full``, ``output-not-writable``.
            ValueError: Improper values.
            IndexError: No such slice.
        """
        slices = self._grid.shape[0]
        if not 0 <= index < slices:
            raise IndexError(f"slice {index} of {slices}")
        if values.shape != self._grid.shape[1:]:
            raise ValueError(f"a slice is {self._grid.shape[1:]}, not {values.shape}")
        stored = self._layout.to_stored(
            _checked_labels(values) if self._kind == "labels" else _quantised(values)
        )
        crc, data = _deflate(np.ascontiguousarray(stored))
        with self._lock, told():
            self._spool.seek(self._end)
            self._spool.write(data)
            self._pieces[self._layout.stored_index(index, slices)] = _Piece(crc, self._end, len(data))
            self._end += len(data)

    def __enter__(self) -> NiftiWriter:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write the file, unless the block failed; free what was kept.

        Raises:
            OutputError: ``disk-full``, ``output-not-writable``.
        """
        try:
            if kind is None:
                self._save()
        finally:
            with suppress(OSError):  # what a full disk left in its buffer, and what was told of already
                self._spool.close()

    def _save(self) -> None:
        slices, *plane = self._grid.shape
        area = prod(plane)
        crc, blank = _deflate(np.full(area, NOT_READ, np.uint8))
        unread = _Piece(crc, 0, len(blank))
        appender = Appender(area)
        whole = zlib.crc32(self._header)
        with atomic(self._path) as stream:
            stream.write(_GZIP_HEADER)
            stream.write(_deflate(np.frombuffer(self._header, np.uint8))[1])
            for index in range(slices):
                piece = self._pieces.get(index, unread)
                whole = appender.append(whole, piece.crc)
                if piece is unread:
                    stream.write(blank)
                else:
                    self._spool.seek(piece.start)
                    stream.write(self._spool.read(piece.length))
            stream.write(_LAST_BLOCK)
            stream.write(struct.pack("<II", whole, (len(self._header) + slices * area) & 0xFFFFFFFF))


class _Piece:
    """A deflated slice."""

    __slots__ = ("crc", "length", "start")

    def __init__(self, crc: int, start: int, length: int) -> None:
        self.crc = crc
        self.start = start
        self.length = length


def make_header(
    affine: npt.NDArray[np.float64], shape: tuple[int, int, int], kind: str, name: str = ""
) -> bytes:
    """The first `FIRST_VOXEL` bytes of a file.

    Args:
        affine: ``(4, 4)``, index ``(k, j, i, 1)`` -> patient coordinates LPS, mm.
        shape: ``(K, J, I)``.
        kind: As of `NiftiWriter`.
        name: As of `NiftiWriter`.

    Raises:
        ValueError: The name is too long, or not ASCII.
    """
    if len(name) > 15 or not name.isascii():
        raise ValueError("name must have at most 15 characters of ASCII")
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine[:, [2, 1, 0, 3]]  # (i, j, k, 1) -> RAS
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    rotation = matrix[:3, :3] / lengths
    handedness = 1.0 if np.linalg.det(rotation) > 0 else -1.0
    header = np.zeros((), VERSION_1)
    header["sizeof_hdr"] = VERSION_1.itemsize
    header["regular"] = b"r"
    header["dim"] = [3, *shape[::-1], 1, 1, 1, 1]
    header["datatype"], header["bitpix"] = 2, 8
    header["pixdim"] = [handedness, *lengths, 0, 0, 0, 0]
    header["vox_offset"] = FIRST_VOXEL
    header["scl_slope"] = 1 if kind == "labels" else 1 / PROBABILITY_STEPS
    header["cal_max"] = 0 if kind == "labels" else 1
    header["xyzt_units"] = _MILLIMETRES
    header["descrip"] = NOTICE.encode("ascii")
    header["intent_code"] = _LABEL_INTENT if kind == "labels" else _ESTIMATE_INTENT
    header["intent_name"] = name.encode("ascii")
    header["sform_code"] = _SCANNER
    header["srow"] = matrix[:3]
    header["qoffset"] = matrix[:3, 3]
    cosines = rotation.T @ rotation - np.eye(3)
    if np.abs(cosines).max() < _ORTHOGONAL:  # no rotation stands for a shear: the sform is alone then
        header["qform_code"] = _SCANNER
        header["quatern"] = _quaternion(rotation * [1, 1, handedness])
    header["magic"] = b"n+1"
    return header.tobytes() + bytes(FIRST_VOXEL - VERSION_1.itemsize)


def _quaternion(rotation: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """b, c and d of a rotation, with a >= 0.

    They are the eigenvector of the largest eigenvalue of a symmetric matrix (Bar-Itzhack 2000, version 3), which
    holds for any rotation and takes what is nearest to one.
    """
    ((xx, xy, xz), (yx, yy, yz), (zx, zy, zz)) = rotation.tolist()
    symmetric = np.array(
        [
            [xx + yy + zz, zy - yz, xz - zx, yx - xy],
            [zy - yz, xx - yy - zz, xy + yx, xz + zx],
            [xz - zx, xy + yx, yy - xx - zz, yz + zy],
            [yx - xy, xz + zx, yz + zy, zz - xx - yy],
        ]
    )
    vector = np.linalg.eigh(symmetric)[1][:, -1]
    return np.asarray(-vector[1:] if vector[0] < 0 else vector[1:])


def _checked_labels(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if values.dtype.kind not in "iub":
        raise ValueError(f"labels must be integers, not {values.dtype}")
    if values.min() < 0 or values.max() >= NOT_READ:
        raise ValueError(f"labels must lie from 0 to {NOT_READ - 1}")
    return values.astype(np.uint8, copy=False)


def _quantised(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if np.isnan(values).any():
        raise ValueError("a probability must be a number")
    scaled = np.multiply(values, np.float32(PROBABILITY_STEPS), dtype=np.float32)
    return np.asarray(np.rint(scaled).clip(0, PROBABILITY_STEPS), np.uint8)


def _deflate(values: npt.NDArray[np.uint8]) -> tuple[int, bytes]:
    """CRC-32, and whole blocks of deflate that refer to nothing before them and are not the last."""
    engine = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return zlib.crc32(values.data), engine.compress(values.data) + engine.flush(zlib.Z_FULL_FLUSH)
