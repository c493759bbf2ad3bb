"""What fine-tuning is asked for, and the parts of a network that it leaves alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from bedside_export.errors import ExportError
from bedside_export.recipes.ct.augment import Distortion

__all__ = ["Plan", "freeze", "views"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Every choice of the training."""

    steps: int = 300
    """Batches at most."""
    batch: int = 8
    """Slices a batch."""
    rate: float = 3e-4
    """Greatest learning rate: a fifth of what the built-in network was first trained with."""
    weight_decay: float = 0.01
    """AdamW's."""
    average: float = 0.95
    """Decay of the running average of the weights; the average is what is measured and kept."""
    overlap: float = 0.5
    """Weight of the overlap beside the cross-entropy, as of the built-in network."""
    every: int = 25
    """Steps between two looks at the held-out patients, each of which is kept on the disk."""
    patience: int = 4
    """Looks without a better answer after which training stops."""
    frozen: tuple[str, ...] = ()
    """Parts of the network that stay as they are, by the beginnings of their names."""
    rehearsal: float = 0.25
    """Share of each batch that is drawn from old data, where there is some."""
    seed: int = 0
    """Of chance."""
    distortion: Distortion = field(default_factory=Distortion)
    """How far slices are distorted. Opacity is made denser only where the classes know one kind of it."""

    def __post_init__(self) -> None:
        """Refuse numbers that make no training."""
        if min(self.steps, self.batch, self.every, self.patience) < 1 or not self.rate > 0:
            raise ExportError("steps, batch, every and patience must be at least 1, and the rate over 0")
        if not 0 <= self.rehearsal < 1:
            raise ExportError("the share of old data must be from 0 to under 1")

    def shares(self, *, old: bool) -> tuple[int, int]:
        """Slices of a batch from new and from old data; at least one of each where there is old data."""
        if not old or not self.rehearsal or self.batch < 2:
            return self.batch, 0
        of_old = min(self.batch - 1, max(1, round(self.rehearsal * self.batch)))
        return self.batch - of_old, of_old


def freeze(network: nn.Module, frozen: tuple[str, ...]) -> None:
    """Set the network to training, but for its frozen parts, whose batch norms keep their statistics, too.

    Raises:
        ExportError: There is no such part, or nothing is left to learn.
    """
    network.train()
    for start in frozen:
        parts = [
            module
            for name, module in network.named_modules()
            if name == start or name.startswith(f"{start}.")
        ]
        if not parts or not start:
            known = ", ".join(name for name, _ in network.named_children())
            raise ExportError(f"the network has no part {start[:80]!r} to freeze; its parts are {known}")
        for part in parts:
            part.eval()
            for parameter in part.parameters(recurse=False):
                parameter.requires_grad = False
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ExportError("all parts of the network are frozen; leave one to learn")


def views(tile: tuple[int, int], multiple: int) -> tuple[tuple[int, int], ...]:
    """Heights and widths of batches in turn: whole tiles, and three quarters of them."""
    height, width = (max(2 * multiple, side * 3 // 4 // multiple * multiple) for side in tile)
    return tile, (height, width)
