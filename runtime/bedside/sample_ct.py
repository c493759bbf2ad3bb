"""A CT series computed from the chest phantom, as DICOM files: for demonstrations and tests.

Slice by slice, with the noise of a low dose, and padding around the circle of reconstruction as scanners write
it; the same arguments give the same bytes. A phantom, not a patient. Not for clinical use.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import CTImageStorage

from bedside.chest import chest_phantom
from bedside.disk import told
from bedside.phantom import Phantom
from bedside.results import write_bytes
from bedside.sample import derive_uid, describe_patient, make_header, make_noise
from bedside.scan import Grid
from bedside.version import __version__

__all__ = ["GRID", "datasets", "write_series"]


def _make_grid() -> Grid:
    """Slices of 3 mm from the belly to the neck; 40 cm across, in pixels of 1.5625 mm."""
    slices, side, pixel = 120, 256, 1.5625
    edge = -pixel * (side - 1) / 2
    affine = np.array(
        [[0, 0, pixel, edge], [0, pixel, 0, edge + 5], [3.0, 0, 0, -195.0], [0, 0, 0, 1]], np.float64
    )
    return Grid((slices, side, side), affine)


GRID: Final = _make_grid()
"""Where the slices lie by default."""

_NOISE_HU: Final = 15.0
"""Standard deviation of the noise, HU: a choice, of the order of a low-dose chest CT in thick slices."""
_INTERCEPT: Final = -1024
"""Rescale Intercept, as most scanners have it."""
_PADDING: Final = -2000
"""Stored value around the circle of reconstruction, as GE scanners write it."""


def datasets(
    *, phantom: Phantom | None = None, grid: Grid = GRID, noise_hu: float = _NOISE_HU, seed: int = 0
) -> Iterator[FileDataset]:
    """The slices as DICOM data sets, from the feet to the head, ready to alter and to save.

    SOP class CT Image Storage (DICOM PS3.3 A.3). All UIDs are derived from the arguments and the version of
    bedside, under the root 2.25; all dates are fixed.

    Args:
        phantom: What is scanned; the severe case of `bedside.chest.CASES` by default.
        grid: Where the slices lie.
        noise_hu: Standard deviation of the noise, HU.
        seed: Of the noise.
    """
    source = chest_phantom("severe").phantom if phantom is None else phantom
    what = repr((source, grid.shape, grid.affine.tolist(), noise_hu, seed))
    digest = hashlib.sha256(what.encode()).hexdigest()
    depth = 8
    number = 0
    for slab in source.slabs(grid.shape, grid.affine, depth=depth):
        for picture in slab:
            hu = picture + noise_hu * make_noise(picture.shape, (seed, number))
            yield _make_slice(hu, grid, number, digest)
            number += 1


def write_series(
    folder: str | os.PathLike[str], *, phantom: Phantom | None = None, grid: Grid = GRID, seed: int = 0
) -> int:
    """Write the slices as files into ``folder``, which is made if it isn't there.

    Where that fails, or is interrupted, the files written so far are taken away again.

    Args:
        folder: Files of the same names in it are replaced.
        phantom: As of `datasets`.
        grid: As of `datasets`.
        seed: As of `datasets`.

    Returns:
        How many files were written.

    Raises:
        OutputError: ``output-not-writable`` or ``disk-full``.
    """
    target = Path(folder)
    existed = target.is_dir()
    written: list[Path] = []
    try:
        with told():
            target.mkdir(parents=True, exist_ok=True)
        for number, header in enumerate(datasets(phantom=phantom, grid=grid, seed=seed), 1):
            stream = BytesIO()
            header.save_as(stream, enforce_file_format=True)
            path = target / f"slice-{number:04d}.dcm"
            written.append(path)
            write_bytes(path, stream.getvalue())
    except BaseException:
        with suppress(OSError):
            for path in written:
                path.unlink(missing_ok=True)
            if not existed:
                target.rmdir()
        raise
    return len(written)


def _make_slice(hu: npt.NDArray[np.float64], grid: Grid, number: int, digest: str) -> FileDataset:
    uids = {name: derive_uid("ct", name, __version__, digest) for name in ("study", "series", "frame")}
    header = make_header(
        CTImageStorage,
        study=uids["study"],
        series=uids["series"],
        instance=derive_uid("ct", "instance", __version__, digest, str(number)),
    )
    describe_patient(header)
    header.SeriesDescription = "Chest CT, phantom"
    header.InstanceNumber = grid.shape[0] - number  # as scanners count: from the head
    header.AcquisitionNumber = 1
    header.Modality = "CT"
    header.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    header.DerivationDescription = "Computed from a geometric phantom"
    header.BodyPartExamined = "CHEST"
    header.KVP = 120
    header.PatientPosition = "HFS"
    header.PositionReferenceIndicator = ""
    header.FrameOfReferenceUID = uids["frame"]
    _describe_plane(header, grid, number)
    _describe_pixels(header, hu)
    return header


def _describe_plane(header: Dataset, grid: Grid, number: int) -> None:
    """Image Plane (PS3.3 C.7.6.2)."""
    _, height, width = grid.spacing_mm
    along, down = grid.affine[:3, 2] / width, grid.affine[:3, 1] / height
    position = grid.affine @ [number, 0, 0, 1]
    header.ImagePositionPatient = [round(float(value), 6) for value in position[:3]]
    header.ImageOrientationPatient = [round(float(value), 9) for value in (*along, *down)]
    header.PixelSpacing = [height, width]
    header.SliceThickness = round(grid.slice_gap_mm, 6)


def _describe_pixels(header: Dataset, hu: npt.NDArray[np.float64]) -> None:
    """Image Pixel, CT Image, VOI LUT."""
    stored = np.clip(np.rint(hu) - _INTERCEPT, 0, 4095).astype(np.int16)
    rows, columns = stored.shape
    y, x = np.ogrid[:rows, :columns]
    stored[np.hypot(2 * y - rows + 1, 2 * x - columns + 1) > min(rows, columns)] = _PADDING
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.Rows, header.Columns = rows, columns
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit = 15
    header.PixelRepresentation = 1
    header.add_new(0x00280120, "SS", _PADDING)  # Pixel Padding Value
    header.RescaleIntercept = _INTERCEPT
    header.RescaleSlope = 1
    header.RescaleType = "HU"
    header.WindowCenter = -600
    header.WindowWidth = 1500
    header.WindowCenterWidthExplanation = "LUNG"
    header.BurnedInAnnotation = "NO"
    header.PixelData = stored.astype("<i2").tobytes()
    header["PixelData"].VR = "OW"
