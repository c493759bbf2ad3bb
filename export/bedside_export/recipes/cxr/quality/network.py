"""Is it a frontal chest X-ray, upright and whole? A small network beside the severity network, on the same input.

    picture (N, 1, 320, 320)
      -> a quarter of the size, standardised
      -> four stages of convolutions, 5x5 features
      -> a weight for each place and feature, so that what lies where counts
      -> appearance (N, 7): probabilities of `bedside.contract.APPEARANCES`, the first of which is to be answered on

`CheckedNetwork` is both networks as one graph.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from bedside.contract import APPEARANCES
from bedside_export.recipes.cxr.network import INPUT_SIZE, SeverityNetwork

__all__ = ["POOL", "SIDE", "CheckedNetwork", "QualityNetwork"]

POOL: Final = 4
"""Pixels of the input that are averaged, each way, before the network looks."""
SIDE: Final = INPUT_SIZE // POOL
"""Side of the pictures that it looks at: a person tells a chest on that as well."""

_WIDTHS: Final = (16, 24, 40, 64)
"""Channels of the stages, each at half the resolution of the one before."""
_GRID: Final = 5
"""Side of the last features: `SIDE` halved four times."""


class QualityNetwork(nn.Module):
    """The classifier: 0.24 MB of float32 weights.

    Args:
        dropout: Share of the features dropped in training.
    """

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Sequential(_convolution(1, _WIDTHS[0], kernel=5, stride=2))
        stages: list[nn.Module] = []
        for inside, outside in pairwise(_WIDTHS):
            stages.append(_convolution(inside, outside, stride=2))
            if outside < _WIDTHS[-1]:  # the last features are weighed by place at once
                stages.append(_convolution(outside, outside))
        self.stages = nn.Sequential(*stages)
        self.place = nn.Conv2d(_WIDTHS[-1], _WIDTHS[-1], _GRID, groups=_WIDTHS[-1], bias=False)
        self.norm = nn.BatchNorm2d(_WIDTHS[-1])
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(_WIDTHS[-1], len(APPEARANCES))

    def forward(self, image: Tensor) -> Tensor:
        """``(N, 1, 320, 320)`` pictures to probabilities ``(N, 7)`` of `bedside.contract.APPEARANCES`."""
        return self.judge(F.avg_pool2d(image, POOL)).softmax(1)

    def judge(self, small: Tensor) -> Tensor:
        """``(N, 1, 80, 80)`` pictures of a quarter of the size to logits ``(N, 7)``; for training."""
        mean = small.mean((2, 3), keepdim=True)
        spread = (small - mean).pow(2).mean((2, 3), keepdim=True)
        x = self.stages(self.stem((small - mean) / (spread + 1e-4).sqrt()))
        x = self.norm(self.place(x)).relu().flatten(1)  # (N, C, 5, 5) -> (N, C)
        logits: Tensor = self.out(self.dropout(x))
        return logits


class CheckedNetwork(nn.Module):
    """The severity network as it is, and beside it what the picture is.

    Args:
        severity: Its weights are not touched.
        quality: The classifier.
    """

    def __init__(self, severity: SeverityNetwork, quality: QualityNetwork) -> None:
        super().__init__()
        self.severity = severity
        self.quality = quality

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Severity ``(N, 2)``, cam ``(N, 2, 80, 80)``, lungs ``(N, 1, 80, 80)`` and appearance ``(N, 7)``."""
        severity, cam, lungs = self.severity(image)
        return severity, cam, lungs, self.quality(image)


def _convolution(inside: int, outside: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """A convolution with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
    )
