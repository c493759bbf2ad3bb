"""Random distortions of CT slices for training: geometry by one resampling, intensities in HU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from bedside.contract import Tissue
from bedside_export.recipes.ct.data import AIR_HU, SOFT_TISSUE_HU
from bedside_export.recipes.ct.surroundings import lay_bedding

_VESSEL: Final = 5
"""Pixels: what is narrower is a vessel in faint opacity."""

_CLEAR_HU: Final = -600.0
"""Lung under this has air in it and no opacity that counts."""

_LUNG_HU: Final = -840.0
"""Of clear lung, where a slice has none: the median of the seven cases'."""

_FAINTEST: Final = 0.85
"""Greatest part of an opacity that is taken off: the label still says that there is one."""

MIRRORED: Final = (0, 2, 1, 4, 3)
"""The class that each class of the built-in network becomes in the mirrored patient."""


@dataclass(frozen=True, slots=True)
class Kinds:
    """What training has to know of the classes, in the order of the network's channels."""

    mirrored: tuple[int, ...]
    """The class that each becomes in the mirrored patient."""
    opacity: tuple[bool, ...]
    """Which are opacity."""
    lung: tuple[bool, ...]
    """Which are lung, opacity among them."""

    @staticmethod
    def of(tissues: Sequence[Tissue]) -> Kinds:
        """Of a table of tissues: one with a side mirrors into that of the other side with the same place among its own.

        Raises:
            ValueError: The tissues of one side have no counterparts on the other.
        """
        mirrored = list(range(len(tissues)))
        sides = [[k for k, tissue in enumerate(tissues) if tissue.side == side] for side in ("left", "right")]
        alike = [[(tissues[k].opacity, tissues[k].lung) for k in side] for side in sides]
        if alike[0] != alike[1]:
            raise ValueError(
                "the tissues of the left lung and of the right must match, in the same order; mend the table"
            )
        for left, right in zip(*sides, strict=True):
            mirrored[left], mirrored[right] = right, left
        return Kinds(
            tuple(mirrored),
            tuple(tissue.opacity for tissue in tissues),
            tuple(tissue.lung or tissue.opacity for tissue in tissues),
        )


SIDES: Final = Kinds(MIRRORED, (False, False, False, True, True), (False, True, True, True, True))
"""Of the built-in network."""


@dataclass(frozen=True, slots=True)
class Distortion:
    """How far training slices are distorted."""

    shift: float = 0.10
    """Greatest shift of the view, in parts of the slice."""
    scale: float = 0.18
    """Greatest change of size, logarithmic: other patients, other pixels."""
    stretch: float = 0.06
    """Greatest change of one side against the other, logarithmic."""
    rotation: float = 0.20
    """Greatest turn, radians."""
    mirror: float = 0.5
    """Share of mirrored slices, left and right swapped: the side in the picture counts, not where the heart is, and
    opacity is as common on either side."""
    crop: float = 0.25
    """Share of slices with a reconstructed field of view that cuts the patient, air around it."""
    level: float = 25.0
    """Standard deviation of a shift of all HU."""
    contrast: float = 0.05
    """Standard deviation of the logarithm of a factor on the distance from air."""
    density: float = 0.12
    """Standard deviation of the logarithm of an exponent on -1000 to 200 HU: breath held in or out."""
    sharpness: float = 1.5
    """Greatest sharpening; smoothing goes up to 1, a full 3x3 mean."""
    noise: float = 70.0
    """Greatest noise of a pixel, HU, as sharp kernels leave it."""
    consolidation: float = 0.35
    """Share of slices whose opacity is made denser, up to soft tissue in places."""
    faint: float = 0.4
    """Share of slices whose opacity is made fainter, towards the lung around it."""
    bedding: float = 0.5
    """Share of slices that get foam and cloth around the body (`bedside_export.recipes.ct.surroundings`)."""
    nonsense: float = 0.02
    """Share of slices replaced by noise without a patient in it."""


