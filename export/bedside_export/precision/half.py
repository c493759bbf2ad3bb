"""A float32 network in float16, with float32 at its borders and where it is asked for."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection

import onnx
from onnx import TensorProto
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from bedside_export.errors import ExportError
from bedside_export.precision.graph import check_operators

__all__ = ["to_half"]


def to_half(model: onnx.ModelProto, keep: Collection[str] = ()) -> onnx.ModelProto:
    """Convert a network; its inputs and outputs stay float32.

    The converter is ONNX Runtime's own, which is kept up with the operators. Between two neighbours that stay float32
    it rounds to float16 and back: that is taken out again.

    Args:
        model: The fp32 graph.
        keep: Names of the nodes that stay float32.

    Raises:
        ExportError: It holds an operator that is not standard, or the converter can't take it.
    """
    check_operators(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            half: onnx.ModelProto = convert_float_to_float16(
                copy,
                keep_io_types=True,
                op_block_list=list(DEFAULT_OP_BLOCK_LIST),
                node_block_list=list(keep),
            )
    except (AssertionError, ValueError, RuntimeError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ExportError(f"the network can't be converted to float16 ({reason})") from error
    _skip_round_trips(half.graph)
    _sort(half.graph)
    return half


def _skip_round_trips(graph: onnx.GraphProto) -> None:
    """Let whoever reads float32 made of float16 that was float32 before read that."""
    makers = {name: node for node in graph.node for name in node.output}

    def source(made: str, target: int) -> str | None:
        maker = makers.get(made)
        if maker is None or maker.op_type != "Cast" or maker.attribute[0].i != target:
            return None
        name: str = maker.input[0]
        return name

    for node in graph.node:
        for place, name in enumerate(node.input):
            narrow = source(name, TensorProto.FLOAT)
            wide = None if narrow is None else source(narrow, TensorProto.FLOAT16)
            if wide is not None:
                node.input[place] = wide


def _sort(graph: onnx.GraphProto) -> None:
    """Each node after those that it reads: the converter appends its casts at the end."""
    ready = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer} | {""}
    makers = {name: node for node in graph.node for name in node.output}
    order: list[onnx.NodeProto] = []
    done: set[str] = set()
    for last in graph.node:
        stack = [last]
        while stack:
            node = stack[-1]
            waiting = [makers[name] for name in _reads(node) if name in makers and name not in ready]
            if waiting:
                stack.extend(waiting)
                continue
            stack.pop()
            if node.name not in done:
                done.add(node.name)
                order.append(node)
                ready.update(node.output)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in order]
    del graph.node[:]
    graph.node.extend(nodes)


def _reads(node: onnx.NodeProto) -> list[str]:
    """What a node reads, with what the graphs inside it read from outside."""
    names = list(node.input)
    for attribute in node.attribute:
        for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            own = {name for each in inner.node for name in each.output}
            names += [name for each in inner.node for name in _reads(each) if name not in own]
            names += [value.name for value in inner.output if value.name not in own]
    return names
