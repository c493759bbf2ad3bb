"""What the CT network's training measured, case by case, and what follows for a new patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor

from bedside_export.recipes.ct.data import Case, Mask
from bedside_export.recipes.ct.lungs import CLASSES, LEFT, LEFT_OPACITY, RIGHT, RIGHT_OPACITY, Labels
from bedside_export.recipes.ct.neighbours import gather_neighbours
from bedside_export.recipes.ct.network import OpacityNetwork, to_input

Counts = npt.NDArray[np.int64]

GRIDS: Final = {
    "opacity": "128x128, the experts' own: probabilities averaged over 2x2 pixels, then the most probable class",
    "lungs": "256x256: the most probable class against lungs from thresholds and morphology with the experts' opacity",
}
"""On which pixels what is measured."""

_BINS: Final = 10
"""Bins of the probability of opacity."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a network finds in one case."""

    labels: Labels
    """``(Z, 256, 256)`` most probable class."""
    coarse: Labels
    """``(Z, 128, 128)`` most probable class of the probabilities averaged over 2x2 pixels."""
    opacity: npt.NDArray[np.float32]
    """``(Z, 128, 128)`` probability of opacity in either lung."""


@torch.no_grad()
def find(network: OpacityNetwork, hu: Tensor) -> Found:
    """What ``network`` finds in HU ``(Z, H, W)``, both even."""
    network.eval()
    labels, coarse, opacity = [], [], []
    for rows in torch.arange(len(hu)).split(8):
        stacks = gather_neighbours(hu, rows, network.context)
        shares = network(to_input(stacks.float())).softmax(1)
        small = F.avg_pool2d(shares, 2)
        labels.append(shares.argmax(1).byte())
        coarse.append(small.argmax(1).byte())
        opacity.append(small[:, LEFT_OPACITY:].sum(1))
    return Found(torch.cat(labels).numpy(), torch.cat(coarse).numpy(), torch.cat(opacity).numpy())


def dice(first: Mask, second: Mask) -> float | None:
    """Volume-pooled Dice of two masks; None where both are empty."""
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else None


def cross_tabulate(truth: Labels, found: Labels) -> Counts:
    """``(5, 5)`` voxels by true class (row) and found class (column)."""
    n = len(CLASSES)
    pairs = truth.astype(np.int64).ravel() * n + found.ravel()
    return np.bincount(pairs, minlength=n * n).reshape(n, n)


def measure_case(case: Case, truth: Labels, found: Found) -> dict[str, Any]:
    """One held-out case's part of ``metrics.json``.

    Args:
        case: The case.
        truth: Its classes ``(Z, 256, 256)``.
        found: What the network found.
    """
    expert, hard = case.opacity, found.coarse >= LEFT_OPACITY
    lung, ours = truth > 0, found.labels > 0
    free = lung.any((1, 2)) & ~expert.any((1, 2))  # slices with lung and without opacity
    volume = int(expert.sum())
    return {
        "case": case.name,
        "slices": len(truth),
        "opacity_share_of_lung": round(volume * 4 / int(lung.sum()), 4),
        "opacity_dice": dice(hard, expert),
        "opacity_dice_at_256": dice(found.labels >= LEFT_OPACITY, truth >= LEFT_OPACITY),
        "opacity_dice_of_the_sum": dice(found.opacity >= 0.5, expert),
        "hard_volume_over_true": float(hard.sum()) / volume,
        "expected_volume_over_true": float(found.opacity.sum(dtype=np.float64)) / volume,
        "lung_dice": dice(ours, lung),
        "left_lung_dice": dice(*(np.isin(v, (LEFT, LEFT_OPACITY)) for v in (found.labels, truth))),
        "right_lung_dice": dice(*(np.isin(v, (RIGHT, RIGHT_OPACITY)) for v in (found.labels, truth))),
        "lung_volume_over_true": float(ours.sum()) / float(lung.sum()),
        "lung_in_slices_without_share": float(ours[~lung.any((1, 2))].sum()) / float(lung.sum()),
        "opacity_in_slices_without_share": {
            "slices": int(free.sum()),
            "of_their_lung": float(hard[free].sum() * 4) / max(float(lung[free].sum()), 1.0),
        },
        "wrong_side_share": _wrong_side(truth, found.labels),
    }


