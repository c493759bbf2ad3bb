"""Training of the CT network on distorted slices, with a running average of its weights."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from bedside_export.recipes.ct.augment import Distortion, distort
from bedside_export.recipes.ct.data import Fold
from bedside_export.recipes.ct.lungs import LEFT_OPACITY, Labels
from bedside_export.recipes.ct.neighbours import DISTANCES, draw_steps, gather_neighbours
from bedside_export.recipes.ct.network import OpacityNetwork, to_input
from bedside_export.recipes.ct.trainer import Course, Trainer, make_groups

log = logging.getLogger(__name__)

VIEWS: Final = ((192, 256), (192, 192), (256, 256), (192, 192))
"""Heights and widths of training batches, in turn: whole slices and tiles of them."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every choice of the training."""

    steps: int = 600
    """Batches."""
    batch: int = 8
    """Slices a batch."""
    rate: float = 1.5e-3
    """Greatest learning rate of the encoder; the decoder's is twice that."""
    weight_decay: float = 0.01
    """AdamW's, of weights with two axes and more."""
    warm_up: float = 0.1
    """Share of the steps in which the rate rises; it falls as a cosine afterwards."""
    average: float = 0.985
    """Decay of the running average of the weights, a step; the average is what is kept."""
    lung_weight: float = 1.0
    """How often a slice with lung and without opacity is drawn."""
    opacity_weight: float = 1.5
    """How often a slice with opacity is drawn."""
    other_weight: float = 0.6
    """How often a slice without lung is drawn."""
    even: bool = True
    """Whether cases are drawn equally often, however many slices they have."""
    overlap: float = 0.5
    """Weight of the overlap (soft Dice) beside the cross-entropy, which keeps probabilities honest."""
    seed: int = 0
    """Of chance."""
    context: int = 1
    """Neighbouring slices on each side that the network sees."""
    distances: tuple[float, ...] = DISTANCES
    """As `bedside_export.recipes.ct.neighbours.DISTANCES`."""
    distortion: Distortion = field(default_factory=Distortion)
    """How far slices are distorted."""


@dataclass(frozen=True, slots=True)
class Arrays:
    """A case as the network sees it."""

    hu: Tensor
    """``(Z, 256, 256)`` int16 HU."""
    labels: Tensor
    """``(Z, 256, 256)`` uint8 classes."""

    @staticmethod
    def of(hu: np.ndarray, labels: Labels) -> Arrays:
        """From HU and classes ``(Z, 256, 256)``."""
        return Arrays(torch.from_numpy(np.asarray(hu, np.int16)), torch.from_numpy(labels))


def overlap_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - soft Dice, pooled over the batch: opacity of both sides, and lungs with it, halves."""
    shares = logits.softmax(1)
    pairs = (
        (shares[:, LEFT_OPACITY:].sum(1), labels >= LEFT_OPACITY),
        (1 - shares[:, 0], labels > 0),
    )
    losses = [1 - (2 * (p * t).sum() + 100) / (p.sum() + t.sum() + 100) for p, t in pairs]
    return (losses[0] + losses[1]) / 2


def draw_weights(cases: Sequence[Tensor], recipe: Recipe) -> Tensor:
    """How often each slice is drawn, of all cases one after another; ``cases`` hold classes ``(Z, Y, X)``."""
    found = []
    for labels in cases:
        weights = torch.full((len(labels),), recipe.other_weight)
        weights[(labels > 0).any(2).any(1)] = recipe.lung_weight
        weights[(labels >= LEFT_OPACITY).any(2).any(1)] = recipe.opacity_weight
        found.append(weights / weights.sum() if recipe.even else weights)
    return torch.cat(found)


def train_network(
    fold: Fold, cases: Mapping[str, Arrays], recipe: Recipe, *, imagenet: bool = True
) -> OpacityNetwork:
    """A trained network, in evaluation mode.

    Args:
        fold: Whom to learn from.
        cases: All cases by name; only the fold's are touched.
        recipe: Choices.
        imagenet: Start from ImageNet weights; without, from chance (for tests).
    """
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    counts = torch.tensor([len(cases[n].hu) for n in fold.training])
    first, last = (
        torch.repeat_interleave(each, counts) for each in (counts.cumsum(0) - counts, counts.cumsum(0) - 1)
    )
    hu = torch.cat([cases[n].hu for n in fold.training])
    labels = torch.cat([cases[n].labels for n in fold.training])
    weights = draw_weights([cases[n].labels for n in fold.training], recipe)
    network = OpacityNetwork(imagenet=imagenet, context=recipe.context).train()
    network.to(memory_format=torch.channels_last)
    groups = make_groups(network, rate=recipe.rate, decay=recipe.weight_decay, slow=("stem", "levels"))
    trainer = Trainer(network, groups, Course(recipe.steps, recipe.warm_up, recipe.average))
    started, shown = time.monotonic(), 0.0
    for step in range(recipe.steps):
        rows = torch.multinomial(weights, recipe.batch, replacement=True, generator=generator)
        size = VIEWS[step % len(VIEWS)]
        stacks = hu[rows, None]
        if recipe.context:
            steps = draw_steps(recipe.batch, generator, recipe.distances)
            ends = first[rows], last[rows]
            stacks = gather_neighbours(hu, rows, recipe.context, steps=steps, ends=ends)
        views, classes = distort(stacks.float(), labels[rows], size, recipe.distortion, generator)
        inputs = to_input(views).contiguous(memory_format=torch.channels_last)
        loss = trainer.step(partial(_find_loss, inputs=inputs, classes=classes, overlap=recipe.overlap))
        shown = 0.95 * shown + 0.05 * loss
        if step % 50 == 49:
            known = shown / (1 - 0.95 ** (step + 1))
            log.info(
                "step %d of %d, %.0f s, loss %.4f", step + 1, recipe.steps, time.monotonic() - started, known
            )
    average = trainer.average
    if not isinstance(average, OpacityNetwork):
        raise TypeError("the average is not of the network that was trained")
    return average.eval()


def _find_loss(network: nn.Module, *, inputs: Tensor, classes: Tensor, overlap: float) -> Tensor:
    logits = network(inputs)
    return F.cross_entropy(logits, classes) + overlap * overlap_loss(logits, classes)
