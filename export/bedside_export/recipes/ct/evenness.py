"""Several kinds of opacity: each counts in training, however rare it is and however little it fills.

even_weights      how often slices are drawn, so that each kind is seen about as often
overlap_of_kinds  how far what was found of each kind is from what was drawn, every kind alike
keep_kinds        distortions that leave each kind what it is
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from bedside_export.recipes.ct.augment import Distortion, Kinds

__all__ = ["even_weights", "keep_kinds", "overlap_of_kinds"]

_SMOOTH: Final = 20.0
"""Pixels added to both sides of an overlap: of a few pixels of a lesion no network can tell the kind."""


def even_weights(readings: Sequence[Tensor], kinds: Kinds, weights: Tensor) -> Tensor:
    """How often to draw each slice for kinds of opacity to come up about equally often.

    A slice weighs the sum over the kinds that any reader saw in it of one over the number of slices with that kind.
    Slices of two kinds come up for both: kinds that share many slices with others still come up more often.

    Args:
        readings: Of each case ``(Z, R, Y, X)`` classes.
        kinds: What the classes are.
        weights: ``(slices of all cases,)`` as they would be drawn otherwise; slices without opacity keep theirs, and
            those with opacity keep their sum.

    Returns:
        As ``weights``.
    """
    opacity = [k for k, is_opacity in enumerate(kinds.opacity) if is_opacity]
    seen = torch.cat(
        [torch.stack([(each == k).flatten(1).any(1) for k in opacity], 1) for each in readings]
    ).float()  # (slices, kinds)
    own = (seen / seen.sum(0).clamp(min=1)).sum(1)
    has = own > 0
    return torch.where(has, own * (weights[has].sum() / own.sum().clamp(min=1e-9)), weights)


def overlap_of_kinds(logits: Tensor, shares: Tensor, kinds: Kinds) -> Tensor:
    """One minus the overlap of each kind of opacity that is in the batch, on average over them; 0 without any.

    The overlap is that of `ct.trainer.soft_loss`, which pools all opacity and so doesn't tell one kind from another.
    Here a kind with few pixels counts as much as any other.

    Args:
        logits: ``(N, K, h, w)``.
        shares: ``(N, K, h, w)`` as of `ct.trainer.to_shares`.
        kinds: What the classes are.
    """
    p, t = (each.movedim(1, 0).flatten(1) for each in (logits.softmax(1), shares))  # (K, pixels)
    wanted = torch.tensor(kinds.opacity, device=logits.device) & (t.sum(1) > 0)
    p, t = p[wanted], t[wanted]
    total = (p + t).sum(1)
    losses = 1 - (total - (p - t).abs().sum(1) + _SMOOTH) / (total + _SMOOTH)
    return losses.sum() / max(len(losses), 1)


def keep_kinds(how: Distortion, kinds: Kinds) -> Distortion:
    """Without what would make one kind of opacity another: consolidation that fades is ground glass.

    Args:
        how: How far slices are distorted.
        kinds: What the classes are; with one kind of opacity on a side nothing is taken away.
    """
    mirrored = {min(k, other) for k, other in enumerate(kinds.mirrored) if kinds.opacity[k]}
    return how if len(mirrored) < 2 else replace(how, consolidation=0.0, faint=0.0)
