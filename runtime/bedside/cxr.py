"""Score an X-ray: from display values to the network's input, and from its outputs to clinical scores.

Arrays in, arrays out; no I/O. Not for clinical use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bedside.bundle import Input, Manifest, Score
from bedside.errors import BackendError
from bedside.radiograph import Radiograph
from bedside.resampling import plan_axis, resample

__all__ = ["Estimate", "Frame", "Severity", "frame_of", "interpret", "preprocess"]


@dataclass(frozen=True, slots=True)
class Frame:
    """The square of a picture that the network sees, in pixels; it may reach past the picture's edges."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """One clinical score with its interval."""

    name: str
    """``extent`` or ``opacity``."""
    title: str
    """For people, e.g. ``geographic extent``."""
    value: float
    """Within `scale`."""
    low: float
    """Lower end of the interval, within `scale`."""
    high: float
    """Upper end of the interval, within `scale`."""
    scale: tuple[float, float]
    """Bounds of the scale. A score without its scale is a defect."""
    level: float
    """Share of truths that such an interval held when it was measured."""
    method: str
    """What error the interval comes from."""
    head: str
    """What turned features into this score."""


@dataclass(frozen=True, slots=True)
class Severity:
    """What a network says of one X-ray."""

    extent: Estimate
    """How much of the lungs is involved."""
    opacity: Estimate
    """How dense it is."""
    pathologies: dict[str, float]
    """Label -> probability, of the labels that the network was trained on."""
    activation: dict[str, npt.NDArray[np.float32]]
    """Score -> class-activation map ``(h, w)`` float32 over the `Frame`, in score units; empty if the bundle
    gives none."""
    lungs: npt.NDArray[np.float32] | None
    """Probability of lung ``(h, w)`` float32 over the `Frame`, or None if the bundle gives none."""


def frame_of(shape: tuple[int, int], pixel_aspect: float, crop: str) -> Frame:
    """The square (on the patient) that a bundle's crop rule takes of a picture.

    ``centre-square`` on square pixels is torchxrayvision's ``XRayCenterCrop``, to the pixel. Of an odd rest,
    ``pad-square`` puts the extra line below and right.

    Args:
        shape: ``(H, W)`` of the picture.
        pixel_aspect: Height of a pixel over its width.
        crop: One of `bedside.manifest.CROPS`.
    """
    height, width = shape
    choose = min if crop == "centre-square" else max
    side = choose(height * pixel_aspect, float(width))
    rows, columns = max(1, round(side / pixel_aspect)), max(1, round(side))
    if crop == "centre-square":
        return Frame(height // 2 - rows // 2, width // 2 - columns // 2, rows, columns)
    return Frame(-((rows - height) // 2), -((columns - width) // 2), rows, columns)


def preprocess(radiograph: Radiograph, spec: Input) -> npt.NDArray[np.float32]:
    """A picture as the network's input.

    Args:
        radiograph: Display values from 0 (black) to 1 (white).
        spec: The bundle's input rule.

    Returns:
        ``(1, 1, S, S)`` float32, new.
    """
    frame = frame_of(radiograph.pixels.shape, radiograph.pixel_aspect, spec.crop)
    height, width = radiograph.pixels.shape
    rows = plan_axis(height, frame.top, frame.height, spec.size[0])
    columns = plan_axis(width, frame.left, frame.width, spec.size[1])
    # the map to [low, high] commutes with the resize, except that what lies outside has a value of its own
    image = resample(radiograph.pixels, rows, columns)
    image *= spec.high - spec.low
    image += (spec.low - spec.outside) * np.outer(rows.sums, columns.sums)
    image += spec.outside
    return image[None, None]


def interpret(outputs: Mapping[str, npt.NDArray[Any]], manifest: Manifest) -> Severity:
    """A network's outputs for one picture, in clinical units.

    Args:
        outputs: Output name -> array with a batch of one.
        manifest: What the bundle says of them.

    Raises:
        BackendError: ``not-finite`` if any output holds NaN or infinity; ``engine-failed`` if one is missing,
            or not of the shape that the manifest says.
    """
    for output in manifest.outputs:
        array = outputs.get(output.name)
        if array is None or array.shape[:2] != (1, len(output.labels) or 1):
            given = "is missing" if array is None else f"is {array.shape}, not for one picture"
            raise BackendError(
                "engine-failed", f"the network's output {output.name!r} {given}; no score is given"
            )
    for name, array in outputs.items():
        if not np.isfinite(array).all():
            raise BackendError(
                "not-finite",
                f"the network's output {name!r} holds NaN or infinity; no score is given: try fp32",
            )
    of = {output.meaning: (output, outputs[output.name][0]) for output in manifest.outputs}
    _, values = of["severity"]
    estimates = {
        score.name: _estimate(score, float(value))
        for score, value in zip(manifest.scores, values, strict=True)
    }
    pathologies = {}
    if "pathologies" in of:
        output, probabilities = of["pathologies"]
        trained = output.trained or (True,) * len(output.labels)
        pathologies = {
            label: float(probability)
            for label, probability, known in zip(output.labels, probabilities, trained, strict=True)
            if known
        }
    activation = {}
    if "activation-map" in of:
        output, maps = of["activation-map"]
        activation = dict(zip(output.labels, maps, strict=True))
    lungs = of["lungs"][1][0] if "lungs" in of else None
    return Severity(estimates["extent"], estimates["opacity"], pathologies, activation, lungs)


def _estimate(score: Score, raw: float) -> Estimate:
    bounds, interval = (score.low, score.high), score.interval
    value, low, high = (
        min(max(end, score.low), score.high) for end in (raw, raw - interval.below, raw + interval.above)
    )
    return Estimate(
        score.name, score.title, value, low, high, bounds, interval.level, interval.method, score.head
    )
