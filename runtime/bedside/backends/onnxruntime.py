"""ONNX Runtime on the CPU: the reference engine at fp32."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from bedside.backends.base import Arrays, EngineInfo, Tuning, check_inputs
from bedside.backends.explanation import explain, shorten
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
_PRECISIONS: Final = ("fp32", "fp16", "int8")
"""What it runs: files as they are. Of fp16 most operators run in float32 between conversions, slower than fp32."""
_WARNINGS_OFF: Final = 3
"""Severity from which ONNX Runtime logs: errors."""


class OnnxRuntimeBackend:
    """See `bedside.backends.base.Backend`."""

    def __init__(self, bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> None:
        if precision not in _PRECISIONS:
            raise BackendError(
                "engine-unsupported",
                f"onnxruntime has no {precision} on the CPU: it has {', '.join(_PRECISIONS)}; ask for one of them, or "
                "for the backend openvino",
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _WARNINGS_OFF
        _share_cores(options, threads, pinned=tuning.pinned)
        options.inter_op_num_threads = 1
        # threads that spin between operators save 4 % of the time on a quiet machine with 2 cores, cost 10 to 15 % more
        # processor time, and on a busy one take half of it from those that work, as from the reading of a scan
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # it would else take a file that reads both as ONNX and as its own format, which nobody checked, as the latter
        options.add_session_config_entry("session.load_model_format", "ONNX")
        data = bundle.read(bundle.model(precision))
        try:
            session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except _ERRORS as error:
            raise BackendError(
                "engine-failed",
                f"onnxruntime can't load the model ({explain(error, bundle.onnx(precision))})",
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
                "engine-failed", f"onnxruntime could not run the model ({shorten(error)})"
            ) from error

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _share_cores(options: onnxruntime.SessionOptions, threads: int | None, *, pinned: bool | None) -> None:
    """Say how many threads it runs on, and tie each to a core of this process, or none.

    Left alone, ONNX Runtime ties them where it chooses their number, one a core, and not where it is told. Then two
    that wake from idle may share a core while another has nothing to do, and be as slow as one. So as many as there are
    cores are tied as well, unless it is said otherwise; fewer are not, as those of another process would be to the same
    cores.
    """
    options.intra_op_num_threads = threads or 0
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if pinned is None and (threads is None or threads != len(cores)):
        return
    count = threads or len(cores) or os.cpu_count() or 1
    options.intra_op_num_threads = count
    if pinned is not False and 1 < count <= len(cores):
        # the caller is the first thread, and stays free
        others = ";".join(str(core + 1) for core in cores[1:count])
        options.add_session_config_entry("session.intra_op_thread_affinities", others)
