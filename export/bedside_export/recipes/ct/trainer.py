"""One step of training after another, with a running average of the weights; the loop that CT recipes share.

Trainer        AdamW, a learning rate that rises and falls, clipped gradients, the average, and all of it saved
make_groups    which parameters learn, and how fast
soft_loss      cross-entropy and overlap of probabilities with what one or several readers drew
draw           slices of several cases, distorted, as one batch
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from bedside_export.recipes.ct.augment import Distortion, Kinds, distort
from bedside_export.recipes.ct.neighbours import draw_steps, gather_neighbours

__all__ = ["Course", "Scans", "Trainer", "draw", "make_groups", "soft_loss", "to_shares"]

CLIP: Final = 2.0
"""Greatest norm of all gradients together."""
_SMOOTH: Final = 100.0
"""Pixels added to both sides of an overlap, so that a batch without opacity has one."""


@dataclass(frozen=True, slots=True)
class Course:
    """How a training goes on."""

    steps: int
    """Batches."""
    warm_up: float = 0.1
    """Share of the steps in which the rate rises; it falls as a cosine afterwards."""
    average: float = 0.985
    """Decay of the running average of the weights, a step; the average is what is kept."""

    def rate(self, step: int) -> float:
        """The learning rate at a step, in parts of the greatest."""
        part = (step + 1) / self.steps
        if part < self.warm_up:
            return part / self.warm_up
        return 0.5 * (1 + math.cos(math.pi * (part - self.warm_up) / (1 - self.warm_up))) + 1e-3


def make_groups(
    network: nn.Module, *, rate: float, decay: float, slow: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """Parameters for `Trainer`: what has one axis is not decayed.

    Args:
        network: Those of its parameters that require a gradient learn.
        rate: Greatest learning rate of parameters whose names begin with one of ``slow``; twice that for the others,
            where ``slow`` names any.
        decay: AdamW's weight decay.
        slow: Beginnings of names.
    """
    groups = []
    for front in (True, False):
        for flat in (True, False):
            parameters = [
                parameter
                for name, parameter in network.named_parameters()
                if parameter.requires_grad
                and (not slow or name.startswith(slow)) == front
                and (parameter.ndim < 2) == flat
            ]
            if parameters:
                own = rate if front else 2 * rate
                groups.append(
                    {
                        "params": parameters,
                        "lr": own,
                        "weight_decay": 0.0 if flat else decay,
                        "rate": own,
                    }
                )
    return groups


class Trainer:
    """Trains a network, step by step.

    Args:
        network: In training mode; trained in place.
        groups: As of `make_groups`.
        course: How it goes on.
    """

    def __init__(self, network: nn.Module, groups: list[dict[str, Any]], course: Course) -> None:
        self.network = network
        self.average = deepcopy(network)
        """The running average of the weights."""
        self.done = 0
        """Steps taken."""
        self._optimiser = torch.optim.AdamW(groups)
        self._course = course

    def step(self, find_loss: Callable[[nn.Module], Tensor]) -> float:
        """One step down the loss that ``find_loss`` has of the network; returns it."""
        for group in self._optimiser.param_groups:
            group["lr"] = group["rate"] * self._course.rate(self.done)
        loss = find_loss(self.network)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_((p for p in self.network.parameters() if p.requires_grad), CLIP)
        self._optimiser.step()
        self.done += 1
        self._move(min(self._course.average, self.done / (self.done + 9)))
        return float(loss.detach())

    def state(self) -> dict[str, Any]:
        """All that `restore` needs to go on as if nothing had happened; aliases the tensors."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "done": self.done,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; a copy is made."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.done = int(state["done"])

    def _move(self, decay: float) -> None:
        theirs = self.network.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(theirs[name].detach(), 1 - decay)
            else:
                value.copy_(theirs[name])


def to_shares(readings: Tensor, classes: int) -> Tensor:
    """Share of the readers for each class.

    Args:
        readings: ``(N, R, h, w)`` int64 classes, or ``(N, h, w)`` of one reader.
        classes: How many there are.

    Returns:
        ``(N, K, h, w)`` float32 that sum to 1 over K.
    """
    each = readings if readings.ndim == 4 else readings[:, None]
    shares = torch.stack([(each == k).float().mean(1) for k in range(classes)], 1)
    return shares


