"""The header of a NIfTI file: versions 1 and 2, either byte order, parsed; version 1 built."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, prod
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside.errors import InputError, RefusedError

__all__ = ["HEADER_BYTES", "VERSION_1", "Fields", "is_header", "parse_header"]

HEADER_BYTES: Final = 544
"""What `parse_header` needs: the longer header, version 2's, and the flag of its extensions."""

VERSION_1: Final = np.dtype(
    {
        "names": [
            "sizeof_hdr", "regular", "dim", "intent_code", "datatype", "bitpix", "pixdim", "vox_offset",
            "scl_slope", "scl_inter", "xyzt_units", "cal_max", "cal_min", "descrip", "qform_code", "sform_code",
            "quatern", "qoffset", "srow", "intent_name", "magic",
        ],
        "formats": [
            "<i4", "S1", ("<i2", 8), "<i2", "<i2", "<i2", ("<f4", 8), "<f4",
            "<f4", "<f4", "u1", "<f4", "<f4", "S80", "<i2", "<i2",
            ("<f4", 3), ("<f4", 3), ("<f4", (3, 4)), "S16", "S4",
        ],
        "offsets": [
            0, 38, 40, 68, 70, 72, 76, 108,
            112, 116, 123, 124, 128, 148, 252, 254,
            256, 268, 280, 328, 344,
        ],
        "itemsize": 348,
    }
)  # fmt: skip
"""The fields of nifti1.h that matter here, little-endian."""
_VERSION_2: Final = np.dtype(
    {
        "names": [
            "sizeof_hdr", "magic", "datatype", "bitpix", "dim", "pixdim", "vox_offset", "scl_slope", "scl_inter",
            "qform_code", "sform_code", "quatern", "qoffset", "srow", "xyzt_units",
        ],
        "formats": [
            "<i4", "S8", "<i2", "<i2", ("<i8", 8), ("<f8", 8), "<i8", "<f8", "<f8",
            "<i4", "<i4", ("<f8", 3), ("<f8", 3), ("<f8", (3, 4)), "<i4",
        ],
        "offsets": [
            0, 4, 12, 14, 16, 104, 168, 176, 184,
            344, 348, 352, 376, 400, 500,
        ],
        "itemsize": 540,
    }
)  # fmt: skip
"""The same of nifti2.h."""
_DATATYPES: Final = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
"""Codes of nifti1.h -> numpy's names, of all real types but the 128-bit one, which depends on the machine."""
_OTHER_TYPES: Final = {
    1: "one bit a voxel",
    32: "complex numbers",
    128: "colours",
    1536: "128-bit numbers",
    1792: "complex numbers",
    2048: "complex numbers",
    2304: "colours",
}
_UNITS_MM: Final = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Low three bits of ``xyzt_units`` -> mm. 0 is unknown; programs that leave it out write mm."""
_MAX_SIDE: Final = 1 << 15
"""Most voxels along an axis: what version 1 can say, and far over any CT."""
_MAX_BYTES: Final = 1 << 36
"""Largest volume, 64 GiB: 30,000 slices of 512x512 in the widest type."""


@dataclass(frozen=True, slots=True)
class Fields:
    """What a header says, in bedside's terms but for NIfTI's patient axes, RAS."""

    shape: tuple[int, int, int]
    """``(K, J, I)``: slowest axis first."""
    dtype: np.dtype[Any]
    """Of the voxels as they are stored, with their byte order."""
    offset: int
    """Where the voxels begin in the (decompressed) file, in bytes."""
    slope: float
    """Stored values times this ..."""
    intercept: float
    """... plus this are the values; 1 and 0 where the header names no scale."""
    spacing_mm: tuple[float, float, float]
    """``pixdim`` along i, j and k, mm."""
    handedness: float
    """``pixdim[0]``, called qfac: -1 where the third axis of the quaternion's rotation is to be turned round."""
    qform_code: int
    """0: the quaternion says nothing."""
    sform_code: int
    """0: the matrix says nothing."""
    quaternion: tuple[float, float, float]
    """b, c and d."""
    offset_mm: tuple[float, float, float]
    """Position of the first voxel by the quaternion's transform, RAS, mm."""
    matrix_mm: npt.NDArray[np.float64]
    """``(3, 4)``: the sform, index ``(i, j, k, 1)`` -> RAS, mm."""

    @property
    def nbytes(self) -> int:
        """Of all voxels as they are stored."""
        return prod(self.shape) * self.dtype.itemsize


def is_header(head: bytes) -> bool:
    """Whether a file that begins so (4 bytes suffice, decompressed) claims to be NIfTI or its forerunner Analyze."""
    return _version(head) is not None


