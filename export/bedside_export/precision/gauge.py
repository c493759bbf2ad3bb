"""How far an engine's answers are from the reference's, in clinical units.

Reference     what the reference engine says of some inputs
Gap           how far one thing that an engine answers is from that
ask           the reference
measure       an engine against it
check_finite  an engine on inputs that no scanner makes
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside.backends import Backend
from bedside.errors import BackendError
from bedside.manifest import Manifest
from bedside.tissue_counts import TissueCounts, count_tissues
from bedside_export.precision.material import Material

__all__ = ["Gap", "Reference", "ask", "check_finite", "measure"]

QUANTILE: Final = 0.99
"""Of the differences of a score over real pictures, this one is held against the tolerance."""

_Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Reference:
    """What the reference engine says of some inputs."""

    material: Material
    """The inputs."""
    answers: tuple[npt.NDArray[Any], ...]
    """X-ray: scores ``(S,)`` float32 of each. CT: labels ``(H, W)`` uint8."""
    expected: tuple[npt.NDArray[np.float64], ...] = ()
    """CT: of each, sums of the probabilities, ``(K,)``."""


@dataclass(frozen=True, slots=True)
class Gap:
    """How far one thing that an engine answers is from the reference's."""

    name: str
    """A score; for CT ``opacity volume in percent``, or ``Dice loss of`` a tissue."""
    difference: float
    """X-ray: 99th percentile over the pictures. CT: over all slices together."""
    worst: float
    """X-ray: of a picture. CT: of a scan."""
    limit: float
    """What the bundle allows of `difference`."""
    median: float | None = None
    """X-ray: 50th percentile."""

    @property
    def share(self) -> float:
        """The difference in parts of what is allowed; infinite where it is no number."""
        return self.difference / self.limit if math.isfinite(self.difference) else math.inf


def ask(manifest: Manifest, engine: Backend, material: Material) -> Reference:
    """What an engine says of the inputs.

    Raises:
        BackendError: It breaks; ``not-finite`` where it answers with NaN or infinity.
    """
    answers, expected = [], []
    for image in material.images:
        given = _run(manifest, engine, image)
        if given is None:
            raise BackendError(
                "not-finite", "the reference answers with NaN or infinity; there is nothing to compare"
            )
        if manifest.task == "ct-opacity":
            answers.append(given.argmax(axis=0).astype(np.uint8))
            expected.append(given.reshape(len(given), -1).sum(axis=1, dtype=np.float64))
        else:
            answers.append(given)
    return Reference(material, tuple(answers), tuple(expected))


def measure(
    manifest: Manifest, engine: Backend, reference: Reference, limits: dict[str, float]
) -> tuple[Gap, ...]:
    """An engine against the reference.

    Args:
        manifest: Of the bundle.
        engine: What is tried.
        reference: What is right.
        limits: What the bundle allows at this precision.

    Returns:
        One a score; for CT the volume, then each tissue that is there. Infinite where an answer is not finite.

    Raises:
        BackendError: The engine breaks.
    """
    if manifest.task == "ct-opacity":
        return _measure_tissues(manifest, engine, reference, limits)
    gaps = []
    for image, wanted in zip(reference.material.images, reference.answers, strict=True):
        given = _run(manifest, engine, image)
        gaps.append(
            np.full(len(wanted), math.inf) if given is None else np.abs(given.astype(np.float64) - wanted)
        )
    table = np.stack(gaps)  # (N, S)
    return tuple(
        Gap(
            score.name,
            difference=float(_quantile(table[:, k], QUANTILE)),
            worst=float(table[:, k].max()),
            limit=limits[score.name],
            median=float(_quantile(table[:, k], 0.5)),
        )
        for k, score in enumerate(manifest.scores)
    )


def check_finite(manifest: Manifest, engine: Backend, images: Sequence[_Float32]) -> list[int]:
    """Places of the inputs on which an output holds NaN or infinity.

    Args:
        manifest: Of the bundle.
        engine: What is tried.
        images: ``(1, C, ...)`` each.
    """
    return [place for place, image in enumerate(images) if _run(manifest, engine, image) is None]


def _measure_tissues(
    manifest: Manifest, engine: Backend, reference: Reference, limits: dict[str, float]
) -> tuple[Gap, ...]:
    scans: dict[int, TissueCounts] = {}
    rows = zip(
        reference.material.images,
        reference.material.groups,
        reference.answers,
        reference.expected,
        strict=True,
    )
    broken = False
    for image, group, labels, expected in rows:
        given = _run(manifest, engine, image)
        if given is None:
            broken = True
            break
        counts = count_tissues(labels.astype(np.uint8, copy=False), expected, given)
        scans[group] = scans[group] + counts if group in scans else counts
    volume = "opacity volume in percent"
    if broken:
        return (Gap(volume, math.inf, math.inf, limits["volume_percent"]),)
    total, *more = scans.values()
    for counts in more:
        total = total + counts
    tissues = manifest.tissues
    there = np.flatnonzero(~total.absent())
    worst = np.stack([counts.dice_loss() for counts in scans.values()]).max(axis=0)
    losses = total.dice_loss()
    return (
        Gap(
            volume,
            total.volume_percent(tissues),
            max(counts.volume_percent(tissues) for counts in scans.values()),
            limits["volume_percent"],
        ),
        *(
            Gap(f"Dice loss of {tissues[k].name}", float(losses[k]), float(worst[k]), limits["dice_loss"])
            for k in there
        ),
    )


def _run(manifest: Manifest, engine: Backend, image: _Float32) -> _Float32 | None:
    """The scores ``(S,)`` or probabilities ``(K, H, W)``; None where any output is not finite."""
    answers = engine.run({manifest.input.name: image})
    if not all(np.isfinite(answer).all() for answer in answers.values()):
        return None
    meaning = "tissues" if manifest.task == "ct-opacity" else "severity"
    output = next(output.name for output in manifest.outputs if output.meaning == meaning)
    given: _Float32 = answers[output][0]
    return given


def _quantile(values: npt.NDArray[np.float64], share: float) -> float:
    return float(np.quantile(values, share)) if np.isfinite(values).all() else math.inf
