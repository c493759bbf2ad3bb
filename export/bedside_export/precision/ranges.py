"""What float16 can't hold: found by running the float32 network and looking at every tensor in it.

Range          the largest values that passed through a tensor
measure_ranges the ranges of all tensors
find_unfit     nodes that must stay float32, and why
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto

from bedside_export.precision.graph import find_constants

__all__ = ["HEADROOM", "find_unfit", "measure_ranges"]

LARGEST: Final = 65504.0
"""Greatest number of float16 (IEEE 754 binary16)."""
SMALLEST: Final = 2.0**-14
"""Least number of float16 with all its digits."""
HEADROOM: Final = 4.0
"""A tensor must stay this many times under `LARGEST`: what a later picture brings may be greater."""
_AT_ONCE: Final = 32
"""Tensors looked at in one run: all of a large network's would not fit the memory."""
_ERRORS_ONLY: Final = 3


def measure_ranges(
    model: onnx.ModelProto, inputs: Iterable[npt.NDArray[np.float32]]
) -> dict[str, tuple[float, bool]]:
    """Run the network and look at each of its floating-point tensors.

    Args:
        model: The fp32 graph.
        inputs: ``(1, C, ...)`` each.

    Returns:
        Name of a tensor -> its largest absolute value over all inputs, and whether all its values were finite.
    """
    names = _find_tensors(model)
    images = list(inputs)
    found = dict.fromkeys(names, (0.0, True))
    for start in range(0, len(names), _AT_ONCE):
        part = names[start : start + _AT_ONCE]
        session = _open(model, part)
        taken = session.get_inputs()[0].name
        for image in images:
            for name, values in zip(part, session.run(part, {taken: image}), strict=True):
                largest, finite = found[name]
                here = float(np.abs(values).max()) if values.size else 0.0
                found[name] = (
                    max(largest, here) if np.isfinite(here) else largest,
                    finite and bool(np.isfinite(here)),
                )
    return found


def find_unfit(model: onnx.ModelProto, ranges: Mapping[str, tuple[float, bool]]) -> dict[str, str]:
    """Nodes that have to stay float32: those that make or read what float16 can't hold.

    Returns:
        Name of the node -> why, in the graph's order.
    """
    constants = find_constants(model)
    unfit: dict[str, str] = {}
    for node in model.graph.node:
        for name in (*node.input, *node.output):
            if name in ranges:
                largest, finite = ranges[name]
                reason = _judge(largest, LARGEST / HEADROOM, finite=finite)
            elif name in constants:
                reason = _judge_constant(constants[name])
            else:
                continue
            if reason:
                unfit.setdefault(node.name, reason)
    return unfit


def _judge(largest: float, limit: float, *, finite: bool) -> str:
    if not finite:
        return "holds values that are not finite in float32 either"
    if largest > limit:
        return f"values up to {largest:.3g}, and float16 ends at {LARGEST:g}"
    if 0 < largest < SMALLEST:
        return f"values of at most {largest:.3g}, and float16 loses digits under {SMALLEST:.3g}"
    return ""


def _judge_constant(values: npt.NDArray[Any]) -> str:
    if values.dtype != np.float32 or not values.size:
        return ""
    largest = float(np.abs(values).max())
    return _judge(largest, LARGEST, finite=bool(np.isfinite(largest)))


def _find_tensors(model: onnx.ModelProto) -> list[str]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    kinds = {
        value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)
    }
    return [
        name
        for node in model.graph.node
        for name in node.output
        if name and kinds.get(name) == TensorProto.FLOAT
    ]


def _open(model: onnx.ModelProto, outputs: list[str]) -> onnxruntime.InferenceSession:
    """The network with other outputs, and nothing fused away."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.output[:]
    part.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(part.SerializeToString(), options, providers=["CPUExecutionProvider"])
