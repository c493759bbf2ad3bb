"""CT series for tests: a body of known volume and a marker with three arms, scanned in any geometry."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import pi
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless

from bedside.phantom import Body, Phantom
from bedside.scan import Grid
from bedside.solids import Ellipsoid
from dicom_files import make_dataset, write_dataset

__all__ = [
    "ARMS",
    "AXIAL",
    "CORNER",
    "LUNG_ML",
    "PHANTOM",
    "Edit",
    "Encoding",
    "compress",
    "make_affine",
    "make_multiframe",
    "make_series",
    "measure_ml",
    "put_hu",
    "scan",
    "write_multiframe",
    "write_series",
]

CT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT: Final = "1.2.840.10008.5.1.4.1.1.2.1"
INTERCEPT: Final = -1024

LUNG_HU, SOFT_HU, CORNER_HU = -870, 40, 500
LUNG_SEMI_AXES: Final = (50.0, 70.0, 100.0)
LUNG_ML: Final = 4 / 3 * pi * 50 * 70 * 100 / 1000
"""Volume of an ellipsoid, 200 mm tall: as tall as the body that the ledger's bounds are for."""

CORNER: Final = (-90.0, -60.0, 20.0)
ARMS: Final = {"left": (1000, (1, 0, 0)), "back": (1500, (0, 1, 0)), "head": (2000, (0, 0, 1))}
"""HU of each arm of the marker, and the direction in which it points from the corner, LPS."""


def _arm(direction: Sequence[int]) -> Ellipsoid:
    centre = tuple(corner + 30.0 * step for corner, step in zip(CORNER, direction, strict=True))
    x, y, z = (14.0 if step else 7.0 for step in direction)
    return Ellipsoid((centre[0], centre[1], centre[2]), (x, y, z))


PHANTOM: Final = Phantom(
    (
        Body("soft tissue, beyond the picture", SOFT_HU, (Ellipsoid((0, 0, 0), (3000, 3000, 3000)),)),
        Body("lung", LUNG_HU, (Ellipsoid((20, 0, 0), LUNG_SEMI_AXES),)),
        Body("corner", CORNER_HU, (Ellipsoid(CORNER, (7, 7, 7)),)),
        *(Body(name, hu, (_arm(direction),)) for name, (hu, direction) in ARMS.items()),
    )
)


def make_affine(
    *,
    along: Sequence[float] = (1, 0, 0),
    down: Sequence[float] = (0, 1, 0),
    step: Sequence[float] = (0, 0, 3),
    pixel_mm: tuple[float, float] = (2.5, 2.5),
    shape: tuple[int, int, int] = (76, 104, 96),
) -> npt.NDArray[np.float64]:
    """Affine of a stack as it is stored, its middle in the middle of the phantom, but for an odd few mm.

    Args:
        along: Direction in which columns are counted.
        down: Direction in which rows are counted.
        step: From slice to slice, mm.
        pixel_mm: Distance between rows, and between columns.
        shape: Slices, rows and columns.
    """
    columns = np.array([step, np.array(down) * pixel_mm[0], np.array(along) * pixel_mm[1]], np.float64).T
    affine = np.eye(4)
    affine[:3, :3] = columns
    affine[:3, 3] = (1.3, 2.1, 0.7) - columns @ ((np.array(shape) - 1) / 2)
    return affine


SHAPE: Final = (76, 104, 96)
AXIAL: Final = Grid(SHAPE, make_affine())
"""76 axial slices of 3 mm, 104 rows and 96 columns of 2.5 mm."""


@cache
def _voxelise(shape: tuple[int, int, int], affine: bytes) -> npt.NDArray[np.float32]:
    hu = PHANTOM.hu(shape, np.frombuffer(affine).reshape(4, 4))
    hu.flags.writeable = False
    return hu


def scan(grid: Grid) -> npt.NDArray[np.float32]:
    """What the phantom looks like on a grid, ``(Z, Y, X)`` HU: exact along x, and 2 x 2 rays a voxel. Read-only."""
    return _voxelise(grid.shape, np.ascontiguousarray(grid.affine).tobytes())


def make_series(grid: Grid = AXIAL, *, number: int = 1, **header: object) -> list[Dataset]:
    """The slices of the phantom as plain CT images, in the order of the grid.

    Args:
        grid: As stored: any directions.
        number: Of the series; part of its UIDs.
        header: Attributes of all slices, by keyword.
    """
    _, height, width = grid.spacing_mm
    cosines = [*(grid.affine[:3, 2] / width), *(grid.affine[:3, 1] / height)]
    slices = []
    for index, hu in enumerate(scan(grid)):
        attributes: dict[str, object] = {
            "Modality": "CT",
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 1,
            "RescaleSlope": 1,
            "RescaleIntercept": INTERCEPT,
            "RescaleType": "HU",
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "StudyInstanceUID": "1.2.3",
            "SeriesInstanceUID": f"1.2.3.{number}",
            "FrameOfReferenceUID": "1.2.3.9",
            "AcquisitionNumber": 1,
            "InstanceNumber": index + 1,
            "PatientPosition": "HFS",
            "SliceThickness": round(grid.slice_gap_mm, 4),
            "PixelSpacing": [round(height, 6), round(width, 6)],
            "ImagePositionPatient": [round(float(p), 6) for p in (grid.affine @ [index, 0, 0, 1])[:3]],
            "ImageOrientationPatient": [round(float(cosine), 9) for cosine in cosines],
            **header,
        }
        dataset = make_dataset(hu.shape[0], hu.shape[1], **attributes)
        dataset.SOPClassUID = UID(CT_IMAGE)
        dataset.SOPInstanceUID = UID(f"1.2.3.{number}.{index + 1}")
        put_hu(dataset, hu)
        slices.append(dataset)
    return slices


