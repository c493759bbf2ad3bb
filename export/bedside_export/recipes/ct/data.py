"""The chest CT cases that the opacity network learns from, in HU, and who may learn from whom.

The pictures of the coronacases part are 8-bit, scaled from least to greatest *of each slice* (a slice with
metal in it is dark), so the way back to HU is found for each slice: air and soft tissue give a linear map,
and neighbouring slices, which show nearly the same tissue, keep a slice of fat from passing for muscle.
Arrays are ``(Z, Y, X)`` in canonical order: z to the head, y to posterior, x to the patient's left. A case
is a volume of one patient: `Fold` never lets one train and test.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from bedside.nifti.voxels import Voxels

Bytes = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

CASES: Final = ("001", "002", "003", "004", "005", "006", "007")
"""The cases of ``ct/coronacases``, one patient each (../shared/data/README.md)."""

AIR_HU: Final = -1000.0
"""HU of air, by definition of the scale."""

SOFT_TISSUE_HU: Final = 40.0
"""HU of muscle, the most common soft tissue of a chest slice (../shared/data/README.md)."""

MASKS: Final = "*-opacity.png"
"""Masks of a case in pictures; each slice is beside its own, without ``-opacity``."""

SIZE: Final = 256
"""Side of a slice in pixels."""

_AIR_AT_MOST: Final = 20
"""Air reads 0 to 2 in every slice."""

_SOFT_FROM: Final = 18
"""Soft tissue reads 85 to 140, and no less than 28 in slices with metal."""

_NEIGHBOURS: Final = 31
"""Slices over which the tissue found in each is averaged."""


class DataError(ValueError):
    """The data folder isn't what the recipe expects."""


class LeakError(ValueError):
    """A held-out case was about to be trained on."""


@dataclass(frozen=True, slots=True)
class Case:
    """One chest CT and the experts' mask."""

    name: str
    """Its folder's name."""
    hu: Float
    """``(Z, 256, 256)`` HU, every second slice of the scan."""
    opacity: Mask
    """``(Z, 128, 128)`` the experts' pulmonary opacity."""


@dataclass(frozen=True, slots=True)
class Fold:
    """Which cases train and which one is held out; the final network holds out none."""

    training: tuple[str, ...]
    """Names of the cases to learn from."""
    held_out: str | None
    """Name of the case that is measured."""

    def __post_init__(self) -> None:
        if self.held_out in self.training:
            raise LeakError("the held-out case is among those to train on")


def folds(names: tuple[str, ...] = CASES) -> tuple[Fold, ...]:
    """One fold a case: all the others train."""
    return tuple(Fold(tuple(n for n in names if n != held_out), held_out) for held_out in names)


def everyone(names: tuple[str, ...] = CASES) -> Fold:
    """The fold of the final network: nobody is held out, of all cases by default."""
    return Fold(names, None)


def _modes(slice_: Bytes) -> tuple[float, float]:
    """Grey values of air and of the most common tissue of a slice ``(Y, X)``."""
    counts = np.bincount(slice_.ravel(), minlength=256).astype(np.float64)
    air = float(np.argmax(counts[:_AIR_AT_MOST]))
    # A bin is a constant share of the grey value: what is right for 110 is too broad for 35.
    body = slice_[slice_ > _SOFT_FROM].astype(np.float64)
    if body.size < slice_.size // 100:
        raise DataError("a slice shows no body: it can't be mapped to HU")
    edges = np.geomspace(_SOFT_FROM, 256, 120)
    density = np.histogram(body, edges)[0] / np.diff(edges) * edges[:-1]
    smooth = ndimage.gaussian_filter1d(density, 1.5)
    top = int(np.argmax(smooth))
    return air, float(np.sqrt(edges[top] * edges[top + 1]))


def _step(lower: Bytes, upper: Bytes, soft: tuple[float, float]) -> float:
    """Logarithm of how much brighter the same tissue is in ``upper`` than in ``lower``."""
    a, b = (ndimage.uniform_filter(s.astype(np.float32), 3) for s in (lower, upper))
    tissue = (a > 0.6 * soft[0]) & (b > 0.6 * soft[1]) & (a < 1.4 * soft[0]) & (b < 1.4 * soft[1])
    if tissue.sum() < 200:
        return float(np.log(soft[1] / soft[0]))
    return float(np.median(np.log(b[tissue] / a[tissue])))


