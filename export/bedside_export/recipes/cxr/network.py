"""The chest X-ray severity network: one graph from picture to scores, which finds the lungs itself.

    picture (N, 1, 320, 320)
      -> LungFinder       where the lungs are, 80x80
      -> lung_box         a box around both, by the quantiles of their marginal sums
      -> crop, colours    224x224, equalised and as it is: equalising shows detail, and hides haze
      -> EfficientNetLite0, 7x7 features
      -> ZoneHead         three by two zones; severity is linear in the features
      -> severity (N, 2), cam (N, 2, 80, 80), lungs (N, 1, 80, 80)

All of it is ordinary ONNX: convolutions, matrix products, GridSample; no control flow, no shape that depends
on data.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from bedside_export.recipes.cxr.data import SEVERITY_MAXIMA, ZONE_MAXIMUM
from bedside_export.recipes.cxr.exposure import Colours, Equalise
from bedside_export.recipes.efficientnet_lite import HEAD, EfficientNetLite0

INPUT_SIZE: Final = 320
"""Side of the input square in pixels: lungs fill about 0.7 of a radiograph, so a crop is near 224."""

CROP_SIZE: Final = 224
"""Side of the crop in pixels: what EfficientNet-Lite0 was trained at."""

MAP_SIZE: Final = 80
"""Side of ``cam`` and ``lungs``: a quarter of the input's."""

ROWS: Final = 3
COLUMNS: Final = 2
"""Brixia's zones: upper, middle, lower; the patient's right (shown left) and left."""

SCALES: Final = SEVERITY_MAXIMA
"""Greatest geographic extent and opacity."""


Lines = tuple[tuple[float, float], tuple[float, float]]
"""Slope and intercept of extent, and of opacity, over the global Brixia score (0-18)."""


class Anatomy(NamedTuple):
    """What `SeverityNetwork.look` sees."""

    severity: Tensor
    """``(N, 2)``: extent, opacity; score units, unclipped."""
    zones: Tensor
    """``(N, 6)``: Brixia score of each zone over 3, row by row."""
    crop_cam: Tensor
    """``(N, 2, 7, 7)``: its mean over the crop is the severity less the bias."""


class LungFinder(nn.Module):
    """A small U-Net: two logits a cell, lung (the aerated silhouette) and inside a lung's box.

    The second is what the crop is made of: experts' boxes also hold the parts of a lung that consolidation
    hides from a silhouette.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (16, 24, 32, 48)
        self.stem = _double(1, widths[0], stride=2)
        self.down = nn.ModuleList([_double(a, b, stride=2) for a, b in pairwise(widths)])
        self.up = nn.ModuleList(
            [_double(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True)]
        )
        self.out = nn.Conv2d(widths[0], 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        """``(N, 1, 320, 320)`` picture to ``(N, 2, 80, 80)`` logits."""
        return self.find(F.avg_pool2d(image, 2))

    def find(self, x: Tensor) -> Tensor:
        """``(N, 1, 160, 160)`` picture of half the size to ``(N, 2, 80, 80)`` logits; for training."""
        mean = x.mean((2, 3), keepdim=True)
        spread = (x - mean).pow(2).mean((2, 3), keepdim=True)
        x = self.stem((x - mean) / (spread + 1e-4).sqrt())
        skips = [x]
        for down in self.down:
            x = down(x)
            skips.append(x)
        for up, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = up(torch.cat([x, skip], 1))
        y: Tensor = self.out(x)
        return y


def _double(inside: int, outside: int, *, stride: int = 1) -> nn.Sequential:
    """Two 3x3 convolutions with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
        nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU(),
    )


