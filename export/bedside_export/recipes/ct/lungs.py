"""Left and right lung of a chest CT by thresholds and morphology: what the network learns the lungs from.

Air in the body, without airways and bowel, split into two sides in space, vessels filled, the experts'
opacity added. In-plane pixels are about 1.4 mm; the numbers below are in pixels.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.segmentation import watershed

from bedside_export.recipes.ct.data import Case, DataError, Float, Mask, enlarge

Labels = npt.NDArray[np.uint8]

CLASSES: Final = ("background", "left lung", "right lung", "left lung opacity", "right lung opacity")
"""The network's classes in order; left and right are the patient's, and the lungs are without opacity."""

LEFT, RIGHT, LEFT_OPACITY, RIGHT_OPACITY = 1, 2, 3, 4

_AERATED_HU: Final = -400.0
"""Between lung, ground glass included, and soft tissue."""

_GAS_HU: Final = -980.0
"""Gas without any tissue, between air at -1000 and the emptiest lung."""

_AIRWAY_AREA: Final = 320
"""Greatest cross-section of the trachea or both main bronchi, pixels (about 630 mm2)."""

_FILL: Final = 5
"""Radius of the closing that fills vessels."""

_HOLE_AREA: Final = 120
"""Greatest hole that is a vessel or a thickening, pixels (about 240 mm2)."""


def disc(radius: int) -> Mask:
    """A disc ``(1, 2 radius + 1, 2 radius + 1)`` in the slice."""
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray((y * y + x * x <= radius * radius)[None], dtype=np.bool_)


def find_body(hu: Float) -> Mask:
    """The patient ``(Z, Y, X)`` without table and clothes, holes filled slice by slice."""
    solid = ndimage.binary_opening(ndimage.gaussian_filter(hu, (0, 1, 1)) > _AERATED_HU, disc(3))
    body = np.zeros(hu.shape, dtype=np.bool_)
    for i, s in enumerate(solid):
        parts, count = ndimage.label(s)
        if not count:
            continue
        sizes = np.bincount(parts.ravel())[1:]
        keep = np.flatnonzero(sizes >= 0.15 * sizes.max()) + 1
        body[i] = ndimage.binary_fill_holes(np.isin(parts, keep))
    return body


def _airways(air: Mask) -> Mask:
    """Trachea and main bronchi ``(Z, Y, X)``: followed downwards from the neck while they stay small."""
    found = np.zeros_like(air)
    middle = air.shape[2] // 2
    above = np.zeros(air.shape[1:], dtype=bool)
    for i in range(len(air) - 1, -1, -1):
        parts, count = ndimage.label(air[i])
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        small = [k for k in range(1, count + 1) if sizes[k] <= _AIRWAY_AREA]
        touched = set(np.unique(parts[above])) - {0}
        here = [k for k in small if k in touched]
        if not here and not above.any():
            candidates = []
            for k in small:
                xs = np.nonzero(parts == k)[1]
                if sizes[k] >= 40 and abs(xs.mean() - middle) < 40:
                    candidates.append((abs(xs.mean() - middle), k))
            here = [min(candidates)[1]] if candidates else []
        found[i] = np.isin(parts, here) if here else False
        above = found[i]
    return found


def _find_gas(hu: Float) -> Mask:
    """Broad pure gas ``(Z, Y, X)``, as in stomach and bowel; air between vessels and walls is never so pure."""
    pure = ndimage.gaussian_filter(hu, (0, 2, 2)) < _GAS_HU
    core = ndimage.binary_opening(pure & find_body(hu), disc(4))
    return np.asarray(ndimage.binary_dilation(core, disc(5)), dtype=np.bool_)


def _seeds(lungs: Mask) -> npt.NDArray[np.int32] | None:
    """Two cores that no longer touch: 1 the patient's left, 2 right; None where it can't be told."""
    for radius in (1, 2, 3, 4, 6, 8, 10, 12):
        parts, count = ndimage.label(ndimage.binary_erosion(lungs, disc(radius)))
        if count < 2:
            continue
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        first, second = np.argsort(sizes)[::-1][:2]
        if sizes[second] < 0.3 * sizes[first]:
            continue
        xs = [float(ndimage.center_of_mass(parts == k)[2]) for k in (first, second)]
        if abs(xs[0] - xs[1]) < 0.15 * lungs.shape[2]:
            continue
        left, right = (first, second) if xs[0] > xs[1] else (second, first)
        return np.asarray((parts == left) * LEFT + (parts == right) * RIGHT, dtype=np.int32)
    return None


def _fill_small(lung: Mask) -> Mask:
    """A lung ``(Y, X)`` with its vessels filled, but not the dome of the liver that it may surround."""
    parts, count = ndimage.label(ndimage.binary_fill_holes(lung) & ~lung)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = _HOLE_AREA + 1
    return np.asarray(lung | (sizes <= _HOLE_AREA)[parts], dtype=np.bool_)


def find_lungs(hu: Float) -> Labels:
    """Left (1) and right (2) lung ``(Z, Y, X)``, vessels included, from HU in canonical order.

    Raises:
        DataError: no two lungs are found.
    """
    smooth = ndimage.gaussian_filter(hu, (0, 0.6, 0.6))
    body = ndimage.binary_erosion(find_body(hu), disc(1))
    air = (smooth < _AERATED_HU) & body
    air &= ~ndimage.binary_dilation(_airways(air), disc(1))
    air &= ~_find_gas(hu)
    seeds = _seeds(ndimage.binary_opening(air, disc(1)))
    if seeds is None:
        raise DataError("no two lungs are found in the scan")
    # Only what hangs together with a seed by more than a thread: bowel gas has no seed.
    parts, _ = ndimage.label(ndimage.binary_opening(air, disc(1)))
    kept = np.isin(parts, np.setdiff1d(np.unique(parts[seeds > 0]), [0]))
    # What the opening took from thin recesses comes back; three steps don't reach the next bowel loop.
    kept = ndimage.binary_dilation(kept, iterations=3, mask=air)
    depth = ndimage.distance_transform_edt(kept, sampling=(1.5, 1, 1))
    sides = watershed(-depth, seeds, mask=kept).astype(np.uint8)
    filled = np.zeros(hu.shape, dtype=np.uint8)
    for side in (LEFT, RIGHT):
        own = sides == side
        pad = np.pad(own, ((0, 0), (_FILL,) * 2, (_FILL,) * 2))
        closed = ndimage.binary_closing(pad, disc(_FILL))[:, _FILL:-_FILL, _FILL:-_FILL]
        for i in range(len(closed)):
            closed[i] = _fill_small(closed[i])
        filled[closed & (filled == 0)] = side
    filled[sides > 0] = sides[sides > 0]
    return filled


def label_case(case: Case) -> Labels:
    """The classes of `CLASSES` for each voxel ``(Z, 256, 256)``; opacity has the side of the nearest lung."""
    return label_opacity(case.hu, enlarge(case.opacity))


def label_opacity(hu: Float, opacity: Mask) -> Labels:
    """The same of HU ``(Z, Y, X)`` in pixels of about 1.4 mm, and a mask of opacity of as many pixels.

    Raises:
        DataError: no two lungs are found.
    """
    lungs = find_lungs(hu)
    _, nearest = ndimage.distance_transform_edt(lungs == 0, sampling=(1.5, 1, 1), return_indices=True)
    side = lungs[tuple(nearest)]
    labels = lungs.copy()
    labels[opacity] = side[opacity] + (LEFT_OPACITY - LEFT)
    # Slivers that the experts' mask leaves between itself and the lung, or in it, are lung.
    for lung, dense in ((LEFT, LEFT_OPACITY), (RIGHT, RIGHT_OPACITY)):
        whole = (labels == lung) | (labels == dense)
        closed = ndimage.binary_closing(np.pad(whole, ((0, 0), (2, 2), (2, 2))), disc(2))[:, 2:-2, 2:-2]
        labels[closed & (labels == 0)] = lung
    return labels
