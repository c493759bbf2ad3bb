from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from bedside.bundle import Input
from bedside.onnxfile import read_onnx
from bedside_export.errors import ExportError
from bedside_export.precision.extremes import NAMES, extreme_inputs
from bedside_export.precision.graph import (
    check_operators,
    find_candidates,
    find_layers,
    narrow,
    parse,
    restore,
    serialise,
)
from bedside_export.precision.half import to_half
from bedside_export.precision.quantisation import Calibration, Ranges, quantise
from bedside_export.precision.ranges import find_unfit, measure_ranges
from small_graphs import images, make_graph, two_convolutions

PAIR = ("QuantizeLinear", "DequantizeLinear")


def run(model: onnx.ModelProto | bytes, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    data = model if isinstance(model, bytes) else serialise(model)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    answer: npt.NDArray[np.float32] = session.run(None, {"image": image})[0]
    return answer


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def test_half_has_float32_borders_and_float16_weights() -> None:
    model = two_convolutions()
    half = to_half(model)
    data = serialise(half)
    found = read_onnx(data)
    assert [tensor.dtype for tensor in (*found.inputs, *found.outputs)] == ["float32", "float32"]
    assert {t.data_type for t in half.graph.initializer} == {TensorProto.FLOAT16}
    assert {node.name for node in model.graph.node} <= {node.name for node in half.graph.node}
    for image in images(4):
        np.testing.assert_allclose(run(data, image), run(model, image), atol=5e-3)


def test_half_of_the_same_network_is_the_same_bytes_and_leaves_it_alone() -> None:
    model = two_convolutions()
    before = model.SerializeToString(deterministic=True)
    assert serialise(to_half(model, ["clip"])) == serialise(to_half(model, ["clip"]))
    assert model.SerializeToString(deterministic=True) == before


def test_between_neighbours_that_stay_float32_nothing_is_rounded() -> None:
    scale = np.float32(3e5)  # what comes of it does not fit float16, and fits again after the second
    nodes = [
        helper.make_node("Mul", ["image", "scale"], ["large"], "up"),
        helper.make_node("Div", ["large", "scale"], ["same"], "down"),
        helper.make_node("Neg", ["same"], ["out"], "neg"),
    ]
    model = make_graph(nodes, {"scale": scale}, ["out"])
    image = images(1)[0]
    half = to_half(model, ["up", "down"])
    np.testing.assert_allclose(run(half, image), -image, atol=1e-3)
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    by_name = {name: node for node in half.graph.node for name in node.output}
    (down,) = (node for node in half.graph.node if node.name == "down")
    assert by_name[down.input[0]].name == "up"  # straight, without a cast between
    assert len(casts) >= 2


def test_nodes_that_float16_can_not_hold_are_found_with_the_reason() -> None:
    nodes = [
        helper.make_node("Mul", ["image", "large"], ["up"], "overflows"),
        helper.make_node("Div", ["up", "large"], ["down"], "reads-it"),
        helper.make_node("Add", ["down", "epsilon"], ["sum"], "tiny-constant"),
        helper.make_node("Neg", ["sum"], ["out"], "harmless"),
    ]
    model = make_graph(nodes, {"large": np.float32(6e4), "epsilon": np.float32(1e-8)}, ["out"])
    ranges = measure_ranges(model, images(6))
    assert ranges["up"][0] == pytest.approx(6e4 * max(np.abs(image).max() for image in images(6)))
    unfit = find_unfit(model, ranges)
    assert list(unfit) == ["overflows", "reads-it", "tiny-constant"]
    assert "float16 ends at 65504" in unfit["overflows"]
    assert "loses digits" in unfit["tiny-constant"]


def test_a_tensor_that_is_not_finite_in_float32_either_is_told() -> None:
    nodes = [
        helper.make_node("Log", ["image"], ["log"], "log"),
        helper.make_node("Neg", ["log"], ["out"], "neg"),
    ]
    unfit = find_unfit(
        make_graph(nodes, {}, ["out"]), measure_ranges(make_graph(nodes, {}, ["out"]), images(2))
    )
    assert "not finite in float32" in unfit["log"]


def test_layers_are_the_nodes_with_weights() -> None:
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("MatMul", ["c", "c"], ["m"], "no-weights"),
        helper.make_node("MatMul", ["m", "v"], ["out"], "weights"),
    ]
    constants = {"w": np.ones((1, 1, 3, 3), np.float32), "v": np.ones((8, 8), np.float32)}
    model = make_graph(nodes, constants, ["out"])
    assert find_layers(model) == ("conv", "weights")
    assert find_candidates(model) == ("conv", "no-weights", "weights")


def test_quantised_graph_is_symmetric_with_weights_per_channel() -> None:
    model = two_convolutions()
    quantised = quantise(model, images())
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantised.graph.initializer}
    zeros = [constants[node.input[2]] for node in quantised.graph.node if node.op_type in PAIR]
    assert not any(zero.any() for zero in zeros)
    assert {zero.dtype for zero in zeros} == {np.dtype(np.int8), np.dtype(np.uint8)}
    assert sorted(zero.size for zero in zeros if zero.size > 1) == [3, 4]  # output channels of the two layers
    assert {node.name for node in model.graph.node} <= {node.name for node in quantised.graph.node}


