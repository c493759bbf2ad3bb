"""Random distortions for training: geometry in the sampling grid, exposure afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Distortion:
    """How far training pictures are distorted; every number is a standard deviation unless it says else."""

    shift: float = 0.04
    """Of the box's centre, in parts of the box."""
    scale: float = 0.06
    """Of the box's sides, each by itself and both together, logarithmic."""
    rotation: float = 0.08
    """Radians."""
    gamma: float = 0.25
    """Of the exponent's logarithm."""
    contrast: float = 0.15
    """Of the contrast's logarithm."""
    brightness: float = 0.05
    """Of grey values, 0 to 1."""
    noise: float = 0.02
    """Greatest noise, in grey values."""


def flip_zones(zones: Tensor) -> Tensor:
    """Zones ``(N, 6)`` (row by row, right and left) of the mirrored picture."""
    return zones.reshape(-1, 3, 2).flip(2).reshape(-1, 6)


def distorted_grid(
    grid: Tensor, box: Tensor, flip: Tensor, how: Distortion, generator: torch.Generator
) -> Tensor:
    """Where to sample the input square for a distorted, perhaps mirrored crop.

    Args:
        grid: ``(1, h, w, 2)`` the crop's own pixel centres, -1 to 1.
        box: ``(N, 4)`` centre x, y, half width, half height in -1 to 1.
        flip: ``(N,)`` bool: mirror left and right.
        how: How far.
        generator: Source of chance.

    Returns:
        ``(N, h, w, 2)``.
    """
    n = box.shape[0]
    centre, half = box[:, :2], box[:, 2:]
    centre = centre + torch.randn(n, 2, generator=generator) * how.shift * half * 2
    both = torch.randn(n, 1, generator=generator) * how.scale
    half = half * (both + torch.randn(n, 2, generator=generator) * how.scale).exp()
    angle = torch.randn(n, generator=generator) * how.rotation
    mirror = 1 - 2 * flip.float()
    turn = torch.stack(
        [
            torch.stack([angle.cos() * mirror, -angle.sin()], 1),
            torch.stack([angle.sin() * mirror, angle.cos()], 1),
        ],
        1,
    )  # (N, 2, 2)
    points = torch.einsum("nij,hwj->nhwi", turn, grid[0])
    return points * half[:, None, None] + centre[:, None, None]


def distort_exposure(crop: Tensor, how: Distortion, generator: torch.Generator) -> Tensor:
    """``(N, 1, h, w)`` of 0 to 1 with other gamma, contrast, brightness, sharpness and noise."""
    n = crop.shape[0]

    def chance(scale: float) -> Tensor:
        return torch.randn(n, 1, 1, 1, generator=generator) * scale

    out = crop.clamp(1e-3, 1).pow(chance(how.gamma).exp())
    out = (out - 0.5) * chance(how.contrast).exp() + 0.5 + chance(how.brightness)
    soft = F.avg_pool2d(out, 3, 1, 1, count_include_pad=False)
    mix = torch.rand(n, 1, 1, 1, generator=generator) - 0.3  # below 0 sharpens a little
    out = out + (soft - out) * mix
    level = torch.rand(n, 1, 1, 1, generator=generator) * how.noise
    return out + torch.randn(crop.shape, generator=generator) * level
