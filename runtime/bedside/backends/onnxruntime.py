"""ONNX Runtime on the CPU: the reference engine at fp32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from bedside.backends.base import Arrays, EngineInfo, Tuning, check_inputs
from bedside.bundle import Bundle
from bedside.errors import BackendError

__all__ = ["OnnxRuntimeBackend"]

_ERRORS: Final[tuple[type[Exception], ...]] = (
    *(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    TypeError,
    ValueError,
)
"""What ONNX Runtime raises: its own exceptions have no common base but Exception."""
_WARNINGS_OFF: Final = 3
"""Severity from which ONNX Runtime logs: errors."""


class OnnxRuntimeBackend:
    """See `bedside.backends.base.Backend`."""

    def __init__(self, bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> None:
        if precision == "bf16":
            raise BackendError(
                "engine-unsupported",
                "onnxruntime has no bf16 on the CPU; ask for fp32, or for the backend openvino",
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _WARNINGS_OFF
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        # it would else take a file that reads both as ONNX and as its own format, which nobody checked, as the latter
        options.add_session_config_entry("session.load_model_format", "ONNX")
        data = bundle.read(bundle.model(precision))
        try:
            session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except _ERRORS as error:
            raise BackendError(
                "engine-failed", f"onnxruntime can't load the model ({_line(error)})"
            ) from error
        session._model_bytes = None  # noqa: SLF001 - the file, kept for a fallback that is never asked for
        self._session: onnxruntime.InferenceSession | None = session
        self._input = bundle.manifest.input
        self._outputs = [output.name for output in bundle.manifest.outputs]
        self._info = EngineInfo("onnxruntime", onnxruntime.__version__, precision, "CPU", threads)

    @property
    def info(self) -> EngineInfo:
        """What runs here."""
        return self._info

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> Arrays:
        """Run the network once; see `bedside.backends.base.Backend.run`."""
        if self._session is None:
            raise BackendError("engine-failed", "the engine is closed; open it again")
        check_inputs(inputs, self._input)
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))
        except _ERRORS as error:
            raise BackendError(
                "engine-failed", f"onnxruntime could not run the model ({_line(error)})"
            ) from error

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
