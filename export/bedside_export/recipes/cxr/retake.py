"""A picture of a patient, taken again minutes later: by computation, since no such pairs are at hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it

from bedside_export.recipes.cxr.data import Float

__all__ = ["Retake", "retake"]


@dataclass(frozen=True, slots=True)
class Retake:
    """How a second picture minutes later differs: each is drawn evenly from its range. Assumed, not measured."""

    crop: float = 0.06
    """Most that is cut off at each edge, in parts of the side: collimation and position."""
    rotation: float = 3.0
    """Most that the patient is turned in the picture's plane, degrees to either side."""
    gamma: float = 0.25
    """Most of the exponent's logarithm, to either side: another curve of the processing."""
    window: float = 0.06
    """Most that black and white move, in parts of the range, to either side: another exposure and window."""
    noise: float = 0.02
    """Greatest standard deviation of noise, in parts of the range."""
    resolution: float = 0.6
    """Least size of the picture, in parts of its own."""


def retake(grey: Float, how: Retake, generator: torch.Generator) -> Float:
    """A picture taken again.

    Args:
        grey: ``(H, W)`` float32, 0 black to 1 white.
        how: How far it may differ.
        generator: Source of chance.

    Returns:
        ``(h, w)`` float32, 0 to 1, of another size. Where turning reaches over the edge, the edge goes on.
    """

    def draw(low: float, high: float, count: int = 1) -> list[float]:
        values: list[float] = (torch.rand(count, generator=generator) * (high - low) + low).tolist()
        return values

    left, right, top, bottom = draw(0, how.crop, 4)
    (angle,) = draw(-how.rotation, how.rotation)
    (size,) = draw(how.resolution, 1.0)
    height, width = grey.shape
    high, wide = (1 - top - bottom) * height, (1 - left - right) * width
    y, x = torch.meshgrid(
        (torch.arange(round(high), dtype=torch.float32) + 0.5) * (high / round(high)) - high / 2,
        (torch.arange(round(wide), dtype=torch.float32) + 0.5) * (wide / round(wide)) - wide / 2,
        indexing="ij",
    )  # pixels from the middle of what is kept
    turn = torch.tensor(angle).deg2rad()
    across = x * turn.cos() - y * turn.sin() + (left + 1 - right) / 2 * width
    down = x * turn.sin() + y * turn.cos() + (top + 1 - bottom) / 2 * height
    where = torch.stack([across * 2 / width - 1, down * 2 / height - 1], -1)[None]
    picture = F.grid_sample(
        torch.from_numpy(grey)[None, None], where, padding_mode="border", align_corners=False
    )
    picture = F.interpolate(picture, scale_factor=size, mode="bilinear", antialias=True, align_corners=False)
    (exponent,) = draw(-how.gamma, how.gamma)
    black, white = draw(-how.window, how.window, 2)
    picture = (picture.clamp(0, 1) ** float(np.exp(exponent)) - black) / (1 + white - black)
    (noise,) = draw(0, how.noise)
    picture = picture + torch.randn(picture.shape, generator=generator) * noise
    return np.ascontiguousarray(picture.clamp(0, 1)[0, 0].numpy(), dtype=np.float32)