class LungBox(nn.Module):
    """The box around both lungs, from the quantiles of a soft mask's marginal sums.

    A weak prior over the middle of the picture is added, which decides only where no lung was found.
    """

    QUANTILE: Final = 0.02
    """Share of the mask outside the box on each side, before the margin: stray cells don't move it."""
    MARGIN: Final = 0.05
    """Widening on each side, in parts of the box: makes up for the quantile and spares the lungs' edges."""
    PRIOR_CELLS: Final = 4.0
    """Weight of the prior, in cells; lungs cover 1,000 and more of the 6,400."""

    prior: Tensor
    below: Tensor

    def __init__(self) -> None:
        super().__init__()
        prior = torch.zeros(1, 1, MAP_SIZE, MAP_SIZE)
        eighth = MAP_SIZE // 8
        prior[:, :, eighth:-eighth, eighth:-eighth] = 1
        self.register_buffer("prior", prior * (self.PRIOR_CELLS / prior.sum()), persistent=False)
        self.register_buffer("below", torch.ones(MAP_SIZE, MAP_SIZE).triu(1), persistent=False)

    def forward(self, mask: Tensor) -> Tensor:
        """``(N, 1, 80, 80)`` probabilities to ``(N, 4)``: centre x, y, half width, half height in -1 to 1."""
        sure = ((mask - 0.25) * 2).clamp(0.0, 1.0) + self.prior
        x, half_width = self._interval(sure.sum(2))
        y, half_height = self._interval(sure.sum(3))
        return torch.cat([x, y, half_width, half_height], 1)

    def _interval(self, marginal: Tensor) -> tuple[Tensor, Tensor]:
        """``(N, 1, 80)`` sums to centre and half length ``(N, 1)`` in -1 to 1."""
        share = (marginal / marginal.sum(2, keepdim=True)).flatten(1)  # (N, 80)
        # From each side its own sum: small numbers, which half precision holds well.
        ends = [
            1
            - ((self.QUANTILE - share @ sums) / (share + 1e-4)).clamp(0.0, 1.0).sum(1, keepdim=True)
            * (2 / MAP_SIZE)
            for sums in (self.below, self.below.T)
        ]
        half = (ends[0] + ends[1]) / 2 * (1 + 2 * self.MARGIN)
        return (ends[1] - ends[0]) / 2, half.clamp(min=0.15)


class ZoneHead(nn.Module):
    """Severity and Brixia zones, both linear in the features pooled to three by two zones.

    Every zone shares one linear map, whose outputs are the zone's Brixia score and its part of extent and
    opacity; severity is the sum of the parts and a bias. Pooling is linear too, hence an exact class
    activation map.
    """

    pool: Tensor

    def __init__(self, side: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(HEAD, 3, 1, bias=False)
        nn.init.normal_(self.linear.weight, std=1e-3)
        self.zone_bias = nn.Parameter(torch.full((1,), 0.4))
        self.bias = nn.Parameter(torch.tensor([3.0, 2.2]))
        self.register_buffer("pool", _zone_pool(side), persistent=False)

    def forward(self, features: Tensor) -> Anatomy:
        """``(N, 1280, s, s)`` features, 0 to 6, to what they say."""
        contribution = self.linear(features)  # (N, 3, s, s)
        zones = (contribution[:, :1].flatten(2) @ self.pool)[:, 0] + self.zone_bias
        cam = contribution[:, 1:] * torch.tensor(SCALES).reshape(1, 2, 1, 1)
        # the zones share out all cells alike, so the mean of their means is the mean over the cells
        severity = cam.mean((2, 3)) + self.bias
        return Anatomy(severity, zones, cam)

    @torch.no_grad()
    def blend(self, lines: Lines) -> None:
        """Makes severity the mean of what it was and of the zones put on its scale: still linear, at no cost.

        Args:
            lines: Slope and intercept from the global Brixia score, 0-18, to extent and to opacity.
        """
        for i, (slope, intercept) in enumerate(lines):
            whole = slope * ROWS * COLUMNS * ZONE_MAXIMUM  # of the zones' mean over 3
            self.linear.weight[1 + i].lerp_(self.linear.weight[0] * (whole / SCALES[i]), 0.5)
            self.bias[i].lerp_(self.zone_bias[0] * whole + intercept, 0.5)

    @torch.no_grad()
    def stretch(self, before: Lines, after: Lines) -> None:
        """Moves severity from one line over Brixia to another: to be as far along ``after`` as it is along ``before``.

        Args:
            before: Slope and intercept from the global Brixia score, 0-18, to extent and to opacity.
            after: The same, of the lines to be on.
        """
        for i, ((slope, intercept), (slope_after, intercept_after)) in enumerate(
            zip(before, after, strict=True)
        ):
            ratio = slope_after / slope
            self.linear.weight[1 + i] *= ratio
            self.bias[i] = (self.bias[i] - intercept) * ratio + intercept_after


def _zone_pool(side: int) -> Tensor:
    """The matrix ``(side * side, 6)`` that averages a map over each zone, row by row.

    A cell on the border of two zones is shared between them, so that every cell weighs the same in their mean:
    with the overlapping bins of adaptive pooling, the middle of the chest would count two to four times.
    """
    rows, columns = _shares(side, ROWS), _shares(side, COLUMNS)
    return torch.einsum("yr,xc->yxrc", rows, columns).reshape(side * side, ROWS * COLUMNS)


def _shares(side: int, bins: int) -> Tensor:
    """``(side, bins)``: what part of each of ``bins`` equal stretches a cell of the axis is."""
    edges = torch.arange(side + 1, dtype=torch.float32).unsqueeze(1)
    limits = torch.arange(bins + 1, dtype=torch.float32) * side / bins
    overlap = torch.minimum(edges[1:], limits[1:]) - torch.maximum(edges[:-1], limits[:-1])
    return overlap.clamp(min=0.0) * bins / side


def sampling_grid(size: int) -> Tensor:
    """Centres of the pixels of a square, ``(1, size, size, 2)``: x, y in -1 to 1 (``align_corners=False``)."""
    line = (torch.arange(size, dtype=torch.float32) * 2 + 1) / size - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], -1).unsqueeze(0)


