"""Training of the quality network: chest X-rays as they should be and as they should not, among other pictures."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from bedside.contract import APPEARANCES
from bedside_export.recipes.cxr.network import sampling_grid
from bedside_export.recipes.cxr.quality.data import HELD_OUT, Chests, Others
from bedside_export.recipes.cxr.quality.network import SIDE, QualityNetwork
from bedside_export.recipes.cxr.quality.warp import MILD, SPOILS, show

__all__ = ["DETAIL", "Recipe", "shrink", "train_network"]

log = logging.getLogger(__name__)

DETAIL: Final = "detail"
"""The one of `SPOILS` that is sampled from the whole input square: it is enlarged."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every choice of the training."""

    epochs: int = 12
    """Passes over the pictures."""
    rate: float = 4e-3
    """Greatest learning rate."""
    weight_decay: float = 0.02
    """AdamW's."""
    dropout: float = 0.2
    """Share of the last features dropped."""
    shown: int = 1
    """Times that each chest X-ray is shown as it should be, an epoch."""
    spoiled: int = 3
    """Times that it is shown as it should not be."""
    phantom_weight: int = 4
    """Times that a picture of the phantom counts as a patient's."""
    batch: int = 64
    """Pictures a step."""


def shrink(squares: Tensor, times: int) -> Tensor:
    """Input squares ``(P, 1, 320, 320)`` uint8, so many times smaller, float32, 0 to 1."""
    return torch.cat([F.avg_pool2d(part.float() / 255, times) for part in squares.split(64)])


def train_network(chests: Chests, others: Others, recipe: Recipe, *, fold: int) -> QualityNetwork:
    """A network trained from the start, in evaluation mode.

    Args:
        chests: Chest X-rays; those of the fold don't take part.
        others: Other pictures; those of kinds that the fold holds out don't take part.
        recipe: How.
        fold: Number of the fold; -1 for the final network, which learns from all.
    """
    torch.manual_seed(fold + 1)
    generator = torch.Generator().manual_seed(fold + 1)
    network = QualityNetwork(dropout=recipe.dropout).to(memory_format=torch.channels_last)
    spoils = [spoil for spoil in SPOILS if fold < 0 or spoil not in HELD_OUT[fold]]
    known = (chests.folds != fold).nonzero()[:, 0]
    times = torch.where(chests.phantoms[known], recipe.phantom_weight, 1)
    ours, theirs = known.repeat_interleave(times), others.training(fold)
    halves, other_halves = shrink(chests.squares, 2), shrink(others.squares[theirs], 2)
    steps = recipe.epochs * -(-(len(ours) * (recipe.shown + recipe.spoiled) + len(theirs)) // recipe.batch)
    optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, steps))
    for epoch in range(recipe.epochs):
        network.train()
        pictures, looks = _deal(chests, halves, ours, spoils, recipe, generator)
        pictures = torch.cat([pictures, _vary(other_halves, generator)])
        looks = torch.cat([looks, torch.full((len(theirs),), APPEARANCES.index("other"))])
        total = 0.0
        for rows in torch.randperm(len(pictures), generator=generator).split(recipe.batch):
            batch = pictures[rows].to(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16):  # half the time where there is AMX
                loss = F.cross_entropy(network.judge(batch), looks[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(rows)
        log.info("fold %d epoch %d loss %.4f", fold, epoch, total / len(pictures))
    return network.eval()


def _rate(step: int, steps: int) -> float:
    """One tenth of the steps up, then a cosine down."""
    warm = max(steps // 10, 1)
    if step < warm:
        return (step + 1) / warm
    return 0.5 + 0.5 * math.cos(math.pi * min(step - warm, steps) / max(steps - warm, 1))


def _deal(
    chests: Chests,
    halves: Tensor,
    rows: Tensor,
    spoils: list[str],
    recipe: Recipe,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """An epoch's chest X-rays: pictures ``(E, 1, 80, 80)`` and their appearances ``(E,)``."""
    wrong = spoils[1:]
    turns = rows.repeat(recipe.spoiled)
    which = torch.randint(len(wrong), (len(turns),), generator=generator)
    plan = [("frontal", rows.repeat(recipe.shown))]
    plan += [(spoil, turns[which == place]) for place, spoil in enumerate(wrong)]
    pictures, looks = [], []
    for spoil, chosen in plan:
        for part in chosen[torch.randperm(len(chosen), generator=generator)].split(64):
            squares = chests.squares[part].float() / 255 if spoil == DETAIL else halves[part]
            pictures.append(show(squares, chests.extents[part], spoil, MILD, generator))
            looks.append(torch.full((len(part),), APPEARANCES.index(SPOILS[spoil])))
    return torch.cat(pictures), torch.cat(looks)


def _vary(halves: Tensor, generator: torch.Generator) -> Tensor:
    """Other pictures, turned and mirrored by quarters, cut, inverted, and of other contrast, all at random."""
    varied = []
    for part in halves.split(64):
        n = len(part)

        def chance(*shape: int, count: int = n) -> Tensor:
            return torch.rand(count, *shape, generator=generator)

        scale = 0.6 + 0.45 * chance(1, 1, 1)
        grid = sampling_grid(SIDE) * scale + (chance(1, 1, 2) * 2 - 1) * (1 - scale).clamp(min=0)
        grid = torch.where(chance(1, 1, 1) < 0.5, grid * torch.tensor([-1.0, 1.0]), grid)
        grid = torch.where(chance(1, 1, 1) < 0.3, grid.flip(3), grid)
        grid = torch.where(chance(1, 1, 1) < 0.2, grid * torch.tensor([1.0, -1.0]), grid)
        picture = F.grid_sample(part, grid, align_corners=False)
        picture = torch.where(chance(1, 1, 1) < 0.25, 1 - picture, picture)
        picture = picture.clamp(1e-3, 1).pow((torch.randn(n, 1, 1, 1, generator=generator) * 0.35).exp())
        varied.append(picture * (0.4 + 0.7 * chance(1, 1, 1)) + 0.2 * chance(1, 1, 1))
    return torch.cat(varied).clamp(0.0, 1.0)
