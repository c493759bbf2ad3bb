"""From a classifier's outputs or features to clinical scores.

SeverityHead      what any head says of itself
Head              one linear map; `published_head` is version 1 of the published model
                  (version 2, two perceptrons, is in `bedside_export.perceptrons`)
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi, sqrt
from statistics import NormalDist
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from bedside.bundle import Interval, Score
from bedside_export.errors import ExportError

__all__ = [
    "BOUNDS",
    "LEVEL",
    "LUNG_OPACITY",
    "RALO_BOUNDS",
    "SCORES",
    "TITLES",
    "Head",
    "SeverityHead",
    "published_head",
]

SCORES: Final = ("extent", "opacity")
"""Order of the scores in every output."""
TITLES: Final = ("geographic extent", "degree of opacity")
"""The scores for people."""
BOUNDS: Final = ((0.0, 8.0), (0.0, 6.0))
"""Scales of the scores (Cohen et al. 2020, arXiv 2005.11856): two lungs of 0-4 and of 0-3."""
RALO_BOUNDS: Final = ((0.0, 8.0), (0.0, 8.0))
"""Scales of version 2: RALO counts opacity from 0 to 4 in each lung (doi 10.5281/zenodo.4633999); 6/8 of it compares
to `BOUNDS`."""
LEVEL: Final = 0.8
"""Share of truths that an interval is meant to hold."""
LUNG_OPACITY: Final = "Lung Opacity"
"""The label that the published head reads."""

_SLOPES: Final = (0.8705248236656189, 0.5484423041343689)
_INTERCEPTS: Final = (3.4137437, 2.5535977)
"""Version 1, x the raw logit of Lung Opacity: extent 0.8705 x + 3.414, opacity 0.5484 x + 2.554
(Cohen et al. 2020; mlmed/covid-severity)."""
_PUBLISHED_MAE: Final = (1.14, 0.78)
"""Mean absolute error over 50 patient-grouped half splits of 94 images (Cohen et al. 2020)."""

_Float64 = npt.NDArray[np.float64]


class SeverityHead(Protocol):
    """What makes scores of a classifier's outputs or features, as the bundle and its card tell it."""

    @property
    def source(self) -> str:
        """Where it comes from, in one line; ``head`` of the bundle's scores."""
        ...

    @property
    def protocol(self) -> str:
        """How its error was measured, in a sentence or two, for the model card."""
        ...

    @property
    def scores(self) -> tuple[Score, Score]:
        """The scores as the bundle's manifest holds them."""
        ...

    @property
    def reading(self) -> str:
        """How the scores and their activation map belong together, for the model card."""
        ...

    @property
    def scales(self) -> str:
        """What the points of the scores mean, for the model card."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """A linear map to (extent, opacity), in score units, with its provenance."""

    inputs: tuple[str, ...] | None
    """Labels of the logits that it reads; None for the pooled features."""
    weight: _Float64
    """``(2, inputs)``."""
    constant: _Float64
    """``(2,)``."""
    source: str
    """Where it comes from, in one line; ``head`` of the bundle's scores."""
    protocol: str
    """How its error was measured, in a sentence or two, for the model card."""
    intervals: tuple[Interval, Interval]
    """Uncertainty of each score."""

    def __post_init__(self) -> None:
        """Check the shapes."""
        if (
            self.weight.ndim != 2
            or self.weight.shape[0] != len(SCORES)
            or self.constant.shape != (len(SCORES),)
        ):
            raise ValueError(
                f"a head maps to {len(SCORES)} scores, not {self.weight.shape}, {self.constant.shape}"
            )

    @property
    def scores(self) -> tuple[Score, Score]:
        """The scores as the bundle's manifest holds them."""
        extent, opacity = (
            Score(name, title, low, high, self.source, interval)
            for name, title, (low, high), interval in zip(SCORES, TITLES, BOUNDS, self.intervals, strict=True)
        )
        return extent, opacity

    @property
    def reading(self) -> str:
        """How the scores and their activation map belong together, for the model card."""
        return (
            "`severity` is linear in the averaged features, and `cam` is that same map before the averaging: its "
            "mean over\n  the picture plus a constant is the severity. It is exact, not a gradient estimate."
        )

    @property
    def scales(self) -> str:
        """What the points of the scores mean, for the model card."""
        return (
            "Geographic extent: each lung 0 (none) to 4 (over 75 %), summed. Degree of opacity: each lung 0 (none), "
            "1 (ground\nglass), 2 (consolidation), 3 (white-out), summed. Cohen et al. 2020, arXiv 2005.11856."
        )

    def fold(self, logits: nn.Linear, labels: tuple[str, ...]) -> nn.Linear:
        """The head as one linear layer of the pooled features, float32; folded in float64.

        Args:
            logits: The classifier's last layer.
            labels: What its outputs are.

        Raises:
            ExportError: The classifier has other outputs, or another number of features.
        """
        weight, constant = self.weight, self.constant
        if self.inputs is not None:
            if missing := [name for name in self.inputs if name not in labels]:
                raise ExportError(
                    f"the network has no output {missing[0]!r}, which the head reads; take another head"
                )
            rows = [labels.index(name) for name in self.inputs]
            layer = logits.weight.detach().double().numpy()[rows], logits.bias.detach().double().numpy()[rows]
            weight, constant = self.weight @ layer[0], self.weight @ layer[1] + self.constant
        if weight.shape[1] != logits.in_features:
            raise ExportError(
                f"the head reads {weight.shape[1]} features and the network has {logits.in_features}"
            )
        folded = nn.Linear(logits.in_features, len(SCORES))
        with torch.no_grad():
            folded.weight.copy_(torch.from_numpy(weight))
            folded.bias.copy_(torch.from_numpy(constant))
        return folded.requires_grad_(False)


def published_head() -> Head:
    """Version 1 of the published model: both scores from the Lung Opacity logit.

    Its interval takes the residuals as Gaussian with the published mean absolute error: the half-width is
    z(0.9) x MAE x sqrt(pi / 2), since a Gaussian's mean absolute value is sqrt(2 / pi) of its standard deviation.
    """
    quantile = NormalDist().inv_cdf((1 + LEVEL) / 2)
    extent, opacity = (
        Interval(
            LEVEL,
            below=round(quantile * error * sqrt(pi / 2), 4),
            above=round(quantile * error * sqrt(pi / 2), 4),
            method=f"published MAE {error} (Cohen et al. 2020, arXiv 2005.11856), residuals taken as Gaussian: "
            f"z({(1 + LEVEL) / 2:g}) x MAE x sqrt(pi/2)",
        )
        for error in _PUBLISHED_MAE
    )
    return Head(
        inputs=(LUNG_OPACITY,),
        weight=np.array(_SLOPES)[:, None],
        constant=np.array(_INTERCEPTS),
        source="version 1 of mlmed/covid-severity: linear in the Lung Opacity logit (Cohen et al. 2020)",
        protocol="94 frontal X-rays of COVID-19 scored by three experts; 50 random half splits grouped by patient; "
        "mean absolute error 1.14 (extent) and 0.78 (opacity). Not measured again here.",
        intervals=(extent, opacity),
    )