def place(
    hu: Tensor,
    labels: Tensor,
    size: tuple[int, int],
    how: Distortion,
    generator: torch.Generator,
    kinds: Kinds = SIDES,
) -> tuple[Tensor, Tensor]:
    """Views of slices, moved, turned, scaled, perhaps mirrored, air and background outside.

    Args:
        hu: ``(N, Y, X)`` HU, or ``(N, C, Y, X)`` with neighbouring slices.
        labels: ``(N, Y, X)`` classes, or ``(N, R, Y, X)`` as R readers have them.
        size: Height and width of the views; pixels keep their size on average.
        how: How far.
        generator: Source of chance.
        kinds: What the classes are.

    Returns:
        ``(N, C, h, w)`` HU, C being 1 without neighbours, and ``(N, h, w)`` or ``(N, R, h, w)`` int64 classes.
    """
    stacks = hu if hu.ndim == 4 else hu[:, None]
    n, _, height, width = stacks.shape
    readings = labels if labels.ndim == 4 else labels[:, None]

    def even(greatest: float, *shape: int) -> Tensor:
        return (torch.rand(n, *shape, generator=generator) * 2 - 1) * greatest

    zoom = (even(how.scale, 1) + even(how.stretch, 1) * torch.tensor([1.0, -1.0])).exp()  # (N, 2) x, y
    mirror = torch.rand(n, generator=generator) < how.mirror
    angle = even(how.rotation)
    # The view is smaller than the slice: it may lie anywhere in it, and a little beyond.
    free = torch.tensor([1 - size[1] / width, 1 - size[0] / height])
    centre = even(1.0, 2) * (free + how.shift)
    cos, sin = angle.cos(), angle.sin()
    sign = 1.0 - 2.0 * mirror.float()
    turn = torch.stack([torch.stack([cos * sign, -sin], 1), torch.stack([sin * sign, cos], 1)], 1)
    ys = (torch.arange(size[0]) + 0.5) - size[0] / 2
    xs = (torch.arange(size[1]) + 0.5) - size[1] / 2
    points = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1)  # (h, w, 2) in pixels
    grid = torch.einsum("nij,hwj->nhwi", turn * zoom[:, None, :], points)
    grid = grid / torch.tensor([width / 2, height / 2]) + centre[:, None, None]
    views = F.grid_sample(stacks - AIR_HU, grid, mode="bilinear", align_corners=False) + AIR_HU
    classes = F.grid_sample(readings.float(), grid, mode="nearest", align_corners=False).long()
    classes = torch.where(mirror[:, None, None, None], torch.tensor(kinds.mirrored)[classes], classes)
    outside = ~_field(n, size, how, generator)[:, None]
    views.masked_fill_(outside, AIR_HU)
    classes.masked_fill_(outside, 0)
    return views, classes if labels.ndim == 4 else classes[:, 0]


def _field(n: int, size: tuple[int, int], how: Distortion, generator: torch.Generator) -> Tensor:
    """``(N, h, w)`` true inside the field of view: a disc for some, everything for most."""
    ys = torch.linspace(-1, 1, size[0])[None, :, None]
    xs = torch.linspace(-1, 1, size[1])[None, None, :]
    radius = 0.75 + 0.4 * torch.rand(n, 1, 1, generator=generator)
    whole = torch.rand(n, 1, 1, generator=generator) >= how.crop
    return (ys**2 + xs**2 <= radius**2) | whole


def distort_intensity(hu: Tensor, how: Distortion, generator: torch.Generator) -> Tensor:
    """``(N, C, h, w)`` HU with another level, contrast, lung density, kernel and noise."""
    n = hu.shape[0]

    def normal(scale: float) -> Tensor:
        return torch.randn(n, 1, 1, 1, generator=generator) * scale

    out = AIR_HU + (hu - AIR_HU) * normal(how.contrast).exp() + normal(how.level)
    part = ((out - AIR_HU) / 1200).clamp(1e-3, 1)
    out = torch.where(out < 200, AIR_HU + 1200 * part.pow(normal(how.density).exp()), out)
    soft = F.avg_pool2d(F.pad(out, (1, 1, 1, 1), mode="replicate"), 3, 1)
    mix = torch.rand(n, 1, 1, 1, generator=generator) * (1 + how.sharpness) - how.sharpness
    mix = torch.where(torch.rand(n, 1, 1, 1, generator=generator) < 0.4, 0.0, mix)
    out = out + (soft - out) * mix
    level = torch.rand(n, 1, 1, 1, generator=generator).square() * how.noise
    noise = torch.randn(hu.shape, generator=generator)
    coarse = F.avg_pool2d(F.pad(noise, (1, 1, 1, 1), mode="replicate"), 3, 1)
    grain = torch.rand(n, 1, 1, 1, generator=generator)
    return out + (noise * (1 - grain) + coarse * 3 * grain) * level


