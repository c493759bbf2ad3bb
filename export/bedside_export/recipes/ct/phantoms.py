"""Chests with lesions whose pattern, place and size are known, to try training on; no patient's.

The anatomy is that of `bedside.chest`, cut into coarse slices once and then moved, scaled and shifted in HU for each
phantom. Lesions are ellipsoids with uneven edges, each filled with the texture of one of the six patterns, drawn
as radiologists describe them (Hansell et al. 2008, "Fleischner Society: glossary of terms for thoracic imaging",
Radiology 246:697):

pure ground glass     hazy and even
septal thickening     ground glass under a net of polygons, the walls of secondary lobules of 10 to 25 mm
crazy paving          such a net, and in its lobules a finer one of intralobular lines: irregular paving stones
organizing pneumonia  patches of consolidation in ground glass
atoll sign            ground glass within a ring of consolidation, complete in every slice
consolidation         as dense as soft tissue, and even

Where a septum is seen, its line is as bright and as wide as a pixel allows, so that every net shows at `PIXEL_MM`. What
a network learns here says nothing of patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import KDTree

from bedside.chest import chest_phantom, select
from bedside_export.recipes.ct.data import AIR_HU, Float, Mask

__all__ = ["PATTERNS", "PIXEL_MM", "SIZE", "SLICE_MM", "Lesion", "Specimen", "make_specimen"]

PATTERNS: Final = (
    "pure ground glass",
    "ground glass with septal thickening",
    "crazy paving",
    "organizing pneumonia",
    "atoll sign",
    "consolidation",
)
"""In the order of the published labels 5 to 10 (Lensink et al. 2020)."""
SIZE: Final = (8, 128, 160)
"""Slices, rows and columns of a phantom."""
PIXEL_MM: Final = 2.4
"""Side of a pixel: the coarsest that shows the lines of crazy paving."""
SLICE_MM: Final = 12.0
"""Distance of slices, as thick ones were read by the experts (mostly 10 mm)."""
_STACK: Final = 20
"""Slices of the anatomy, of which a phantom takes some."""
_GLASS_HU, _DENSE_HU = -560.0, 20.0
"""Of ground glass and of consolidation; textbook values, as in `bedside.chest`."""
_LOBULE_MM: Final = (14.0, 20.0)
"""Size of a secondary lobule on average over a lesion: 10 to 25 mm, says the glossary."""
_STONE_MM: Final = (8.0, 10.0)
"""Distance of intralobular lines, as fine as `PIXEL_MM` shows."""
_WALL_MM: Final = PIXEL_MM
"""Thickness of a line."""
_SEPTUM_HU, _INTRALOBULAR_HU = 360.0, 240.0
"""Of lines over the ground glass; those in lobules are finer, and fainter where they fill no pixel."""
_NOISE_HU: Final = 25.0
"""Of a pixel, as of a usual chest CT in thick slices."""


@dataclass(frozen=True, slots=True)
class Lesion:
    """One lesion."""

    pattern: str
    """One of `PATTERNS`."""
    where: Mask
    """``(Z, Y, X)`` its voxels, all in one lung."""


@dataclass(frozen=True, slots=True)
class Specimen:
    """A phantom and what is in it."""

    hu: npt.NDArray[np.int16]
    """``(Z, Y, X)`` HU."""
    lungs: npt.NDArray[np.uint8]
    """``(Z, Y, X)`` 1 in the left lung, 2 in the right, lesions and vessels included."""
    lesions: tuple[Lesion, ...]
    """Apart from each other."""


@cache
def _anatomy() -> tuple[Float, npt.NDArray[np.uint8]]:
    """HU and lungs ``(Z, Y, X)`` of a healthy chest."""
    _, rows, columns = SIZE
    affine = np.diag([PIXEL_MM, PIXEL_MM, SLICE_MM, 1.0])[:, [2, 1, 0, 3]]
    affine[:3, 3] = -PIXEL_MM * (columns - 1) / 2, 5 - PIXEL_MM * (rows - 1) / 2, -130.0
    phantom, shape = chest_phantom("healthy").phantom, (_STACK, rows, columns)
    lungs = np.zeros(shape, np.uint8)
    for label, side in ((1, "left lung"), (2, "right lung")):
        covered = phantom.coverage(
            select("left lung" if side == "left lung" else "right lung"), shape, affine, supersampling=1
        )
        lungs[covered > 0.5] = label
    return phantom.hu(shape, affine, supersampling=1), lungs


def make_specimen(
    seed: int, *, patterns: Sequence[str] = PATTERNS, lesions: tuple[int, int] = (3, 5)
) -> Specimen:
    """Make a phantom.

    Args:
        seed: The same gives the same.
        patterns: What lesions may be, each as likely as the others.
        lesions: Least and greatest number that is tried; those that meet an earlier one are left out.
    """
    chance = np.random.Generator(np.random.PCG64(seed))
    hu, lungs = _vary(chance)
    inside = ndimage.binary_erosion(lungs > 0, iterations=3, structure=np.ones((1, 3, 3), bool))
    taken = np.zeros(hu.shape, bool)
    made = []
    for _ in range(int(chance.integers(lesions[0], lesions[1], endpoint=True))):
        pattern = str(chance.choice(np.asarray(patterns)))
        where = _grow(lungs, inside & ~taken, chance)
        if where is None or (where & ndimage.binary_dilation(taken, iterations=2)).any():
            continue
        hu[where] = _fill(where, pattern, chance)[where]
        taken |= where
        made.append(Lesion(pattern, where))
    hu = ndimage.gaussian_filter(hu, (0, 0.4, 0.4)) + chance.normal(0, _NOISE_HU, hu.shape)
    return Specimen(np.rint(np.clip(hu, -1024, 3071)).astype(np.int16), lungs, tuple(made))


def _vary(chance: np.random.Generator) -> tuple[Float, npt.NDArray[np.uint8]]:
    """Another patient: some of the slices, moved and scaled in their plane, another level of the lung."""
    hu, lungs = _anatomy()
    first = int(chance.integers(0, _STACK - SIZE[0]))
    scale = np.exp(chance.uniform(-0.1, 0.1, 2))
    middle = np.asarray(SIZE[1:]) / 2
    offset = middle - scale * middle + chance.uniform(-6, 6, 2)
    matrix, shift = np.array([1.0, *scale]), np.array([first, *offset])
    moved = ndimage.affine_transform(hu, matrix, shift, SIZE, order=1, cval=AIR_HU)
    sides = ndimage.affine_transform(lungs, matrix, shift, SIZE, order=0, cval=0)
    air = (moved < -700) & (sides > 0)
    moved[air] += chance.normal(0, 25)
    return np.asarray(moved, np.float32), np.asarray(sides, np.uint8)


def _grow(lungs: npt.NDArray[np.uint8], free: Mask, chance: np.random.Generator) -> Mask | None:
    """A lesion around some voxel of the lung, uneven at its edge; None where there is no room."""
    places = np.argwhere(free)
    if not len(places):
        return None
    centre = places[chance.integers(len(places))]
    half = chance.uniform(18, 34, 3) * (0.8, 1, 1) / (SLICE_MM, PIXEL_MM, PIXEL_MM)
    grid = np.moveaxis(np.mgrid[: SIZE[0], : SIZE[1], : SIZE[2]], 0, -1)
    distance = np.sqrt((((grid - centre) / half) ** 2).sum(-1))
    uneven = _smooth(chance, (1.0, 4.0, 4.0))
    return np.asarray((distance + 0.15 * uneven < 1) & (lungs == lungs[tuple(centre)]), np.bool_)


def _smooth(chance: np.random.Generator, size: tuple[float, float, float]) -> Float:
    """Smooth noise of unit variance over a phantom."""
    noise = ndimage.gaussian_filter(chance.normal(size=SIZE), size)
    return np.asarray(noise / noise.std(), np.float32)


def _walls(where: Mask, size_mm: float, chance: np.random.Generator) -> Mask:
    """``(Z, Y, X)`` in a lesion, the walls between cells of about a size, one pixel thick in the slice.

    The cells are polyhedra, each all that lies nearest to one of many scattered points. A wall that crosses the slice
    obliquely is drawn no thicker.
    """
    voxels = np.argwhere(where)
    places = voxels * (SLICE_MM, PIXEL_MM, PIXEL_MM)
    low, high = places.min(0) - 2 * size_mm, places.max(0) + 2 * size_mm
    steps = [np.arange(a, b, size_mm) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*steps, indexing="ij"), -1).reshape(-1, 3)
    points += chance.uniform(-0.4, 0.4, points.shape) * size_mm
    far, nearest = KDTree(points).query(places, k=2)
    across = np.linalg.norm(np.diff(points[nearest], axis=1)[:, 0, 1:], axis=1)
    to_wall = (far[:, 1] ** 2 - far[:, 0] ** 2) / (2 * np.maximum(across, 1e-3))
    walls = np.zeros(where.shape, np.bool_)
    walls[where] = to_wall < _WALL_MM / 2
    return walls


def _fill(where: Mask, pattern: str, chance: np.random.Generator) -> Float:
    """HU of a lesion, over the whole phantom."""
    glass = _GLASS_HU + chance.normal(0, 30) + 20 * _smooth(chance, (0.5, 2.0, 2.0))
    dense = _DENSE_HU + chance.normal(0, 20) + 15 * _smooth(chance, (0.5, 2.0, 2.0))
    if pattern == "pure ground glass":
        return glass
    if pattern in {"ground glass with septal thickening", "crazy paving"}:
        lines = _SEPTUM_HU * _walls(where, chance.uniform(*_LOBULE_MM), chance)
        if pattern == "crazy paving":
            lines = np.maximum(lines, _INTRALOBULAR_HU * _walls(where, chance.uniform(*_STONE_MM), chance))
        return np.asarray(glass + lines, np.float32)
    if pattern == "organizing pneumonia":
        return np.asarray(np.where(_smooth(chance, (0.5, 2.2, 2.2)) > 0, dense, glass), np.float32)
    if pattern == "consolidation":
        return dense
    depth = ndimage.distance_transform_edt(where, sampling=(SLICE_MM, PIXEL_MM, PIXEL_MM))
    rim = np.stack([ndimage.distance_transform_edt(plane) for plane in where]) * PIXEL_MM
    return np.asarray(np.where(np.minimum(depth, rim) < 7.0, dense, glass), np.float32)
