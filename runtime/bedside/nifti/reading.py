"""Reading CT and label maps from NIfTI files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside.errors import InputError
from bedside.hounsfield import check_hu, sample_slices
from bedside.nifti.layout import Layout
from bedside.nifti.voxels import BUFFER_BYTES, Voxels
from bedside.scan import AIR_HU, Entry, Grid

__all__ = ["PADDING_HU", "NiftiScan", "read_labels", "read_nifti"]

PADDING_HU: Final = -1500.0
"""What reads below this lies outside the scan: NIfTI names no padding value. Scanners pad with -2000, -2048 or
-3024, and no noise in air (-1000) reaches it."""
_BUFFER_SHARE: Final = 8
"""A buffer takes at most one in so many bytes of the memory that is allowed."""


class NiftiScan:
    """A CT in a NIfTI file, as `bedside.scan.Scan` says. It closes at the end of a ``with`` block.

    Args:
        voxels: The file. The scan closes it.
    """

    def __init__(self, voxels: Voxels) -> None:
        self._voxels = voxels
        self._broken: dict[int, int] = {}

    @property
    def grid(self) -> Grid:
        """Where the voxels are."""
        return self._voxels.grid

    @property
    def layout(self) -> Layout:
        """How the canonical axes lie in the file: for writing a label map voxel by voxel as the file is."""
        return self._voxels.layout

    @property
    def ledger(self) -> tuple[Entry, ...]:
        """What was found in the geometry, and ``not-a-number`` once a slice with such voxels was read."""
        if not self._broken:
            return self._voxels.entries
        voxels = sum(self._broken.values())
        text = f"{voxels} voxels ({voxels * self.grid.voxel_ml:.3g} mL) hold no number; read as air"
        return (*self._voxels.entries, Entry("not-a-number", "mended", text, count=len(self._broken)))

    def read(self, slices: Sequence[int]) -> npt.NDArray[np.float32]:
        """Read slices, ``(n, Y, X)`` float32, HU. What holds no number, or is padding, reads as air.

        Raises:
            InputError: ``broken-nifti``, ``not-readable``.
        """
        hu = self.values(slices)
        np.copyto(hu, AIR_HU, where=hu < PADDING_HU)
        return hu

    def values(self, slices: Sequence[int]) -> npt.NDArray[np.float32]:
        """As `read`, with padding as it is in the file."""
        fields = self._voxels.fields
        out = np.empty((len(slices), *self.grid.shape[1:]), np.float32)
        for place, index in enumerate(slices):
            plane = self._voxels.plane(index)
            with np.errstate(over="ignore", invalid="ignore"):  # what overflows is no number, below
                if (fields.slope, fields.intercept) != (1.0, 0.0):
                    plane = plane.astype(np.float64) * fields.slope + fields.intercept
                out[place] = plane
            finite = np.isfinite(out[place])
            if not finite.all():
                self._broken[index] = int(np.count_nonzero(~finite))
                np.copyto(out[place], AIR_HU, where=~finite)
        return out

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        self._voxels.close()

    def __enter__(self) -> NiftiScan:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()


def read_nifti(
    path: str | os.PathLike[str], *, orientation: str | None = None, memory_bytes: int | None = None
) -> NiftiScan:
    """Open a CT, and check on a sample of its slices that it is in Hounsfield units.

    Args:
        path: ``.nii`` or ``.nii.gz``, of version 1 or 2.
        orientation: Where the file's axes i, j, k point, e.g. ``RAS``; used only where the file does not say it.
        memory_bytes: What the scan may hold; it takes far less, but at least two planes of the file.

    Returns:
        The scan, which the caller closes.

    Raises:
        InputError: ``not-found``, ``not-readable``, ``empty-file``, ``broken-nifti``.
        RefusedError: ``not-hu``, ``constant-image``, ``improper-geometry``, ``multi-frame``, ``colour``.
        OutputError: ``disk-full``, ``output-not-writable``: of the temporary file (see `bedside.nifti.voxels`).
        ValueError: ``orientation`` is none.
    """
    buffer = BUFFER_BYTES if memory_bytes is None else min(BUFFER_BYTES, memory_bytes // _BUFFER_SHARE)
    scan = NiftiScan(Voxels(path, orientation=orientation, buffer_bytes=buffer))
    try:
        check_hu(sample_slices(scan.values, scan.grid.shape[0]))
    except BaseException:
        scan.close()
        raise
    return scan


def read_labels(
    path: str | os.PathLike[str], *, orientation: str | None = None
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """A label map, whole.

    Args:
        path: ``.nii`` or ``.nii.gz``, of integers or of floats that are whole numbers.
        orientation: As of `read_nifti`.

    Returns:
        ``(Z, Y, X)`` in canonical order, in the smallest of uint8, uint16 and int32 that holds it, and the affine
        as of `bedside.scan.Grid`.

    Raises:
        InputError: As `read_nifti`; ``broken-nifti`` also where a value is no whole number.
        RefusedError: ``improper-geometry``, ``multi-frame``, ``colour``.
        OutputError: As `read_nifti`.
    """
    voxels = Voxels(path, orientation=orientation)
    try:
        labels: npt.NDArray[Any] = np.empty(voxels.grid.shape, np.uint8)
        for index in range(len(labels)):
            plane = _whole(voxels.plane(index), voxels.fields.slope, voxels.fields.intercept)
            wanted = np.min_scalar_type(plane.max()) if plane.min() >= 0 else np.dtype(np.int32)
            if wanted.itemsize > labels.itemsize or plane.min() < 0:
                labels = labels.astype(np.uint16 if wanted == np.uint16 else np.int32, copy=False)
            labels[index] = plane
    finally:
        voxels.close()
    return labels, voxels.grid.affine


def _whole(plane: npt.NDArray[Any], slope: float, intercept: float) -> npt.NDArray[np.int32]:
    """The plane as int32.

    Raises:
        InputError: ``broken-nifti``: a value is no whole number, or over 31 bits.
    """
    if (slope, intercept) != (1.0, 0.0):
        plane = plane.astype(np.float64) * slope + intercept
    limits = np.iinfo(np.int32)
    low, high = plane.min(), plane.max()  # NaN where there is one
    whole = plane.dtype.kind in "iu" or (
        np.isfinite((low, high)).all() and bool(np.all(plane == np.rint(plane)))
    )
    if not whole or low < limits.min or high > limits.max:
        raise InputError(
            "broken-nifti",
            "this is no label map: its values are not whole numbers; threshold or round them first",
        )
    return plane.astype(np.int32)
