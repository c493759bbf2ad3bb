"""Training of the U-Net (``l3-unet2d``) that `benchmarks/ct.py` compares."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from bedside_export.ct_models import L3UNet
from bedside_export.ct_rules import TISSUES
from training.fitting import Plan, fit, settle_norms
from training.rounding import Place, Rounding
from training.slices import CLASSES, HELD_OUT, Slices, View, dice, read_slices

__all__ = ["PLAN", "train_unet"]

log = logging.getLogger(__name__)

PLAN: Final = Plan(steps=240, batch=6, rate=2e-3)
"""53 million pixels: as many as 200 whole slices have, most of them of the chest."""
_SETTLED: Final = 24
"""Batches that batch norms take their statistics from: mixed ones, since the variance over a single slice lacks what
slices differ by, and cost half of the lungs' Dice."""
_MEASURED: Final = 4
"""Of the held-out case, every so manieth slice is measured."""
_WEIGHTS: Final = (0.5, 0.5, 1.0, 1.5, 1.5)
"""Of the classes in the cross-entropy: opacity is rare."""


def train_unet(data: Path, out: Path, plan: Plan = PLAN, view: View | None = None) -> dict[str, Any]:
    """Train, measure on the held-out case, and write the state dict.

    Args:
        data: The folder that holds ``ct/``.
        out: The file to write; beside it lie the checkpoint and the lungs that were found.
        plan: How long, how fast.
        view: What batches show.

    Returns:
        What it reaches.
    """
    view = view or View()
    training, held_out = read_slices(data, out.with_suffix(".cases"))
    torch.manual_seed(plan.seed)
    network = L3UNet(1, CLASSES)
    places = [Place([m]) for m in network.modules() if isinstance(m, nn.Conv2d)]

    def draw(network: nn.Module, generator: torch.Generator) -> Tensor:
        views, groups = training.draw(plan.batch, view, generator)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(views.contiguous(memory_format=torch.channels_last))
        return measure_loss(logits.float(), groups)

    checkpoint = out.with_suffix(".checkpoint")
    trained = fit(network, draw, plan, rounding=Rounding(network, places), checkpoint=checkpoint)
    chance = torch.Generator().manual_seed(plan.seed + 1)
    settle_norms(trained, (training.draw(plan.batch, view, chance)[0] for _ in range(_SETTLED)))
    told = {"plan": asdict(plan), "held_out": HELD_OUT, **measure(trained, held_out)}
    torch.save(trained.state_dict(), out)
    return told


def measure_loss(logits: Tensor, groups: Tensor) -> Tensor:
    """Cross-entropy, and soft Dice of lung with opacity and of opacity."""
    shares = logits.softmax(1)
    pairs = ((shares[:, 2:].sum(1), groups >= 2), (1 - shares[:, 0], groups > 0))
    losses = [1 - (2 * (p * t).sum() + 100) / (p.sum() + t.sum() + 100) for p, t in pairs]
    overlap = torch.stack(losses).mean()
    return F.cross_entropy(logits, groups, weight=torch.tensor(_WEIGHTS)) + 0.5 * overlap


@torch.no_grad()
def measure(network: nn.Module, slices: Slices) -> dict[str, Any]:
    """Dice of each tissue and of all opacity over slices of a case, which the network has not seen."""
    confusion = np.zeros((CLASSES, CLASSES), np.int64)
    for picture, groups in slices.whole(_MEASURED):
        with torch.autocast("cpu", torch.bfloat16):
            found = network(picture.contiguous(memory_format=torch.channels_last)).argmax(1)
        pairs = (groups * CLASSES + found).flatten()
        confusion += torch.bincount(pairs, minlength=CLASSES**2).reshape(CLASSES, CLASSES).numpy()
    merge = np.array([0, 0, 1, 1, 1])
    two = np.zeros((2, 2), np.int64)
    np.add.at(two, (merge[:, None], merge[None]), confusion)
    names = [tissue.name for tissue in TISSUES["l3-groups"]]
    return {
        "dice": dict(zip(names, np.round(dice(confusion), 3).tolist(), strict=True)),
        "dice_opacity": round(dice(two)[1], 3),
        "voxels": dict(zip(names, confusion.sum(1).tolist(), strict=True)),
    }
