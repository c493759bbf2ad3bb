"""Test slices for CT bundles: cuts through the chest phantom, never a patient's.

phantom_tiles   tiles in HU, and what the phantom has there
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.chest import CASES, chest_phantom
from bedside.manifest import Tissue
from bedside.phantom import Body, Phantom

__all__ = ["PIXEL_MM", "SLICE_MM", "SOURCE", "Tiles", "phantom_tiles"]

SOURCE: Final = (
    "slices of the chest phantom (bedside.chest), from healthy to severe, with noise; no patient's picture"
)
"""``golden.source`` of the manifest."""
PIXEL_MM: Final = 0.7
"""Spacing in the slice for a network that takes a scan's own: of 512 pixels over 358 mm, as chests are scanned."""
SLICE_MM: Final = 5.0
"""Thickness of a slice, which a volume is counted with."""
NOISE_HU: Final = 20.0
"""Standard deviation of the noise, as of a usual chest CT."""
_PLACES: Final = (
    ("severe", -32.0, 0.0),
    ("moderate", -36.0, -70.0),
    ("healthy", 20.0, 70.0),
    ("severe", 58.0, 70.0),
    ("mild", -42.0, -70.0),
    ("severe", 118.0, -60.0),
    ("moderate", -20.0, 100.0),
    ("healthy", -240.0, 0.0),
)
"""Phantom, height of the slice and x of the tile's middle, mm. The first few go into the bundle; the last shows the
abdomen."""
_ACROSS_MM: Final = 340.0
"""Width of the phantom's trunk: a tile as wide stays in the middle."""

_Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Kind:
    """What the phantom has in a place."""

    lung: bool = True
    opacity: bool = False
    side: str = ""
    dense: bool = False
    """Consolidation, not ground glass."""


KINDS: Final = (
    _Kind(lung=False),
    *(_Kind(side=side) for side in ("right", "left")),
    *(_Kind(opacity=True, side=side) for side in ("right", "left")),
    *(_Kind(opacity=True, side=side, dense=True) for side in ("right", "left")),
)
"""All that there can be."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """Tiles of the phantom."""

    hu: _Float32
    """``(N, C, H, W)`` float32, HU; C neighbouring slices."""
    cuts: tuple[tuple[Phantom, npt.NDArray[np.float64]], ...]
    """Of each tile its phantom, and the affine ``(4, 4)`` of its middle slice: index ``(z, y, x, 1)`` -> mm."""
    voxel_ml: float
    """Volume of a voxel of a slice of `SLICE_MM`, mL."""

    def labels(self, tissues: Sequence[Tissue]) -> npt.NDArray[np.int64]:
        """``(N, H, W)`` what a network of these tissues should answer, as far as the phantom has it."""
        size = (self.hu.shape[2], self.hu.shape[3])
        kinds = np.stack([_kinds_of(phantom, size, affine) for phantom, affine in self.cuts])
        return np.array([_choose(tissues, kind) for kind in KINDS])[kinds]


def phantom_tiles(
    size: tuple[int, int], *, spacing_mm: tuple[float, float] | None, channels: int = 1
) -> Tiles:
    """Cut tiles out of the phantom.

    Args:
        size: ``(H, W)`` of a tile.
        spacing_mm: ``(y, x)``; None for `PIXEL_MM`.
        channels: Neighbouring slices, an odd number.

    Returns:
        The same for the same arguments and version of bedside.
    """
    spacing = spacing_mm or (PIXEL_MM, PIXEL_MM)
    noise = np.random.Generator(np.random.PCG64(1))
    phantoms = {case: chest_phantom(case).phantom for case in CASES}
    pictures, cuts = [], []
    for case, z_mm, x_mm in _PLACES:
        wide = size[1] * spacing[1] >= _ACROSS_MM
        affine = _affine(size, spacing, (0.0 if wide else x_mm, 5.0, z_mm - channels // 2 * SLICE_MM))
        hu = phantoms[case].hu((channels, *size), affine, supersampling=1)
        pictures.append(hu + noise.normal(0, NOISE_HU, hu.shape).astype(np.float32))
        affine[:3, 3] += affine[:3, 0] * (channels // 2)
        cuts.append((phantoms[case], affine))
    return Tiles(np.stack(pictures), tuple(cuts), spacing[0] * spacing[1] * SLICE_MM / 1000)


def _affine(
    size: tuple[int, int], spacing: tuple[float, float], centre: tuple[float, float, float]
) -> npt.NDArray[np.float64]:
    """Index ``(z, y, x, 1)`` -> mm, with ``centre`` (x, y, z of the first slice) in the middle of the tile."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = SLICE_MM, spacing[0], spacing[1], 1
    affine[0, 3] = centre[0] - spacing[1] * (size[1] - 1) / 2
    affine[1, 3] = centre[1] - spacing[0] * (size[0] - 1) / 2
    affine[2, 3] = centre[2]
    return affine


def _kinds_of(
    phantom: Phantom, size: tuple[int, int], affine: npt.NDArray[np.float64]
) -> npt.NDArray[np.uint8]:
    rows, columns = np.mgrid[: size[0], : size[1]]
    points = affine[:3, 3] + rows[..., None] * affine[:3, 1] + columns[..., None] * affine[:3, 2]
    kinds = np.array([*(_kind_of(body) for body in phantom.bodies), 0], np.uint8)
    return np.asarray(kinds[phantom.top_at(points)])


def _kind_of(body: Body) -> int:
    if not body.region:
        return 0
    left = body.region == "left lung"
    return 1 + left + 2 * (("", "ground glass", "consolidation").index(body.opacity))


def _choose(tissues: Sequence[Tissue], kind: _Kind) -> int:
    """The first tissue that fits, of dense ones the last; the background where none does."""
    fitting = [k for k, each in enumerate(tissues) if (each.lung, each.opacity) == (kind.lung, kind.opacity)]
    sided = [k for k in fitting if tissues[k].side in ("", kind.side)] or [0]
    return sided[-1] if kind.dense else sided[0]
