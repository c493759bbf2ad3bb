"""8-bit steps while training: a network that has seen them keeps its answer when it is quantised.

Weights are rounded per output channel, symmetric, to -127 to 127; activations per tensor, unsigned ones to 0 to 127 and
signed ones to -127 to 127: as `bedside_export.precision.quantisation` does it afterwards. Gradients pass as if nothing
had been rounded, but for activations beyond the range.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = ["Place", "Rounding", "list_layers", "round_weights"]

STEPS: Final = 127
"""Steps on one side of 0: `bedside_export.precision.graph.narrow` lets no engine use more."""
_MEMORY: Final = 0.98
"""Decay of a range's running average, a batch. A range is the mean over pictures of each one's greatest value, which is
NNCF's default."""


@dataclass
class Place:
    """Inputs of some modules that share one range."""

    modules: Sequence[nn.Module]
    """Whose first input is rounded."""
    peaks: dict[int, Tensor] = field(default_factory=dict)
    """Module, by its id -> greatest absolute value, averaged over the batches so far; the greatest of them counts."""
    handles: list[RemovableHandle] = field(default_factory=list)
    """Of the hooks that are in place."""

    def round(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """The hook: rounds the first input."""
        value = cast("Tensor", inputs[0])
        with torch.no_grad():
            seen = value.detach().abs().amax(tuple(range(1, value.ndim))).float().mean()
            before = self.peaks.get(id(module))
            self.peaks[id(module)] = seen if before is None else torch.lerp(seen, before, _MEMORY)
            step = (torch.stack(list(self.peaks.values())).max() / STEPS).clamp(min=1e-8)
        return (_round(value, step), *inputs[1:])


class Rounding:
    """Rounds while it is entered.

    Args:
        network: Whose weights are rounded.
        places: Where activations are.
    """

    def __init__(self, network: nn.Module, places: Sequence[Place]) -> None:
        self._layers = list_layers(network)
        self._places = places

    @contextmanager
    def active(self) -> Iterator[None]:
        """A ``with`` block for one step, forwards and backwards: the gradient is that at the rounded weights.

        The weights are as they were afterwards, for the optimiser to move.
        """
        kept = [layer.weight.detach().clone() for layer in self._layers]
        for place in self._places:
            place.handles = [module.register_forward_pre_hook(place.round) for module in place.modules]
        round_weights(self._layers)
        try:
            yield
        finally:
            for place in self._places:
                for handle in place.handles:
                    handle.remove()
            with torch.no_grad():
                for layer, weight in zip(self._layers, kept, strict=True):
                    layer.weight.copy_(weight)


def list_layers(network: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    """The layers of a network that hold weights."""
    return [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]


@torch.no_grad()
def round_weights(layers: Sequence[nn.Conv2d | nn.Linear]) -> None:
    """Put weights on 8-bit steps, in place."""
    for layer in layers:
        weight = layer.weight
        step = weight.abs().amax(tuple(range(1, weight.ndim)), keepdim=True).clamp(min=1e-12) / STEPS
        weight.copy_((weight / step).round() * step)


def _round(value: Tensor, step: Tensor) -> Tensor:
    limit = step * STEPS
    inside = value.float().clamp(-limit, limit)  # what is never negative stays so
    return (inside + ((inside / step).round() * step - inside).detach()).to(value.dtype)