def put_hu(dataset: Dataset, hu: npt.NDArray[np.float32]) -> None:
    """Store HU in 16 bits, by the data set's own rescale."""
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    stored = np.rint((hu - intercept) / slope).astype("<i2")
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"


def write_series(folder: Path, slices: Sequence[Dataset], *, shuffled: bool = True) -> Path:
    """Write each slice as a file; their names are in another order than the slices."""
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(7).permutation(len(slices)) if shuffled else range(len(slices))
    for place, dataset in zip(order, slices, strict=True):
        write_dataset(folder / f"image-{place:04d}.dcm", dataset)
    return folder


def measure_ml(hu: npt.NDArray[np.float32], grid: Grid) -> float:
    """Volume of what is nearer to lung than to soft tissue, mL."""
    return float(np.count_nonzero(hu < (LUNG_HU + SOFT_HU) / 2)) * grid.voxel_ml


Edit = Callable[[list[Dataset]], list[Dataset]]
"""What a case does to the slices, which come from the feet to the head; they may be altered."""


@dataclass(frozen=True)
class Encoding:
    """How the frames of a multi-frame file are stored."""

    compressed: bool = False
    fragments: int = 1
    table: str = "none"
    """``none``, ``basic`` or ``extended``."""


def make_multiframe(
    slices: Sequence[Dataset], *, shared: bool = True, encoding: Encoding | None = None
) -> Dataset:
    """An Enhanced CT of all slices; what is the same in all of them is shared, or stands in each frame."""
    encoding = encoding or Encoding()
    dataset = copy.deepcopy(slices[0])
    pixels = [slice_.PixelData for slice_ in slices]
    groups = [_make_groups(slice_) for slice_ in slices]
    same = {"PlaneOrientationSequence", "PixelMeasuresSequence"} if shared else set()
    common = Dataset()
    for keyword in same:
        setattr(common, keyword, copy.deepcopy(getattr(groups[0], keyword)))
        for group in groups:
            delattr(group, keyword)
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
        "RescaleSlope",
        "RescaleIntercept",
        "RescaleType",
    ):
        delattr(dataset, keyword)
    dataset.SOPClassUID = UID(ENHANCED_CT)
    dataset.NumberOfFrames = len(slices)
    dataset.SharedFunctionalGroupsSequence = Items([common])
    dataset.PerFrameFunctionalGroupsSequence = Items(groups)
    if not encoding.compressed:
        dataset.PixelData = b"".join(pixels)
        return dataset
    shape = (dataset.Rows, dataset.Columns)
    frames = [compress(np.frombuffer(data, "<u2").reshape(shape)) for data in pixels]
    if encoding.table == "extended":
        lengths = [len(frame) + len(frame) % 2 for frame in frames]
        offsets = np.cumsum([0, *(length + 8 for length in lengths[:-1])])
        dataset.ExtendedOffsetTable = offsets.astype("<u8").tobytes()
        dataset.ExtendedOffsetTableLengths = np.array(lengths, "<u8").tobytes()
    dataset.PixelData = encapsulate(
        frames, fragments_per_frame=encoding.fragments, has_bot=encoding.table == "basic"
    )
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def write_multiframe(path: Path, dataset: Dataset) -> Path:
    """Write what `make_multiframe` made."""
    compressed = bool(dataset["PixelData"].is_undefined_length)
    return write_dataset(path, dataset, JPEG2000Lossless if compressed else ExplicitVRLittleEndian)


def compress(stored: npt.NDArray[np.uint16]) -> bytes:
    """A codestream of JPEG 2000, lossless, bit patterns as they are."""
    out = io.BytesIO()
    Image.fromarray(stored).save(out, "JPEG2000", irreversible=False, no_jp2=True)
    return out.getvalue()


def _make_groups(source: Dataset) -> Dataset:
    """The functional groups of one frame (PS3.3, C.7.6.16)."""
    group = Dataset()
    for sequence, keywords in (
        ("PlanePositionSequence", ("ImagePositionPatient",)),
        ("PlaneOrientationSequence", ("ImageOrientationPatient",)),
        ("PixelMeasuresSequence", ("PixelSpacing", "SliceThickness")),
        ("PixelValueTransformationSequence", ("RescaleSlope", "RescaleIntercept", "RescaleType")),
    ):
        item = Dataset()
        for keyword in keywords:
            setattr(item, keyword, getattr(source, keyword))
        setattr(group, sequence, Items([item]))
    content = Dataset()
    content.FrameAcquisitionNumber = int(source.AcquisitionNumber)
    content.StackID = "1"
    group.FrameContentSequence = Items([content])
    return group
