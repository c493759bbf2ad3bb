"""The roofline counts a graph's operations and bytes right, and finds an engine's layers in it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Conv 3x3, Relu, depthwise Conv of stride 2, pool, Conv 1x1 joined by Add, mean, Gemm."""
    kernels = {
        "net.stem.0.weight": (4, 3, 3, 3),
        "net.body.1.deep.weight": (4, 1, 3, 3),
        "net.body.2.flat.weight": (4, 4, 1, 1),
        "net.last.weight": (5, 4),
    }
    nodes = [
        helper.make_node("Conv", ["x", "net.stem.0.weight"], ["a"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], "bend"),
        helper.make_node(
            "Conv", ["b", "net.body.1.deep.weight"], ["c"], "deep", pads=[1] * 4, strides=[2, 2], group=4
        ),
        helper.make_node("AveragePool", ["b"], ["d"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["d", "net.body.2.flat.weight"], ["e"], "flat"),
        helper.make_node("Add", ["c", "e"], ["f"], "join"),
        helper.make_node("GlobalAveragePool", ["f"], ["g"], "mean"),
        helper.make_node("Flatten", ["g"], ["h"], "flatten"),
        helper.make_node("Gemm", ["h", "net.last.weight"], ["y"], "last", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3, None, None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 5])],
        [
            helper.make_tensor(name, TensorProto.FLOAT, shape, np.ones(shape, np.float32).ravel())
            for name, shape in kernels.items()
        ],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


FULL, HALF = 8 * 10, 4 * 5
"""Pixels of the small network's levels."""


def test_operations_of_each_node_are_those_counted_by_hand(load: Load, small: Path) -> None:
    graph = load("costs").read_costs(small, (1, 3, 8, 10))
    assert {node.name: node.operations for node in graph.nodes} == {
        "first": 2 * FULL * 4 * 3 * 9,
        "bend": FULL * 4,
        "deep": 2 * HALF * 4 * 9,
        "pool": HALF * 4 * 4,
        "flat": 2 * HALF * 4 * 4,
        "join": HALF * 4,
        "mean": HALF * 4,
        "flatten": 0,
        "last": 2 * 5 * 4,
    }
    assert {node.name: node.kind for node in graph.nodes} == {
        "first": "conv",
        "bend": "elementwise",
        "deep": "depthwise conv",
        "pool": "reduction",
        "flat": "conv",
        "join": "elementwise",
        "mean": "reduction",
        "flatten": "free",
        "last": "matmul",
    }


def test_products_add_up_to_what_pytorch_counts(load: Load, small: Path) -> None:
    class Same(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3, padding=1, bias=False)
            self.deep = nn.Conv2d(4, 4, 3, padding=1, stride=2, groups=4, bias=False)
            self.flat = nn.Conv2d(4, 4, 1, bias=False)
            self.last = nn.Linear(4, 5, bias=False)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            bent = self.first(image).relu()
            joined = self.deep(bent) + self.flat(nn.functional.avg_pool2d(bent, 2))
            answer: torch.Tensor = self.last(joined.mean((2, 3)))
            return answer

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        Same()(torch.zeros(1, 3, 8, 10))
    costs = load("costs")
    graph = costs.read_costs(small, (1, 3, 8, 10))
    counted = sum(node.operations for node in graph.nodes if node.kind in costs.HEAVY)
    assert counted == counter.get_total_flops()


def test_count_is_that_of_the_ct_comparison(load: Load, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS / "sides"))
    costs = load("costs")
    graph = costs.read_costs(small, (1, 3, 8, 10))
    counted = sum(node.operations for node in graph.nodes if node.kind in costs.HEAVY)
    assert counted == load("ct_network").count_flop(small, (1, 3, 8, 10))


def test_nodes_belong_to_parts_by_their_weights_names(load: Load, small: Path) -> None:
    graph = load("costs").read_costs(small, (1, 3, 8, 10))
    assert [(node.name, node.group) for node in graph.nodes] == [
        ("first", "net.stem.0"),
        ("bend", "after net.stem.0"),
        ("deep", "net.body.1"),
        ("pool", "after net.stem.0"),
        ("flat", "net.body.2"),
        ("join", "after net.body.2"),
        ("mean", "after net.body.2"),
        ("flatten", "after net.body.2"),
        ("last", "net.last"),
    ]


def test_bytes_are_of_what_crosses_the_edge_of_a_fused_layer(load: Load, small: Path) -> None:
    graph = load("costs").read_costs(small, (1, 3, 8, 10))
    kernel = 4 * 3 * 9
    assert graph.bytes_of(["first"], 4) == (4 * kernel, 4 * (3 * FULL + 4 * FULL))
    assert graph.bytes_of(["first", "bend"], 4) == (4 * kernel, 4 * (3 * FULL + 4 * FULL))
    assert graph.bytes_of(["first", "bend"], 2) == (2 * kernel, 2 * (3 * FULL + 4 * FULL))
    assert graph.bytes_of(["deep", "flat", "join"], 4) == (
        4 * (4 * 9 + 4 * 4),
        4 * (4 * FULL + 4 * HALF + 4 * HALF),
    )
    assert graph.bytes_of(["flatten"], 4) == (0, 0)


