"""Small networks for tests of the CT export, which need torch; importable as ``ct_networks:build``."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Plain(nn.Module):
    """Two convolutions that sort HU into ``classes`` ordered tissues, with a little of the neighbourhood."""

    def __init__(self, in_channels: int, classes: int, sharpness: float = 40.0) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, 2, 3, padding=1)
        self.last = nn.Conv2d(2, classes, 1)
        centres = torch.linspace(1.0, -0.5, classes)  # background is the brightest, as soft tissue is
        smooth = torch.full((2, in_channels, 3, 3), 0.02)
        smooth[:, :, 1, 1] = 0.84 / in_channels
        state = {
            "first.weight": smooth,
            "first.bias": torch.full((2,), 2.0),
            "last.weight": torch.stack([centres * sharpness, centres * 0], 1)[:, :, None, None],
            "last.bias": -(centres**2) / 2 * sharpness - 2 * centres * sharpness,
        }
        self.load_state_dict(state)

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        answer: Tensor = self.last(self.first(image).relu())
        return answer


class Pooled(Plain):
    """The same plus what it sees in 1, 2, 3 and 6 bins to a side, as PSPNet does."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__(in_channels, classes)
        self.pools = nn.ModuleList(nn.AdaptiveAvgPool2d(bins) for bins in (1, 2, 3, 6))

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        seen = image
        for place, pool in enumerate(self.pools):
            bins = nn.functional.interpolate(
                pool(image), image.shape[-2:], mode="bilinear", align_corners=True
            )
            seen = seen + bins * (0.05 * (place + 1))
        return super().forward(seen)


class Constant(nn.Module):
    """Answers with a size that it was made for, whatever it is given; or with NaN."""

    def __init__(self, classes: int, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((classes,), value))

    def forward(self, image: Tensor) -> Tensor:
        """Logits."""
        return image[:, :1] * 0 + self.weight[:, None, None]


def build(in_channels: int, classes: int) -> nn.Module:
    """A network for any size."""
    return Plain(in_channels, classes)


def build_pooled(in_channels: int, classes: int) -> nn.Module:
    """A network for one size."""
    return Pooled(in_channels, classes)


def build_broken(in_channels: int, classes: int) -> nn.Module:
    """A network that answers NaN."""
    return Constant(classes, float("nan"))


def build_nothing(in_channels: int, classes: int) -> str:
    """No network."""
    return f"{in_channels} {classes}"
