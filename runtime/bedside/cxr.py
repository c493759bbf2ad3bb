"""Score an X-ray: from display values to the network's input, and from its outputs to clinical scores.

Arrays in, arrays out; no I/O. Not for clinical use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bedside.bundle import Input, Interval, Manifest, Score
from bedside.errors import BackendError
from bedside.radiograph import Radiograph
from bedside.resampling import plan_axis, resample

__all__ = ["Cause", "Estimate", "Frame", "Severity", "Span", "frame_of", "interpret", "preprocess", "span_of"]


@dataclass(frozen=True, slots=True)
class Frame:
    """The square of a picture that the network sees, in pixels; it may reach past the picture's edges."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Span:
    """The interval at one level."""

    level: float
    """Share of truths that such an interval held when it was measured."""
    low: float
    """Lower end, within the scale."""
    high: float
    """Upper end, within the scale."""
    factor: float = 1.0
    """How many times as wide it is as on an ordinary picture, before it is cut to the scale."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an interval is wider."""

    name: str
    """Code of a quality note, a projection (``AP``), or ``view unknown``."""
    factor: float
    """How much wider, at the level of `Estimate.level`; over 1."""
    pictures: int
    """How many such pictures that was measured on."""


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
    factor: float = 1.0
    """As `Span.factor`, of `low` and `high`."""
    further: tuple[Span, ...] = ()
    """Intervals at other levels."""
    causes: tuple[Cause, ...] = ()
    """Why they are wider, if they are."""

    @property
    def intervals(self) -> tuple[Span, ...]:
        """The intervals at all levels, in rising order."""
        own = Span(self.level, self.low, self.high, self.factor)
        return tuple(sorted((own, *self.further), key=lambda span: span.level))


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
    appearance: dict[str, float] = field(default_factory=dict)
    """Probability of each of `bedside.contract.APPEARANCES` that the bundle knows; empty if it knows none."""


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
    appearance = {}
    if "appearance" in of:
        output, probabilities = of["appearance"]
        appearance = {
            label: float(probability) for label, probability in zip(output.labels, probabilities, strict=True)
        }
    return Severity(estimates["extent"], estimates["opacity"], pathologies, activation, lungs, appearance)


def _estimate(score: Score, raw: float) -> Estimate:
    value = min(max(raw, score.low), score.high)
    own, *further = (span_of(score, interval, value) for interval in (score.interval, *score.further))
    return Estimate(
        score.name,
        score.title,
        value,
        own.low,
        own.high,
        (score.low, score.high),
        own.level,
        score.interval.method,
        score.head,
        further=tuple(further),
    )


def span_of(score: Score, interval: Interval, value: float, factor: float = 1.0) -> Span:
    """An interval around a value within the scale: what it was measured around."""
    low, high = value - factor * interval.below, value + factor * interval.above
    return Span(interval.level, max(low, score.low), min(high, score.high), factor)
