"""How well a network finds what was drawn, case by case and by source."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bedside.contract import Tissue
from bedside_export.finetuning.networks import Learner
from bedside_export.recipes.ct.inference import find_shares
from bedside_export.recipes.ct.masks import Masked
from bedside_export.recipes.ct.soft_readers import majority

__all__ = ["SPREAD", "describe", "measure_case", "score", "summarise"]

SPREAD: Final = 24
"""Slices of a held-out case that are looked at during training; all are, before and after."""

_Counts = npt.NDArray[np.int64]


def measure_case(
    network: nn.Module, case: Masked, learner: Learner, *, most: int | None = None
) -> dict[str, Any]:
    """Dice, pooled over the volume, and volumes of one case.

    Args:
        network: Of the learner, in any state.
        case: Of several readers the majority's answer counts.
        learner: What the network takes, and its classes.
        most: Look at this many slices at most, evenly spread.
    """
    places = torch.arange(len(case.hu))
    if most is not None and most < len(places):
        places = torch.linspace(0, len(case.hu) - 1, most).round().long()
    kinds = len(learner.tissues)
    truth = _truth(case.readings[places], kinds)
    counts = np.zeros((kinds, kinds), np.int64)
    expected = np.zeros(kinds)
    at = 0
    for shares in find_shares(
        network,
        case.hu,
        learner.prepare,
        multiple=learner.multiple,
        context=learner.context,
        rows=places,
    ):
        found = shares.argmax(1).numpy()
        part = truth[at : at + len(found)].astype(np.int64)
        counts += np.bincount((part * kinds + found).ravel(), minlength=kinds**2).reshape(kinds, kinds)
        expected += shares.sum((0, 2, 3), dtype=torch.float64).numpy()
        at += len(found)
    return _describe_counts(counts, expected, learner.tissues)


def _truth(readings: Tensor, kinds: int) -> npt.NDArray[np.uint8]:
    return readings[:, 0].numpy() if readings.shape[1] == 1 else majority(readings.numpy(), kinds)[:, 0]


def _describe_counts(
    counts: _Counts, expected: npt.NDArray[np.float64], tissues: Sequence[Tissue]
) -> dict[str, Any]:
    opacity = np.array([tissue.opacity for tissue in tissues])
    lung = np.array([tissue.lung or tissue.opacity for tissue in tissues])
    groups = {tissue.name: np.arange(len(tissues)) == k for k, tissue in enumerate(tissues) if k}
    true_ml = int(counts[opacity].sum())
    return {
        "opacity_dice": _dice(counts, opacity),
        "lung_dice": _dice(counts, lung),
        "tissues": {name: _dice(counts, group) for name, group in groups.items()},
        "volume_over_true": int(counts[:, opacity].sum()) / true_ml if true_ml else None,
        "expected_over_true": float(expected[opacity].sum()) / true_ml if true_ml else None,
        "opacity_of_lung": int(counts[:, opacity].sum()) / max(int(counts[lung].sum()), 1),
    }


def _dice(counts: _Counts, group: npt.NDArray[np.bool_]) -> float | None:
    """None where the reader drew none: then Dice says nothing of how much too much was found."""
    true, found = int(counts[group].sum()), int(counts[:, group].sum())
    return 2 * int(counts[np.ix_(group, group)].sum()) / (true + found) if true else None


def score(cases: Sequence[tuple[str, dict[str, Any]]]) -> float:
    """What training is stopped by: mean over sources of the mean Dice of opacity, lung, and each kind of opacity.

    Args:
        cases: Source and measurement of each held-out case.
    """
    sources: dict[str, list[float]] = {}
    for source, case in cases:
        values = [case["opacity_dice"], case["lung_dice"]]
        kinds = [value for value in case["tissues"].values() if value is not None]
        values.append(mean(kinds) if kinds else None)
        sources.setdefault(source, []).extend(value for value in values if value is not None)
    return mean(mean(values) for values in sources.values() if values) if any(sources.values()) else 0.0


def summarise(cases: Sequence[tuple[str, str, dict[str, Any], dict[str, Any]]]) -> list[dict[str, Any]]:
    """Means over the cases of each source and part.

    Args:
        cases: Source, part, and what was measured before and after.
    """
    rows = []
    for source, part in sorted({case[:2] for case in cases}):
        own = [case[2:] for case in cases if case[:2] == (source, part)]
        row: dict[str, Any] = {"source": source, "part": part, "cases": len(own)}
        for name in (
            "opacity_dice",
            "lung_dice",
            "volume_over_true",
            "expected_over_true",
            "opacity_of_lung",
        ):
            for when, measured in zip(("before", "after"), zip(*own, strict=True), strict=True):
                values = [each[name] for each in measured if each[name] is not None]
                row[f"{name}_{when}"] = mean(values) if values else None
        rows.append(row)
    return rows


def describe(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A table of what `summarise` found: before -> after."""
    head = f"{'source':20} {'part':9} cases  {'opacity Dice':15} {'lung Dice':15} {'volume / true':15}"
    lines = [head.rstrip()]
    for row in rows:
        cells = [
            " -> ".join(
                "n/a" if row[f"{name}_{when}"] is None else f"{row[f'{name}_{when}']:.3f}" for when in _WHEN
            )
            for name in ("opacity_dice", "lung_dice", "volume_over_true")
        ]
        lines.append(
            f"{row['source'][:20]:20} {row['part']:9} {row['cases']:5}  "
            + " ".join(f"{cell:15}" for cell in cells).rstrip()
        )
    return lines


_WHEN: Final = ("before", "after")
