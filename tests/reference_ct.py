"""The table of CT cases: how slices are scanned and what is wrong with them, and what must come of it.

Expected volumes are those of the phantom's own ellipsoids. No case takes its numbers from the reader.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import UID

from bedside.scan import Grid
from dicom_series import AXIAL, Edit, make_affine, make_series, put_hu, scan

__all__ = ["CT_CASES", "GEOMETRIES", "CtCase", "make_case"]

SIN, COS = np.sin(np.radians(15)), np.cos(np.radians(15))


def _oblique() -> npt.NDArray[np.float64]:
    """12 degrees about x, then 8 about y, then 20 about z."""
    turn = np.eye(3)
    for angle, (first, second) in ((12, (1, 2)), (8, (2, 0)), (20, (0, 1))):
        one = np.eye(3)
        cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        one[first, first] = one[second, second] = cos
        one[first, second], one[second, first] = -sin, sin
        turn = one @ turn
    along, down, normal = turn.T.tolist()
    return make_affine(along=along, down=down, step=[3 * part for part in normal])


GEOMETRIES: Final[dict[str, tuple[Grid, str, tuple[str, ...]]]] = {
    # name: the stack as stored, Patient Position, findings
    "head first, supine": (AXIAL, "HFS", ()),
    "feet first, supine": (
        Grid(AXIAL.shape, make_affine(along=(-1, 0, 0), step=(0, 0, -3))),
        "FFS",
        ("feet-first", "flipped-axes"),
    ),
    "head first, prone": (
        Grid(AXIAL.shape, make_affine(along=(-1, 0, 0), down=(0, -1, 0))),
        "HFP",
        ("prone", "flipped-axes"),
    ),
    "feet first, prone": (
        Grid(AXIAL.shape, make_affine(down=(0, -1, 0), step=(0, 0, -3))),
        "FFP",
        ("feet-first", "prone", "flipped-axes"),
    ),
    "on the right side": (
        Grid((76, 96, 104), make_affine(along=(0, 1, 0), down=(-1, 0, 0), shape=(76, 96, 104))),
        "HFDR",
        ("decubitus", "flipped-axes"),
    ),
    "rows reversed": (Grid(AXIAL.shape, make_affine(down=(0, -1, 0))), "HFS", ("flipped-axes",)),
    "columns reversed": (Grid(AXIAL.shape, make_affine(along=(-1, 0, 0))), "HFS", ("flipped-axes",)),
    "slices reversed": (Grid(AXIAL.shape, make_affine(step=(0, 0, -3))), "HFS", ()),
    "rows and columns exchanged": (
        Grid((76, 96, 104), make_affine(along=(0, 1, 0), down=(1, 0, 0), shape=(76, 96, 104))),
        "HFS",
        ("flipped-axes",),
    ),
    "oblong pixels": (
        Grid((76, 80, 120), make_affine(pixel_mm=(3.25, 2.0), shape=(76, 80, 120))),
        "HFS",
        (),
    ),
    "oblong pixels, exchanged": (
        Grid(
            (76, 120, 80),
            make_affine(along=(0, -1, 0), down=(1, 0, 0), pixel_mm=(2.0, 3.25), shape=(76, 120, 80)),
        ),
        "HFS",
        ("flipped-axes",),
    ),
    "gantry tilt, forward": (
        Grid(AXIAL.shape, make_affine(down=(0, COS, -SIN))),
        "HFS",
        ("gantry-tilt",),
    ),
    "gantry tilt, backward, rows reversed": (
        Grid(AXIAL.shape, make_affine(down=(0, -COS, -SIN))),
        "HFS",
        ("gantry-tilt", "flipped-axes"),
    ),
    "oblique": (Grid(AXIAL.shape, _oblique()), "HFS", ("oblique",)),
}
"""Every way of lying, of counting and of tilting: all are read without any voxel being changed."""


@dataclass(frozen=True)
class CtCase:
    """Something about a series, and what comes of it."""

    name: str
    edit: Edit
    """What is done to the slices of `grid`."""
    findings: tuple[tuple[str, str], ...] = ()
    """Finding and decision of each entry of the ledger, in order."""
    refused: str = ""
    """Code of the refusal; empty where the series is read."""
    needs_leave: bool = False
    """Whether it is refused as ``missing-slices`` unless missing slices are allowed."""
    exact: bool = True
    """Whether every voxel is that of the phantom; else the volume is right within the ledger's bound."""
    grid: Grid = field(default=AXIAL)
    """As stored."""