def consolidate(
    hu: Tensor, labels: Tensor, how: Distortion, generator: torch.Generator, kinds: Kinds = SIDES
) -> Tensor:
    """``(N, C, h, w)`` HU whose opacity is drawn towards soft tissue, in some slices and unevenly."""
    n, _, height, width = hu.shape
    opacity = torch.tensor(kinds.opacity)[labels].float()
    opacity = opacity[:, None] if labels.ndim == 3 else opacity.mean(1, keepdim=True)
    edge = F.avg_pool2d(F.pad(opacity, (1, 1, 1, 1), mode="replicate"), 3, 1)
    coarse = torch.rand(n, 1, 6, 6, generator=generator)
    share = F.interpolate(coarse, size=(height, width), mode="bilinear")
    share = share * 1.3 * (torch.rand(n, 1, 1, 1, generator=generator) < how.consolidation)
    toward = (SOFT_TISSUE_HU - hu).clamp(min=0)
    return hu + toward * (share * edge * opacity).clamp(max=1)


def fade(
    hu: Tensor, labels: Tensor, how: Distortion, generator: torch.Generator, kinds: Kinds = SIDES
) -> Tensor:
    """``(N, C, h, w)`` HU with fainter opacity in some slices, unevenly, as `Distortion.faint` says.

    What lies over the level of the slice's clear lung is taken off in part, but for what is narrower than
    `_VESSEL` pixels: vessels in ground glass stay as they are.
    """
    n, _, height, width = hu.shape
    opacity, lung = (
        share[:, None] if labels.ndim == 3 else share.mean(1, keepdim=True)
        for share in (torch.tensor(group)[labels].float() for group in (kinds.opacity, kinds.lung))
    )
    clear = lung * (1 - opacity) * (hu < _CLEAR_HU)
    count = clear.sum((2, 3), keepdim=True)
    level = torch.where(
        count > 0, (hu * clear).sum((2, 3), keepdim=True) / count.clamp(min=1), torch.tensor(_LUNG_HU)
    )
    half = _VESSEL // 2
    padded = F.pad(hu, (half,) * 4, mode="replicate")
    lowest = -F.max_pool2d(-padded, _VESSEL, 1)
    opened = F.max_pool2d(F.pad(lowest, (half,) * 4, mode="replicate"), _VESSEL, 1)
    ground = F.avg_pool2d(F.pad(opened, (1, 1, 1, 1), mode="replicate"), 3, 1)
    edge = F.avg_pool2d(F.pad(opacity, (1, 1, 1, 1), mode="replicate"), 3, 1)
    coarse = torch.rand(n, 1, 6, 6, generator=generator)
    share = F.interpolate(coarse, size=(height, width), mode="bilinear") * 0.4 + 0.6
    share = share * _FAINTEST * torch.rand(n, 1, 1, 1, generator=generator)
    share = share * (torch.rand(n, 1, 1, 1, generator=generator) < how.faint)
    return hu - (ground - level).clamp(min=0) * share * edge * opacity


def invent_nonsense(hu: Tensor, labels: Tensor, how: Distortion, generator: torch.Generator) -> None:
    """Replaces some slices by noise of any mean and grain, in place, all background."""
    for i in range(hu.shape[0]):
        if float(torch.rand(1, generator=generator)) >= how.nonsense:
            continue
        height, width = hu.shape[-2:]
        step = 2 ** int(torch.randint(0, 6, (1,), generator=generator))
        shape = (1, 1, math.ceil(height / step), math.ceil(width / step))
        noise = F.interpolate(torch.randn(shape, generator=generator), size=(height, width), mode="bilinear")
        mean = -1000 + 1200 * torch.rand(1, generator=generator)
        hu[i] = mean + noise[0] * (20 + 400 * torch.rand(1, generator=generator))
        labels[i] = 0


def distort(
    hu: Tensor,
    labels: Tensor,
    size: tuple[int, int],
    how: Distortion,
    generator: torch.Generator,
    kinds: Kinds = SIDES,
) -> tuple[Tensor, Tensor]:
    """All of the above, with the arguments and the shapes of `place`."""
    views, classes = place(hu, labels, size, how, generator, kinds)
    if how.faint:
        views = fade(views, classes, how, generator, kinds)
    views = consolidate(views, classes, how, generator, kinds)
    if how.bedding:
        views = lay_bedding(views, classes, how.bedding, generator)
    invent_nonsense(views, classes, how, generator)
    return distort_intensity(views, how, generator), classes
