"""A bounded look into an ONNX file without the onnx package.

Reads the protobuf wire format just far enough to learn the model's interface and to make sure that every
tensor's data lies inside the file. Field numbers are those of onnx.proto (ONNX IR, github.com/onnx/onnx).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from bedside.errors import BundleError

__all__ = ["NodeInfo", "OnnxFile", "TensorInfo", "read_onnx"]

MAX_DEPTH: Final = 16
"""Deepest nesting of graphs in attributes that is followed."""
MAX_FIELDS: Final = 200_000
"""Most protobuf fields looked at: many times those of a large network, and few enough to end in seconds."""

_LAST_NUMBER: Final = (1 << 29) - 1
"""Largest field number of protobuf. Its parsers drop the bits above: a field could pass for another."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_ELEMENT_TYPES: Final[Mapping[int, str]] = MappingProxyType(
    {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}
)
"""TensorProto.DataType -> numpy name, for the types that a network's border may have."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output of the graph."""

    name: str
    """Its name in the graph."""
    dtype: str
    """numpy name of its element type, or ``type N`` for one that bedside does not use."""
    shape: tuple[int | None, ...]
    """Its dimensions; None where dynamic."""
    symbols: tuple[str, ...] = field(default=(), compare=False)
    """Names of its dimensions where the graph names dynamic ones; empty for the others."""


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node of the graph."""

    operator: str
    """What it does, e.g. ``Conv``."""
    outputs: tuple[str, ...]
    """Names of the values that it gives; empty where one is left out."""


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """What `read_onnx` learns of a model."""

    ir_version: int
    """Version of the ONNX intermediate representation."""
    opsets: Mapping[str, int]
    """Operator-set domain ('' is the standard one) -> version."""
    inputs: tuple[TensorInfo, ...]
    """Graph inputs that are not initializers, in order."""
    outputs: tuple[TensorInfo, ...]
    """Graph outputs, in order."""
    operators: Mapping[str, int]
    """Operator -> number of nodes, in all graphs and functions."""
    nodes: Mapping[str, NodeInfo]
    """Name of a node, or of its first output if it has none -> what it is, in all graphs and functions."""


def read_onnx(data: bytes | memoryview) -> OnnxFile:
    """Read a model's interface, and prove that its data is all inside ``data``.

    Args:
        data: The whole file.

    Returns:
        Interface and operators of the model.

    Raises:
        BundleError: ``bundle-unsafe`` if a tensor's data lies outside the file; ``bundle-broken`` if the
            bytes are not an ONNX model or exceed `MAX_DEPTH` or `MAX_FIELDS`.
    """
    try:
        return _Walk().model(memoryview(data))
    except (IndexError, UnicodeDecodeError) as error:
        raise BundleError(
            "bundle-broken", "a model file is not ONNX, or ends early; export it again"
        ) from error


class _Walk:
    """One pass over one file; counts fields so that a hostile file can't take forever."""

    def __init__(self) -> None:
        self.fields_left = MAX_FIELDS
        self.operators: Counter[str] = Counter()
        self.nodes: dict[str, NodeInfo] = {}

    def fields(self, data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
        """Yield (field number, wire type, value) of one message."""
        position, end = 0, len(data)
        while position < end:
            self.fields_left -= 1
            if self.fields_left < 0:
                raise BundleError(
                    "bundle-broken", f"a model file has over {MAX_FIELDS} fields; export it again"
                )
            key, position = _varint(data, position)
            number, wire = key >> 3, key & 7
            if not 0 < number <= _LAST_NUMBER:
                raise IndexError(f"field number {number}")
            value: int | memoryview
            if wire == _VARINT:
                value, position = _varint(data, position)
            else:
                if wire == _BYTES:
                    size, position = _varint(data, position)
                elif wire in (_FIXED64, _FIXED32):
                    size = 8 if wire == _FIXED64 else 4
                else:
                    raise IndexError(f"wire type {wire}")
                if size > end - position:
                    raise IndexError("field past the end")
                value, position = data[position : position + size], position + size
            yield number, wire, value

    def messages(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Yield only the length-delimited fields of one message."""
        for number, wire, value in self.fields(data):
            if wire == _BYTES and isinstance(value, memoryview):
                yield number, value

    def model(self, data: memoryview) -> OnnxFile:
        ir_version, opsets = 0, {}
        inputs: tuple[TensorInfo, ...] = ()
        outputs: tuple[TensorInfo, ...] = ()
        graphs = 0
        for number, wire, value in self.fields(data):
            if number == 1 and isinstance(value, int):
                ir_version = value
            elif wire != _BYTES or not isinstance(value, memoryview):
                continue
            elif number == 7:
                inputs, outputs = self.graph(value, 0)
                graphs += 1
            elif number == 8:
                domain, version = self.opset(value)
                opsets[domain] = version
            elif number == 20:
                raise BundleError(
                    "bundle-unsafe", "a model file holds training graphs; export it for inference"
                )
            elif number == 25:
                self.function(value)
        if graphs != 1 or not outputs:
            raise BundleError(
                "bundle-broken", "a model file is not ONNX (no graph with outputs); export it again"
            )
        return OnnxFile(
            ir_version,
            MappingProxyType(opsets),
            inputs,
            outputs,
            MappingProxyType(self.operators),
            MappingProxyType(self.nodes),
        )

    def opset(self, data: memoryview) -> tuple[str, int]:
        domain, version = "", 0
        for number, _wire, value in self.fields(data):
            if number == 1 and isinstance(value, memoryview):
                domain = _text(value)
            elif number == 2 and isinstance(value, int):
                version = value
        return domain, version

    def function(self, data: memoryview) -> None:
        for number, value in self.messages(data):
            if number == 7:
                self.node(value, 1)
            elif number == 11:
                self.attribute(value, 1)

    def graph(self, data: memoryview, depth: int) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
        if depth > MAX_DEPTH:
            raise BundleError(
                "bundle-broken", f"a model file nests graphs over {MAX_DEPTH} deep; export it again"
            )
        inputs: list[TensorInfo] = []
        outputs: list[TensorInfo] = []
        initialized: set[str] = set()
        for number, value in self.messages(data):
            if number == 1:
                self.node(value, depth)
            elif number == 5:
                initialized.add(self.tensor(value))
            elif number == 15:
                self.sparse_tensor(value)
            elif number == 11:
                inputs.append(self.value_info(value))
            elif number == 12:
                outputs.append(self.value_info(value))
        return tuple(i for i in inputs if i.name not in initialized), tuple(outputs)

    def node(self, data: memoryview, depth: int) -> None:
        name = operator = ""
        outputs: list[str] = []
        for number, value in self.messages(data):
            if number == 2:
                outputs.append(_text(value))
            elif number == 3:
                name = _text(value)
            elif number == 4:
                operator = _text(value)
                self.operators[operator] += 1
            elif number == 5:
                self.attribute(value, depth)
        if name := name or next(iter(outputs), ""):
            self.nodes[name] = NodeInfo(operator, tuple(outputs))

    def attribute(self, data: memoryview, depth: int) -> None:
        for number, value in self.messages(data):
            if number in (5, 10):
                self.tensor(value)
            elif number in (6, 11):
                self.graph(value, depth + 1)
            elif number in (22, 23):
                self.sparse_tensor(value)

    def sparse_tensor(self, data: memoryview) -> None:
        for number, value in self.messages(data):
            if number in (1, 2):
                self.tensor(value)

    def tensor(self, data: memoryview) -> str:
        name = ""
        for number, _wire, value in self.fields(data):
            if number == 13 or (number == 14 and value != 0):
                raise BundleError(
                    "bundle-unsafe",
                    "a model file keeps tensor data outside itself (ONNX external data), which schema 1 forbids; "
                    "export it with all data inside",
                )
            if number == 8 and isinstance(value, memoryview):
                name = _text(value)
        return name

    def value_info(self, data: memoryview) -> TensorInfo:
        name, dtype = "", ""
        dimensions: list[int | str] = []
        for number, value in self.messages(data):
            if number == 1:
                name = _text(value)
            elif number == 2:
                for kind, tensor_type in self.messages(value):
                    if kind == 1:
                        dtype, dimensions = self.tensor_type(tensor_type)
        shape = tuple(size if isinstance(size, int) else None for size in dimensions)
        symbols = tuple(size if isinstance(size, str) else "" for size in dimensions)
        return TensorInfo(name, dtype, shape, symbols)

    def tensor_type(self, data: memoryview) -> tuple[str, list[int | str]]:
        dtype, dimensions = "", []
        for number, _wire, value in self.fields(data):
            if number == 1 and isinstance(value, int):
                dtype = _ELEMENT_TYPES.get(value, f"type {value}")
            elif number == 2 and isinstance(value, memoryview):
                dimensions = [self.dimension(dim) for kind, dim in self.messages(value) if kind == 1]
        return dtype, dimensions

    def dimension(self, data: memoryview) -> int | str:
        """The size, or the name of a dynamic one, which may be empty."""
        symbol = ""
        for number, _wire, value in self.fields(data):
            if number == 1 and isinstance(value, int):
                return value
            if number == 2 and isinstance(value, memoryview):
                symbol = _text(value)
        return symbol


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise IndexError("varint over 64 bits")


def _text(data: memoryview) -> str:
    return bytes(data).decode()
