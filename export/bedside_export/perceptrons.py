"""Version 2 of the published head: two multilayer perceptrons on the pooled features, one for each score.

    read_perceptron      a pickle file of (coefficients, intercepts), read without running what is in it
    PerceptronHead       both, with their provenance; scores are on the RALO scale, 0 to 8
    PerceptronDenseNet   (N, 1, S, S) -> severity, cam, pathologies

Published by mlmed/covid-severity as files that Python unpickles. Not for clinical use.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own name for it
from torch import Tensor, nn

from bedside.bundle import Interval, Score
from bedside_export.errors import ExportError
from bedside_export.heads import LEVEL, RALO_BOUNDS, SCORES, TITLES
from bedside_export.models import Classifier, PathologyDenseNet
from bedside_export.pickles import read_pickled_arrays

__all__ = ["Perceptron", "PerceptronDenseNet", "PerceptronHead", "read_perceptron", "unmeasured_intervals"]

MAX_LAYERS: Final = 16
"""Most layers; the published ones have two."""

_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Perceptron:
    """Layers with ReLU between them, from features to one score."""

    weights: tuple[_Float64, ...]
    """Of each layer ``(inputs, outputs)``, as scikit-learn's ``coefs_``."""
    constants: tuple[_Float64, ...]
    """Of each layer ``(outputs,)``, as scikit-learn's ``intercepts_``."""
    digest: str = ""
    """SHA-256 of the file that it was read from; empty if there is none."""

    def __post_init__(self) -> None:
        """Check that the layers fit together, and end in one number.

        Raises:
            ExportError: They do not.
        """
        if not 1 <= len(self.weights) <= MAX_LAYERS or len(self.weights) != len(self.constants):
            raise ExportError(
                f"a head's perceptron has 1 to {MAX_LAYERS} layers, each of a matrix and constants; check the file"
            )
        outputs = None
        for weight, constant in zip(self.weights, self.constants, strict=True):
            if weight.ndim != 2 or constant.shape != weight.shape[1:] or outputs not in (None, len(weight)):
                raise ExportError("the layers of the head's perceptron don't fit together; check the file")
            outputs = weight.shape[1]
        if outputs != 1:
            raise ExportError(
                f"the head's perceptron gives {outputs} numbers and not one score; check the file"
            )
        if not all(np.isfinite(values).all() for values in (*self.weights, *self.constants)):
            raise ExportError("the head's perceptron holds NaN or infinity; get the file again")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of features, of units in each hidden layer, and 1."""
        return (*(len(weight) for weight in self.weights), 1)


def read_perceptron(path: Path) -> Perceptron:
    """A perceptron from a pickle of (coefficients, intercepts), as scikit-learn's ``MLPRegressor`` has them.

    Args:
        path: The file; read by `bedside_export.pickles`, so nothing in it is run.

    Raises:
        ExportError: The file is refused or damaged, or holds no perceptron.
    """
    content = read_pickled_arrays(path)
    if not isinstance(content, (list, tuple)) or len(content) != 2:
        raise ExportError("the pickle file does not hold (coefficients, intercepts); give a head's file")
    weights, constants = (_matrices(part) for part in content)
    return Perceptron(weights, constants, hashlib.sha256(path.read_bytes()).hexdigest())


def _matrices(part: Any) -> tuple[_Float64, ...]:
    if not isinstance(part, (list, tuple)) or not all(isinstance(item, np.ndarray) for item in part):
        raise ExportError("the pickle file does not hold lists of matrices; give a head's file")
    return tuple(item.astype(np.float64) for item in part)


def unmeasured_intervals() -> tuple[Interval, Interval]:
    """Intervals that say nothing: the whole scale, since no error of the published perceptrons is known here."""
    extent, opacity = (
        Interval(LEVEL, high - low, high - low, "not measured: the whole scale") for low, high in RALO_BOUNDS
    )
    return extent, opacity


@dataclass(frozen=True, slots=True)
class PerceptronHead:
    """Two perceptrons on the pooled features, with their provenance."""

    extent: Perceptron
    """Gives the geographic extent, 0 to 8."""
    opacity: Perceptron
    """Gives the degree of opacity, 0 to 8."""
    intervals: tuple[Interval, Interval]
    """Uncertainty of each score."""
    protocol: str = (
        "RALO, X-rays of Stony Brook scored by experts (doi 10.5281/zenodo.4633999); no error is stated with the "
        "files, and none was measured here, so that the intervals are the whole scale."
    )
    """How its error was measured, in a sentence or two, for the model card."""

    @property
    def source(self) -> str:
        """Where it comes from, in one line; ``head`` of the bundle's scores."""
        layers, files = (
            " and ".join(dict.fromkeys(values))
            for values in (
                ("-".join(map(str, one.sizes)) for one in (self.extent, self.opacity)),
                (f"sha256 {one.digest[:16]}" for one in (self.extent, self.opacity) if one.digest),
            )
        )
        return (
            "version 2 of mlmed/covid-severity: a perceptron for each score on the pooled features, "
            f"{layers}{f' ({files})' if files else ''}"
        )

    @property
    def scores(self) -> tuple[Score, Score]:
        """The scores as the bundle's manifest holds them: both from 0 to 8."""
        extent, opacity = (
            Score(name, title, low, high, self.source, interval)
            for name, title, (low, high), interval in zip(
                SCORES, TITLES, RALO_BOUNDS, self.intervals, strict=True
            )
        )
        return extent, opacity

    @property
    def reading(self) -> str:
        """How the scores and their activation map belong together, for the model card."""
        return (
            "`severity` is two perceptrons of the averaged features. With ReLU a perceptron is linear around each "
            "input:\n  `cam` is that linear map, of the picture at hand, before the averaging. Its mean over the "
            "picture plus a constant\n  of the picture is the severity. It is exact, not an estimate."
        )

    @property
    def scales(self) -> str:
        """What the points of the scores mean, for the model card."""
        return (
            "Both are RALO (Radiographic Assessment of Lung Opacity, doi 10.5281/zenodo.4633999): extent and opacity "
            "are\neach counted from 0 to 4 in each lung and summed, 0 to 8. The older scale of opacity (Cohen et al. "
            "2020, arXiv\n2005.11856) ends at 6: 6/8 of this score compares to it."
        )


