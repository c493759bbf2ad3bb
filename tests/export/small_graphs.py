"""Small ONNX graphs whose nodes have names, for tests of precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18


def make_graph(
    nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Any], outputs: Sequence[str]
) -> onnx.ModelProto:
    """A graph with the input ``image`` (N, 1, 8, 8); outputs are of any shape."""
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def two_convolutions() -> onnx.ModelProto:
    """Conv, Clip, Conv, Relu, mean: ``image`` -> ``score`` (N, 3)."""
    random = np.random.Generator(np.random.PCG64(3))
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c1", "zero", "six"], ["a1"], "clip"),
        helper.make_node("Conv", ["a1", "w2"], ["c2"], "second", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["a2"], "relu"),
        helper.make_node("GlobalAveragePool", ["a2"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["score"], "flatten"),
    ]
    constants = {
        "w1": random.normal(0, 0.5, (4, 1, 3, 3)).astype(np.float32),
        "b1": random.normal(1, 0.5, 4).astype(np.float32),
        "w2": random.normal(0, 0.3, (3, 4, 3, 3)).astype(np.float32),
        "zero": np.float32(0),
        "six": np.float32(6),
    }
    return make_graph(nodes, constants, ["score"])


def images(count: int = 40) -> tuple[npt.NDArray[np.float32], ...]:
    """``(1, 1, 8, 8)`` each, from -1 to 1."""
    random = np.random.Generator(np.random.PCG64(5))
    return tuple(random.uniform(-1, 1, (1, 1, 8, 8)).astype(np.float32) for _ in range(count))
