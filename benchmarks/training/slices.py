"""Chest CT as the U-Net of the comparison sees it: five groups of tissue, pixels of a scanner's 512x512.

The cases are those that the built-in CT network learns from, at half the scanner's pixels: they are enlarged twice.
Lungs are found by `bedside_export.recipes.ct.lungs`, opacity is the experts'; its kinds, which nobody drew, go by HU:
a stand-in that has the published network's classes, and no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from bedside_export.ct_rules import RULES
from bedside_export.recipes.ct.augment import Distortion, consolidate, distort_intensity, place
from bedside_export.recipes.ct.data import CASES, Fold
from bedside_export.recipes.ct.lungs import LEFT_OPACITY
from bedside_export.recipes.ct.opacity import Store

__all__ = ["CLASSES", "HELD_OUT", "Slices", "View", "dice", "group", "read_slices", "to_input"]

HELD_OUT: Final = "002"
"""The case that is measured: it has opacity of every kind on both sides, and leaves those with the most to train on."""
CLASSES: Final = 5
"""As `bedside_export.ct_rules.TISSUES` has them under ``l3-groups``."""
KINDS_HU: Final = (-550.0, -250.0)
"""Opacity under the first passes for ground glass, over the second for consolidation, between them for septal
thickening or crazy paving. Aerated lung is at about -850 HU and soft tissue at 40; a choice of ours."""
_SMOOTH: Final = 15
"""Side of the mean that HU of opacity are smoothed with for that, in pixels of 512, about 10 mm: a kind is a region's,
and no pixel's."""
_RULE: Final = RULES["l3-unet"]


@dataclass(frozen=True, slots=True)
class View:
    """What a training batch shows."""

    side: int = 192
    """Pixels of the scanner's size."""
    distortion: Distortion = field(default_factory=lambda: Distortion(shift=-0.1))
    """How far views are distorted. The shift below 0 keeps them from lying in the air beside the patient."""
    opacity: float = 2.0
    """How often a slice with opacity is drawn, against one with lung alone."""
    other: float = 0.4
    """The same of a slice without lung."""


@dataclass(frozen=True, slots=True)
class Slices:
    """Slices of some cases, at half the scanner's pixels."""

    hu: Tensor
    """``(Z, 256, 256)`` int16 HU."""
    labels: Tensor
    """``(Z, 256, 256)`` uint8, `bedside_export.recipes.ct.lungs.CLASSES`."""

    def weights(self, view: View) -> Tensor:
        """How often each slice is drawn, ``(Z,)``."""
        flat = self.labels.flatten(1)
        lung, opacity = (flat > 0).any(1), (flat >= LEFT_OPACITY).any(1)
        return torch.where(opacity, view.opacity, torch.where(lung, 1.0, view.other))

    def draw(self, count: int, view: View, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Distorted views: ``(N, 1, side, side)`` network inputs and ``(N, side, side)`` int64 groups."""
        rows = torch.multinomial(self.weights(view), count, replacement=True, generator=generator)
        hu, labels = enlarge(self.hu[rows], self.labels[rows])
        size = (view.side, view.side)
        hu, sides = place(hu, labels, size, view.distortion, generator)
        hu = consolidate(hu, sides, view.distortion, generator)
        return to_input(distort_intensity(hu, view.distortion, generator)), group(hu, sides)

    def whole(self, every: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every so manieth slice as it is in use: ``(1, 1, 512, 512)`` and ``(1, 512, 512)`` groups."""
        for row in range(0, len(self.hu), every):
            hu, labels = enlarge(self.hu[row : row + 1], self.labels[row : row + 1])
            yield to_input(hu[:, None]), group(hu[:, None], labels.long())


def read_slices(data: Path, cache: Path) -> tuple[Slices, Slices]:
    """The cases to learn from, and the one to measure on.

    Args:
        data: The folder that holds ``ct/``.
        cache: Where lungs that have been found are kept: finding them takes two minutes.

    Raises:
        DataError: A case is missing.
    """
    fold = Fold(tuple(name for name in CASES if name != HELD_OUT), HELD_OUT)
    store = Store(data, cache)

    def join(names: tuple[str, ...]) -> Slices:
        arrays = store.arrays(names).values()
        return Slices(torch.cat([each.hu for each in arrays]), torch.cat([each.labels for each in arrays]))

    return join(fold.training), join((HELD_OUT,))


def enlarge(hu: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """``(N, 256, 256)`` HU and classes at twice the height and width, float32 and uint8."""
    wide = F.interpolate(hu[:, None].float(), scale_factor=2.0, mode="bilinear", align_corners=False)[:, 0]
    return wide, labels.repeat_interleave(2, 1).repeat_interleave(2, 2)


def group(hu: Tensor, sides: Tensor) -> Tensor:
    """Background, lung and three kinds of opacity.

    Args:
        hu: ``(N, 1, h, w)``.
        sides: ``(N, h, w)`` int64, `bedside_export.recipes.ct.lungs.CLASSES`.

    Returns:
        ``(N, h, w)`` int64.
    """
    opacity = sides >= LEFT_OPACITY
    share = opacity[:, None].float()
    total, count = (F.avg_pool2d(part, _SMOOTH, 1, _SMOOTH // 2) for part in (hu * share, share))
    kind = 2 + torch.bucketize((total / count.clamp(min=1e-3))[:, 0], torch.tensor(KINDS_HU))
    return torch.where(opacity, kind, (sides > 0).long())


def to_input(hu: Tensor) -> Tensor:
    """HU as the network takes them."""
    return (hu.clamp(_RULE.low, _RULE.high) - _RULE.mean) / _RULE.std


def dice(confusion: npt.NDArray[np.int64]) -> list[float]:
    """Dice of each class of a confusion matrix ``(K, K)``."""
    hits, sizes = np.diag(confusion), confusion.sum(0) + confusion.sum(1)
    return [float(2 * hit / max(size, 1)) for hit, size in zip(hits, sizes, strict=True)]
