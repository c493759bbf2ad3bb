"""Engines at precisions, tried on the inputs that no calibration and no search has seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from bedside.bundle import Bundle
from bedside.contract import RUNS
from bedside.errors import BedsideError, MissingExtraError
from bedside.verification import verify_golden
from bedside_export.precision.extremes import NAMES
from bedside_export.precision.gauge import Reference, check_finite, measure
from bedside_export.precision.report import EngineTrial
from bedside_export.precision.workbench import ENGINES, open_engine

__all__ = ["TIMED", "try_engines"]

TIMED: Final = 15
"""Runs that a time is the median of."""

Batch = npt.NDArray[np.float32]


def try_engines(
    bundle: Bundle,
    reference: Reference,
    extremes: Sequence[Batch],
    *,
    say: Callable[[str], None],
) -> list[EngineTrial]:
    """Compare each engine at each precision that the bundle has, and time it.

    Args:
        bundle: With the models to try.
        reference: What the reference engine answered to the inputs that are compared.
        extremes: Inputs ``(1, C, H, W)`` that no patient has: the answers must be finite.
        say: Told before each trial.
    """
    models = bundle.manifest.models
    trials = []
    for backend, precision in ENGINES:
        stated = precision in bundle.manifest.tolerances or RUNS[precision] in ("fp16", "int8")
        if RUNS[precision] in models and stated:
            say(f"trying {backend} {precision}")
            trials.append(_try_engine(bundle, (backend, precision), reference, extremes))
    return trials


def _try_engine(
    bundle: Bundle, which: tuple[str, str], reference: Reference, extremes: Sequence[Batch]
) -> EngineTrial:
    backend, precision = which
    trial = EngineTrial(backend, precision)
    try:
        with open_engine(bundle, backend, precision) as engine:
            trial = replace(trial, version=engine.info.version)
            verdict = verify_golden(bundle, engine)
            gaps = measure(bundle.manifest, engine, reference, bundle.manifest.tolerance(precision))
            places = check_finite(bundle.manifest, engine, extremes)
            times = []
            for _ in range(TIMED):
                start = time.perf_counter()
                engine.run({bundle.manifest.input.name: reference.material.images[0]})
                times.append(time.perf_counter() - start)
    except MissingExtraError:
        return replace(trial, unavailable=f"{backend} is not installed")
    except BedsideError as error:
        if error.code == "engine-unsupported":
            return replace(trial, unavailable=error.message)
        return replace(trial, broken=error.message)
    return replace(
        trial,
        golden=verdict,
        real=gaps,
        not_finite=tuple(NAMES[place] for place in places),
        milliseconds=1000 * float(np.median(times)),
    )
