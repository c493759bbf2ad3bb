"""The two stages of training: the lung finder, then severity on the lungs it finds."""

from __future__ import annotations

import logging
import math
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from bedside_export.recipes.cxr_augment import Distortion, distort_exposure, distorted_grid, flip_zones
from bedside_export.recipes.cxr_data import ZONE_MAXIMUM, Picture, Split
from bedside_export.recipes.cxr_network import SCALES, SeverityNetwork, sampling_grid
from bedside_export.recipes.cxr_targets import Arrays
from bedside_export.recipes.efficientnet_lite import load_imagenet

log = logging.getLogger(__name__)

_WHOLE: Final = (0.0, 0.0, 1.0, 1.0)
"""The box that is the input square itself."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every choice of the training."""

    finder_epochs: int = 16
    """Passes over the pictures with known lungs."""
    finder_rate: float = 4e-3
    """Greatest learning rate of the lung finder."""
    finder_batch: int = 16
    """Pictures a step of the lung finder."""
    epochs: int = 18
    """Passes over the pictures with a severity or Brixia score."""
    rate: float = 3e-4
    """Greatest learning rate of the features."""
    head_rate: float = 0.3
    """The head's learning rate, in multiples of ``rate``: its 1,280 inputs move a score together."""
    weight_decay: float = 0.02
    """AdamW's, of weights with two axes and more."""
    batch: int = 8
    """Pictures a step of the severity stage."""
    average: float = 0.985
    """Decay of the running average of the weights, a step; the average is what is kept."""
    drop: float = 0.1
    """Stochastic depth of the last block."""
    dropout: float = 0.2
    """Share of feature channels dropped."""
    zone_loss: float = 1.0
    """Weight of the zones' loss against severity's."""
    derived: float = 1.0
    """Weight of severity derived from Brixia scores, against the experts'."""
    frozen: int = 3
    """Blocks of the feature extractor, from the stem on, that keep ImageNet's weights."""
    imagenet: bool = True
    """Start from ImageNet; off only where the weights don't matter (tests)."""
    distortion: Distortion = field(default_factory=Distortion)
    """Augmentation."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What the severity stage learns, a row a picture."""

    severity: Tensor
    """``(P, 2)`` over the scales' maxima, 0 to 1."""
    severity_weight: Tensor
    """``(P, 1)``: 1 for the experts' scores, less for derived ones."""
    zones: Tensor
    """``(P, 6)`` over 3, 0 to 1."""
    zones_weight: Tensor
    """``(P, 1)``: 0 where unknown."""


