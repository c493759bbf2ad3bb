"""The bounded look into an ONNX file: what it learns, what it refuses, and that nothing makes it run away."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bedside import onnxfile
from bedside.errors import BundleError
from bedside.onnxfile import MAX_DEPTH, MAX_FIELDS, NodeInfo, OnnxFile, TensorInfo, read_onnx
from tiny_bundle import Network

GRAPH, NODE, ATTRIBUTE, INITIALIZER, INPUT, OUTPUT, SPARSE_INITIALIZER = 7, 1, 5, 5, 11, 12, 15
"""Field numbers of onnx.proto."""


def varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return varint(field << 3 | 2) + varint(len(body)) + body


def value_info(field: int, name: bytes, kind: int = 1, dims: tuple[int | bytes, ...] = (1, 2)) -> bytes:
    shape = b"".join(message(1, number(1, d) if isinstance(d, int) else message(2, d)) for d in dims)
    return message(field, message(1, name), message(2, message(1, number(1, kind), message(2, shape))))


def model(*graph: bytes, tail: bytes = b"") -> bytes:
    body = (value_info(INPUT, b"x"), *graph, value_info(OUTPUT, b"y"))
    return number(1, 9) + message(8, number(2, 18)) + message(GRAPH, *body) + tail


def nested(depth: int, inside: bytes, field: int = 6) -> bytes:
    """``inside`` a graph, ``depth`` attributes deep."""
    for _ in range(depth):
        inside = message(NODE, message(ATTRIBUTE, message(field, inside)))
    return inside


def refusal(data: bytes) -> BundleError:
    with pytest.raises(BundleError) as caught:
        read_onnx(data)
    return caught.value


def test_interface_is_read() -> None:
    learnt = read_onnx(Network(lungs=True).encode())
    assert learnt.ir_version == 8
    assert dict(learnt.opsets) == {"": 18}
    assert learnt.inputs == (TensorInfo("image", "float32", (None, 1, 32, 32)),)
    assert learnt.outputs == (
        TensorInfo("severity", "float32", (None, 2)),
        TensorInfo("cam", "float32", (None, 2, 4, 4)),
        TensorInfo("pathologies", "float32", (None, 3)),
        TensorInfo("lungs", "float32", (None, 1, 4, 4)),
    )
    assert learnt.operators["Sigmoid"] == 2


def test_any_buffer_is_read() -> None:
    data = Network().encode()
    assert read_onnx(memoryview(data)) == read_onnx(data) == read_onnx(memoryview(bytearray(data)))


def test_operators_of_inner_graphs_and_functions_are_counted() -> None:
    node = message(NODE, message(4, b"Relu"))
    learnt = read_onnx(model(node, nested(2, node), tail=message(25, message(7, message(4, b"Relu")))))
    assert dict(learnt.operators) == {"Relu": 3}


def test_nodes_are_known_by_name_or_by_what_they_give() -> None:
    nodes = read_onnx(Network().encode()).nodes
    assert nodes["features"] == NodeInfo("AveragePool", ("features",))
    assert nodes["severity"].operator == "Flatten"


def test_dynamic_dimensions_have_their_names() -> None:
    (source,) = read_onnx(Network().encode()).inputs
    assert (source.shape[0], source.symbols) == (None, ("N", "", "", ""))


def test_inputs_that_are_initializers_are_left_out() -> None:
    learnt = read_onnx(model(value_info(INPUT, b"w"), message(INITIALIZER, message(8, b"w"))))
    assert [tensor.name for tensor in learnt.inputs] == ["x"]


@pytest.mark.parametrize(("kind", "name"), [(1, "float32"), (7, "int64"), (10, "float16"), (16, "type 16")])
def test_element_types_have_numpy_names(kind: int, name: str) -> None:
    assert read_onnx(model(value_info(INPUT, b"z", kind))).inputs[1].dtype == name


def test_unknown_fields_are_passed_over() -> None:
    odd = (
        number(900, 5)
        + message(901, b"what")
        + varint(902 << 3 | 5)
        + b"four"
        + varint(903 << 3 | 1)
        + b"eight..."
    )
    assert read_onnx(model(odd, tail=odd)) == read_onnx(model())


# Data outside the file

OUTSIDE: dict[str, bytes] = {
    "external_data": message(13, message(1, b"location"), message(2, b"/etc/passwd")),
    "data_location": number(14, 1),
    "data_location of another kind": number(14, 2),
    "data_location over 32 bits": number(14, (1 << 32) + 1),
    "external_data as a number": number(13, 1),
}
PLACES: dict[str, Callable[[bytes], bytes]] = {
    "an initializer": lambda tensor: model(message(INITIALIZER, tensor)),
    "a sparse initializer's values": lambda tensor: model(message(SPARSE_INITIALIZER, message(1, tensor))),
    "a sparse initializer's indices": lambda tensor: model(message(SPARSE_INITIALIZER, message(2, tensor))),
    "an attribute": lambda tensor: model(message(NODE, message(ATTRIBUTE, message(5, tensor)))),
    "a list attribute": lambda tensor: model(message(NODE, message(ATTRIBUTE, message(10, tensor)))),
    "a sparse attribute": lambda tensor: model(
        message(NODE, message(ATTRIBUTE, message(22, message(1, tensor))))
    ),
    "a sparse list attribute": lambda tensor: model(
        message(NODE, message(ATTRIBUTE, message(23, message(2, tensor))))
    ),
    "a branch": lambda tensor: model(nested(1, message(INITIALIZER, tensor))),
    "one of many graphs": lambda tensor: model(nested(1, message(INITIALIZER, tensor), field=11)),
    "the deepest loop": lambda tensor: model(nested(MAX_DEPTH, message(INITIALIZER, tensor))),
    "a function": lambda tensor: model(tail=message(25, message(7, message(ATTRIBUTE, message(5, tensor))))),
    "a function's default": lambda tensor: model(tail=message(25, message(11, message(5, tensor)))),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("outside", OUTSIDE)
def test_external_data_is_refused_wherever_it_is(place: str, outside: str) -> None:
    harmless = message(8, b"w") + message(9, bytes(8)) + number(14, 0)
    read_onnx(PLACES[place](harmless))
    error = refusal(PLACES[place](harmless + OUTSIDE[outside] + harmless))
    assert error.code == "bundle-unsafe"
    assert "external data" in error.message


@pytest.mark.parametrize("bits", [29, 30, 32, 35, 60])
def test_field_number_that_another_parser_would_cut_short_is_refused(bits: int) -> None:
    """Parsers that keep 32 bits of a key would read the fields below as external data."""
    hidden = varint((13 | 1 << bits) << 3 | 2) + varint(4) + b"path"
    assert refusal(model(message(INITIALIZER, hidden))).code == "bundle-broken"


def test_training_graphs_are_refused() -> None:
    assert refusal(model(tail=message(20, b""))).code == "bundle-unsafe"


# What is no model


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no model",
        number(1, 9),
        message(GRAPH),
        message(GRAPH, value_info(INPUT, b"x")),
        model() + message(GRAPH, value_info(OUTPUT, b"y")),
        model(tail=b"\x0b"),  # a group, which ONNX never uses
        model(tail=b"\x0c"),
        model(tail=b"\x0e"),
        model(tail=b"\x00\x00"),  # field 0
        model(tail=b"\x08"),
        model(tail=b"\x08" + b"\xff" * 12),
        model(tail=b"\x42\x05abcd"),
        model(tail=b"\x42" + b"\xff" * 9 + b"\x01"),
        model(tail=b"\x42\xff\xff\xff\xff\x07"),
        model(message(NODE, message(4, b"\xff\xfe"))),
        b"\x1f\x8b\x08" + bytes(40),
        b"PK\x03\x04" + bytes(40),
        b"<?xml version='1.0'?><net/>",
    ],
    ids=lambda data: repr(data[-12:]),
)
def test_what_is_no_model_is_broken(data: bytes) -> None:
    assert refusal(data).code == "bundle-broken"


def test_every_truncation_is_refused_or_whole() -> None:
    data = Network().encode()
    whole = read_onnx(data)
    ends = [end for end in range(len(data)) if not isinstance(_try(data[:end]), BundleError)]
    assert len(ends) <= 1  # between the graph and the operator set
    assert all(read_onnx(data[:end]).outputs == whole.outputs for end in ends)


def test_nesting_is_bounded() -> None:
    read_onnx(model(nested(MAX_DEPTH, b"")))
    assert refusal(model(nested(MAX_DEPTH + 1, b""))).code == "bundle-broken"
    assert refusal(model(nested(5000, b""))).code == "bundle-broken"


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "numbers": lambda count: number(1, 1) * count,
    "long numbers": lambda count: (b"\x08" + b"\xff" * 9 + b"\x01") * count,
    "nodes": lambda count: message(GRAPH, message(NODE, message(4, b"op")) * count),
    "attributes": lambda count: message(GRAPH, message(NODE, message(ATTRIBUTE) * count)),
    "inputs": lambda count: message(GRAPH, message(INPUT) * count),
    "elements": lambda count: message(GRAPH, message(INITIALIZER, number(7, 1) * count)),
    "dimensions": lambda count: message(
        GRAPH, message(OUTPUT, message(2, message(1, message(2, message(1) * count))))
    ),
    "operator sets": lambda count: message(8) * count,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_number_of_fields_is_bounded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxfile, "MAX_FIELDS", 2_000)
    start = time.perf_counter()
    assert refusal(HOSTILE[kind](1_000_000)).code == "bundle-broken"
    assert time.perf_counter() - start < 2  # all of it would take many seconds


def test_a_large_network_is_within_the_bound() -> None:
    assert MAX_FIELDS > 10 * 12_000  # DenseNet-121 has about 12,000


def test_large_data_is_stepped_over() -> None:
    data = model(message(INITIALIZER, message(8, b"w"), message(9, bytes(100_000_000))))
    start = time.perf_counter()
    read_onnx(data)
    assert time.perf_counter() - start < 0.5


def _try(data: bytes) -> OnnxFile | BundleError:
    try:
        return read_onnx(data)
    except BundleError as error:
        return error


@given(st.binary(max_size=200))
@example(b"\x3a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01")
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    assert isinstance(_try(data), (OnnxFile, BundleError))


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=150)
def test_any_damage_is_read_or_refused(damage: list[tuple[int, int]]) -> None:
    data = bytearray(Network(lungs=True).encode())
    for position, byte in damage:
        data[position % len(data)] = byte
    assert isinstance(_try(bytes(data)), (OnnxFile, BundleError))


@given(
    st.recursive(st.binary(max_size=8), lambda inner: st.lists(inner, max_size=4), max_leaves=20), st.data()
)
def test_any_message_is_read_or_refused(tree: bytes | list[object], data: st.DataObject) -> None:
    def encode(node: object) -> bytes:
        if isinstance(node, bytes):
            return node
        assert isinstance(node, list)
        fields = st.sampled_from([1, 2, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 20, 22, 23, 25])
        return b"".join(message(data.draw(fields), encode(child)) for child in node)

    assert isinstance(_try(encode(tree)), (OnnxFile, BundleError))