def _set(indices: Sequence[int] | slice | None = None, **header: object) -> Edit:
    """Set attributes of some slices, or of all; None takes them away."""

    def edit(slices: list[Dataset]) -> list[Dataset]:
        chosen = (
            slices
            if indices is None
            else (slices[indices] if isinstance(indices, slice) else [slices[index] for index in indices])
        )
        for dataset in chosen:
            for keyword, value in header.items():
                if value is None:
                    delattr(dataset, keyword)
                else:
                    setattr(dataset, keyword, value)
        return slices

    return edit


def _drop(*indices: int) -> Edit:
    return lambda slices: [dataset for index, dataset in enumerate(slices) if index not in indices]


def _keep(choose: Callable[[int], bool]) -> Edit:
    return lambda slices: [dataset for index, dataset in enumerate(slices) if choose(index)]


def _repeat(*indices: int, change: Callable[[Dataset], None] = lambda _: None) -> Edit:
    """Add copies of slices, with instance UIDs of their own."""

    def edit(slices: list[Dataset]) -> list[Dataset]:
        copies = [copy.deepcopy(slices[index]) for index in indices]
        for number, dataset in enumerate(copies):
            dataset.SOPInstanceUID = UID(f"1.2.3.8.{number}")
            change(dataset)
        return [*slices, *copies]

    return edit


def _darken(dataset: Dataset) -> None:
    """Other pixels: everything 100 HU lower."""
    dataset.PixelData = (np.frombuffer(dataset.PixelData, "<i2") - 100).astype("<i2").tobytes()


def _double(dataset: Dataset) -> None:
    """The same HU in steps of half a unit."""
    dataset.RescaleSlope = 0.5
    dataset.PixelData = (np.frombuffer(dataset.PixelData, "<i2") * 2).astype("<i2").tobytes()


def _second_breath(dataset: Dataset) -> None:
    _darken(dataset)
    dataset.AcquisitionNumber = 2


def _add_plane(count: int, cosines: Sequence[float], **header: object) -> Edit:
    """Add pictures in another plane."""

    def edit(slices: list[Dataset]) -> list[Dataset]:
        added = [copy.deepcopy(slices[index]) for index in range(count)]
        for number, dataset in enumerate(added):
            dataset.SOPInstanceUID = UID(f"1.2.3.7.{number}")
            dataset.ImageOrientationPatient = list(cosines)
            for keyword, value in header.items():
                setattr(dataset, keyword, value)
        return [*added, *slices]

    return edit


def _shake(offset_mm: float) -> Edit:
    """Say of each slice that it lies a little higher or lower than it does."""

    def edit(slices: list[Dataset]) -> list[Dataset]:
        for index, dataset in enumerate(slices):
            x, y, z = dataset.ImagePositionPatient
            dataset.ImagePositionPatient = [x, y, z + offset_mm * (-1) ** index]
        return slices

    return edit


def _rescale_half(slices: list[Dataset]) -> list[Dataset]:
    """Store every second slice by another slope and intercept."""
    for index in range(1, len(slices), 2):
        slices[index].RescaleSlope = 0.5
        slices[index].RescaleIntercept = -2000
        put_hu(slices[index], scan(AXIAL)[index])
    return slices


