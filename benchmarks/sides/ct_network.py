"""Makes the network of the CT comparison: one set of weights as a PyTorch state dict and as a bundle of bedside.

    python ct_network.py CHECKPOINT FOLDER HEIGHT WIDTH CALIBRATION VALIDATION

The bundle has fp16 and int8 networks, the latter calibrated on the series in the folder CALIBRATION and compared on
that in VALIDATION. Of random weights every layer is quantised, whatever that costs: a search for those to leave out
would take long and tell nothing. Writes ``weights.pt`` and ``bundle`` into FOLDER unless they are there, and prints a
JSON line with the network's floating-point operations for one slice, counted from its ONNX graph, and with versions of
what the reference side runs.
"""

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from bedside_export.ct_models import L3_UNET
from bedside_export.ct_opacity import Request, load_network
from bedside_export.ct_rules import RULES, TISSUES

VERSIONS = ("torch", "numpy", "pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "python-gdcm")
"""What the reference side may stand on: pydicom decodes with whatever plugin it finds."""


def main() -> None:
    """Make what is not there yet, and describe it."""
    checkpoint, target, height, width, calibration, validation = sys.argv[1:7]
    folder = Path(target)
    weights, bundle = folder / "weights.pt", folder / "bundle"
    if not weights.is_file():
        request = Request(L3_UNET, checkpoint, TISSUES["l3-groups"], RULES["l3-unet"])
        torch.save(load_network(request).network.state_dict(), weights)
    if not bundle.is_dir():
        export, plain = str(Path(sys.executable).parent / "bedside-export"), folder / "plain"
        command = [export, "ct-opacity", "--arch", L3_UNET, "--checkpoint", str(weights), "--out", str(plain)]
        if not plain.is_dir():
            subprocess.run(command, check=True, stdout=sys.stderr)
        command = [export, "quantize", str(plain), "--precision", "fp16,int8", "--calibration", calibration]
        command += [
            "--validation",
            validation,
            *(["--no-search"] if checkpoint.startswith("random:") else []),
        ]
        subprocess.run([*command, "--keep-failing", "--out", str(bundle)], check=True, stdout=sys.stderr)
    told = {
        "flop_per_slice": count_flop(bundle / "model.onnx", (1, 1, int(height), int(width))),
        "parameters": sum(tensor.numel() for tensor in torch.load(weights, weights_only=True).values()),
        "versions": dict(_versions()),
    }
    print(json.dumps(told))


def count_flop(path: Path, shape: tuple[int, ...]) -> int:
    """Floating-point operations of one run: two for each multiplication with addition of convolutions and products.

    What goes over each value once (normalisation, activation, pooling, resizing, softmax) is not counted: under 1 % of
    such a network.

    Args:
        path: An ONNX file with one input.
        shape: Of its input, all sides.
    """
    model = onnx.load(path)
    for size, dimension in zip(shape, model.graph.input[0].type.tensor_type.shape.dim, strict=True):
        dimension.dim_value = size
    del model.graph.value_info[:]  # shapes of another input
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    return sum(_count_node(node, shapes) for node in graph.node)


def _count_node(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    source, kernel, made = (shapes[name] for name in (node.input[0], node.input[1], node.output[0]))
    if node.op_type == "Conv":  # each value made sums over the kernel (K, C / groups, h, w)
        count = np.prod(made) * np.prod(kernel[1:])
    elif node.op_type == "ConvTranspose":  # each value taken spreads over the kernel (C, K / groups, h, w)
        count = np.prod(source) * np.prod(kernel[1:])
    else:
        flipped = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        count = np.prod(made) * source[-2 if flipped else -1]
    if count <= 0:
        raise ValueError(f"the shapes of {node.op_type} are not known")
    return 2 * int(count)


def _versions() -> Iterator[tuple[str, str]]:
    for name in VERSIONS:
        with suppress(importlib.metadata.PackageNotFoundError):
            yield name, importlib.metadata.version(name)


if __name__ == "__main__":
    main()
