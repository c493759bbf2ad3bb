"""What a network costs before any engine touches it: operations and bytes of each node of its ONNX graph.

    graph = read_costs("model.onnx", (1, 1, 512, 512))
    sum(node.operations for node in graph.nodes)
    graph.bytes_of(["node_conv2d", "node_relu"], 4)     what crosses the edge of the two run as one, in fp32

A multiplication with its addition counts as two operations, as everywhere. Nodes are put into groups by the names of
their weights, up to the first number: ``network.down1.conv.0.weight`` is of the group ``network.down1``. What has no
weights is ``after network.down1``: the exporter does not tell which part wrote it. Needs onnx.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import onnx

__all__ = ["HEAVY", "Graph", "Node", "read_costs"]

_NUMBERED: Final = re.compile(r".*?\d[^.]*(?=\.)")
"""The beginning of a name up to its first part with a digit, if another part follows."""
_AFTER: Final = "after "
"""Before the group of a node without weights of its own."""
_MADE_UP: Final = re.compile(r"[^.]*")
"""Names without a dot are made up by the exporter, and say nothing of the network's parts."""
HEAVY: Final = ("conv", "depthwise conv", "matmul")
"""Kinds of nodes that multiply and add."""
_FREE: Final = frozenset(
    {"Cast", "Constant", "Dropout", "Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze"}
)
"""Operators that move no values: another name, or another shape, of the same memory."""
_MOVING: Final = frozenset(
    {
        "Concat",
        "ConstantOfShape",
        "DepthToSpace",
        "Expand",
        "Gather",
        "Pad",
        "Slice",
        "Split",
        "Tile",
        "Transpose",
        "Where",
    }
)
"""Operators that move values and compute nothing."""
_REDUCING: Final = frozenset({"GlobalAveragePool", "GlobalMaxPool", "ReduceMax", "ReduceMean", "ReduceSum"})
"""Operators with an operation for each value that they take."""
_PER_VALUE: Final[Mapping[str, int]] = {
    "BatchNormalization": 2,
    "Clip": 2,
    "GridSample": 7,
    "HardSigmoid": 4,
    "Resize": 7,
    "Sigmoid": 3,
    "Softmax": 5,
}
"""Operator -> operations for each value that it gives, where that is not one. Bilinear: four products, three sums.
Softmax: maximum, difference, exponential, sum, quotient."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node of the graph."""

    name: str
    """As in the file; its first output's where it has none."""
    operator: str
    """ONNX's name of it."""
    kind: str
    """``conv``, ``depthwise conv``, ``matmul``, ``elementwise``, ``reduction``, ``move`` or ``free``."""
    group: str
    """Part of the network that it belongs to."""
    operations: int
    """Of one run."""
    inputs: tuple[str, ...]
    """Values that it takes, without those that are left out."""
    outputs: tuple[str, ...]
    """Values that it gives."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A network for one shape of input."""

    nodes: tuple[Node, ...]
    """In the order in which they run."""
    sizes: Mapping[str, int]
    """Value -> how many numbers it holds."""
    weights: frozenset[str]
    """Names of the values that stand in the file."""
    outputs: frozenset[str]
    """Names of the values that the network gives."""

    def bytes_of(self, names: Iterable[str], width: int) -> tuple[int, int]:
        """Bytes that some nodes take and give if they run as one, each value read or written once.

        Args:
            names: Of the nodes; what they hand to each other stays in registers and caches and does not count.
            width: Bytes of a number.

        Returns:
            Bytes of weights, and of activations.
        """
        wanted = set(names)
        inside = [node for node in self.nodes if node.name in wanted and node.kind != "free"]
        made = {value for node in inside for value in node.outputs}
        taken = {value for node in inside for value in node.inputs}
        elsewhere = {value for node in self.nodes if node.name not in wanted for value in node.inputs}
        given = made & (elsewhere | self.outputs)
        weights = sum(self.sizes.get(value, 0) for value in taken & self.weights)
        moved = sum(self.sizes.get(value, 0) for value in [*(taken - made - self.weights), *given])
        return weights * width, moved * width


