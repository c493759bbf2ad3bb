"""The training loop: one for both networks.

Half of the arithmetic is bfloat16 (autocast), the weights are float32 with a running average, an interrupted run goes
on from its checkpoint, and batch norms end with the statistics of what the network sees in use.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from training.rounding import Rounding, list_layers, round_weights

__all__ = ["Plan", "fit", "settle_norms"]

log = logging.getLogger(__name__)

_TELL: Final = 10
"""Steps between two lines of the log."""
_CLIP: Final = 2.0
"""Greatest norm of a gradient."""

Draw = Callable[[nn.Module, torch.Generator], Tensor]
"""Network and source of chance -> the loss of a new batch."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Every choice of a training that is not the data's."""

    steps: int
    """Batches."""
    batch: int
    """Pictures or views of a batch."""
    rate: float
    """Greatest learning rate."""
    weight_decay: float = 0.01
    """AdamW's, of weights with two axes and more."""
    warm_up: float = 0.05
    """Share of the steps in which the rate rises; it falls as a cosine afterwards."""
    average: float = 0.98
    """Decay of the running average of the weights, a step; the average is what is kept."""
    rounded: float = 0.3
    """Share of the steps, the last ones, in which weights and activations are on 8-bit steps; 0 for none."""
    seed: int = 0
    """Of chance."""

    def share(self, step: int) -> float:
        """The learning rate at a step, in parts of the greatest."""
        part = (step + 1) / self.steps
        if part < self.warm_up:
            return part / self.warm_up
        return 0.5 * (1 + math.cos(math.pi * (part - self.warm_up) / (1 - self.warm_up))) + 1e-3


def fit(
    network: nn.Module, draw: Draw, plan: Plan, *, rounding: Rounding, checkpoint: Path, every: int = 20
) -> nn.Module:
    """Train a network; returns the running average of it, in evaluation mode.

    Args:
        network: Trained in place.
        draw: Makes a batch, and its loss.
        plan: How.
        rounding: Of ``network``, for the last steps.
        checkpoint: Where an interrupted run goes on; another plan's is not taken.
        every: Steps between two checkpoints.
    """
    network.to(memory_format=torch.channels_last).train()
    average = deepcopy(network)
    generator = torch.Generator().manual_seed(plan.seed)
    flat = [p for p in network.parameters() if p.ndim < 2]
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": plan.weight_decay},
            {"params": flat, "weight_decay": 0.0},
        ]
    )
    parts = {"network": network, "average": average, "optimiser": optimiser}
    first = _resume(checkpoint, plan, parts, generator)
    begun, shown = time.monotonic(), []
    for step in range(first, plan.steps):
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * plan.share(step)
        optimiser.zero_grad(set_to_none=True)
        if step >= plan.steps * (1 - plan.rounded):
            with rounding.active():
                loss = draw(network, generator)
                loss.backward()
        else:
            loss = draw(network, generator)
            loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
        optimiser.step()
        _move_average(average, network, min(plan.average, (step + 1) / (step + 10)))
        shown.append(float(loss.detach()))
        if (step + 1) % _TELL == 0 or step + 1 == plan.steps:
            seconds, known = time.monotonic() - begun, sum(shown[-_TELL:]) / len(shown[-_TELL:])
            log.info("step %d of %d, %.0f s, loss %.4f", step + 1, plan.steps, seconds, known)
        if (step + 1) % every == 0:
            _save(checkpoint, plan, parts, generator, step + 1)
    if plan.rounded:
        round_weights(list_layers(average))
    return average.eval()


@torch.no_grad()
def settle_norms(network: nn.Module, pictures: Iterable[Tensor]) -> None:
    """Give batch norms the mean and variance of what final weights make of pictures, in place.

    Args:
        network: With its final weights.
        pictures: Batches ``(N, C, H, W)``, which count alike; each mixes pictures, or the variance comes out too small.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    network.train()
    for picture in pictures:
        with torch.autocast("cpu", torch.bfloat16):
            network(picture.contiguous(memory_format=torch.channels_last))
    network.eval()
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def _move_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    theirs = network.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(theirs[name].detach(), 1 - decay)
        else:
            value.copy_(theirs[name])


def _save(path: Path, plan: Plan, parts: dict[str, Any], generator: torch.Generator, step: int) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    saved = {"plan": asdict(plan), "step": step, "chance": generator.get_state(), **state}
    torch.save(saved, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)  # a cut in between leaves the checkpoint before


def _resume(path: Path, plan: Plan, parts: dict[str, Any], generator: torch.Generator) -> int:
    """The step to go on from; 0 where there is no checkpoint of this plan."""
    if not path.is_file():
        return 0
    saved = torch.load(path, weights_only=True)
    if saved["plan"] != asdict(plan):
        return 0
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    generator.set_state(cast("Tensor", saved["chance"]))
    log.info("going on after step %d", saved["step"])
    return int(saved["step"])