class _Layers(nn.Module):
    """A perceptron as float32 layers."""

    def __init__(self, perceptron: Perceptron) -> None:
        super().__init__()
        layers = []
        for weight, constant in zip(perceptron.weights, perceptron.constants, strict=True):
            layer = nn.Linear(*weight.shape)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(weight.T))
                layer.bias.copy_(torch.from_numpy(constant))
            layers.append(layer)
        self.hidden, self.last = nn.ModuleList(layers[:-1]), layers[-1]
        self.requires_grad_(requires_grad=False)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Score ``(N, 1)`` of ``(N, C)``, and the linear map around it: ``(N, C)``, or ``(1, C)`` if it is the same."""
        values, passed = pooled, []
        for layer in self.hidden:
            values = F.relu(layer(values))
            passed.append((values > 0).to(values.dtype))
        score = self.last(values)
        slope = self.last.weight
        for layer, through in zip(reversed(self.hidden), reversed(passed), strict=True):
            weight = cast("nn.Linear", layer).weight
            slope = (slope * through) @ weight  # (N, outputs) -> (N, inputs)
        return score, slope


class PerceptronDenseNet(PathologyDenseNet):
    """Severity by two perceptrons, its class-activation map, and pathologies, in one graph.

    A perceptron with ReLU is linear around each input, so the map is exact: the features before the averaging, each
    times its weight in the linear map at this very picture. Its spatial mean plus what the biases add is the severity.

    Args:
        classifier: Features and logits.
        head: The perceptrons.

    Raises:
        ExportError: They read another number of features.
    """

    def __init__(self, classifier: Classifier, head: PerceptronHead) -> None:
        super().__init__(classifier)
        for perceptron in (head.extent, head.opacity):
            if perceptron.sizes[0] != classifier.logits.in_features:
                raise ExportError(
                    f"the head reads {perceptron.sizes[0]} features and the network has "
                    f"{classifier.logits.in_features}"
                )
        self.extent, self.opacity = _Layers(head.extent), _Layers(head.opacity)
        self.eval()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Severity ``(N, 2)``, cam ``(N, 2, h, w)``, pathologies ``(N, labels)`` of ``(N, 1, S, S)``.

        Severity is in score units, unclipped.
        """
        features = F.relu(self.features(image))
        pooled = features.mean((2, 3))
        (extent, of_extent), (opacity, of_opacity) = self.extent(pooled), self.opacity(pooled)
        maps = [
            (features * slope[:, :, None, None]).sum(1, keepdim=True) for slope in (of_extent, of_opacity)
        ]
        return torch.cat([extent, opacity], 1), torch.cat(maps, 1), self.probabilities(pooled)
