"""What is changed in an ONNX graph, and what is checked of it.

parse, serialise   bytes and graphs; what is written says nothing of the machine it was made on
check_operators    refuse what is no standard operator, by its node
find_candidates    nodes that may have a precision of their own
find_layers        those that hold weights
restore            give nodes of a quantised graph their float32 back
narrow             8-bit activations that every engine reads alike
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from bedside.onnxfile import read_onnx
from bedside_export.errors import ExportError
from bedside_export.onnx import anonymise

__all__ = [
    "PASSED_THROUGH",
    "STANDARD",
    "check_operators",
    "find_candidates",
    "find_constants",
    "find_layers",
    "narrow",
    "parse",
    "restore",
    "serialise",
]

STANDARD: Final = ("", "ai.onnx")
"""Domains of the standard operators."""
PASSED_THROUGH: Final = frozenset(
    {
        "Clip",
        "Concat",
        "Flatten",
        "Identity",
        "MaxPool",
        "Relu",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
    }
    | {"BatchNormalization", "Unsqueeze"}
)
"""Operators that 8-bit numbers may pass through, as they only choose or move values, or scale channels: a DenseNet has
its normalisation in front of the layer, and where that broke the chain of 8-bit numbers it took a quarter more time
and was off by 0.45 points instead of 0.32 (random weights, OpenVINO). All others but layers with weights stay float32:
sums, products and means in 8 bits cost most of the answer and save little time."""
_LAYERS: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that may hold weights: where nearly all of the arithmetic is."""
_QUANTISERS: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})
_UNSIGNED_STEPS: Final = 255
_SIGNED_STEPS: Final = 127


def parse(data: bytes) -> onnx.ModelProto:
    """A model file as a graph, each node under a name of its own.

    Raises:
        ExportError: Nodes have no names, or two share one: no node could be told apart.
    """
    model = onnx.load_from_string(data)
    names = [node.name for node in model.graph.node]
    if not all(names) or len(set(names)) != len(names):
        raise ExportError(
            "the bundle's network has nodes without a name of their own, so none can be kept in float32; "
            "export the bundle again with this version"
        )
    return model


def serialise(model: onnx.ModelProto) -> bytes:
    """A graph as a model file: all data inside, no doc strings, metadata, paths or intermediate shapes.

    Raises:
        ExportError: The graph contradicts itself.
        BundleError: The runtime would not read the file.
    """
    clean = onnx.ModelProto()
    clean.CopyFrom(model)
    _drop_unused(clean.graph)
    anonymise(clean)
    clean.ClearField("producer_name")
    clean.ClearField("producer_version")
    try:
        onnx.checker.check_model(clean, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ExportError(f"the converted network is no proper graph ({reason}); please report it") from error
    data: bytes = clean.SerializeToString(deterministic=True)
    read_onnx(data)
    return data


def check_operators(model: onnx.ModelProto) -> None:
    """Refuse operators that are not of the ONNX standard: no engine but the one that they were made for has them.

    Raises:
        ExportError: There is one; the message names it and its node.
    """
    version = next((opset.version for opset in model.opset_import if opset.domain in STANDARD), 1)
    own = {function.name for function in model.functions}
    for node in _all_nodes(model.graph):
        known = node.domain in STANDARD and onnx.defs.has(node.op_type, max_inclusive_version=version)
        if not known and node.op_type not in own:
            raise ExportError(
                f"the operator {node.op_type[:60]!r} of node {node.name[:80]!r} is not in the ONNX standard, version "
                f"{version}, so its precision can't be changed; export the network without it"
            )


def find_layers(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the nodes that hold weights, in the graph's order."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return tuple(
        node.name
        for node in model.graph.node
        if node.op_type in _LAYERS and weights.intersection(node.input[1:2])
    )


def find_candidates(model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the nodes that give floating-point numbers, in the graph's order."""
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    types |= {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    return tuple(
        node.name
        for node in model.graph.node
        if any(types.get(name, TensorProto.FLOAT) == TensorProto.FLOAT for name in node.output)
    )


def find_constants(model: onnx.ModelProto) -> dict[str, Any]:
    """Name of each constant tensor of the outermost graph -> its array."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            found.update(
                (node.output[0], numpy_helper.to_array(attribute.t))
                for attribute in node.attribute
                if attribute.name == "value"
            )
    return found


def restore(quantised: onnx.ModelProto, original: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """The quantised graph with some layers as they were: float32 weights, and inputs that are not rounded.

    What only hands 8-bit numbers on to these, as a Concat in front of them does, is as it was too.

    Args:
        quantised: The same graph with pairs of QuantizeLinear and DequantizeLinear put in; its nodes keep their
            names and the names of their outputs.
        original: The graph before.
        names: The layers.
    """
    names = frozenset(names) | _feeders(original, frozenset(find_layers(original)) - frozenset(names))
    model = onnx.ModelProto()
    model.CopyFrom(quantised)
    before = {node.name: node for node in original.graph.node if node.name in names}
    weights = {tensor.name: tensor for tensor in original.graph.initializer}
    there = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.name not in before:
            continue
        del node.input[:]
        for name in before[node.name].input:
            own = f"{name}_float32" if name in weights else name
            node.input.append(own)
            if name in weights and own not in there:
                tensor = model.graph.initializer.add()
                tensor.CopyFrom(weights[name])
                tensor.name = own
                there[own] = tensor
    _drop_unused(model.graph)
    return model


def narrow(model: onnx.ModelProto) -> None:
    """Let unsigned 8-bit activations use the steps 0 to 127 only, in place.

    TensorRT has signed 8-bit numbers alone, and takes a graph's unsigned ones (of zero point 0) for such: it
    saturates at 127. ONNX Runtime multiplies unsigned by signed numbers two to three times faster than signed by
    signed. On processors without VNNI sums of two products of full range saturate at 16 bits. A scale that puts the
    calibrated range's end at 127 gives all three the same numbers up to there, at the price of one bit where a value
    is never negative; beyond it TensorRT saturates, and the others go on to twice that.

    Raises:
        ExportError: A zero point is not 0: TensorRT can't read that.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    done = set()
    for node in model.graph.node:
        if node.op_type not in _QUANTISERS or len(node.input) < 3:
            continue
        scale, zero = constants[node.input[1]], constants[node.input[2]]
        if numpy_helper.to_array(zero).any():
            raise ExportError(
                f"node {node.name[:80]!r} is quantised around a value that is not 0; please report it"
            )
        if zero.data_type == TensorProto.UINT8 and scale.name not in done:
            wider = numpy_helper.to_array(scale) * np.float32(_UNSIGNED_STEPS / _SIGNED_STEPS)
            scale.CopyFrom(numpy_helper.from_array(wider.astype(np.float32), scale.name))
            done.add(scale.name)


def _feeders(model: onnx.ModelProto, layers: Collection[str]) -> set[str]:
    """Names of the nodes whose numbers reach none of the layers, but through others that compute."""
    reading: set[str] = set()
    idle: set[str] = set()
    for node in reversed(model.graph.node):
        if node.name in layers or (node.op_type in PASSED_THROUGH and reading.intersection(node.output)):
            reading.update(node.input)
        else:
            idle.add(node.name)
    return idle


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _all_nodes(inner)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Take out nodes and constants that no output depends on."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.isdisjoint(node.output):
            continue
        kept.append(node)
        needed.update(node.input)
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                needed.update(name for each in _all_nodes(inner) for name in each.input)
                needed.update(value.name for value in inner.output)
    kept.reverse()
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:]
    graph.node.extend(kept)
    del graph.initializer[:]
    graph.initializer.extend(constants)
