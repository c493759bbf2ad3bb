"""The CT comparison runs whole, both sides give the same labels, and its parts count right."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bedside.dicom import read_series
from bedside.sample_ct import write_series
from bedside.scan import Grid

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

Load = Callable[..., ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    def load_module(name: str, folder: Path = BENCHMARKS) -> ModuleType:
        monkeypatch.syspath_prepend(folder)
        return importlib.import_module(name)

    return load_module


@pytest.fixture
def chest(tmp_path: Path) -> Path:
    """The phantom in 12 slices of 64x64."""
    return draw_chest(tmp_path / "chest", 12, gap_mm=5)


def draw_chest(folder: Path, slices: int, *, gap_mm: float) -> Path:
    z = -gap_mm * slices / 2
    affine = np.array([[0, 0, 6.25, -197], [0, 6.25, 0, -192], [gap_mm, 0, 0, z], [0, 0, 0, 1]], np.float64)
    write_series(folder, grid=Grid((slices, 64, 64), affine))
    return folder


def test_operations_of_a_graph_are_two_for_each_multiplication(tmp_path: Path, load: Load) -> None:
    weights = {"conv": (4, 3, 3, 3), "grouped": (4, 1, 3, 3), "up": (4, 2, 2, 2)}
    nodes = [
        helper.make_node("Conv", ["x", "conv"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "grouped"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2], group=4),
        helper.make_node("ConvTranspose", ["c", "up"], ["d"], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "dense"], ["y"], transB=1),
    ]
    kernels = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, np.zeros(shape, np.float32).ravel())
        for name, shape in {**weights, "dense": (5, 2)}.items()
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3, None, None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 5])],
        kernels,
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    counted = load("ct_network", BENCHMARKS / "sides").count_flop(path, (1, 3, 8, 10))
    full, half = 8 * 10, 4 * 5
    assert counted == 2 * (full * 4 * 3 * 9 + half * 4 * 9 + half * 4 * 2 * 4 + 5 * 2)


@pytest.mark.parametrize("count", [7, 40])
def test_a_chest_in_more_or_fewer_slices_spans_the_same_evenly(
    tmp_path: Path, chest: Path, load: Load, count: int
) -> None:
    resliced = load("series").find_series(chest).reslice(count, tmp_path / "resliced")
    with read_series(chest) as before, read_series(resliced) as after:
        assert after.grid.shape == (count, 64, 64)
        assert after.grid.slice_gap_mm == pytest.approx(55 / (count - 1), abs=1e-4)
        assert after.grid.z_mm(0) == pytest.approx(before.grid.z_mm(0))
        assert after.ledger == ()
        assert np.array_equal(after.read([0]), before.read([0]))


def test_dice_of_a_class_that_is_nowhere_is_none(load: Load) -> None:
    one, other = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    assert load("labels").dice(one, other, 3) == [2 / 3, 4 / 5, None]


@pytest.mark.slow
def test_comparison_writes_its_ratios_and_the_sides_agree(tmp_path: Path) -> None:
    chest = draw_chest(tmp_path / "chest", 96, gap_mm=3.75)  # with fewer there is no int8 network
    report = tmp_path / "report.json"
    options = ["--series", chest, "--slices", "4", "--rounds", "1", "--json", report]
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "ct.py", *map(str, options)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(report.read_text())
    assert told["slices"] == 4
    assert told["weights"] == {"trained": False, "source": "random:0"}
    assert told["parity_at_export"]["onnxruntime fp32"]["share"] < 1
    assert told["ratios"]["fp32"] > 0
    assert ("openvino bf16" in told["sides"]) != ("openvino bf16" in told["skipped"])
    for kind, names in {"half": ("bf16", "fp16"), "int8": ("int8", "int8-bf16", "int8-fp16")}.items():
        sides = [told["sides"].get(f"openvino {name}") for name in names]
        assert (told["ratios"][kind] is None) != any(side and side["inside_tolerance"] for side in sides)
    for name in ("onnxruntime fp32", "openvino fp32"):
        side = told["sides"][name]
        assert min(value for value in side["dice"].values() if value is not None) > 0.999
        assert {"read", "preprocess", "inference", "measure", "write"} <= side["stages_ms"].keys()
        assert side["inference_share_of_peak"] > 0
