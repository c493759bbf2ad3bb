"""Small networks for OpenVINO, whose arithmetic shows in their answers, and what it runs them in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import tiny_bundle
from bedside.backends import open_backend
from bedside.bundle import Bundle
from tiny_bundle import MODEL, SIDE, make_bundle, read_manifest, seal

openvino = pytest.importorskip("openvino")

Floats = npt.NDArray[np.float32]
CONVOLUTIONS = ("first", "second", "third", "fourth")
CHANNELS = 8


def able() -> list[str]:
    """What this processor can, in OpenVINO's words."""
    found: list[str] = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return found


needs_fp16 = pytest.mark.skipif("FP16" not in able(), reason="this processor has no fp16 arithmetic")
needs_bf16 = pytest.mark.skipif("BF16" not in able(), reason="this processor has no bf16 arithmetic")
halves = pytest.mark.parametrize(
    ("precision", "bits"),
    [pytest.param("fp16", 11, marks=needs_fp16), pytest.param("bf16", 8, marks=needs_bf16)],
)


def random(*shape: int, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(0.5, 1, shape).astype(np.float32).astype(np.float64)


def network_bundle(
    folder: Path, nodes: list[bytes], constants: dict[str, npt.NDArray[np.float64]], **overrides: object
) -> Bundle:
    """A bundle of a graph from ``image`` to ``severity``, made of encoded nodes."""
    graph = [tiny_bundle._bytes(1, node) for node in nodes]
    graph.append(tiny_bundle._bytes(2, b"made"))
    graph += [tiny_bundle._bytes(5, tiny_bundle._tensor(name, values)) for name, values in constants.items()]
    graph.append(tiny_bundle._bytes(11, tiny_bundle._value("image", ("N", 1, SIDE, SIDE))))
    graph.append(tiny_bundle._bytes(12, tiny_bundle._value("severity", ("N", 2))))
    opset = tiny_bundle._bytes(1, b"") + tiny_bundle._varint_field(2, 18)
    make_bundle(folder)
    (folder / MODEL).write_bytes(
        tiny_bundle._varint_field(1, 8)
        + tiny_bundle._bytes(7, b"".join(graph))
        + tiny_bundle._bytes(8, opset)
    )
    manifest = {key: value for key, value in read_manifest(folder).items() if key != "files"}
    manifest["outputs"] = manifest["outputs"][:1]
    return Bundle.open(seal(folder, manifest | overrides))


def node(name: str, *what: Any) -> bytes:
    return tiny_bundle._node(*what) + tiny_bundle._bytes(3, name.encode())


def dense_bundle(folder: Path, **overrides: object) -> tuple[Bundle, npt.NDArray[np.float64]]:
    """A bundle whose severity is one product of 1,024 terms, and its weights ``(1024, 2)``."""
    weights = np.random.default_rng(3).normal(size=(SIDE * SIDE, 2)).astype(np.float32).astype(np.float64)
    nodes = [
        node("flatten", "Flatten", ["image"], "flat"),
        node("product", "MatMul", ["flat", "weights"], "severity"),
    ]
    return network_bundle(folder, nodes, {"weights": weights}, **overrides), weights


def convolution_bundle(folder: Path, **overrides: object) -> Bundle:
    """Four convolutions in a row, each with a bias, which OpenVINO makes several layers of."""
    pads = [tiny_bundle._attribute_ints("pads", (1, 1, 1, 1))]
    nodes, constants = [], {}
    source, width = "image", 1
    for index, name in enumerate(CONVOLUTIONS):
        constants[f"{name}.weight"] = random(CHANNELS, width, 3, 3, seed=index) / (9 * width)
        constants[f"{name}.bias"] = random(CHANNELS, seed=index)
        nodes.append(node(name, "Conv", [source, f"{name}.weight", f"{name}.bias"], f"{name}.answer", pads))
        source, width = f"{name}.answer", CHANNELS
    constants["weights"] = random(CHANNELS, 2)
    nodes += [
        node("mean", "GlobalAveragePool", [source], "mean.answer"),
        node("flatten", "Flatten", ["mean.answer"], "flat"),
        node("product", "MatMul", ["flat", "weights"], "severity"),
    ]
    return network_bundle(folder, nodes, constants, **overrides)


def picture(seed: int = 0) -> Floats:
    return random(1, 1, SIDE, SIDE, seed=seed).astype(np.float32)


def error_of(bundle: Bundle, weights: npt.NDArray[np.float64], precision: str) -> float:
    """How far the answer is from the exact one, as a share of the sum of its terms' sizes."""
    exact = picture().reshape(1, -1).astype(np.float64) @ weights
    scale = np.abs(picture().reshape(1, -1).astype(np.float64)) @ np.abs(weights)
    engine = open_backend("openvino", bundle, precision=precision)
    assert engine.info.precision == precision
    return float(np.max(np.abs(engine.run({"image": picture()})["severity"] - exact) / scale))


def executed(engine: Any) -> dict[str, str]:
    """Name of a node of the ONNX graph -> the precision that an engine, or a compiled model, runs it in."""
    if hasattr(engine, "_lanes"):
        (lane,) = engine._lanes.values()
        engine = lane._requests[0].get_compiled_model()
    graph = engine.get_runtime_model()
    found = {}
    for operation in graph.get_ordered_ops():
        info = {key: getattr(value, "value", value) for key, value in operation.get_rt_info().items()}
        for name in info["originalLayersNames"].split(","):
            found[name.partition("/")[0]] = info["runtimePrecision"]
    return found
