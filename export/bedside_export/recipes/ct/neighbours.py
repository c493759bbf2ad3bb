"""Slices with their neighbours as channels, as `bedside.contract.Tiling.context` has them."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

__all__ = ["DISTANCES", "draw_steps", "gather_neighbours"]

DISTANCES: Final = (0.1, 0.6, 0.3)
"""How often, in training, the nearest neighbour is the slice itself, the next one, the one after it: scanners differ in
how far slices lie apart."""


def draw_steps(count: int, generator: torch.Generator, distances: tuple[float, ...] = DISTANCES) -> Tensor:
    """``(count,)`` int64: how many slices away the nearest neighbour is, by chance."""
    return torch.multinomial(torch.tensor(distances), count, replacement=True, generator=generator)


def gather_neighbours(
    hu: Tensor,
    rows: Tensor,
    context: int,
    *,
    steps: Tensor | None = None,
    ends: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Slices with their neighbours; the first and the last slice stand in for those beyond them.

    Args:
        hu: ``(Z, Y, X)`` of one case, or of several one after another.
        rows: ``(N,)`` int64 slices.
        context: Neighbours on each side.
        steps: ``(N,)`` int64 slices to the nearest neighbour, 0 for the slice itself; 1 by default.
        ends: First and last slice ``(N,)`` of each one's case; by default those of ``hu``.

    Returns:
        ``(N, 2 context + 1, Y, X)``.
    """
    away = torch.arange(-context, context + 1)
    places = rows[:, None] + (away if steps is None else steps[:, None] * away)
    if ends is None:
        return hu[places.clamp(0, len(hu) - 1)]
    first, last = ends
    return hu[places.maximum(first[:, None]).minimum(last[:, None])]