def _rows(box: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Centre and half lengths of ``box`` ``(N, 4)``, x and y, for each pixel of a row: ``(N, 1, size, 2)``.

    Engines are slow at what repeats every other number.
    """
    row = box[:, None, None].expand(-1, 1, size, -1)
    return row[..., :2], row[..., 2:]


def _share_inside(where: Tensor, half: Tensor) -> Tensor:
    """The share of each cell of a line that a box covers, 0 to 1.

    Args:
        where: Of its cells, -1 to 1 inside the box.
        half: The box's half length, in -1 to 1 of the picture.
    """
    return (0.5 + (1 - where.abs()) * half * (MAP_SIZE / 2)).clamp(0.0, 1.0)


class SeverityNetwork(nn.Module):
    """The whole graph; see the module's text.

    Args:
        drop: Stochastic depth of the feature extractor in training.
        dropout: Share of feature channels dropped in training.
    """

    crop_grid: Tensor
    map_grid: Tensor

    def __init__(self, *, drop: float = 0.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.finder = LungFinder()
        self.box = LungBox()
        self.equalise = Equalise()
        self.colours = Colours()
        self.features = EfficientNetLite0(drop=drop)
        self.dropout = nn.Dropout2d(dropout)
        self.head = ZoneHead(CROP_SIZE // 32)
        self.register_buffer("crop_grid", sampling_grid(CROP_SIZE), persistent=False)
        self.register_buffer("map_grid", sampling_grid(MAP_SIZE), persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Severity ``(N, 2)``, cam ``(N, 2, 80, 80)`` and lungs ``(N, 1, 80, 80)`` of ``(N, 1, 320, 320)``."""
        found = self.finder(image).sigmoid()
        box = self.box(found[:, 1:])
        seen = self.look(self.crop(image, box))
        return seen.severity, self.uncrop(seen.crop_cam, box), found[:, :1]

    def crop(self, image: Tensor, box: Tensor) -> Tensor:
        """The 224x224 pixels of ``image`` inside ``box`` ``(N, 4)``, bilinear, black outside the picture."""
        centre, half = _rows(box, CROP_SIZE)
        return F.grid_sample(image, self.crop_grid * half + centre, align_corners=False)

    def uncrop(self, crop_map: Tensor, box: Tensor) -> Tensor:
        """A map of the crop ``(N, C, s, s)`` in the picture's coordinates ``(N, C, 80, 80)``, 0 outside."""
        centre, half = _rows(box, MAP_SIZE)
        where = (self.map_grid - centre) / half
        spread = F.grid_sample(crop_map, where, padding_mode="border", align_corners=False)
        columns = _share_inside(where[:, None, :1, :, 0], box[:, 2, None, None, None])
        rows = _share_inside(where[:, None, :, :1, 1], box[:, 3, None, None, None])
        return spread * columns * rows

    def look(self, crop: Tensor) -> Anatomy:
        """What a crop ``(N, 1, 224, 224)``, 0 to 1, shows."""
        seen: Anatomy = self.head(self.features(self.colours(self.equalise(crop), crop)))
        return seen
