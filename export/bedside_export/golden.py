"""Test pictures that go into every bundle: X-rays of the phantom, never of a patient."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.bundle import Input
from bedside.chest import CASES, chest_phantom
from bedside.cxr import preprocess
from bedside.radiograph import Radiograph
from bedside.reading import read_radiograph
from bedside.sample import write_sample

__all__ = ["SOURCE", "golden_inputs", "phantom_radiographs"]

SOURCE: Final = (
    "projections of the chest phantom (bedside.chest), from healthy to severe: as taken, mirrored, shifted, turned, "
    "under- and over-exposed, cropped to a portrait and a landscape format, noisy; no patient's picture"
)
"""``golden.source`` of the manifest."""

LEVELS: Final = 256
"""Steps of grey in a test picture, a power of two, for exact numbers: few, as many as in a JPEG file, compress well."""

_Float32 = npt.NDArray[np.float32]


def golden_inputs(spec: Input) -> _Float32:
    """The test pictures as network inputs.

    Args:
        spec: The bundle's input rule.

    Returns:
        ``(N, 1, S, S)`` float32; the same for the same rule and version of bedside.
    """
    inputs = np.concatenate([preprocess(radiograph, spec) for radiograph in phantom_radiographs()])
    step = (spec.high - spec.low) / LEVELS
    return (spec.low + np.rint((inputs - spec.low) / step) * step).astype(np.float32)


def phantom_radiographs() -> list[Radiograph]:
    """Phantom X-rays of every severity, and altered ones, as display values."""
    plain = [_take(case, seed) for seed, case in enumerate(CASES)]
    _, mild, moderate, severe = (radiograph.pixels for radiograph in plain)
    rows, columns = severe.shape
    noise = np.random.Generator(np.random.PCG64(1)).normal(0, 0.05, severe.shape).astype(np.float32)
    altered = [
        severe[:, ::-1],
        np.roll(moderate, (rows // 12, -columns // 10), (0, 1)),
        mild.T,
        np.sqrt(severe),
        moderate**2,
        severe[:, columns // 8 : -columns // 8],
        mild[rows // 10 : -rows // 5],
        np.clip(moderate + noise, 0, 1),
    ]
    return plain + [replace(plain[0], pixels=np.ascontiguousarray(pixels)) for pixels in altered]


def _take(case: str, seed: int) -> Radiograph:
    """Write the phantom's X-ray as DICOM and read it as any study is read."""
    with tempfile.TemporaryDirectory() as folder:
        file = write_sample(Path(folder) / "phantom.dcm", phantom=chest_phantom(case).phantom, seed=seed)
        return read_radiograph(file)