def derive_severity(pictures: list[Picture]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Lines from the global Brixia score (0-18) to extent and to opacity, by the ``pictures`` that have both.

    Returns:
        Slope and intercept of extent, and of opacity, in score units.
    """
    both = [(p.brixia, *p.severity) for p in pictures if p.severity is not None and p.brixia is not None]
    if len(both) < 3:
        return (SCALES[0] / 18, 0.0), (SCALES[1] / 18, 0.0)
    table = np.asarray(both, dtype=np.float64)
    extent, opacity = (np.polyfit(table[:, 0], table[:, i], 1) for i in (1, 2))
    return (float(extent[0]), float(extent[1])), (float(opacity[0]), float(opacity[1]))


def severity_targets(pictures: list[Picture], derived: float) -> Targets:
    """Targets of ``pictures``, each of which has a severity or a Brixia score."""
    lines = derive_severity(pictures)
    severity, severity_weight, zones, zones_weight = [], [], [], []
    for p in pictures:
        if p.severity is not None:
            values, weight = p.severity, 1.0
        else:
            brixia = p.brixia or 0.0
            values, weight = (lines[0][0] * brixia + lines[0][1], lines[1][0] * brixia + lines[1][1]), derived
        severity.append([min(max(v / s, 0.0), 1.0) for v, s in zip(values, SCALES, strict=True)])
        severity_weight.append([weight])
        zones.append([z / ZONE_MAXIMUM for z in p.zones] if p.zones else [0.0] * 6)
        zones_weight.append([1.0 if p.zones else 0.0])
    return Targets(*(torch.tensor(t) for t in (severity, severity_weight, zones, zones_weight)))


def _rate(step: int, steps: int) -> float:
    """One tenth of the steps up, then a cosine down."""
    warm = max(steps // 10, 1)
    return (
        (step + 1) / warm
        if step < warm
        else 0.5 + 0.5 * math.cos(math.pi * (step - warm) / max(steps - warm, 1))
    )


def _parameters(network: nn.Module, rate: float, decay: float) -> list[dict[str, object]]:
    """Parameter groups: weight decay for weights, none for biases and norms."""
    wanted = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in wanted if p.ndim > 1], "lr": rate, "weight_decay": decay},
        {"params": [p for p in wanted if p.ndim <= 1], "lr": rate, "weight_decay": 0.0},
    ]


def finder_pictures(split: Split, arrays: Arrays) -> list[Picture]:
    """Pictures of ``split.training`` whose lungs are known, as a mask or as boxes."""
    known = arrays.lungs.amax((1, 2, 3)) >= 0
    return [p for p, k in zip(split.training, known[arrays.rows(split.training)].tolist(), strict=True) if k]


def train_finder(network: SeverityNetwork, split: Split, arrays: Arrays, recipe: Recipe) -> None:
    """Trains ``network.finder`` in place on masks and boxes of the training pictures."""
    pictures = finder_pictures(split, arrays)
    split.check(pictures)
    rows = arrays.rows(pictures)
    finder, generator = network.finder, torch.Generator().manual_seed(split.seed + 1000)
    how = Distortion(
        shift=0.06, scale=0.12, rotation=0.1, gamma=0.3, contrast=0.2, brightness=0.1, noise=0.04
    )
    halves = F.avg_pool2d(arrays.squares, 2)
    grid, map_grid = sampling_grid(halves.shape[-1]), sampling_grid(arrays.lungs.shape[-1])
    steps = recipe.finder_epochs * (len(rows) // recipe.finder_batch)
    optimiser = torch.optim.AdamW(_parameters(finder, recipe.finder_rate, 1e-4))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda i: _rate(i, steps))
    finder.to(memory_format=torch.channels_last).train()
    for epoch in range(recipe.finder_epochs):
        order, total = rows[torch.randperm(len(rows), generator=generator)], 0.0
        for batch in order[: len(order) // recipe.finder_batch * recipe.finder_batch].split(
            recipe.finder_batch
        ):
            box = torch.tensor(_WHOLE).expand(len(batch), 4)
            flip, state = torch.rand(len(batch), generator=generator) < 0.5, generator.get_state()
            image = F.grid_sample(
                halves[batch],
                distorted_grid(grid, box, flip, how, generator),
                align_corners=False,
            )
            image = distort_exposure(image, how, generator)
            again = torch.Generator()
            again.set_state(state)
            truth = arrays.lungs[batch]
            known = (truth.amax((2, 3), keepdim=True) >= 0).float()
            truth = F.grid_sample(
                truth.clamp(min=0),
                distorted_grid(map_grid, box, flip, how, again),
                align_corners=False,
            )
            loss = (
                F.binary_cross_entropy_with_logits(finder.find(image), truth, reduction="none") * known
            ).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        log.info("finder epoch %d loss %.4f", epoch, total * recipe.finder_batch / len(order))
    finder.eval()


@torch.no_grad()
def find_boxes(network: SeverityNetwork, squares: Tensor) -> Tensor:
    """Boxes ``(P, 4)`` that the trained finder gives for ``(P, 1, 320, 320)``."""
    return torch.cat([network.box(network.finder(s).sigmoid()[:, 1:]) for s in squares.split(32)])


def train_severity(network: SeverityNetwork, split: Split, arrays: Arrays, recipe: Recipe) -> None:
    """Trains features and head in place on the training pictures with a severity or Brixia score."""
    pictures = [p for p in split.training if p.severity is not None or p.zones is not None]
    split.check(pictures)
    rows, targets = arrays.rows(pictures), severity_targets(pictures, recipe.derived)
    squares, boxes = arrays.squares[rows], find_boxes(network, arrays.squares[rows])
    generator = torch.Generator().manual_seed(split.seed + 2000)
    network.finder.requires_grad_(False)
    network.features.stem.requires_grad_(False)
    network.features.blocks[: recipe.frozen].requires_grad_(False)
    steps = recipe.epochs * (len(rows) // recipe.batch)
    optimiser = torch.optim.AdamW(
        _parameters(network.features, recipe.rate, recipe.weight_decay)
        + _parameters(network.head, recipe.rate * recipe.head_rate, recipe.weight_decay),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda i: _rate(i, steps))
    network.features.to(memory_format=torch.channels_last)
    average = deepcopy(network)
    _train_mode(network)
    step = 0
    for epoch in range(recipe.epochs):
        order, total = torch.randperm(len(rows), generator=generator), 0.0
        for batch in order[: len(order) // recipe.batch * recipe.batch].split(recipe.batch):
            flip = torch.rand(len(batch), generator=generator) < 0.5
            grid = distorted_grid(network.crop_grid, boxes[batch], flip, recipe.distortion, generator)
            with torch.no_grad():
                crop = network.equalise(F.grid_sample(squares[batch], grid, align_corners=False))
                crop = distort_exposure(crop, recipe.distortion, generator)
            seen = network.judge(crop)
            zones = torch.where(flip[:, None], flip_zones(targets.zones[batch]), targets.zones[batch])
            loss = _loss(
                seen.severity / torch.tensor(SCALES), targets.severity[batch], targets.severity_weight[batch]
            )
            loss = loss + recipe.zone_loss * _loss(seen.zones, zones, targets.zones_weight[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            step += 1
            _follow(average, network, min(recipe.average, step / (step + 9)))
            total += loss.item()
        log.info("severity epoch %d loss %.4f", epoch, total * recipe.batch / len(order))
    network.load_state_dict(average.state_dict())
    network.eval()


def _train_mode(network: SeverityNetwork) -> None:
    """Training mode but for batch norm, which keeps ImageNet's statistics: batches here are too small."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def _loss(predicted: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Smooth L1 of values 0 to 1, quadratic within 0.1, weighted by the row."""
    return (F.smooth_l1_loss(predicted, truth, reduction="none", beta=0.1) * weight).mean()


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Moves the running average of the weights a step."""
    for ours, theirs in zip(average.parameters(), network.parameters(), strict=True):
        ours.lerp_(theirs, 1 - decay)


def train_network(
    split: Split, arrays: Arrays, recipe: Recipe, *, checkpoint: Path | None = None
) -> SeverityNetwork:
    """A network trained from the start on ``split.training`` alone, in evaluation mode.

    Args:
        split: Who trains.
        arrays: What is learnt from.
        recipe: How.
        checkpoint: Keeps the lung finder, so that an interrupted run goes on after it.
    """
    torch.manual_seed(split.seed + 1)
    network = SeverityNetwork(drop=recipe.drop, dropout=recipe.dropout)
    if recipe.imagenet:
        load_imagenet(network.features)
    made_by = [split.seed, recipe.finder_epochs, recipe.finder_rate, recipe.finder_batch]
    saved = torch.load(checkpoint, weights_only=True) if checkpoint and checkpoint.is_file() else {}
    if saved.get("made_by") == made_by:
        network.finder.load_state_dict(saved["finder"])
    else:
        train_finder(network, split, arrays, recipe)
        if checkpoint:
            torch.save({"made_by": made_by, "finder": network.finder.state_dict()}, checkpoint)
    network.finder.eval()
    train_severity(network, split, arrays, recipe)
    return network
