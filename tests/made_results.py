"""Results made by hand, for the tests of what is done with results."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bedside.backends import EngineInfo
from bedside.cxr import Estimate, Severity, frame_of
from bedside.errors import BedsideError, InputError, RefusedError
from bedside.provenance import BundleRef
from bedside.radiograph import Finding, Header, Radiograph
from bedside.severity import SeverityResult

BUNDLE = BundleRef("tiny", "1.0.0", "0123456789abcdef" * 4)
ENGINE = EngineInfo("fake", "0", "fp32", "none", None)


def scored(
    source: str = "study.dcm",
    *,
    extent: float = 5.2,
    pixels: npt.NDArray[np.float32] | None = None,
    activation: dict[str, npt.NDArray[np.float32]] | None = None,
    crop: str = "pad-square",
    forced: bool = False,
) -> SeverityResult:
    """A result with status ``ok``; a ramp of 60 x 80 pixels with one hot cell, unless told otherwise."""
    if pixels is None:
        pixels = np.linspace(0, 1, 60 * 80, dtype=np.float32).reshape(60, 80)
    if activation is None:
        hot = np.zeros((7, 7), np.float32)
        hot[3, 4] = 6
        activation = {"extent": hot, "opacity": hot / np.float32(2)}
    return SeverityResult(
        source=source,
        bundle=BUNDLE,
        engine=ENGINE,
        severity=Severity(
            extent=estimate("extent", "geographic extent", extent, 8.0),
            opacity=estimate("opacity", "degree of opacity", 3.1, 6.0),
            pathologies={"Lung Opacity": 0.75, "Effusion": 0.125},
            activation=activation,
            lungs=None,
        ),
        quality=(Finding("view-unknown", "the header gives no view position; taken as frontal"),),
        forced=forced,
        timing_ms={"read": 3.0, "preprocess": 2.0, "inference": 9.5, "interpret": 0.1, "total": 14.75},
        radiograph=Radiograph(pixels, Header("PNG")),
        frame=frame_of(pixels.shape, 1.0, crop),
    )


def unscored(source: str, error: BedsideError) -> SeverityResult:
    """A result without a score: refused or failed, as the error is."""
    return SeverityResult(source, BUNDLE, ENGINE, error=error, timing_ms={"read": 1.0, "total": 1.0})


def refused(source: str = "ct.dcm") -> SeverityResult:
    """A result of what is no X-ray."""
    return unscored(source, RefusedError("wrong-modality", "the modality is CT; give an X-ray"))


def failed(source: str = "broken.dcm") -> SeverityResult:
    """A result of a damaged file."""
    return unscored(source, InputError("truncated-pixels", "the pixel data ends early; copy it again"))


def estimate(name: str, title: str, value: float, top: float) -> Estimate:
    """A score from 0 to ``top`` with an interval of one point to each side."""
    low, high = max(value - 1, 0), min(value + 1, top)
    return Estimate(name, title, value, low, high, (0.0, top), 0.8, "made up for tests", "brightness")
