"""NIfTI files, which nibabel writes, and what is read of them."""

from __future__ import annotations

import gzip
import struct
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bedside.errors import BedsideError
from bedside.nifti.reading import read_nifti
from bedside.scan import Scan

nib: Any = import_module("nibabel")  # typed in parts
orientations = nib.orientations

HU = np.random.default_rng(0).permutation(np.arange(-900, 420)).reshape(10, 12, 11).astype(np.int16)
"""``(Z, Y, X)``: no value twice, as many light and dense as a scan may have."""
AFFINE = np.array([[0.0, 0, 0.8, -200], [0, 0.7, 0, -150], [2.5, 0, 0, -300], [0, 0, 0, 1]])
"""Index (z, y, x, 1) -> LPS."""
RAS = np.diag([-1.0, -1, 1, 1])
TURN = nib.eulerangles.euler2mat(0.3, -0.2, 0.1)


def image(
    values: npt.NDArray[Any] = HU, affine: npt.NDArray[np.float64] = AFFINE, *, version: Any = nib.Nifti1Image
) -> Any:
    """A nibabel image of a canonical array: its axes (i, j, k) are (x, y, z), to the left, the back and the head."""
    return version(values.T, RAS @ affine[:, [2, 1, 0, 3]])


def save(path: Path, made: Any = None) -> Path:
    """Write an image, or the usual one."""
    nib.save(image() if made is None else made, path)
    return path


def whole(scan: Scan) -> npt.NDArray[np.float32]:
    """All slices of a scan."""
    return scan.read(range(scan.grid.shape[0]))


def refusal(path: Path, **options: Any) -> BedsideError:
    """What is told where a file can't be read."""
    with pytest.raises(BedsideError) as caught:
        read_nifti(path, **options)
    return caught.value


def patched(path: Path, offset: int, layout: str, *values: float | bytes) -> Path:
    """A plain copy of a file, with some of its header overwritten; offsets are those of nifti1.h."""
    data = bytearray(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    struct.pack_into(f"<{layout}", data, offset, *values)
    changed = path.with_name("patched.nii")
    changed.write_bytes(data)
    return changed
