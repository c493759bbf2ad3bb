"""The runtime's look into an ONNX file agrees with the onnx package, which the runtime does without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from bedside.errors import BundleError
from bedside.onnxfile import TensorInfo, read_onnx

FLOAT = TensorProto.FLOAT
INLINE = numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")


def external(name: str = "w", *, location_only: bool = False) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=FLOAT, dims=[4])
    tensor.external_data.add(key="location", value="/etc/passwd")
    if not location_only:
        tensor.data_location = TensorProto.EXTERNAL
    return tensor


def graph(*nodes: onnx.NodeProto, **extra: Any) -> onnx.GraphProto:
    return helper.make_graph(
        [*nodes, helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", FLOAT, ["N", 4])],
        **extra,
    )


def constant(tensor: onnx.TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=tensor)


def branch(tensor: onnx.TensorProto) -> onnx.GraphProto:
    return helper.make_graph([], "b", [], [helper.make_tensor_value_info("w", FLOAT, [4])], [tensor])


def loop(tensor: onnx.TensorProto) -> onnx.NodeProto:
    inner = helper.make_node("If", ["c"], ["z"], then_branch=branch(tensor), else_branch=branch(INLINE))
    body = helper.make_graph([inner], "l", [], [helper.make_tensor_value_info("z", FLOAT, [4])])
    return helper.make_node("Loop", ["", "c"], ["z"], body=body)


def sparse(tensor: onnx.TensorProto, *, indices: bool = False) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(
        values=INLINE if indices else tensor, indices=tensor if indices else INLINE, dims=[4]
    )


def function(*nodes: onnx.NodeProto, attribute: onnx.AttributeProto | None = None) -> onnx.FunctionProto:
    made = helper.make_function("own", "F", ["x"], ["y"], list(nodes), [helper.make_opsetid("", 18)])
    if attribute is not None:
        made.attribute_proto.append(attribute)
    return made


def training(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = helper.make_model(graph())
    model.training_info.add().initialization.CopyFrom(branch(tensor))
    return model


PLACES: dict[str, Callable[[onnx.TensorProto], onnx.ModelProto]] = {
    "initializer": lambda t: helper.make_model(graph(initializer=[t])),
    "sparse initializer": lambda t: helper.make_model(graph(sparse_initializer=[sparse(t)])),
    "sparse indices": lambda t: helper.make_model(graph(sparse_initializer=[sparse(t, indices=True)])),
    "attribute": lambda t: helper.make_model(graph(constant(t))),
    "list attribute": lambda t: helper.make_model(graph(helper.make_node("Own", [], [], tensors=[t]))),
    "sparse attribute": lambda t: helper.make_model(
        graph(helper.make_node("Constant", [], ["c"], sparse_value=sparse(t)))
    ),
    "branch of a loop": lambda t: helper.make_model(graph(loop(t))),
    "list of graphs": lambda t: helper.make_model(graph(helper.make_node("Own", [], [], graphs=[branch(t)]))),
    "function": lambda t: helper.make_model(graph(), functions=[function(constant(t))]),
    "function's default": lambda t: helper.make_model(
        graph(), functions=[function(attribute=helper.make_attribute("value", t))]
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_refused_and_inline_data_is_not(place: str) -> None:
    read_onnx(PLACES[place](INLINE).SerializeToString())
    for location_only in (False, True):
        with pytest.raises(BundleError) as caught:
            read_onnx(PLACES[place](external(location_only=location_only)).SerializeToString())
        assert caught.value.code == "bundle-unsafe"


def test_training_graphs_are_refused() -> None:
    for tensor in (INLINE, external()):
        with pytest.raises(BundleError) as caught:
            read_onnx(training(tensor).SerializeToString())
        assert caught.value.code == "bundle-unsafe"


def operators(graph: onnx.GraphProto) -> Counter[str]:
    """Operators of a graph and of those in its attributes, by the onnx package."""
    counted = Counter(node.op_type for node in graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                counted += operators(inner)
    return counted


def dims(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    shape = value.type.tensor_type.shape
    return tuple(d.dim_value if d.HasField("dim_value") else None for d in shape.dim)


def agrees(model: onnx.ModelProto) -> None:
    learnt = read_onnx(model.SerializeToString())
    held = {tensor.name for tensor in model.graph.initializer}
    assert learnt.ir_version == model.ir_version
    assert dict(learnt.opsets) == {entry.domain: entry.version for entry in model.opset_import}
    free = [value for value in model.graph.input if value.name not in held]
    assert [(t.name, t.shape) for t in learnt.inputs] == [(v.name, dims(v)) for v in free]
    assert [(t.name, t.shape) for t in learnt.outputs] == [(v.name, dims(v)) for v in model.graph.output]
    expected = operators(model.graph)
    for made in model.functions:
        expected += operators(onnx.GraphProto(node=made.node))
    assert dict(learnt.operators) == dict(expected)


@pytest.mark.parametrize("place", PLACES)
def test_interface_and_operators_agree(place: str) -> None:
    agrees(PLACES[place](INLINE))


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
shapes = st.lists(st.integers(0, 2**40) | names.filter(bool), max_size=5)


@given(
    st.lists(st.tuples(names, shapes), max_size=3),
    st.lists(st.tuples(names, shapes), min_size=1, max_size=3),
    st.lists(names, max_size=5),
    st.dictionaries(names, st.integers(1, 2**31), max_size=3),
)
def test_any_graph_agrees(
    inputs: list[tuple[str, list[int | str]]],
    outputs: list[tuple[str, list[int | str]]],
    nodes: list[str],
    opsets: dict[str, int],
) -> None:
    made = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"]) for operator in nodes],
        "g",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs],
    )
    agrees(helper.make_model(made, opset_imports=[helper.make_opsetid(*opset) for opset in opsets.items()]))


@pytest.mark.parametrize(
    "dtype", ["float32", "uint8", "int8", "int32", "int64", "bool", "float16", "float64"]
)
def test_element_types_agree(dtype: str) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    made = helper.make_graph([], "g", [], [helper.make_tensor_value_info("y", kind, [2, "N"])])
    assert read_onnx(helper.make_model(made).SerializeToString()).outputs == (
        TensorInfo("y", dtype, (2, None)),
    )


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_no_damage_hides_external_data_from_the_look(damage: list[tuple[int, int]]) -> None:
    """What the onnx package parses and finds outside the file, the look refuses."""
    data = bytearray(PLACES["branch of a loop"](external()).SerializeToString())
    for position, byte in damage:
        data[position % len(data)] = byte
    try:
        parsed = onnx.ModelProto.FromString(bytes(data))
    except Exception:  # noqa: BLE001 -- DecodeError, by whichever implementation of protobuf
        return
    if outside(parsed.graph):
        with pytest.raises(BundleError):
            read_onnx(bytes(data))


def outside(graph: onnx.GraphProto) -> bool:
    """Whether a tensor of a graph, or of one in its attributes, lies outside the file."""
    tensors = list(graph.initializer)
    inner: list[onnx.GraphProto] = []
    for node in graph.node:
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
            inner += [attribute.g, *attribute.graphs]
    return any(t.external_data or t.data_location for t in tensors) or any(map(outside, inner))
