"""Which pictures the severity stage learns from, and what: experts' scores, Brixia zones, scores derived from those."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bedside_export.recipes.cxr.data import ZONE_MAXIMUM, Picture, Split
from bedside_export.recipes.cxr.network import SCALES, Lines
from bedside_export.recipes.cxr.targets import Arrays

Table = npt.NDArray[np.float64]

_FEWEST: Final = 3
"""Pictures with both scores that it takes to fit a line."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What the severity stage learns, a row a picture."""

    severity: Tensor
    """``(P, 2)`` over the scales' maxima, 0 to 1."""
    severity_weight: Tensor
    """``(P, 1)``: 1 for the experts' scores, less for derived ones."""
    zones: Tensor
    """``(P, 6)`` over 3, 0 to 1."""
    zones_weight: Tensor
    """``(P, 1)``: 0 where unknown."""


def derive_severity(pictures: list[Picture]) -> Lines:
    """Least-squares lines from Brixia to extent and to opacity, by the ``pictures`` that have both."""
    table = _scored_both_ways(pictures)
    if len(table) < _FEWEST:
        return (SCALES[0] / 18, 0.0), (SCALES[1] / 18, 0.0)
    extent, opacity = (np.polyfit(table[:, 0], table[:, i], 1) for i in (1, 2))
    return (float(extent[0]), float(extent[1])), (float(opacity[0]), float(opacity[1]))


def relate_severity(pictures: list[Picture]) -> Lines:
    """Standardised major axes of Brixia and extent, and of Brixia and opacity, by the ``pictures`` that have both.

    Least squares takes Brixia scores for exact. They aren't, so that its line is too flat for what a network makes of
    many of them, whose errors cancel. The slope here is the ratio of deviations (Warton et al. 2006, Biol Rev 81:259).
    """
    table = _scored_both_ways(pictures)
    if len(table) < _FEWEST or not table.std(0).all():
        return derive_severity(pictures)
    deviation, mean = table.std(0), table.mean(0)
    extent, opacity = (
        (float(slope), float(mean[i] - slope * mean[0]))
        for i in (1, 2)
        for slope in [deviation[i] / deviation[0]]
    )
    return extent, opacity


def _scored_both_ways(pictures: list[Picture]) -> Table:
    """Brixia score, extent and opacity ``(P, 3)`` of the pictures that have all."""
    both = [(p.brixia, *p.severity) for p in pictures if p.severity is not None and p.brixia is not None]
    return np.asarray(both, dtype=np.float64).reshape(-1, 3)


def severity_targets(pictures: list[Picture], derived: float) -> Targets:
    """Targets of ``pictures``; one with neither a severity nor a Brixia score weighs nothing."""
    lines = derive_severity(pictures)
    severity, severity_weight, zones, zones_weight = [], [], [], []
    for p in pictures:
        if p.severity is not None:
            values, weight = p.severity, 1.0
        else:
            brixia = p.brixia or 0.0
            values = (lines[0][0] * brixia + lines[0][1], lines[1][0] * brixia + lines[1][1])
            weight = derived if p.zones else 0.0
        severity.append([min(max(v / s, 0.0), 1.0) for v, s in zip(values, SCALES, strict=True)])
        severity_weight.append([weight])
        zones.append([z / ZONE_MAXIMUM for z in p.zones] if p.zones else [0.0] * 6)
        zones_weight.append([1.0 if p.zones else 0.0])
    return Targets(*(torch.tensor(t) for t in (severity, severity_weight, zones, zones_weight)))


def severity_pictures(split: Split, arrays: Arrays) -> list[Picture]:
    """Pictures of ``split.training`` with a severity or Brixia score, or with masks of opacity."""
    masked = arrays.opacity[arrays.rows(split.training)].amax((1, 2, 3)) >= 0
    return [
        p
        for p, known in zip(split.training, masked.tolist(), strict=True)
        if known or p.severity is not None or p.zones is not None
    ]