def read_costs(path: Path, shape: Sequence[int]) -> Graph:
    """Count a file for one shape of its first input.

    Raises:
        ValueError: Some shape that the count needs can't be told from the graph.
    """
    model = onnx.load(path)
    for size, dimension in zip(shape, model.graph.input[0].type.tensor_type.shape.dim, strict=True):
        dimension.dim_value = size
    del model.graph.value_info[:]  # shapes of another input
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes: dict[str, tuple[int, ...]] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        sides = value.type.tensor_type.shape.dim
        if all(side.HasField("dim_value") for side in sides):
            shapes[value.name] = tuple(side.dim_value for side in sides)
    weights = frozenset(tensor.name for tensor in graph.initializer)
    nodes: list[Node] = []
    groups: dict[str, str] = {}
    for node in graph.node:
        given = tuple(name for name in node.output if name)
        taken = tuple(name for name in node.input if name)
        group = _group(taken, weights, groups)
        groups |= dict.fromkeys(given, group)
        kind = _kind(node, shapes)
        nodes.append(
            Node(node.name or given[0], node.op_type, kind, group, _count(node, kind, shapes), taken, given)
        )
    sizes = {name: math.prod(sides) for name, sides in shapes.items()}
    return Graph(tuple(nodes), sizes, weights, frozenset(value.name for value in graph.output))


def _group(taken: Sequence[str], weights: frozenset[str], groups: Mapping[str, str]) -> str:
    """By the first named weight; else after that of what it takes last: of two branches that meet, the newer."""
    for name in taken:
        if name in weights and not _MADE_UP.fullmatch(name):
            numbered = _NUMBERED.match(name)
            return numbered[0] if numbered else name.rpartition(".")[0]
    before = next((groups[name] for name in reversed(taken) if name in groups), "input")
    return before if before.startswith(_AFTER) else _AFTER + before


def _kind(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> str:
    if node.op_type in ("Conv", "ConvTranspose"):
        groups = next((each.i for each in node.attribute if each.name == "group"), 1)
        channels = shapes.get(node.input[0], (0, 0))[1]
        return "depthwise conv" if groups > 1 and groups == channels else "conv"
    if node.op_type in ("Gemm", "MatMul"):
        return "matmul"
    if node.op_type in _FREE:
        return "free"
    if node.op_type in _MOVING:
        return "move"
    pooling = node.op_type in ("AveragePool", "MaxPool")
    return "reduction" if pooling or node.op_type in _REDUCING else "elementwise"


def _count(node: Any, kind: str, shapes: Mapping[str, tuple[int, ...]]) -> int:
    if kind in ("free", "move"):
        return 0
    heavy = kind in HEAVY
    needed = [node.output[0], *node.input[: 2 if heavy else 1]]
    if unknown := [name for name in needed if name not in shapes]:
        if not heavy and len(unknown) == len(needed):
            return 0  # arithmetic on sizes
        raise ValueError(f"the shape of {unknown[0]!r}, at {node.op_type}, can't be told from the graph")
    made, source = shapes[node.output[0]], shapes[needed[1]]
    if heavy:
        return _count_products(node, made, source, shapes[node.input[1]])
    if node.op_type in ("AveragePool", "MaxPool"):
        window: tuple[int, ...] = next(
            tuple(each.ints) for each in node.attribute if each.name == "kernel_shape"
        )
        return math.prod(made) * math.prod(window)
    if node.op_type in _REDUCING:
        return math.prod(source)
    return math.prod(made) * _PER_VALUE.get(node.op_type, 1)


def _count_products(
    node: Any, made: tuple[int, ...], source: tuple[int, ...], kernel: tuple[int, ...]
) -> int:
    if node.op_type == "Conv":  # each value made sums over the kernel (K, C / groups, h, w)
        return 2 * math.prod(made) * math.prod(kernel[1:])
    if node.op_type == "ConvTranspose":  # each value taken spreads over the kernel (C, K / groups, h, w)
        return 2 * math.prod(source) * math.prod(kernel[1:])
    flipped = any(each.name == "transA" and each.i for each in node.attribute)
    return 2 * math.prod(made) * source[-2 if flipped else -1]
