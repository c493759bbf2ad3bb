"""The table of CT cases: how slices are scanned and what is wrong with them, and what must come of it.

Expected volumes are those of the phantom's own ellipsoids. No case takes its numbers from the reader.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from bedside.scan import Grid
from ct_edits import (
    add_phase,
    add_plane,
    add_screen,
    crop_one,
    darken,
    double,
    drop,
    interleave,
    keep,
    repeat,
    rescale_half,
    set_header,
    shake,
    shift_half,
)
from dicom_series import AXIAL, Edit, make_affine, make_series

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
        add_plane(2, CORONAL_COSINES, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        (("localizers", "mended"),),
    ),
    CtCase(
        "an axial localizer",
        repeat(5, change=lambda one: setattr(one, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"])),
        (("localizers", "mended"),),
    ),
    CtCase(
        "sagittal reformats among the slices",
        add_plane(3, SAGITTAL_COSINES),
        (("other-orientations", "mended"),),
    ),
    CtCase("a dose report among the slices", add_screen, (("other-pictures", "mended"),)),
    CtCase(
        "some slices counted from the other side",
        set_header(slice(0, 9), ImageOrientationPatient=[-1, 0, 0, 0, 1, 0]),
        (("mixed-orientation", "refused"),),
        refused="improper-geometry",
    ),
    CtCase(
        "some slices of another tilt",
        set_header(slice(0, 9), ImageOrientationPatient=[1, 0, 0, 0, float(COS), float(-SIN)]),
        (("mixed-orientation", "refused"),),
        refused="improper-geometry",
    ),
    # Twice
    CtCase("slices that are there twice", repeat(3, 3, 40), (("duplicates", "mended"),)),
    CtCase(
        "slices that are there twice, stored by another rescale",
        repeat(3, 40, change=double),
        (("mixed-rescale", "accepted"), ("duplicates", "mended")),
    ),
    CtCase(
        "different pictures at one place",
        repeat(3, 40, change=darken),
        (("conflicting-duplicates", "refused"),),
        refused="improper-geometry",
    ),
    CtCase(
        "two acquisitions in one series",
        add_phase,
        (("several-acquisitions", "refused"),),
        refused="improper-geometry",
    ),
    CtCase(
        "two acquisitions, the one between the slices of the other",
        lambda slices: interleave(slices, 1.5),
        (("several-acquisitions", "refused"),),
        refused="improper-geometry",
    ),
    CtCase("two acquisitions, the one above the other", set_header(slice(30, 76), AcquisitionNumber=2)),
    # Missing
    CtCase("one slice missing", drop(30), (("missing-slices", "mended"),), exact=False),
    CtCase("one missing near the top of the lung", drop(70), (("missing-slices", "mended"),), exact=False),
    CtCase("two neighbours missing", drop(20, 21), (("missing-slices", "mended"),), exact=False),
    CtCase(
        "four neighbours missing",
        drop(20, 21, 22, 23),
        (("missing-slices", "mended"),),
        needs_leave=True,
        exact=False,
    ),
    CtCase(
        "every fifth missing",
        keep(lambda index: index % 5 != 3),
        (("missing-slices", "mended"),),
        needs_leave=True,
        exact=False,
    ),
    CtCase(
        "a third of the scan missing",
        keep(lambda index: not 20 <= index < 45),
        (("wide-gap", "refused"),),
        refused="improper-geometry",
    ),
    CtCase("slices missing at the ends", drop(0, 1, 75)),
    # Spacing
    CtCase(
        "positions rounded to a tenth",
        shake(0.05),
        (("uneven-rounding", "accepted"),),
        exact=False,
    ),
    CtCase(
        "uneven: 3 mm, then 4.5 mm",
        keep(lambda index: index % 2 == 0 if index < 76 else index % 3 == 1),
        (("uneven-spacing", "mended"),),
        exact=False,
        grid=FINE,
    ),
    CtCase(
        "uneven: 1.5 mm, then 3 mm",
        keep(lambda index: index < 40 or index % 2 == 0),
        (("uneven-spacing", "mended"),),
        exact=False,
        grid=FINE,
    ),
    CtCase(
        "uneven: 6 mm, then 13.5 mm",
        keep(lambda index: index % 4 == 0 if index < 76 else index % 9 == 4),
        (("uneven-spacing", "refused"),),
        refused="improper-geometry",
        grid=FINE,
    ),
    CtCase("thin slices far apart", set_header(SliceThickness=1.0), (("slices-apart", "accepted"),)),
    CtCase("thick slices that overlap", set_header(SliceThickness=5.0), (("slices-overlap", "accepted"),)),
    CtCase("no thickness at all", set_header(SliceThickness=None)),
    CtCase(
        "one slice", lambda slices: slices[:1], (("single-slice", "refused"),), refused="improper-geometry"
    ),
    # Pixels
    CtCase(
        "pixel spacing that differs by rounding",
        set_header(slice(0, 20), PixelSpacing=[2.5002, 2.5002]),
        (("mixed-pixel-spacing", "mended"),),
        exact=False,
    ),
    CtCase(
        "two pixel spacings",
        set_header(slice(0, 20), PixelSpacing=[2.4, 2.4]),
        (("mixed-pixel-spacing", "refused"),),
        refused="improper-geometry",
    ),
    CtCase("two sizes of picture", crop_one, (("mixed-matrix", "refused"),), refused="improper-geometry"),
    CtCase("mixed rescale", rescale_half, (("mixed-rescale", "accepted"),)),
    CtCase(
        "a rescale of another unit",
        set_header(RescaleType="Z_EFF"),
        (("not-hu", "refused"),),
        refused="not-hu",
    ),
    CtCase(
        "no rescale in some slices",
        set_header([4], RescaleSlope=None, RescaleIntercept=None),
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
        set_header(**dict.fromkeys(PLACE)),
        (("without-position", "refused"),),
        refused="improper-geometry",
    ),
    CtCase(
        "a slice between others without a position",
        set_header([30], **dict.fromkeys(PLACE)),
        (("missing-slices", "mended"), ("without-position", "mended")),
        exact=False,
    ),
    CtCase(
        "a slice at the end without a position",
        set_header([75], **dict.fromkeys(PLACE)),
        (("without-position", "mended"),),
        needs_leave=True,
    ),
    CtCase(
        "pixels of no size",
        set_header(PixelSpacing=[1e-9, 1e-9]),
        (("without-position", "refused"),),
        refused="improper-geometry",
    ),
    CtCase(
        "directions that are none",
        set_header(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]),
        (("without-position", "refused"),),
        refused="improper-geometry",
    ),
    CtCase(
        "two frames of reference",
        set_header(slice(0, 20), FrameOfReferenceUID="1.2.3.10"),
        (("frames-of-reference", "refused"),),
        refused="improper-geometry",
    ),
    CtCase(
        "half of the slices shifted aside",
        shift_half,
        (("shifted-slices", "refused"),),
        refused="improper-geometry",
    ),
)


def make_case(case: CtCase) -> list[Dataset]:
    """The slices of a case."""
    return case.edit(make_series(case.grid))
