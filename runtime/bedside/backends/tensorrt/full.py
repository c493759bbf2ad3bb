"""TensorRT, 10.3 or newer: of JetPack from 6.1, and for GPUs of data centres."""

from __future__ import annotations

from typing import Final

import tensorrt

from bedside.backends.base import Tuning
from bedside.backends.tensorrt.backend import EngineBackend
from bedside.backends.tensorrt.library import Library
from bedside.bundle import Bundle

__all__ = ["LIBRARY", "TensorRtBackend"]

LIBRARY: Final = Library("tensorrt", "tensorrt", tensorrt, rtx=False)
"""The package."""


class TensorRtBackend(EngineBackend):
    """See `bedside.backends.tensorrt.backend.EngineBackend`."""

    def __init__(self, bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> None:
        super().__init__(LIBRARY, bundle, precision=precision, threads=threads, tuning=tuning)
