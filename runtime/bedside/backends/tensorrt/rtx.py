"""TensorRT for RTX (``tensorrt-rtx-cu13`` of the package index): GPUs of workstations, and builds without any GPU."""

from __future__ import annotations

from typing import Final

import tensorrt_rtx

from bedside.backends.base import Tuning
from bedside.backends.tensorrt.backend import EngineBackend
from bedside.backends.tensorrt.library import Library
from bedside.bundle import Bundle

__all__ = ["LIBRARY", "TensorRtRtxBackend"]

LIBRARY: Final = Library("tensorrt-rtx", "rtx", tensorrt_rtx, rtx=True)
"""The package."""


class TensorRtRtxBackend(EngineBackend):
    """See `bedside.backends.tensorrt.backend.EngineBackend`."""

    def __init__(self, bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> None:
        super().__init__(LIBRARY, bundle, precision=precision, threads=threads, tuning=tuning)