def test_shape_that_can_not_be_told_is_an_error(load: Load, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["x", "to"], ["a"]),
            helper.make_node("Conv", ["a", "kernel"], ["y"]),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [None]),
            helper.make_tensor_value_info("to", TensorProto.INT64, [4]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [helper.make_tensor("kernel", TensorProto.FLOAT, (1, 1, 1, 1), [1.0])],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    with pytest.raises(ValueError, match="can't be told from the graph"):
        load("costs").read_costs(path, (16,))


def layer(name: str, nodes: list[str], ms: float = 1.0, **more: Any) -> dict[str, Any]:
    return {"name": name, "nodes": nodes, "ms": ms, "runs_by": "", "precision": "", **more}


def test_layers_are_found_by_nodes_and_by_values_and_take_what_was_fused_into_them(
    load: Load, small: Path
) -> None:
    layers, graph = load("layers"), load("costs").read_costs(small, (1, 3, 8, 10))
    told = [
        layer("reorder", []),
        layer("b_nchwc", ["b"]),  # ONNX Runtime: the last value, of Conv and Relu
        layer("deep/WithoutBiases", ["deep/WithoutBiases", "deep"]),  # OpenVINO
        layer("pool", ["pool"]),
        layer("flat", ["flat"]),
        layer("last", ["last"]),
    ]
    found = layers.assign(graph, told)
    # first: used by what is named b; join and mean: fused into what makes their first value
    assert found == [set(), {"first", "bend"}, {"deep", "join", "mean"}, {"pool"}, {"flat"}, {"last"}]


def test_parts_stand_against_the_larger_of_two_limits_and_most_to_gain_comes_first(
    load: Load, small: Path
) -> None:
    layers, graph = load("layers"), load("costs").read_costs(small, (1, 3, 8, 10))
    told = [
        layer("reorder", [], 0.5),
        layer("first", ["first", "bend"], 2.0, runs_by="brgconv_avx512_amx_bf16", precision="bf16"),
        layer("rest", ["deep", "pool", "flat", "join", "mean", "last"], 3.0, runs_by="jit_avx512_f32"),
    ]
    found = layers.read_layers(graph, told, "bf16")
    assert [each.precision for each in found] == ["bf16", "bf16", "fp32"]
    size = 2 * (4 * 3 * 9 + 3 * FULL + 4 * FULL)
    operations = 2 * HALF * 4 * 9 + 2 * HALF * 4 * 4 + HALF * 24 + 40
    roof = layers.Roof({"fp32": operations / 2.75e6, "bf16": 1e3}, ((1.0, size / 1e6), (100.0, 1e-9)))
    groups = layers.gather(found, roof)
    assert [group["group"] for group in groups] == ["net.stem.0", layers.OWN, "net.body.1"]
    first, own, rest = groups
    assert first["roof_ms"] == pytest.approx(1)
    assert first["share_of_roof"] == pytest.approx(0.5)
    assert first["bound_by"] == "memory"
    assert own["lost_ms"] == 0.5
    assert own["share_of_roof"] == 0
    assert rest["roof_ms"] == pytest.approx(2.75)
    assert rest["bound_by"] == "arithmetic"


def test_bandwidth_is_that_of_arrays_as_large(load: Load) -> None:
    roof = load("layers").Roof({"fp32": 1.0}, ((1.0, 100.0), (64.0, 20.0), (1024.0, 5.0)))
    sizes = (1, 1 << 20, (1 << 20) + 1, 64 << 20, 1 << 30, 1 << 40)
    assert [roof.bandwidth(size) for size in sizes] == [100.0, 100.0, 20.0, 20.0, 5.0, 5.0]


@pytest.mark.slow
def test_roofline_of_a_built_in_bundle_covers_its_network(tmp_path: Path) -> None:
    report = tmp_path / "roofline.json"
    options = ["--bundle", "ct-opacity-lite", "--runs", "2", "--side", "256", "--json", report]
    for engine in ("onnxruntime fp32", "openvino fp32", "openvino no-such-precision"):
        options += ["--engine", engine]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "roofline.py", *map(str, options)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(report.read_text())
    assert told["roof"]["peaks_gflops"]["fp32"] > 0
    assert all(each["gb_per_s"] > 0 for each in told["roof"]["triads"])
    *ran, refused = told["networks"]
    assert "no-such-precision" in refused["why_not"]
    for network in ran:
        assert network["gflop_not_in_profile"] < 0.001 * network["gflop"]
        assert sum(group["gflop"] for group in network["groups"]) == pytest.approx(network["gflop"], rel=0.01)
        assert sum(group["ms"] for group in network["groups"]) == pytest.approx(network["total"]["ms"])
        assert {"network.stem.1", "network.merge.3"} <= {group["group"] for group in network["groups"]}
