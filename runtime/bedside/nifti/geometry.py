"""From the two transforms of a NIfTI header to the voxels' place in the patient, or a refusal.

The sform counts before the qform, as in nibabel and ITK. What the two, or the sform and the voxel sizes, contradict
each other on is not chosen silently: a contradiction on left and right, or on the volume of a voxel, is refused.
Where neither transform is given, the standard attaches no orientation to the axes (nifti1.h, method 1): nobody can
tell left from right, nor head from feet, so the file is refused unless the caller says how its axes lie.
"""

from __future__ import annotations

from math import prod, sqrt
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.errors import InputError, RefusedError
from bedside.nifti.header import Fields
from bedside.nifti.layout import find_layout
from bedside.scan import Entry

__all__ = ["find_affine"]

_RAS_TO_LPS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
_TOWARDS: Final = {
    "L": (1.0, 0.0, 0.0),
    "R": (-1.0, 0.0, 0.0),
    "P": (0.0, 1.0, 0.0),
    "A": (0.0, -1.0, 0.0),
    "S": (0.0, 0.0, 1.0),
    "I": (0.0, 0.0, -1.0),
}
"""Letters of an orientation -> LPS directions."""
_LEAST_MM: Final = 0.01
"""Finest pixel of any CT that shows a chest: micro-CT of specimens begins there."""
_MOST_MM: Final = 100.0
"""Coarsest slice distance: beyond it the unit of length is wrong."""
_LEAST_MM3: Final = 1e-5
"""Smallest voxel: under it the axes all but fall together."""
_SAME: Final = 1e-3
"""Relative difference of a voxel's volume that rounding in the header explains."""
_TOLERABLE: Final = 1e-2
"""Relative difference that is accepted, and told: the product's own bound on the volume error of a geometry."""
_TINY: Final = 1e-7
"""Of a quaternion's a**2: below this the rotation is of 180 degrees, and b, c, d are normalised (nifti1_io.c)."""


def find_affine(
    fields: Fields, orientation: str | None = None
) -> tuple[npt.NDArray[np.float64], tuple[Entry, ...]]:
    """Where a file's voxels are.

    Args:
        fields: The header.
        orientation: Where the axes i, j, k point, e.g. ``RAS``: used where the header does not say it.

    Returns:
        ``(4, 4)``, index ``(k, j, i, 1)`` -> patient coordinates LPS, mm, and the findings.

    Raises:
        InputError: ``broken-nifti``.
        RefusedError: ``improper-geometry``.
        ValueError: ``orientation`` is none.
    """
    given = None if orientation is None else _assume(fields, orientation)
    sform = _sform(fields) if fields.sform_code > 0 else None
    qform = _qform(fields) if fields.qform_code > 0 else None
    entries: list[Entry] = []
    if sform is None and fields.sform_code > 0:
        entries.append(Entry("sform-unusable", "mended", "the sform is singular; the qform is used"))
    if sform is not None:
        entries += _compare(fields, sform, qform)
        affine = sform
    elif qform is not None:
        affine = qform
    elif fields.sform_code > 0:
        raise InputError("broken-nifti", "the header's sform is singular; convert the source again")
    elif given is None:
        raise RefusedError(
            "improper-geometry",
            "the file does not say how its axes lie in the patient (no sform, no qform), so left and right can't "
            "be told; convert the source again, or state the orientation (e.g. RAS)",
        )
    else:
        affine = given
        text = f"the file does not say how its axes lie in the patient; taken as {orientation}, as was stated"
        entries.append(Entry("orientation-stated", "mended", text))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    apart = abs(np.linalg.det(affine[:3, :3])) >= _LEAST_MM3
    if not (apart and np.all(spacing >= _LEAST_MM) and np.all(spacing <= _MOST_MM)):
        sizes = " x ".join(f"{length:.3g}" for length in spacing[::-1])
        raise RefusedError(
            "improper-geometry", f"voxels of {sizes} mm are no chest CT's; mend the header's sizes or unit"
        )
    if np.array_equal(np.abs(affine), np.abs(_reorder(np.eye(4)))):
        text = "voxels of exactly 1 mm at the origin: where a program lost the geometry, volumes and sides are wrong"
        entries.append(Entry("unit-affine", "accepted", text))
    return affine, tuple(entries)


