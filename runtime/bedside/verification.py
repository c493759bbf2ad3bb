"""Does an engine answer as the reference did? A bundle's golden vectors, compared in clinical units.

    installed      the engines whose packages are here
    verify_golden  run them on an open engine: a `Verdict`
    try_engines    the same for several engines, each opened for it: a `Trial` each

Of an X-ray bundle the scores are compared before they are clipped to their scales, so that nothing hides behind a
bound; of a CT bundle, Dice of each tissue and the opacified volume.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np

from bedside.backends import BACKENDS, Backend, EngineInfo, open_backend
from bedside.bundle import Bundle
from bedside.errors import BackendError, BedsideError, MissingExtraError
from bedside.golden import MAX_GOLDEN_BYTES, Golden, load_golden, load_tissue_golden
from bedside.tissue_counts import TissueCounts, count_tissues

__all__ = [
    "MAX_GOLDEN_BYTES",
    "Agreement",
    "Golden",
    "Trial",
    "Verdict",
    "installed",
    "load_golden",
    "try_engines",
    "verify_golden",
]

UNAVAILABLE: Final = frozenset({"engine-unsupported", "bundle-precision"})
"""Codes of what this machine, engine or bundle does not have."""
_VOLUME: Final = "opacity volume in percent"


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far one thing that an engine answers lies from the reference's."""

    score: str
    """``extent`` or ``opacity``; for CT ``opacity volume in percent``, or ``Dice loss of`` a tissue."""
    difference: float
    """Largest difference over the golden inputs, or for CT that of all together; infinite where an answer is not
    finite."""
    tolerance: float
    """What the bundle allows, in the same unit."""

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.difference <= self.tolerance


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of the golden vectors on one engine."""

    engine: EngineInfo
    """What ran."""
    images: int
    """How many golden inputs there are."""
    agreements: tuple[Agreement, ...]
    """One a score, in the bundle's order; for CT the volume, then each tissue that is there."""

    @property
    def passed(self) -> bool:
        """Whether everything is within its tolerance."""
        return all(agreement.passed for agreement in self.agreements)


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of trying a bundle on one backend in one precision."""

    backend: str
    """Name of the backend."""
    precision: str
    """The precision that was asked for."""
    verdict: Verdict | None
    """What came of the golden vectors; None if they could not be run."""
    error: BedsideError | None
    """Why not."""

    @property
    def passed(self) -> bool:
        """Whether the golden vectors ran, and agree."""
        return self.verdict is not None and self.verdict.passed

    @property
    def unavailable(self) -> bool:
        """Whether this machine, this engine or the bundle does not have it, which is no failure."""
        return self.error is not None and self.error.code in UNAVAILABLE


def installed() -> tuple[str, ...]:
    """Names of the backends whose package is installed, as in `bedside.backends.BACKENDS`; none is imported."""
    return tuple(name for name, leaf in BACKENDS.items() if leaf.installed)


def verify_golden(bundle: Bundle, backend: Backend) -> Verdict:
    """Run the golden inputs on an engine, one at a time, as in scoring.

    Args:
        bundle: The bundle.
        backend: An engine that holds its model; stays open.

    Returns:
        The verdict; a difference over its tolerance, or an answer that is not finite, is told in it.

    Raises:
        BundleError: As `load_golden`; ``bundle-precision`` if the bundle states no tolerance for the precision.
        BackendError: ``engine-failed`` if the engine breaks, or its scores are of another shape.
    """
    manifest, info = bundle.manifest, backend.info
    limits = manifest.tolerance(info.precision)
    if manifest.task == "ct-opacity":
        images, agreements = _compare_tissues(bundle, backend, limits)
    else:
        images, agreements = _compare_scores(bundle, backend, limits)
    return Verdict(info, images, agreements)


def _compare_scores(
    bundle: Bundle, backend: Backend, limits: Mapping[str, float]
) -> tuple[int, tuple[Agreement, ...]]:
    manifest = bundle.manifest
    golden = load_golden(bundle)
    largest = np.zeros(len(manifest.scores))
    output = next(output.name for output in manifest.outputs if output.meaning == "severity")
    for image, wanted in zip(golden.images, golden.severity, strict=True):
        answers = backend.run({manifest.input.name: image[None]})  # (C, H, W) -> (1, C, H, W)
        given = answers[output]
        if given.shape != (1, len(wanted)):
            raise BackendError(
                "engine-failed", f"the engine's scores are of shape {given.shape}; use another engine"
            )
        if all(np.isfinite(answer).all() for answer in answers.values()):
            largest = np.maximum(largest, np.abs(given[0].astype(np.float64) - wanted))
        else:
            largest[:] = math.inf
    return len(golden.images), tuple(
        Agreement(score.name, float(difference), limits[score.name])
        for score, difference in zip(manifest.scores, largest, strict=True)
    )


def _compare_tissues(
    bundle: Bundle, backend: Backend, limits: Mapping[str, float]
) -> tuple[int, tuple[Agreement, ...]]:
    manifest = bundle.manifest
    golden = load_tissue_golden(bundle)
    output = next(output.name for output in manifest.outputs if output.meaning == "tissues")
    total: TissueCounts | None = None
    finite = True
    for image, labels, expected in zip(golden.images, golden.labels, golden.expected, strict=True):
        given = backend.run({manifest.input.name: image[None]})[output]  # (C, H, W) -> (1, C, H, W)
        if given.shape != (1, len(expected), *labels.shape):
            raise BackendError(
                "engine-failed", f"the engine's tissues are of shape {given.shape}; use another engine"
            )
        finite = finite and bool(np.isfinite(given).all())
        counts = count_tissues(labels, expected, given[0])
        total = counts if total is None else total + counts
    if total is None or not finite:
        return len(golden.images), (Agreement(_VOLUME, math.inf, limits["volume_percent"]),)
    there = np.flatnonzero(~total.absent())
    losses = total.dice_loss()
    return len(golden.images), (
        Agreement(_VOLUME, total.volume_percent(manifest.tissues), limits["volume_percent"]),
        *(
            Agreement(f"Dice loss of {manifest.tissues[k].name}", float(losses[k]), limits["dice_loss"])
            for k in there
        ),
    )


def try_engines(bundle: Bundle, backends: Iterable[str], precisions: Iterable[str]) -> Iterator[Trial]:
    """Try a bundle on each backend in each precision, one after the other.

    Raises:
        MissingExtraError: A backend is not installed.
    """
    for name, precision in product(backends, precisions):
        verdict = error = None
        try:
            with closing(open_backend(name, bundle, precision=precision)) as engine:
                verdict = verify_golden(bundle, engine)
        except MissingExtraError:
            raise
        except BedsideError as problem:
            error = problem
        yield Trial(name, precision, verdict, error)
