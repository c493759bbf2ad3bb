"""The two stages of training: the lung finder, then severity, zones and opacity on the lungs it finds."""

from __future__ import annotations

import logging
import math
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from bedside_export.recipes.cxr.augment import Distortion, distort_exposure, distorted_grid, flip_zones
from bedside_export.recipes.cxr.data import Picture, Split
from bedside_export.recipes.cxr.learnt import (
    derive_severity,
    relate_severity,
    severity_pictures,
    severity_targets,
)
from bedside_export.recipes.cxr.network import SCALES, SeverityNetwork, sampling_grid
from bedside_export.recipes.cxr.opacity import MIDDLE, OpacityHeads, features_of, opacity_of
from bedside_export.recipes.cxr.targets import Arrays
from bedside_export.recipes.efficientnet_lite import load_imagenet

log = logging.getLogger(__name__)

_OPACITY_RATE: Final = 3.0
"""The opacity heads' learning rate, in multiples of the severity head's: theirs see one cell each."""

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
    opacity_loss: float = 0.3
    """Weight of the opacity heads' loss against severity's."""
    derived: float = 1.0
    """Weight of severity derived from Brixia scores, against the experts'."""
    major_axis: bool = True
    """Put severity on its major axis with Brixia in the end, off the flatter line that derived scores were on."""
    frozen: int = 3
    """Blocks of the feature extractor, from the stem on, that keep ImageNet's weights."""
    half: bool = True
    """The lung finder, and blocks that keep their weights, in bfloat16: twice as fast where processors have it."""
    imagenet: bool = True
    """Start from ImageNet; off only where the weights don't matter (tests)."""
    distortion: Distortion = field(default_factory=Distortion)
    """Augmentation: geometry, and exposure of the equalised crop."""
    grey_distortion: Distortion = field(
        default_factory=lambda: Distortion(gamma=0.2, contrast=0.1, brightness=0.04)
    )
    """Augmentation of the crop as it is: exposure alone."""

    def __post_init__(self) -> None:
        if not 0 <= self.frozen <= MIDDLE + 1:
            raise ValueError(f"frozen is {self.frozen}: from 0 to {MIDDLE + 1} blocks can keep their weights")


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
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.half):
                found = finder.find(image)
            loss = (F.binary_cross_entropy_with_logits(found.float(), truth, reduction="none") * known).mean()
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
    pictures = severity_pictures(split, arrays)
    split.check(pictures)
    rows, targets = arrays.rows(pictures), severity_targets(pictures, recipe.derived)
    squares, boxes = arrays.squares[rows], find_boxes(network, arrays.squares[rows])
    masks, heads = arrays.opacity[rows], OpacityHeads()
    masked = (masks.amax((1, 2, 3)) >= 0).float()
    generator = torch.Generator().manual_seed(split.seed + 2000)
    network.finder.requires_grad_(False)
    network.features.stem.requires_grad_(False)
    network.features.blocks[: recipe.frozen].requires_grad_(False)
    steps = recipe.epochs * (len(rows) // recipe.batch)
    optimiser = torch.optim.AdamW(
        _parameters(network.features, recipe.rate, recipe.weight_decay)
        + _parameters(network.head, recipe.rate * recipe.head_rate, recipe.weight_decay)
        + _parameters(heads, recipe.rate * recipe.head_rate * _OPACITY_RATE, recipe.weight_decay),
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
                grey = F.grid_sample(squares[batch], grid, align_corners=False)
                even = distort_exposure(network.equalise(grey), recipe.distortion, generator)
                crop = network.colours(even, distort_exposure(grey, recipe.grey_distortion, generator))
            middle, features = features_of(network, crop, frozen=recipe.frozen, half=recipe.half)
            features = network.dropout(features)
            seen = network.head(features)
            zones = torch.where(flip[:, None], flip_zones(targets.zones[batch]), targets.zones[batch])
            loss = _loss(
                seen.severity / torch.tensor(SCALES), targets.severity[batch], targets.severity_weight[batch]
            )
            loss = loss + recipe.zone_loss * _loss(seen.zones, zones, targets.zones_weight[batch])
            opaque = heads.loss((middle, features), opacity_of(masks[batch], grid), masked[batch])
            loss = loss + recipe.opacity_loss * opaque
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            step += 1
            _follow(average, network, min(recipe.average, step / (step + 9)))
            total += loss.item()
        log.info("severity epoch %d loss %.4f", epoch, total * recipe.batch / len(order))
    network.load_state_dict(average.state_dict())
    lines = derive_severity(pictures)
    network.head.blend(lines)
    if recipe.major_axis:
        network.head.stretch(lines, relate_severity(pictures))
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
    made_by = [split.seed, recipe.finder_epochs, recipe.finder_rate, recipe.finder_batch, recipe.half]
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