def _sform(fields: Fields) -> npt.NDArray[np.float64] | None:
    matrix = np.vstack([fields.matrix_mm, [0.0, 0.0, 0.0, 1.0]])
    if not np.isfinite(matrix).all():
        raise InputError("broken-nifti", "the header's sform is not a number; convert the source again")
    lengths = float(np.prod(np.linalg.norm(matrix[:3, :3], axis=0)))
    if lengths == 0 or abs(np.linalg.det(matrix[:3, :3])) < 1e-6 * lengths:
        return None
    return _reorder(matrix)


def _qform(fields: Fields) -> npt.NDArray[np.float64]:
    """Method 2 of nifti1.h."""
    matrix = np.eye(4)
    b, c, d = fields.quaternion
    numbers = (b, c, d, *fields.offset_mm, *fields.spacing_mm)
    if not np.isfinite(numbers).all() or min(fields.spacing_mm) <= 0:
        raise InputError(
            "broken-nifti", "the header's qform or voxel sizes are no numbers; convert the source again"
        )
    square = 1.0 - (b * b + c * c + d * d)
    if square < _TINY:
        scale = 1 / sqrt(b * b + c * c + d * d)
        b, c, d, square = b * scale, c * scale, d * scale, 0.0
    a = sqrt(square)
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    matrix[:3, :3] = rotation * (np.array(fields.spacing_mm) * [1, 1, fields.handedness])
    matrix[:3, 3] = fields.offset_mm
    return _reorder(matrix)


def _assume(fields: Fields, orientation: str) -> npt.NDArray[np.float64]:
    directions = [_TOWARDS.get(letter, (0.0, 0.0, 0.0)) for letter in orientation]
    if len(directions) != 3 or np.linalg.matrix_rank(directions) != 3:
        raise ValueError(f"orientation must be three of L/R, P/A, S/I, as RAS, not {orientation!r}")
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(directions).T * fields.spacing_mm
    return matrix[:, [2, 1, 0, 3]]


def _compare(
    fields: Fields, sform: npt.NDArray[np.float64], qform: npt.NDArray[np.float64] | None
) -> list[Entry]:
    """What contradicts the sform: the qform on directions, ``pixdim`` on sizes."""
    if qform is not None and find_layout(sform) != find_layout(qform):
        raise RefusedError(
            "improper-geometry",
            "the header's sform and qform contradict each other on how the axes lie in the patient; "
            "convert the source again",
        )
    sizes = fields.spacing_mm
    if not np.isfinite(sizes).all() or min(sizes) <= 0:
        return []
    # Of a sheared volume, the third size may be the slices' distance along the normal or along the shear.
    volumes = (abs(np.linalg.det(sform[:3, :3])), float(np.prod(np.linalg.norm(sform[:3, :3], axis=0))))
    error = min(abs(prod(sizes) / volume - 1) for volume in volumes)
    if error > _TOLERABLE:
        raise RefusedError(
            "improper-geometry",
            f"the header's sform and its voxel sizes (pixdim) contradict each other: by {100 * error:.3g} % of a "
            "voxel's volume; convert the source again",
        )
    if error <= _SAME:
        return []
    return [
        Entry(
            "sform-pixdim-differ", "accepted", "the voxel sizes differ from the sform; it counts", 100 * error
        )
    ]


def _reorder(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Index (i, j, k, 1) -> RAS becomes index (k, j, i, 1) -> LPS."""
    return np.asarray((_RAS_TO_LPS @ matrix)[:, [2, 1, 0, 3]])