def _wrong_side(truth: Labels, found: Labels) -> float:
    """Share of the voxels that are lung in both that have the other side."""
    both = (truth > 0) & (found > 0)
    return float(((truth % 2) != (found % 2))[both].mean()) if both.any() else 0.0


def reliability(probability: npt.NDArray[np.float32], truth: Mask) -> Counts:
    """``(10, 2)`` voxels and true voxels by probability of opacity in tenths."""
    tenth = np.minimum((probability * _BINS).astype(np.int64), _BINS - 1).ravel()
    return np.stack(
        [np.bincount(tenth, minlength=_BINS), np.bincount(tenth[truth.ravel()], minlength=_BINS)], axis=1
    )


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation, median, least and greatest."""
    return {
        "mean": mean(values),
        "sd": stdev(values),
        "median": median(values),
        "least": min(values),
        "greatest": max(values),
    }


def interval(ratios: Sequence[float], of: str) -> dict[str, Any]:
    """Where the true volume lies, in parts of the measured one, by the held-out cases' extremes.

    Args:
        ratios: Measured over true volume of each held-out case.
        of: Which volume was measured.

    Returns:
        ``low`` and ``high`` factors, which take in 1, and ``level``: that one more case, exchangeable with
        these n, falls between their extremes has probability (n - 1) / (n + 1).
    """
    factors = sorted(1 / r for r in ratios)
    n = len(factors)
    return {
        "low": min(1.0, factors[0]),
        "high": max(1.0, factors[-1]),
        "level": (n - 1) / (n + 1),
        "factors": factors,
        "method": (
            f"least and greatest true over {of} opacity volume of {n} held-out cases of one collection, one expert "
            f"mask each; a further case of the same kind lies between them with probability {n - 1}/{n + 1}, and no "
            f"surer level can be had of {n} cases"
        ),
    }


def share_rows(counts: Counts) -> list[list[float]]:
    """Each row as shares of its sum; an empty row is all on the diagonal."""
    filled = np.where(counts.sum(1, keepdims=True) > 0, counts, np.eye(len(counts), dtype=np.int64))
    return [[float(v) for v in row / row.sum()] for row in filled]


def summarise(cases: Sequence[Mapping[str, Any]], confusion: Counts, bins: Counts) -> dict[str, Any]:
    """What the bundle says of itself, from the cases of `measure_case`.

    Args:
        cases: One a held-out case.
        confusion: ``(5, 5)`` voxels of all of them by true and by found class.
        bins: ``(10, 2)`` of `reliability`, summed over them.
    """
    keys = (
        "opacity_dice",
        "opacity_dice_at_256",
        "hard_volume_over_true",
        "expected_volume_over_true",
        "lung_dice",
        "left_lung_dice",
        "right_lung_dice",
        "lung_volume_over_true",
    )
    several = len(cases) > 1
    return {
        "grids": GRIDS,
        "over_cases": {k: spread([float(c[k]) for c in cases]) for k in keys} if several else {},
        "interval_of_hard_volume": interval([c["hard_volume_over_true"] for c in cases], "measured"),
        "interval_of_expected_volume": interval([c["expected_volume_over_true"] for c in cases], "expected"),
        "confusion": {
            "classes": list(CLASSES),
            "voxels_true_by_found": confusion.tolist(),
            "found_given_true": share_rows(confusion),
            "true_given_found": share_rows(confusion.T),
        },
        "opacity_probability": [
            {"from": i / _BINS, "voxels": int(n), "share_true": float(t) / int(n) if n else None}
            for i, (n, t) in enumerate(bins)
        ],
    }
