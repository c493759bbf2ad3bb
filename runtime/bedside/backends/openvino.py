"""OpenVINO on the CPU, at exactly the precision that was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import openvino

from bedside.backends.base import Arrays, EngineInfo, Tuning, check_inputs
from bedside.bundle import Bundle
from bedside.errors import BackendError

__all__ = ["OpenVinoBackend"]

_TYPES: Final = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16, "int8": openvino.Type.f32}
"""Precision -> type of the arithmetic. Left to itself, OpenVINO takes bf16 wherever the processor has it."""


class OpenVinoBackend:
    """See `bedside.backends.base.Backend`.

    A graph of fixed shapes takes about a sixth less processor time than one of a dynamic batch (DenseNet-121, bf16).
    So the model is compiled for pictures one by one, and again for any batch when the first larger one comes.
    """

    def __init__(self, bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> None:
        if precision not in _TYPES:
            raise BackendError(
                "engine-unsupported", f"openvino has no {precision} on the CPU; ask for fp32 or bf16"
            )
        properties: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _TYPES[precision],
            "NUM_STREAMS": 1,
        }
        if threads is not None:
            properties["INFERENCE_NUM_THREADS"] = threads
        self._input = bundle.manifest.input
        self._outputs = [output.name for output in bundle.manifest.outputs]
        self._info = EngineInfo("openvino", openvino.__version__, precision, "CPU", threads)
        self._compile = partial(_compile, bundle, precision, properties)
        request = self._compile(alone=True)
        self._requests = {True: request}  # whether for a picture alone, or for any batch
        took = request.get_compiled_model().get_property("INFERENCE_PRECISION_HINT")
        if took != _TYPES[precision]:
            raise BackendError(
                "engine-unsupported", f"openvino took {took.to_string()} instead of {precision}"
            )

    @property
    def info(self) -> EngineInfo:
        """What runs here."""
        return self._info

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> Arrays:
        """Run the network once; see `bedside.backends.base.Backend.run`."""
        if not self._requests:
            raise BackendError("engine-failed", "the engine is closed; open it again")
        check_inputs(inputs, self._input)
        alone = len(inputs[self._input.name]) == 1
        if alone not in self._requests:
            self._requests[alone] = self._compile(alone=alone)
        try:
            results = self._requests[alone].infer(dict(inputs))
            return {name: np.array(results[name]) for name in self._outputs}
        except RuntimeError as error:
            raise BackendError(
                "engine-failed", f"openvino could not run the model ({_line(error)})"
            ) from error

    def close(self) -> None:
        """Free the requests and the compiled models with them."""
        self._requests = {}


def _compile(
    bundle: Bundle, precision: str, properties: dict[str, Any], *, alone: bool
) -> openvino.InferRequest:
    """The bundle's model, compiled for a batch of one, or for any batch that its file allows."""
    data = bundle.read(bundle.model(precision))
    try:
        core = openvino.Core()
        able = precision != "bf16" or "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        model = core.read_model(model=data)
        if alone:
            shape = model.inputs[0].partial_shape
            shape[0] = 1
            model.reshape(shape)
        request = core.compile_model(model, "CPU", properties).create_infer_request()
    except RuntimeError as error:
        raise BackendError("engine-failed", f"openvino can't load the model ({_line(error)})") from error
    if not able:
        raise BackendError("engine-unsupported", "this processor has no bf16 arithmetic; ask for fp32")
    return request


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
