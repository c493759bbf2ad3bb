"""Nodes that stay float32 where the rest of a network runs in half precision.

OpenVINO keeps a node in float32 that carries the run-time attribute ``precise`` (its DisableFP16Compression). Python
can't set it, but a model file can hold it: so the model is written as OpenVINO's own XML, the attribute is put in,
and the model is read again.

At fp16 every node that has the attribute stays float32. At bf16 OpenVINO loses it where it merges nodes into one of its
own (a product with constants, a chain of element-wise nodes), and runs those in bf16 still.
"""

from __future__ import annotations

import re
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

import numpy as np
import openvino

from bedside.errors import BackendError
from bedside.onnxfile import NodeInfo

__all__ = ["keep_float32"]

_ATTRIBUTE: Final = {"name": "precise", "version": "0"}
"""Name and version that OpenVINO's ``ov::DisableFP16Compression`` has in a file, in 2024.6 as in 2026.4."""
_SOURCES: Final = frozenset({"Const", "Parameter", "Result"})
"""Types of layers that compute nothing."""
_COMMA: Final = re.compile(r"(?<!\\),")
"""Between the names of an output; a comma in a name has a backslash before it."""


def keep_float32(core: openvino.Core, model: openvino.Model, nodes: Mapping[str, NodeInfo]) -> openvino.Model:
    """The same model with some nodes bound to float32.

    One node of an ONNX graph can be several layers in OpenVINO: the last has the node's name, or that of the graph's
    output; its outputs have those of the node. Layers before it, of the same node, have outputs without a name.

    Args:
        core: Reads the model again.
        model: As read from ONNX; stays as it is.
        nodes: Name -> what it is, of nodes of the ONNX graph.

    Returns:
        A new model, all in memory.

    Raises:
        BackendError: ``engine-unsupported`` if OpenVINO has merged a node into another; ``engine-failed`` if there is
            no room for a temporary file.
    """
    text, weights = _write(model)
    tree = ET.fromstring(text)  # noqa: S314 -- OpenVINO wrote it just now
    layers = {layer.attrib["id"]: layer for layer in tree.iter("layer")}
    keys = {name: key for key, layer in layers.items() for name in _names(layer)}
    named = set()
    for name, node in nodes.items():
        found = {keys[each] for each in (name, *node.outputs) if each in keys}
        if not found:
            raise BackendError(
                "engine-unsupported",
                f"openvino has no layer for the node {name[:100]!r}, which stays float32; ask for fp32",
            )
        named |= found
    before: dict[str, list[str]] = {}
    for edge in tree.iter("edge"):
        before.setdefault(edge.attrib["to-layer"], []).append(edge.attrib["from-layer"])
    for key in _with_parts(named, layers, before):
        _mark(layers[key])
    for key, layer in layers.items():
        if layer.attrib["type"] == "Result" and not named.isdisjoint(before[key]):
            _mark(layer)  # else the answer is rounded once on its way out
    return core.read_model(ET.tostring(tree), openvino.Tensor(weights))


def _write(model: openvino.Model) -> tuple[bytes, np.ndarray[tuple[int], np.dtype[np.uint8]]]:
    try:
        with tempfile.TemporaryDirectory(prefix="bedside-") as folder:
            path = Path(folder) / "model.xml"
            openvino.save_model(model, path, compress_to_fp16=False)
            return path.read_bytes(), np.fromfile(path.with_suffix(".bin"), np.uint8)
    except (OSError, RuntimeError) as error:
        raise BackendError(
            "engine-failed",
            f"openvino needs {tempfile.gettempdir()!r} to write the model to, and can't "
            f"({' '.join(str(error).split())[:100]}); make room there, or set TMPDIR to another folder",
        ) from error


def _with_parts(
    named: AbstractSet[str], layers: Mapping[str, ET.Element], before: Mapping[str, list[str]]
) -> Iterator[str]:
    """The layers of these names, and those that OpenVINO made beside them of the same nodes."""
    seen, left = set(named), list(named)
    while left:
        key = left.pop()
        yield key
        for source in before.get(key, ()):
            layer = layers[source]
            if source not in seen and layer.attrib["type"] not in _SOURCES and not _is_named(layer):
                seen.add(source)
                left.append(source)


def _is_named(layer: ET.Element) -> bool:
    """Whether an output is a value of the ONNX graph."""
    return any(port.get("names") for port in layer.iterfind("output/port"))


def _names(layer: ET.Element) -> Iterator[str]:
    """Its own, and those of its outputs."""
    if layer.attrib["type"] in _SOURCES:
        return
    yield layer.attrib["name"]
    for port in layer.iterfind("output/port"):
        yield from _COMMA.split(port.get("names", ""))


def _mark(layer: ET.Element) -> None:
    info = layer.find("rt_info")
    if info is None:
        data = layer.find("data")
        info = ET.Element("rt_info")
        layer.insert(0 if data is None else 1, info)  # where OpenVINO itself writes it
    ET.SubElement(info, "attribute", _ATTRIBUTE)