def _crop_one(slices: list[Dataset]) -> list[Dataset]:
    slices[10].Rows //= 2
    slices[10].PixelData = slices[10].PixelData[: len(slices[10].PixelData) // 2]
    return slices


def _add_screen(slices: list[Dataset]) -> list[Dataset]:
    """A picture of another size without any place: a dose report, say."""
    screen = copy.deepcopy(slices[0])
    screen.SOPInstanceUID = UID("1.2.3.6")
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(screen, keyword)
    screen.Rows //= 2
    screen.PixelData = screen.PixelData[: len(screen.PixelData) // 2]
    return [screen, *slices]


def _shift_half(slices: list[Dataset]) -> list[Dataset]:
    for dataset in slices[: len(slices) // 2]:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x + 20, y, z]
    return slices


def _add_phase(slices: list[Dataset]) -> list[Dataset]:
    """A second acquisition of all slices."""
    return _repeat(*range(len(slices)), change=_second_breath)(slices)


def _interleave(slices: list[Dataset], offset_mm: float) -> list[Dataset]:
    """A second acquisition of all slices, a little higher."""

    def lift(dataset: Dataset) -> None:
        dataset.AcquisitionNumber = 2
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, z + offset_mm]

    return _repeat(*range(len(slices)), change=lift)(slices)


FINE: Final = Grid((151, 104, 96), make_affine(step=(0, 0, 1.5), shape=(151, 104, 96)))
CORONAL: Final = Grid(
    (60, 80, 96), make_affine(down=(0, 0, -1), step=(0, 4, 0), pixel_mm=(3, 2.5), shape=(60, 80, 96))
)
SAGITTAL: Final = Grid(
    (60, 80, 104),
    make_affine(along=(0, 1, 0), down=(0, 0, -1), step=(4, 0, 0), pixel_mm=(3, 2.5), shape=(60, 80, 104)),
)
CORONAL_COSINES: Final = (1, 0, 0, 0, 0, -1)
SAGITTAL_COSINES: Final = (0, 1, 0, 0, 0, -1)
PLACE: Final = ("ImagePositionPatient", "ImageOrientationPatient")

CT_CASES: Final = (
    CtCase("a plain series", lambda slices: slices),
    # Mixed in
    CtCase(
        "localizers among the slices",
        _add_plane(2, CORONAL_COSINES, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        (("localizers", "mended"),),
    ),
    CtCase(
        "an axial localizer",
        _repeat(5, change=lambda one: setattr(one, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"])),
        (("localizers", "mended"),),
    ),
    CtCase(
        "sagittal reformats among the slices",
        _add_plane(3, SAGITTAL_COSINES),
        (("other-orientations", "mended"),),
    ),
    CtCase("a dose report among the slices", _add_screen, (("other-pictures", "mended"),)),
    CtCase(
        "some slices counted from the other side",
        _set(slice(0, 9), ImageOrientationPatient=[-1, 0, 0, 0, 1, 0]),
        (("mixed-orientation", "refused"),),
        refused="improper-geometry",
    ),
    CtCase(
        "some slices of another tilt",
        _set(slice(0, 9), ImageOrientationPatient=[1, 0, 0, 0, float(COS), float(-SIN)]),
        (("mixed-orientation", "refused"),),
        refused="improper-geometry",
    ),
    # Twice
    CtCase("slices that are there twice", _repeat(3, 3, 40), (("duplicates", "mended"),)),
    CtCase(
        "slices that are there twice, stored by another rescale",
        _repeat(3, 40, change=_double),
        (("mixed-rescale", "accepted"), ("duplicates", "mended")),
    ),
    CtCase(
        "different pictures at one place",
        _repeat(3, 40, change=_darken),
        (("conflicting-duplicates", "refused"),),
        refused="improper-geometry",
    ),
    CtCase(
        "two acquisitions in one series",
        _add_phase,
        (("several-acquisitions", "refused"),),
        refused="improper-geometry",
    ),
    CtCase(
        "two acquisitions, the one between the slices of the other",
        lambda slices: _interleave(slices, 1.5),
        (("several-acquisitions", "refused"),),
        refused="improper-geometry",
    ),
    CtCase("two acquisitions, the one above the other", _set(slice(30, 76), AcquisitionNumber=2)),
    # Missing
    CtCase("one slice missing", _drop(30), (("missing-slices", "mended"),), exact=False),
    CtCase("one missing near the top of the lung", _drop(70), (("missing-slices", "mended"),), exact=False),
    CtCase("two neighbours missing", _drop(20, 21), (("missing-slices", "mended"),), exact=False),
    CtCase(
        "four neighbours missing",
        _drop(20, 21, 22, 23),
        (("missing-slices", "mended"),),
        needs_leave=True,
        exact=False,
    ),
    CtCase(
        "every fifth missing",
        _keep(lambda index: index % 5 != 3),
        (("missing-slices", "mended"),),
        needs_leave=True,
        exact=False,
    ),
    CtCase(
        "a third of the scan missing",
        _keep(lambda index: not 20 <= index < 45),
        (("wide-gap", "refused"),),
        refused="improper-geometry",
    ),
    CtCase("slices missing at the ends", _drop(0, 1, 75)),
    # Spacing
    CtCase(
        "positions rounded to a tenth",
        _shake(0.05),
        (("uneven-rounding", "accepted"),),
        exact=False,
    ),
    CtCase(
        "uneven: 3 mm, then 4.5 mm",
        _keep(lambda index: index % 2 == 0 if index < 76 else index % 3 == 1),
        (("uneven-spacing", "mended"),),
        exact=False,
        grid=FINE,
    ),
    CtCase(
        "uneven: 1.5 mm, then 3 mm",
        _keep(lambda index: index < 40 or index % 2 == 0),
        (("uneven-spacing", "mended"),),
        exact=False,
        grid=FINE,
    ),
    CtCase(
        "uneven: 6 mm, then 13.5 mm",
        _keep(lambda index: index % 4 == 0 if index < 76 else index % 9 == 4),
        (("uneven-spacing", "refused"),),
        refused="improper-geometry",
        grid=FINE,
    ),
    CtCase("thin slices far apart", _set(SliceThickness=1.0), (("slices-apart", "accepted"),)),
    CtCase("thick slices that overlap", _set(SliceThickness=5.0), (("slices-overlap", "accepted"),)),
    CtCase("no thickness at all", _set(SliceThickness=None)),
    CtCase(
        "one slice", lambda slices: slices[:1], (("single-slice", "refused"),), refused="improper-geometry"
    ),
    # Pixels
    CtCase(
        "pixel spacing that differs by rounding",
        _set(slice(0, 20), PixelSpacing=[2.5002, 2.5002]),
        (("mixed-pixel-spacing", "mended"),),
        exact=False,
    ),
    CtCase(
        "two pixel spacings",
        _set(slice(0, 20), PixelSpacing=[2.4, 2.4]),
        (("mixed-pixel-spacing", "refused"),),
        refused="improper-geometry",
    ),
    CtCase("two sizes of picture", _crop_one, (("mixed-matrix", "refused"),), refused="improper-geometry"),
    CtCase("mixed rescale", _rescale_half, (("mixed-rescale", "accepted"),)),
    CtCase(
        "a rescale of another unit",
        _set(RescaleType="Z_EFF"),
        (("not-hu", "refused"),),
        refused="not-hu",
    ),
    CtCase(
        "no rescale in some slices",
        _set([4], RescaleSlope=None, RescaleIntercept=None),
        (("not-hu", "refused"),),
        refused="not-hu",
    ),
    # Planes
    CtCase(
        "a coronal series",
        lambda slices: slices,
        (("non-axial", "refused"),),
        refused="improper-geometry",
        grid=CORONAL,
    ),
    CtCase(
        "a sagittal series",
        lambda slices: slices,
        (("non-axial", "refused"),),
        refused="improper-geometry",
        grid=SAGITTAL,
    ),
    CtCase(
        "no slice has a position",
        _set(**dict.fromkeys(PLACE)),
        (("without-position", "refused"),),
        refused="improper-geometry",
    ),
    CtCase(
        "a slice between others without a position",
        _set([30], **dict.fromkeys(PLACE)),
        (("missing-slices", "mended"), ("without-position", "mended")),
        exact=False,
    ),
    CtCase(
        "a slice at the end without a position",
        _set([75], **dict.fromkeys(PLACE)),
        (("without-position", "mended"),),
        needs_leave=True,
    ),
    CtCase(
        "pixels of no size",
        _set(PixelSpacing=[1e-9, 1e-9]),
        (("without-position", "refused"),),
        refused="improper-geometry",
    ),
    CtCase(
        "directions that are none",
        _set(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]),
        (("without-position", "refused"),),
        refused="improper-geometry",
    ),
    CtCase(
        "two frames of reference",
        _set(slice(0, 20), FrameOfReferenceUID="1.2.3.10"),
        (("frames-of-reference", "refused"),),
        refused="improper-geometry",
    ),
    CtCase(
        "half of the slices shifted aside",
        _shift_half,
        (("shifted-slices", "refused"),),
        refused="improper-geometry",
    ),
)


def make_case(case: CtCase) -> list[Dataset]:
    """The slices of a case."""
    return case.edit(make_series(case.grid))