def to_hu(grey: Bytes) -> Float:
    """HU of slices that were each scaled from their least to their greatest value.

    Args:
        grey: ``(Z, Y, X)`` uint8, air near 0.

    Returns:
        ``(Z, Y, X)`` float32 HU, clipped at -1024 as scanners do.

    Raises:
        DataError: a slice shows no body.
    """
    modes = np.asarray([_modes(s) for s in grey])
    air, soft = modes[:, 0], modes[:, 1]
    steps = [_step(grey[i], grey[i + 1], (soft[i], soft[i + 1])) for i in range(len(grey) - 1)]
    path = np.concatenate([[0.0], np.cumsum(steps)])
    offset = ndimage.median_filter(np.log(soft) - path, _NEIGHBOURS, mode="nearest")
    tissue = np.exp(path + offset)
    scale = (SOFT_TISSUE_HU - AIR_HU) / (tissue - air)
    hu = AIR_HU + (grey - air[:, None, None]) * scale[:, None, None]
    return np.asarray(np.maximum(hu, -1024), dtype=np.float32)


def read_case(data: Path, name: str) -> Case:
    """Reads one case.

    Args:
        data: The folder that holds ``ct/``.
        name: One of `CASES`.

    Raises:
        DataError: the case is absent, or a slice has no mask or another size.
    """
    folder = data / "ct" / "coronacases" / name
    if not any(folder.glob(MASKS)):
        raise DataError(
            f"case {name} is missing from the data folder; --data wants the folder that holds ct/"
        )
    return read_pictures(folder, name)


def read_pictures(folder: Path, name: str) -> Case:
    """Reads one case from its folder of pictures, whoever's it is.

    Args:
        folder: Holds slices and, as many, the masks that `MASKS` finds.
        name: What to call the case.

    Raises:
        DataError: there is no mask, or a slice has no mask or another size.
    """
    masks = sorted(folder.glob(MASKS))
    if not masks:
        raise DataError(f"case {name} has no masks of opacity")
    slices = [_read(m.with_name(m.name.replace("-opacity", ""))) for m in masks]
    opacity = [_read(m) > 0 for m in masks]
    if any(s.shape != (SIZE, SIZE) for s in slices) or any(m.shape != (SIZE // 2,) * 2 for m in opacity):
        raise DataError(f"a slice or a mask of case {name} is not {SIZE} or {SIZE // 2} pixels wide")
    return Case(name, to_hu(np.stack(slices)), np.stack(opacity))


def _read(path: Path) -> Bytes:
    if not path.is_file():
        raise DataError("a mask of ct/coronacases has no slice beside it")
    with Image.open(path) as image:
        return np.asarray(image.convert("L"), dtype=np.uint8)


def enlarge(mask: Mask) -> Mask:
    """A mask ``(Z, h, w)`` at twice its height and width, its corners rounded by linear interpolation."""
    wide = ndimage.zoom(mask.astype(np.float32), (1, 2, 2), order=1, mode="nearest", grid_mode=True)
    return np.asarray(wide >= 0.5, dtype=np.bool_)


def read_field(data: Path, name: str, *, pixel_mm: float) -> tuple[Float, Mask]:
    """A scan of ``ct/lung-field`` and its lungs.

    Args:
        data: The folder that holds ``ct/``.
        name: The scan's name, e.g. ``id001``.
        pixel_mm: Side of the pixels to interpolate to.

    Returns:
        HU ``(Z, Y, X)`` and the lungs, both in one, in canonical order.

    Raises:
        InputError: a file is absent or broken.
    """
    arrays = []
    for suffix in ("", "-msk"):
        voxels = Voxels(data / "ct" / "lung-field" / f"{name}{suffix}.nii.gz")
        try:
            array = np.stack([voxels.plane(i).copy() for i in range(voxels.grid.shape[0])]).astype(np.float32)
            _, y, x = voxels.grid.spacing_mm
        finally:
            voxels.close()
        arrays.append(
            ndimage.zoom(array, (1, y / pixel_mm, x / pixel_mm), order=1, mode="nearest", grid_mode=True)
        )
    hu, mask = arrays
    return hu, np.asarray(mask >= 0.5, dtype=np.bool_)
