"""A PyTorch network as one self-contained ONNX file that says nothing of the machine it was made on."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import nn

from bedside.bundle import Input
from bedside.contract import MAX_SIDE
from bedside.onnxfile import read_onnx
from bedside_export.errors import ExportError

__all__ = ["OPSET", "anonymise", "to_onnx"]

OPSET: Final = 18
"""Operator set; ONNX Runtime from 1.14 and OpenVINO from 2023.0 read it."""


def to_onnx(
    network: nn.Module,
    spec: Input,
    outputs: tuple[str, ...],
    *,
    tile: tuple[int, int] | None = None,
    multiple: int = 1,
) -> bytes:
    """Export a network with a dynamic batch, and with dynamic sides where the input leaves them open.

    Args:
        network: Takes ``(N, C, H, W)``, gives a tensor for each of ``outputs``, each with N in front; in eval mode.
        spec: The input's name, its channels, and its height and width unless they are dynamic.
        outputs: Names of the outputs, in order.
        tile: For dynamic sides: ``(H, W)`` to trace the network at, multiples of ``multiple``.
        multiple: For dynamic sides: they are multiples of this.

    Returns:
        The ONNX file: all data inside, no doc strings, metadata, source lines or paths.

    Raises:
        ExportError: PyTorch's exporter can't take the network, or gave another interface than asked for.
    """
    # 2: the exporter takes a batch of 1 as fixed
    example = torch.zeros(2, int(spec.shape[1] or 1), *(tile or spec.size))
    dynamic: dict[int, Any] = {0: torch.export.Dim("batch")}
    for axis, name in ((2, "rows"), (3, "columns")):
        if spec.shape[axis] is None:
            side = torch.export.Dim(name, min=2, max=MAX_SIDE // multiple)
            dynamic[axis] = multiple * side if multiple > 1 else side
    with _quiet():
        try:
            program = torch.onnx.export(
                network.eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[spec.name],
                output_names=list(outputs),
                dynamic_shapes=(dynamic,),
                external_data=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            reason = " ".join(str(error).split())[:200]
            raise ExportError(f"PyTorch can't export the network to ONNX: {reason}") from error
    if program is None:
        raise ExportError("PyTorch's exporter gave no ONNX program; install a newer torch")
    model = program.model_proto
    anonymise(model)
    data: bytes = model.SerializeToString(deterministic=True)
    found = read_onnx(data)
    if spec.shape != found.inputs[0].shape:
        raise ExportError(f"PyTorch's exporter fixed the input to {found.inputs[0].shape}, not {spec.shape}")
    given = [(tensor.name, tensor.shape[0]) for tensor in (*found.inputs, *found.outputs)]
    if given != [(name, None) for name in (spec.name, *outputs)]:
        raise ExportError(
            f"PyTorch's exporter gave the interface {given}; the batch must be dynamic, names kept"
        )
    if found.opsets.get("") != OPSET:
        raise ExportError(f"PyTorch's exporter gave operator set {found.opsets.get('')}, not {OPSET}")
    return data


def anonymise(message: Any) -> None:
    """Take doc strings, metadata and intermediate shapes out of a model, in all its graphs and functions."""
    message.ClearField("metadata_props")
    message.ClearField("doc_string")
    graph = message.graph
    graph.ClearField("value_info")
    graph.name = "bedside"
    _clean_graph(graph)
    for function in message.functions:
        function.ClearField("value_info")
        _clean(function)
        for node in function.node:
            _clean_node(node)


def _clean(message: Any) -> None:
    message.ClearField("doc_string")
    message.ClearField("metadata_props")


def _clean_graph(graph: Any) -> None:
    _clean(graph)
    for group in (graph.input, graph.output, graph.initializer):
        for item in group:
            _clean(item)
    for node in graph.node:
        _clean_node(node)


def _clean_node(node: Any) -> None:
    _clean(node)
    for attribute in node.attribute:
        attribute.ClearField("doc_string")
        if attribute.HasField("g"):
            _clean_graph(attribute.g)
        for graph in attribute.graphs:
            _clean_graph(graph)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress, logs and deprecation warnings off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