def test_unsigned_activations_are_narrowed_to_the_steps_that_signed_ones_have() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "s1", "z1"], ["q1"], "unsigned"),
        helper.make_node("DequantizeLinear", ["q1", "s1", "z1"], ["d1"], "unsigned-back"),
        helper.make_node("QuantizeLinear", ["d1", "s2", "z2"], ["q2"], "signed"),
        helper.make_node("DequantizeLinear", ["q2", "s2", "z2"], ["out"], "signed-back"),
    ]
    constants = {"s1": np.float32(1 / 255), "z1": np.uint8(0), "s2": np.float32(1 / 127), "z2": np.int8(0)}
    model = make_graph(nodes, constants, ["out"])
    narrow(model)
    found = {tensor.name: float(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer}
    assert found == pytest.approx({"s1": 1 / 127, "z1": 0, "s2": 1 / 127, "z2": 0})
    image = np.abs(images(1)[0])
    np.testing.assert_allclose(run(model, image), np.round(image * 127) / 127, atol=1e-6)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array(3, np.uint8), "z1"))
    with pytest.raises(ExportError, match="node 'unsigned' is quantised around a value that is not 0"):
        narrow(model)


def test_quantised_answers_are_near() -> None:
    model = two_convolutions()
    quantised = serialise(quantise(model, images()))
    span = max(float(np.abs(run(model, image)).max()) for image in images())
    for image in images()[:8]:
        np.testing.assert_allclose(run(quantised, image), run(model, image), atol=0.05 * span)


def activation_ranges(model: onnx.ModelProto, ranges: Ranges) -> dict[str, float]:
    """Name of each activation that is rounded -> the greatest value that the narrowest of the engines can hold."""
    quantised = quantise(model, spiky_images(), calibration=Calibration(ranges))
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantised.graph.initializer}
    return {
        node.input[0]: 127 * float(constants[node.input[1]])
        for node in quantised.graph.node
        if node.op_type == "QuantizeLinear"
    }


def spiky_images() -> list[npt.NDArray[np.float32]]:
    """Ten pictures up to 1, each with one pixel of 2, and one up to 8."""
    found = [np.clip(image, -1, 1) for image in images()[:10]]
    for image in found:
        image[..., 0, 0] = 2
    found[3] = found[3].copy()
    found[3][..., 1, 1] = 8
    return found


def test_ranges_hold_all_values_or_leave_out_what_is_rare() -> None:
    model = two_convolutions()
    found = {ranges: activation_ranges(model, ranges)["image"] for ranges in Ranges}
    assert found[Ranges.ALL] == pytest.approx(8)
    assert found[Ranges.TYPICAL] == pytest.approx((9 * 2 + 8) / 10)
    most = np.mean([np.quantile(image, 0.999) for image in spiky_images()])
    assert found[Ranges.MOST] == pytest.approx(most, rel=0.01)


def test_layers_that_are_kept_are_not_quantised_and_restored_ones_are_as_before() -> None:
    model = two_convolutions()
    full = quantise(model, images())
    one = restore(full, model, ["second"])
    assert kinds(one)["QuantizeLinear"] < kinds(full)["QuantizeLinear"]
    all_back = restore(full, model, find_layers(model))
    assert kinds(all_back) == kinds(model)
    kept = quantise(model, images(), ["second"])
    assert kinds(kept)["DequantizeLinear"] == kinds(one)["DequantizeLinear"]
    for image in images()[:4]:
        np.testing.assert_array_equal(run(all_back, image), run(model, image))


def test_a_network_without_a_layer_left_is_refused() -> None:
    model = two_convolutions()
    with pytest.raises(ExportError, match="no layer left to quantise"):
        quantise(model, images(), ["first", "second"])


def test_an_operator_that_is_no_standard_is_named_with_its_node() -> None:
    model = two_convolutions()
    model.graph.node[3].op_type = "FancyRelu"
    model.graph.node[3].domain = "com.example"
    for convert in (check_operators, to_half):
        with pytest.raises(ExportError, match=r"'FancyRelu' of node 'relu'"):
            convert(model)
    with pytest.raises(ExportError, match=r"'FancyRelu' of node 'relu'"):
        quantise(model, images())


@pytest.mark.parametrize("name", ["", "first"])
def test_nodes_that_can_not_be_told_apart_are_refused(name: str) -> None:
    model = two_convolutions()
    model.graph.node[2].name = name
    with pytest.raises(ExportError, match="nodes without a name of their own"):
        parse(model.SerializeToString())


def test_what_is_written_says_nothing_of_the_machine() -> None:
    model = two_convolutions()
    model.producer_name, model.doc_string = "a tool", "/home/someone"
    model.graph.node[0].doc_string = "line 3 of network.py"
    written = serialise(model)
    for word in (b"a tool", b"someone", b"network.py"):
        assert word not in written


def test_extreme_inputs_are_what_they_are_called() -> None:
    spec = Input("slice", (None, 3, None, None), low=-1.0, high=2.0)
    made = extreme_inputs(spec, (64, 96))
    assert made.shape == (len(NAMES), 3, 64, 96)
    assert made.dtype == np.float32
    named = dict(zip(NAMES, made, strict=True))
    assert (named["all at the lower end"] == -1).all()
    assert (named["all at the upper end"] == 2).all()
    assert np.count_nonzero(named["one white pixel in black"] > -1) == 3
    assert set(np.unique(named["checkerboard of single pixels"])) == {-1.0, 2.0}
    assert made.min() == -1
    assert made.max() == 2
    np.testing.assert_array_equal(made, extreme_inputs(spec, (64, 96)))
