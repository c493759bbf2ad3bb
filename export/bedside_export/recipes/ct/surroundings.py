"""What lies around a patient in a scanner, for training: blankets, clothes, pillows and mattresses.

Foam and cloth hold as much air as lungs do, and the recipe's scans show little of them. They are painted into the air
around the body, so that a network learns to leave them alone.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

__all__ = ["find_surroundings", "lay_bedding"]

_SOLID_HU: Final = -400.0
"""From here on something is body, or a table."""

_LEVELS_HU: Final = (-985.0, -600.0)
"""Of a mattress, which is almost air, and of folded cloth; the lung's -900 to -750 lie between."""

_CELLS: Final = (3, 16)
"""Least and greatest number of patches along a side of the picture."""


def find_surroundings(hu: Tensor) -> Tensor:
    """``(N, C, h, w)`` true in the air that is seen from a side of the picture, in ``(N, C, h, w)`` HU."""
    solid = hu > _SOLID_HU
    hidden = torch.ones_like(solid)
    for axis in (2, 3):
        hidden &= solid.cummax(axis).values
        hidden &= solid.flip(axis).cummax(axis).values.flip(axis)
    return ~hidden


def lay_bedding(hu: Tensor, labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Paint patches of foam and cloth around the body.

    Args:
        hu: ``(N, C, h, w)`` HU of slices with their neighbours, which get the same patches.
        labels: ``(N, h, w)`` int64 classes, or ``(N, R, h, w)`` as R readers have them: only background is painted.
        share: Of the slices that are painted.
        generator: Source of chance.

    Returns:
        ``(N, C, h, w)`` HU.
    """
    n, _, height, width = hu.shape
    free = (labels == 0)[:, None] if labels.ndim == 3 else (labels == 0).all(1, keepdim=True)
    free = free & (torch.rand(n, 1, 1, 1, generator=generator) < share)

    def patches() -> Tensor:
        cells = torch.randint(_CELLS[0], _CELLS[1] + 1, (n,), generator=generator).tolist()
        drawn = [torch.randn(1, 1, k, k, generator=generator) for k in cells]
        return torch.cat([F.interpolate(each, size=(height, width), mode="bicubic") for each in drawn])

    def even(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, 1, 1, 1, generator=generator)

    cover = torch.sigmoid((patches() + even(-1.0, 1.0)) * even(2.0, 20.0))  # soft or sharp edges
    level = even(*_LEVELS_HU) + patches() * even(0.0, 60.0)
    fine = torch.randn(hu.shape, generator=generator)
    coarse = F.avg_pool2d(F.pad(fine, (1, 1, 1, 1), mode="replicate"), 3, 1) * 3
    foam = level + (fine + coarse) / 2 * even(0.0, 80.0)
    painted = hu + (foam - hu).clamp(min=0) * cover
    return torch.where(free & find_surroundings(hu), painted, hu)
