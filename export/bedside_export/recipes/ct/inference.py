"""A network's probabilities over a scan, slice by slice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from bedside_export.recipes.ct.data import AIR_HU
from bedside_export.recipes.ct.neighbours import gather_neighbours

__all__ = ["Prepare", "find_shares"]

Prepare = Callable[[Tensor], Tensor]
"""From HU to what the network takes."""
_AT_ONCE: Final = 8
"""Slices."""


@torch.no_grad()
def find_shares(
    network: nn.Module,
    hu: Tensor,
    prepare: Prepare,
    *,
    multiple: int,
    context: int = 0,
    rows: Tensor | None = None,
) -> Iterator[Tensor]:
    """Probabilities of a scan, a few slices at a time: memory doesn't grow with it.

    Args:
        network: ``(N, 2 context + 1, h, w)`` -> logits ``(N, K, h, w)``; is left in evaluation mode.
        hu: ``(Z, Y, X)`` HU.
        prepare: From HU to the network's input.
        multiple: Of which height and width have to be; air is put around.
        context: Neighbouring slices on each side that go in as channels.
        rows: ``(n,)`` int64 slices to look at; all by default.

    Yields:
        ``(n, K, Y, X)`` float32 on the CPU, in order.
    """
    network.eval()
    device = next(network.parameters()).device
    height, width = hu.shape[-2:]
    low, left = ((-side % multiple) // 2 for side in (height, width))
    high, right = -height % multiple - low, -width % multiple - left
    for some in (torch.arange(len(hu)) if rows is None else rows).split(_AT_ONCE):
        stacks = gather_neighbours(hu, some, context).float()
        padded = F.pad(stacks, (left, right, low, high), value=AIR_HU)
        logits = network(prepare(padded).to(device))
        yield logits[..., low : low + height, left : left + width].softmax(1).float().cpu()
