"""Whether the values of a scan are Hounsfield units, told from a sample of its slices.

By the definition of the scale air is -1000 and water 0. In any scan of a body, fat (-120 to -60) or gas lies below
-50, muscle, blood and vessels lie within -200 to 300, and little but bone, metal and contrast lies above 500. What
breaks that is not in HU, and the way in which it does says what was done to it. Noise, padding, clipping to a window,
contrast, an abdomen, or a crop to the lungs do not break it. What is not told: values stretched by a tenth or so, and
a picture of 8 bits that was mapped to -1024 to 1024, which looks like a scan with much fat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.errors import RefusedError

__all__ = ["check_hu", "sample_slices"]

SAMPLED_SLICES: Final = 24
"""Slices that `sample_slices` reads: spread evenly, they cross every part of a chest."""
SAMPLED_SIDE: Final = 128
"""It keeps at least this many rows and columns of each, where there are as many."""
PADDING_SHARE: Final = 0.002
"""A lowest value that so large a share of the voxels has, exactly, and that lies under `PADDING_BELOW`, is padding."""
PADDING_BELOW: Final = -500.0
"""Padding is lower than this; so may be the floor of a scan, which is left out then, to no harm."""
LEAST_RANGE: Final = 300.0
"""HU between the 0.1th and the 99.9th percentile; fat to bone alone is more, and the narrowest window 350."""
LIGHT_HU: Final = -50.0
"""Fat, lung and air are below."""
LEAST_LIGHT: Final = 0.01
"""Least share of what is below `LIGHT_HU`: the abdomen's fat alone is ten times that."""
DENSE_HU: Final = 500.0
"""Bone, metal and dense contrast are above."""
MOST_DENSE: Final = 0.10
"""Largest share of what is above `DENSE_HU`: bone of that density is under 5 % of a body."""
TISSUE_HU: Final = -200.0
"""Muscle, blood, fluid, fat and bone are above."""
LEAST_TISSUE: Final = 0.05
"""Least share of what is above `TISSUE_HU` in what is not void, where that is mostly as light as air."""
VOID_HU: Final = -1300.0
"""Nothing that is no padding is below: air less four times the noise of a low-dose scan."""
MOST_VOID: Final = 0.05
"""Largest share below `VOID_HU`, where tissue lacks; padding that was interpolated may be more, where there is some."""
TISSUE_AS_AIR_HU: Final = -950.0
"""The median of what is not void is below where muscle and fat, less 1024, stand for air; a lung's is above."""
OFFSETS: Final = {"1024 (or 1000)": 1012, "32768": 32768}
"""What is usually added to HU to store them unsigned, and where water is then. The first two can't be told apart."""
OFFSET_REACH: Final = 150.0
"""How far the median of muscle, fat and bone may lie from water."""
MOST_LUNG: Final = 0.05
"""Largest share between void and fat where such an offset is to be believed: it leaves no value there."""


def sample_slices(
    read: Callable[[Sequence[int]], npt.NDArray[np.float32]], slices: int, count: int = SAMPLED_SLICES
) -> npt.NDArray[np.float32]:
    """Every few pixels of a few slices, read one at a time.

    Args:
        read: As `bedside.scan.Scan.read`.
        slices: How many the scan has.
        count: How many to read; fewer where there are fewer.

    Returns:
        ``(n, y, x)`` float32.
    """
    places = np.unique(np.linspace(0, slices - 1, min(slices, count) + 2)[1:-1].round().astype(int)).tolist()
    kept = []
    for index in places:
        plane = read([index])[0]
        step = max(1, min(plane.shape) // SAMPLED_SIDE)
        kept.append(plane[::step, ::step].copy())
    return np.stack(kept)


def check_hu(sample: npt.NDArray[np.float32]) -> None:
    """Refuse a scan that is not in Hounsfield units.

    Args:
        sample: Values of some slices, in any shape.

    Raises:
        RefusedError: ``constant-image``: all values are one. ``not-hu``: the message says what they look like and
            what to do.
    """
    values = sample[np.isfinite(sample)].ravel()
    if not values.size or values.min() == values.max():
        raise RefusedError("constant-image", "every voxel has the same value; export the scan again")
    values = _without_padding(values)
    low, high = (float(v) for v in np.percentile(values, (0.1, 99.9)))
    if high - low < LEAST_RANGE:
        raise _refuse(_say_narrow(values))
    light = float(np.mean(values < LIGHT_HU))
    dense = float(np.mean(values > DENSE_HU))
    if light < LEAST_LIGHT or dense > MOST_DENSE:
        raise _refuse(_say_shifted(values, light))
    rest = values[values > VOID_HU]
    void = rest.size < (1 - MOST_VOID) * values.size
    if void and (not rest.size or _stands_for_air(rest)):
        raise _refuse(
            "they look like HU - 1024: the rescale intercept was applied twice; add 1024, or convert the source again"
        )


def _stands_for_air(values: npt.NDArray[np.float32]) -> bool:
    """Whether these have no tissue, but something where air should be."""
    return bool(np.mean(values > TISSUE_HU) < LEAST_TISSUE and np.median(values) < TISSUE_AS_AIR_HU)


def _without_padding(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What is not padding; all, if the rest is a single value."""
    lowest = values.min()
    rest = values[values > lowest]
    padded = lowest < PADDING_BELOW and values.size - rest.size > PADDING_SHARE * values.size
    return rest if padded and rest.size and rest.min() < rest.max() else values


def _say_narrow(values: npt.NDArray[np.float32]) -> str:
    low, high = float(values.min()), float(values.max())
    if len(np.unique(values[:: max(1, values.size // 100_000)])) <= 64 and float(low).is_integer():
        return "they are but a few, as a label map's are; give the CT that it was made from"
    if low >= 0 and high <= 1:
        return "they lie from 0 to 1, scaled for a network; give the CT in HU"
    if low >= 0 and high <= 255:
        return "they lie from 0 to 255, as those of a picture of 8 bits; give the CT in HU"
    return f"they lie from {low:.3g} to {high:.3g}, too narrow for HU (air -1000, tissue 0 to 60); give the CT in HU"


def _say_shifted(values: npt.NDArray[np.float32], light: float) -> str:
    lung = float(np.mean((values > VOID_HU) & (values < LIGHT_HU - OFFSET_REACH)))
    for name, offset in OFFSETS.items():
        body = values[values > offset - 400]
        near = body.size > LEAST_LIGHT * values.size and abs(np.median(body) - offset) < OFFSET_REACH
        if near and lung < MOST_LUNG:
            return (
                f"they look like HU + {name}: subtract it, or convert the source with its rescale intercept"
            )
    if light < LEAST_LIGHT:
        return "hardly any is negative, so air (-1000) and fat (-100) lack; is it MR, or scaled? Give the CT in HU"
    return "too many are over 500, which in HU is bone; is it MR, or scaled? Give the CT in HU"


def _refuse(reason: str) -> RefusedError:
    return RefusedError("not-hu", f"the values are not Hounsfield units: {reason}")
