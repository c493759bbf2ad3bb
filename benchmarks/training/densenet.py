"""Training of torchxrayvision's DenseNet-121 that `benchmarks/cxr.py` compares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Final, cast

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
import torchxrayvision
from torch import Tensor, nn

from bedside_export.heads import LUNG_OPACITY, published_head
from training.fitting import Plan, fit, settle_norms
from training.rounding import Place, Rounding
from training.xrays import LABELS, Batch, Xrays, read_xrays

__all__ = ["PLAN", "Trainee", "train_densenet"]

PLAN: Final = Plan(steps=320, batch=16, rate=2e-3, weight_decay=0.02)
"""Ten passes over the pictures."""
_SETTLED: Final = 256
"""Pictures that batch norms take their statistics from."""
_WEIGHTS: Final = {"labels": 0.3, "zones": 2.0, "lungs": 1.0}
"""Of the losses, beside that of the extent in points of its scale."""


class Trainee(nn.Module):
    """The network, with what is learnt beside it and thrown away."""

    def __init__(self) -> None:
        super().__init__()
        targets = torchxrayvision.datasets.default_pathologies
        self.network = torchxrayvision.models.DenseNet(
            weights=None, num_classes=len(targets), in_channels=1, op_threshs=None, apply_sigmoid=False
        )
        width = self.network.classifier.in_features
        self.zones = nn.Linear(width, 1)
        self.lungs = nn.Conv2d(width, 1, 1)
        head = published_head()
        self.line = float(head.weight[0, 0]), float(head.constant[0])
        self.columns = [targets.index(name) for name in LABELS]
        self.opacity = targets.index(LUNG_OPACITY)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Extent ``(N,)``, logits of `LABELS` ``(N, 3)``, of zones ``(N, 6)`` and of lungs ``(N, 7, 7)``."""
        features = F.relu(self.network.features(pictures))
        logits = self.network.classifier(features.mean((2, 3)))
        extent = logits[:, self.opacity].float() * self.line[0] + self.line[1]
        cells = F.adaptive_avg_pool2d(features, (3, 2)).flatten(2).movedim(1, 2)  # (N, C, 3, 2) -> (N, 6, C)
        return extent, logits[:, self.columns], self.zones(cells)[..., 0], self.lungs(features)[:, 0]


def train_densenet(data: Path, out: Path, plan: Plan = PLAN) -> dict[str, Any]:
    """Train, measure on the patients held out, and write torchxrayvision's state dict.

    Args:
        data: The folder that holds ``cxr/``.
        out: The file to write; beside it lies the checkpoint.
        plan: How long, how fast.

    Returns:
        What it reaches.
    """
    training, held_out = read_xrays(data)
    torch.manual_seed(plan.seed)
    trainee = Trainee()
    with torch.no_grad():
        trainee.network.classifier.bias.zero_()

    def draw(network: nn.Module, generator: torch.Generator) -> Tensor:
        batch = training.draw(min(plan.batch, len(training.extent)), generator)
        with torch.autocast("cpu", torch.bfloat16):
            answers = network(batch.pictures.contiguous(memory_format=torch.channels_last))
        return measure_loss(answers, batch)

    rounding = Rounding(trainee, list_places(trainee.network))
    checkpoint = out.with_suffix(".checkpoint")
    trained = cast("Trainee", fit(trainee, draw, plan, rounding=rounding, checkpoint=checkpoint))
    settle_norms(trained, islice(_portions(training), _SETTLED // 16))
    told = {"plan": asdict(plan), "pictures": len(training.extent), **measure(trained, held_out)}
    torch.save(trained.network.state_dict(), out)
    return told


def list_places(network: nn.Module) -> list[Place]:
    """Where NNCF rounds this network: what a block hands on, with one range, and what its 3x3 convolutions read."""
    find = network.get_submodule
    places = [Place([find("features.conv0")]), Place([find("classifier")])]
    for number, after in enumerate(("transition1.norm", "transition2.norm", "transition3.norm", "norm5"), 1):
        layers = list(find(f"features.denseblock{number}").children())
        norms = [layer.get_submodule("norm1") for layer in layers]
        places.append(Place([*norms, find(f"features.{after}")]))
        places += [Place([layer.get_submodule("conv2")]) for layer in layers]
    places += [Place([find(f"features.transition{number}.conv")]) for number in (1, 2, 3)]
    return places


def measure_loss(answers: tuple[Tensor, Tensor, Tensor, Tensor], batch: Batch) -> Tensor:
    """Extent in points, and the rest as cross-entropies; what is not known does not count."""
    extent, labels, zones, lungs = (answer.float() for answer in answers)
    loss = _mean(F.smooth_l1_loss(extent, batch.extent.nan_to_num(), reduction="none"), batch.extent)
    for name, given, wanted in (
        ("labels", labels, batch.labels),
        ("zones", zones, batch.zones),
        ("lungs", lungs, batch.lungs),
    ):
        each = F.binary_cross_entropy_with_logits(given, wanted.nan_to_num().clamp(0, 1), reduction="none")
        loss = loss + _WEIGHTS[name] * _mean(each, wanted)
    return loss


@torch.no_grad()
def measure(trainee: Trainee, pictures: Xrays) -> dict[str, Any]:
    """Mean absolute error of the extent, and that of always saying their mean, on pictures not learnt from."""
    known = ~pictures.extent.isnan()
    truth = pictures.extent[known]
    extent = torch.cat([trainee(part)[0] for part in pictures.inputs[known].split(8)]).clamp(0, 8)
    return {
        "held_out_scored": len(truth),
        "held_out": len(pictures.extent),
        "extent_mae": round(float((extent - truth).abs().mean()), 3),
        "extent_mae_of_the_mean": round(float((truth - truth.mean()).abs().mean()), 3),
        "extent_correlation": round(float(torch.corrcoef(torch.stack([extent, truth]))[0, 1]), 3),
    }


def _mean(losses: Tensor, wanted: Tensor) -> Tensor:
    known = ~wanted.isnan()
    return (losses * known).sum() / known.sum().clamp(min=1)


def _portions(pictures: Xrays) -> Iterator[Tensor]:
    order = torch.randperm(len(pictures.inputs), generator=torch.Generator().manual_seed(0))
    yield from pictures.inputs[order].split(16)
