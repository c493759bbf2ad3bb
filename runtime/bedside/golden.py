"""A bundle's golden vectors, read and checked.

load_golden          of a severity bundle: pictures and scores
load_tissue_golden   of a CT bundle: tiles, the reference's labels, and the sums of its probabilities
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside.bundle import Bundle
from bedside.errors import BundleError

__all__ = [
    "EXPECTED",
    "LABELS",
    "MAX_GOLDEN_BYTES",
    "Golden",
    "TissueGolden",
    "load_golden",
    "load_tissue_golden",
]

MAX_GOLDEN_BYTES: Final = 1 << 28
"""Most bytes of golden outputs, unpacked: 256 MiB, far over what a few pictures take."""
LABELS: Final = "labels"
"""Name of the reference's labels in the golden outputs of a CT bundle."""
EXPECTED: Final = "expected"
"""Name of the sums of the reference's probabilities there."""

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
class TissueGolden:
    """Golden tiles, and what the reference answered on them."""

    images: npt.NDArray[np.float32]
    """``(N, C, H, W)`` or ``(N, C, D, H, W)``, N at least 1: network inputs."""
    labels: npt.NDArray[np.uint8]
    """``(N, H, W)`` or ``(N, D, H, W)``: the most probable tissues."""
    expected: npt.NDArray[np.float64]
    """``(N, K)``, finite: sums of the probabilities over a tile."""


def load_golden(bundle: Bundle) -> Golden:
    """A severity bundle's golden vectors.

    Raises:
        BundleError: ``bundle-broken`` if they are not what the manifest says, or not finite; ``bundle-unsafe``
            if they are over-large; ``bundle-altered`` if a file has changed; ``bundle-task`` for a CT bundle.
    """
    manifest = bundle.manifest
    if manifest.task != "cxr-severity":
        raise BundleError("bundle-task", f"the bundle is for {manifest.task}, which has no golden scores")
    output = next(output.name for output in manifest.outputs if output.meaning == "severity")
    images, (severity,) = _unpack(bundle, (output,))
    _check(images, np.float32, (-1, *manifest.input.shape[1:]))
    _check(severity, np.float32, (len(images), len(manifest.scores)))
    return Golden(images, severity)


def load_tissue_golden(bundle: Bundle) -> TissueGolden:
    """A CT bundle's golden vectors.

    Raises:
        BundleError: As `load_golden`; ``bundle-task`` for a severity bundle.
    """
    manifest = bundle.manifest
    if manifest.task != "ct-opacity":
        raise BundleError("bundle-task", f"the bundle is for {manifest.task}, which has no golden labels")
    images, (labels, expected) = _unpack(bundle, (LABELS, EXPECTED))
    _check(images, np.float32, (-1, *manifest.input.shape[1:]))
    _check(labels, np.uint8, (len(images), *images.shape[2:]))
    _check(expected, np.float64, (len(images), len(manifest.tissues)))
    if labels.max() >= len(manifest.tissues):
        raise _broken("hold labels that are no tissue")
    return TissueGolden(images, labels, expected)


def _unpack(bundle: Bundle, outputs: Sequence[str]) -> tuple[npt.NDArray[Any], list[npt.NDArray[Any]]]:
    """Golden inputs, and golden outputs by name."""
    names = bundle.manifest.golden
    try:
        images = np.load(io.BytesIO(bundle.read(names.inputs)), allow_pickle=False)
        packed = io.BytesIO(bundle.read(names.outputs))
        with zipfile.ZipFile(packed) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_GOLDEN_BYTES:
                raise BundleError(
                    "bundle-unsafe", f"the golden outputs unpack to over {MAX_GOLDEN_BYTES >> 20} MiB"
                )
        with np.load(packed, allow_pickle=False) as arrays:
            return images, [arrays[name] for name in outputs]
    except _UNREADABLE as error:
        if isinstance(error, BundleError):
            raise
        raise _broken("can't be read") from error


def _check(array: npt.NDArray[Any], dtype: type[np.generic], shape: tuple[int | None, ...]) -> None:
    """Refuse another shape (-1 and None take any length), another type, and what is not finite."""
    fits = array.ndim == len(shape) and all(
        wanted in (size, -1, None) for size, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits or array.dtype != dtype or not array.size:
        raise _broken(f"are {array.dtype} {array.shape} where {dtype.__name__} {shape} is wanted")
    if not np.isfinite(array).all():
        raise _broken("hold NaN or infinity")


def _broken(what: str) -> BundleError:
    return BundleError("bundle-broken", f"the golden vectors {what}; export the bundle again")