def soft_loss(logits: Tensor, shares: Tensor, kinds: Kinds, *, overlap: float) -> Tensor:
    """Cross-entropy with the readers' shares, plus ``overlap`` times one minus how far opacity and lung overlap.

    The cross-entropy is least where the network's probabilities are the readers' (a proper score). The overlap is
    (sum p + sum t - sum |p - t|) / (sum p + sum t): the soft Dice where ``t`` is 0 or 1, and 1 at ``p = t`` for any
    shares, which soft Dice is not (Wang et al. 2023, "Dice Semimetric Losses", MICCAI). It pulls each probability
    to the median reader: 0 keeps them honest.

    Args:
        logits: ``(N, K, h, w)``.
        shares: ``(N, K, h, w)`` as of `to_shares`.
        kinds: What the classes are.
        overlap: Weight.
    """
    loss = F.cross_entropy(logits, shares)
    if not overlap:
        return loss
    found = logits.softmax(1)
    groups = [
        torch.tensor(group, device=logits.device) for group in (kinds.opacity, kinds.lung) if any(group)
    ]
    if not groups:
        return loss
    losses = []
    for group in groups:
        p, t = found[:, group].sum(1), shares[:, group].sum(1)
        total = p.sum() + t.sum()
        losses.append(1 - (total - (p - t).abs().sum() + _SMOOTH) / (total + _SMOOTH))
    return loss + overlap * torch.stack(losses).mean()


@dataclass(frozen=True, slots=True)
class Scans:
    """Cases to draw slices from."""

    hu: tuple[Tensor, ...]
    """Of each case ``(Z, Y, X)`` int16 HU."""
    readings: tuple[Tensor, ...]
    """Of each case ``(Z, R, Y, X)`` uint8 classes, one a reader."""
    weights: Tensor
    """``(slices of all cases,)`` how often each slice is drawn."""

    @staticmethod
    def of(hu: Sequence[Tensor], readings: Sequence[Tensor], kinds: Kinds) -> Scans:
        """Slices with opacity are drawn half as often again as those with lung alone, those without lung less often.

        As the built-in network's (`bedside_export.recipes.ct.training.Recipe`).
        """
        opacity, lung = (torch.tensor(group) for group in (kinds.opacity, kinds.lung))
        weights = []
        for each in readings:
            slices = each.flatten(1).long()
            drawn = torch.full((len(each),), 0.6)
            drawn[lung[slices].any(1)] = 1.0
            drawn[opacity[slices].any(1)] = 1.5
            weights.append(drawn)
        return Scans(tuple(hu), tuple(readings), torch.cat(weights))

    def pick(self, count: int, generator: torch.Generator) -> list[tuple[int, int]]:
        """Case and slice of ``count`` draws."""
        ends = torch.tensor([len(each) for each in self.hu]).cumsum(0)
        rows = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        cases = torch.searchsorted(ends, rows, right=True)
        return [
            (int(case), int(row - (ends[case] - len(self.hu[case]))))
            for case, row in zip(cases, rows, strict=True)
        ]


def draw(
    picks: Sequence[tuple[Scans, int]],
    size: tuple[int, int],
    how: Distortion,
    kinds: Kinds,
    generator: torch.Generator,
    *,
    context: int = 0,
) -> tuple[Tensor, Tensor]:
    """A batch of distorted slices.

    Args:
        picks: Where from, and how many of each.
        size: Height and width of the views.
        how: How far slices are distorted.
        kinds: What the classes are.
        generator: Source of chance.
        context: Neighbouring slices on each side that go with each.

    Returns:
        ``(N, 2 context + 1, h, w)`` HU and ``(N, K, h, w)`` shares of the readers.
    """
    views, shares = [], []
    for scans, count in picks:
        for case, row in scans.pick(count, generator) if count else ():
            steps = draw_steps(1, generator) if context else None
            stack = gather_neighbours(scans.hu[case], torch.tensor([row]), context, steps=steps)
            readings = scans.readings[case][row : row + 1]
            view, classes = distort(stack.float(), readings, size, how, generator, kinds)
            views.append(view)
            shares.append(to_shares(classes, len(kinds.mirrored)))
    return torch.cat(views), torch.cat(shares)
