"""Chest X-rays shown as they should be, and as they should not: turned, inverted, cut to a part, in pieces.

`show` takes input squares to what the quality network looks at, with a random position and exposure; what is to be
seen in it is one of `SPOILS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from bedside_export.recipes.cxr.augment import Distortion, distort_exposure
from bedside_export.recipes.cxr.network import sampling_grid
from bedside_export.recipes.cxr.quality.network import SIDE

__all__ = ["MILD", "PLAIN", "SPOILS", "Handling", "show"]

SPOILS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "frontal": "frontal",
        "turned left": "turned-left",
        "turned right": "turned-right",
        "upside down": "upside-down",
        "inverted": "inverted",
        "one lung": "partial",
        "top or bottom": "partial",
        "detail": "partial",
        "jigsaw": "other",
        "two beside each other": "other",
        "nothing left": "other",
    }
)
"""What is done to a chest X-ray -> which of `bedside.contract.APPEARANCES` it has then."""


@dataclass(frozen=True, slots=True)
class Handling:
    """How pictures are taken: what varies at a bedside without spoiling them."""

    exposure: Distortion
    """Of the grey values."""
    rotation: float = 0.0
    """Standard deviation, radians."""
    trim: float = 0.0
    """Greatest part of the picture's width or height that is cut off on each side."""
    shift: float = 0.0
    """Greatest shift of what is shown against its frame, in parts of the frame."""
    flip: bool = False
    """Whether half of the pictures are mirrored. A mirrored chest and one with its heart on the right are alike."""


PLAIN: Final = Handling(Distortion(gamma=0.0, contrast=0.0, brightness=0.0, noise=0.0))
"""As they are, but for a little softness."""
MILD: Final = Handling(
    Distortion(gamma=0.35, contrast=0.2, brightness=0.08, noise=0.05),
    rotation=0.09,
    trim=0.1,
    shift=0.05,
    flip=True,
)
"""As a portable machine takes them."""

_TURNS: Final = MappingProxyType({"turned left": 1, "upside down": 2, "turned right": 3})
_NOTHING_LEFT: Final = 0.03
"""Share of the pixels that keep a grey value of their own."""


def show(squares: Tensor, extents: Tensor, spoil: str, how: Handling, generator: torch.Generator) -> Tensor:
    """Pictures as the network sees them, each handled at random.

    Args:
        squares: ``(N, 1, S, S)``, 0 to 1: pictures centred on black. What is shown whole is best sampled from twice
            the network's side, which averages; a detail from the input's size.
        extents: ``(N, 2)``: half width and half height of each picture in its square, which is 1.
        spoil: One of `SPOILS`.
        how: What varies.
        generator: Source of chance.

    Returns:
        ``(N, 1, 80, 80)``, 0 to 1, as `QualityNetwork.judge` takes them.
    """
    n = len(squares)

    def chance(*shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=generator)

    centre, half = _keep(extents, spoil, how, chance)
    mirror = 1 - 2 * (chance() < 0.5).float() if how.flip else torch.ones(n)
    angle = torch.randn(n, generator=generator) * how.rotation
    shift = (chance(2) * 2 - 1) * how.shift * half
    framed = _turn(sampling_grid(SIDE), _TURNS.get(spoil, 0))  # (1, S, S, 2)
    framed = framed * half.amax(1)[:, None, None, None]  # from the middle of what is kept
    inside = (framed.abs() <= half[:, None, None]).all(3).unsqueeze(1).float()
    rows = torch.stack(
        [
            torch.stack([angle.cos() * mirror, -angle.sin()], 1),
            torch.stack([angle.sin() * mirror, angle.cos()], 1),
        ],
        1,
    )
    where = torch.einsum("nij,nhwj->nhwi", rows, framed) + (centre + shift)[:, None, None]
    picture = F.grid_sample(squares, where, align_corners=False)
    if spoil == "jigsaw":
        picture, inside = _shuffle(picture, generator), torch.ones_like(inside)
    if spoil == "two beside each other":
        picture, inside = _pair(picture), torch.ones_like(inside)
    picture = distort_exposure(picture, how.exposure, generator)
    if spoil == "inverted":
        picture = 1 - picture
    if spoil == "nothing left":
        picture = _burn(picture, inside, chance(1, 1, 1) < 0.5)
    return picture.clamp(0.0, 1.0) * inside


def _keep(extents: Tensor, spoil: str, how: Handling, chance: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    """Middle and half sides ``(N, 2)`` of the part of each picture that is kept."""
    low, high = -extents, extents
    size = 2 * extents
    if spoil == "one lung":  # left or right
        part = (0.35 + 0.13 * chance()) * size[:, 0]
        left = chance() < 0.5
        low = torch.stack([torch.where(left, low[:, 0], high[:, 0] - part), low[:, 1]], 1)
        high = torch.stack([torch.where(left, low[:, 0] + part, high[:, 0]), high[:, 1]], 1)
    elif spoil == "top or bottom":
        part = (0.18 + 0.17 * chance()) * size[:, 1]
        top = chance() < 0.5
        low = torch.stack([low[:, 0], torch.where(top, low[:, 1], high[:, 1] - part)], 1)
        high = torch.stack([high[:, 0], torch.where(top, low[:, 1] + part, high[:, 1])], 1)
    elif spoil == "detail":
        part = (0.15 + 0.25 * chance(1)) * size.amin(1, keepdim=True)
        low = low + chance(2) * (size - part)
        high = low + part
    else:
        low, high = low + how.trim * chance(2) * size, high - how.trim * chance(2) * size
    return (low + high) / 2, (high - low) / 2


def _turn(grid: Tensor, quarters: int) -> Tensor:
    """Where to look for a picture turned anticlockwise by so many quarters."""
    for _ in range(quarters):
        grid = torch.stack([-grid[..., 1], grid[..., 0]], -1)
    return grid


def _shuffle(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures cut into four, nine or sixteen pieces, which are put together in another order."""
    count = int(torch.randint(2, 5, (1,), generator=generator))
    side = SIDE // count
    order = torch.randperm(count * count, generator=generator)
    if torch.equal(order, torch.arange(count * count)):
        order = order.flip(0)
    pieces = F.unfold(picture[..., : side * count, : side * count], side, stride=side)[..., order]
    whole = F.fold(pieces, side * count, side, stride=side)
    return F.pad(whole, (0, SIDE - side * count) * 2)


def _pair(picture: Tensor) -> Tensor:
    """Each picture beside another, black above and below."""
    pair = torch.cat([picture, picture.roll(1, 0)], 3)
    return F.pad(F.interpolate(pair, size=(SIDE // 2, SIDE), mode="area"), (0, 0, SIDE // 4, SIDE // 4))


def _burn(picture: Tensor, inside: Tensor, white: Tensor) -> Tensor:
    """Pictures with nearly every pixel at one end of the range."""
    values = [p[i > 0] for p, i in zip(picture, inside, strict=True)]
    low = torch.stack([v.quantile(_NOTHING_LEFT) for v in values])[:, None, None, None]
    high = torch.stack([v.quantile(1 - _NOTHING_LEFT) for v in values])[:, None, None, None]
    return torch.where(white, 1 - (low - picture) / 0.1, (picture - high) / 0.1)
