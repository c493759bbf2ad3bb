"""Does an engine answer as the reference did? A bundle's golden vectors, compared in clinical units.

    installed      the engines whose packages are here
    load_golden    the golden inputs and outputs, checked
    verify_golden  run them on an open engine: a `Verdict`
    try_engines    the same for several engines, each opened for it: a `Trial` each

What is compared are the scores before they are clipped to their scales, so that nothing hides behind a bound.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside.backends import BACKENDS, Backend, EngineInfo, open_backend
from bedside.bundle import Bundle
from bedside.errors import BackendError, BedsideError, BundleError, MissingExtraError

__all__ = [
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
MAX_GOLDEN_BYTES: Final = 1 << 28
"""Most bytes of golden outputs, unpacked: 256 MiB, far over what a few pictures take."""


_UNREADABLE: Final = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What numpy and zipfile raise on files that are not theirs, or damaged; RuntimeError where one is encrypted."""


@dataclass(frozen=True, slots=True)
class Golden:
    """Golden inputs, and what the reference answered on them."""

    images: npt.NDArray[np.float32]
    """``(N, C, H, W)``, N at least 1: network inputs."""
    severity: npt.NDArray[np.float32]
    """``(N, scores)``, finite: the reference's scores, before they are clipped."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far one score of an engine lies from the reference's."""

    score: str
    """``extent`` or ``opacity``."""
    difference: float
    """Largest difference over the golden inputs, in score units; infinite where an answer is not finite."""
    tolerance: float
    """What the bundle allows, in score units."""

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
    """One a score, in the bundle's order."""

    @property
    def passed(self) -> bool:
        """Whether every score is within its tolerance."""
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
    return tuple(name for name, leaf in BACKENDS.items() if find_spec(leaf.package) is not None)


def load_golden(bundle: Bundle) -> Golden:
    """A bundle's golden vectors.

    Raises:
        BundleError: ``bundle-broken`` if they are not what the manifest says, or not finite; ``bundle-unsafe``
            if they are over-large; ``bundle-altered`` if a file has changed.
    """
    names, manifest = bundle.manifest.golden, bundle.manifest
    output = next(output.name for output in manifest.outputs if output.meaning == "severity")
    try:
        images = np.load(io.BytesIO(bundle.read(names.inputs)), allow_pickle=False)
        packed = io.BytesIO(bundle.read(names.outputs))
        with zipfile.ZipFile(packed) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_GOLDEN_BYTES:
                raise BundleError(
                    "bundle-unsafe", f"the golden outputs unpack to over {MAX_GOLDEN_BYTES >> 20} MiB"
                )
        with np.load(packed, allow_pickle=False) as outputs:
            severity = outputs[output]
    except _UNREADABLE as error:
        if isinstance(error, BundleError):
            raise
        raise _broken("can't be read") from error
    _check(images, (-1, *manifest.input.shape[1:]))
    _check(severity, (len(images), len(manifest.scores)))
    return Golden(images, severity)


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
    if info.precision not in manifest.tolerances:
        stated = ", ".join(sorted(manifest.tolerances))
        raise BundleError(
            "bundle-precision", f"the bundle states no tolerance for {info.precision}; it does for {stated}"
        )
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
    limits = manifest.tolerances[info.precision]
    agreements = tuple(
        Agreement(score.name, float(difference), limits[score.name])
        for score, difference in zip(manifest.scores, largest, strict=True)
    )
    return Verdict(info, len(golden.images), agreements)


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


def _check(array: npt.NDArray[Any], shape: tuple[int | None, ...]) -> None:
    fits = array.ndim == len(shape) and all(
        wanted in (size, -1) for size, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits or array.dtype != np.float32 or not array.size:
        raise _broken(f"are {array.dtype} {array.shape} where float32 {shape} is wanted")
    if not np.isfinite(array).all():
        raise _broken("hold NaN or infinity")


def _broken(what: str) -> BundleError:
    return BundleError("bundle-broken", f"the golden vectors {what}; export the bundle again")