def parse_header(head: bytes) -> Fields:
    """Read the first `HEADER_BYTES` of a file, decompressed.

    Raises:
        InputError: ``broken-nifti``.
        RefusedError: ``multi-frame`` (more than one time point), ``colour``.
    """
    layout = _version(head)
    if layout is None:
        raise _broken("this is not NIfTI; give a .nii or .nii.gz file")
    if len(head) < layout.itemsize:
        raise _broken("the file ends within its header; copy or convert it again")
    raw = np.frombuffer(head, layout, 1)[0]
    magic = bytes(raw["magic"])
    if magic.startswith((b"ni1", b"ni2")):
        raise _broken("this is the header of a .hdr/.img pair; convert the pair to one .nii.gz file")
    if not magic.startswith((b"n+1", b"n+2")):
        raise _broken("this is Analyze 7.5, which does not say left from right; convert the source to NIfTI")
    shape = _shape([int(n) for n in raw["dim"]])
    dtype = _dtype(int(raw["datatype"]), int(raw["bitpix"]), layout["datatype"].str[0])
    fields = _place(raw, shape, dtype, first=layout.itemsize + 4)
    if fields.nbytes > _MAX_BYTES:
        raise _broken("the header tells of more voxels than any CT has; convert the source again")
    return fields


def _version(head: bytes) -> np.dtype[Any] | None:
    for layout in (VERSION_1, _VERSION_2):
        for order in ("<", ">"):
            if head[:4] == np.array(layout.itemsize, f"{order}i4").tobytes():
                return layout if order == "<" else layout.newbyteorder(">")
    return None


def _shape(dim: list[int]) -> tuple[int, int, int]:
    dimensions, *lengths = dim
    if not 1 <= dimensions <= 7:
        raise _broken(f"the header tells of {dimensions} dimensions; convert the source again")
    sizes = [*lengths[:dimensions], 1, 1][: max(3, dimensions)]
    if any(not 1 <= n <= _MAX_SIDE for n in sizes[:3]) or any(n < 0 for n in sizes[3:]):
        raise _broken(
            f"a volume of {' x '.join(map(str, sizes[:3]))} voxels is none; convert the source again"
        )
    if any(n > 1 for n in sizes[3:]):
        raise RefusedError(
            "multi-frame", "the file holds several volumes (a time or channel axis); split it and give one"
        )
    return sizes[2], sizes[1], sizes[0]


def _dtype(code: int, bits: int, order: str) -> np.dtype[Any]:
    if code in _OTHER_TYPES:
        raise RefusedError(
            "colour" if code in (128, 2304) else "not-hu",
            f"the voxels are {_OTHER_TYPES[code]}; a CT's are integers or floats of Hounsfield units",
        )
    if code not in _DATATYPES:
        raise _broken(f"the header names an unknown data type ({code}); convert the source again")
    dtype = np.dtype(f"{order}{_DATATYPES[code]}")
    if bits not in (0, dtype.itemsize * 8):
        raise _broken(
            f"the header says {bits} bits a voxel and a type of {dtype.itemsize * 8}; convert again"
        )
    return dtype


def _place(raw: Any, shape: tuple[int, int, int], dtype: np.dtype[Any], *, first: int) -> Fields:
    offset, slope, intercept = (float(raw[name]) for name in ("vox_offset", "scl_slope", "scl_inter"))
    if (
        not isfinite(offset)
        or (offset != 0 and offset < first - 4)
        or offset != int(offset)
        or offset > 1 << 40
    ):
        raise _broken("the header does not say where the voxels begin; convert the source again")
    scaled = isfinite(slope) and slope != 0
    if scaled and not isfinite(intercept):
        raise _broken("the header's scale is not a number; convert the source again")
    unit = _UNITS_MM.get(int(raw["xyzt_units"]) & 7)
    if unit is None:
        raise _broken("the header's unit of length is unknown; convert the source again")
    spacing = [abs(float(length)) * unit for length in raw["pixdim"][1:4]]
    origin = [float(x) * unit for x in raw["qoffset"]]
    quaternion = [float(q) for q in raw["quatern"]]
    return Fields(
        shape=shape,
        dtype=dtype,
        offset=int(offset) or first,
        slope=slope if scaled else 1.0,
        intercept=intercept if scaled else 0.0,
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        handedness=-1.0 if float(raw["pixdim"][0]) < 0 else 1.0,
        qform_code=int(raw["qform_code"]),
        sform_code=int(raw["sform_code"]),
        quaternion=(quaternion[0], quaternion[1], quaternion[2]),
        offset_mm=(origin[0], origin[1], origin[2]),
        matrix_mm=np.array(raw["srow"], np.float64) * unit,
    )


def _broken(message: str) -> InputError:
    return InputError("broken-nifti", message)
