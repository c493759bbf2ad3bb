"""Which layers a plan has and in which precision they compute; what goes in and out.

TensorRT tells it of an engine on its GPU (the engine inspector), and of a plan when it is built (its log, where there
need be no GPU).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Binding", "Inspection", "Layer", "name_type", "read_listing", "read_log"]

_NAMES: Final = (
    ("bfloat16", ("bfloat16", "bf16")),
    ("float16", ("half", "fp16", "float16")),
    ("float32", ("float", "fp32", "float32")),
    ("fp8", ("fp8",)),
    ("int8", ("int8",)),
    ("uint8", ("uint8",)),
    ("int32", ("int32",)),
    ("int64", ("int64",)),
    ("bool", ("bool",)),
)
"""numpy name of a type -> the words that versions of TensorRT have for it."""
_WORD: Final = re.compile(r"[a-z]+\d*")
_TYPE: Final = re.compile(r"(?:Datatype|Format/Datatype): ([^,}\]]+)")
_LINE: Final = re.compile(r"Name: (?P<name>.+?), LayerType: (?P<kind>[^,]+), (?P<rest>.*)")
_MAX_LAYERS: Final = 10_000
_MAX_NAME: Final = 200
"""Letters of a layer's name that are kept: a fused layer is named by all that went into it."""


@dataclass(frozen=True, slots=True)
class Binding:
    """An input or output."""

    name: str
    """As in the bundle's manifest."""
    mode: str
    """``input`` or ``output``."""
    dtype: str
    """numpy name of its type."""
    shape: tuple[int, ...]
    """Its sides; -1 where open."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer, after TensorRT's fusion."""

    name: str
    """TensorRT's name, which holds the names of the ONNX nodes in it."""
    kind: str
    """TensorRT's word for it."""
    takes: tuple[str, ...]
    """Types of its inputs, each once, sorted."""
    gives: tuple[str, ...]
    """Types of its outputs, each once, sorted."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is in a plan."""

    layers: tuple[Layer, ...]
    """Its layers, for all profiles one after the other; empty where TensorRT told none."""
    bindings: tuple[Binding, ...]
    """What goes in and out."""
    source: str
    """Who told: ``build``, or ``inspector`` for the engine on its GPU."""

    def precisions(self) -> dict[str, int]:
        """Type -> number of layers that give it, the most frequent first."""
        counts = Counter(kind for layer in self.layers for kind in layer.gives)
        return dict(counts.most_common())


def name_type(text: str) -> str:
    """The numpy name of a type that TensorRT names, e.g. ``Half`` or ``Row major linear FP16 format``."""
    words = set(_WORD.findall(text.lower()))
    return next((name for name, known in _NAMES if words.intersection(known)), text.strip()[:20].lower())


def read_log(text: str) -> tuple[Layer, ...]:
    """Layers from the listing with which a build's log ends; empty if it is in no known form."""
    return tuple(_read_lines(text.splitlines()[:_MAX_LAYERS]))


def _read_lines(lines: Iterable[str]) -> Iterator[Layer]:
    for line in lines:
        found = _LINE.match(line)
        if found is None:
            continue
        before, _, after = found["rest"].partition("Outputs: [")
        inputs = before.partition("Constants: [")[0]
        outputs = after.partition(" }]")[0]
        yield Layer(_name(found["name"]), found["kind"].strip(), _types(inputs), _types(outputs))


def read_listing(text: str) -> tuple[Layer, ...]:
    """Layers from the engine inspector's JSON.

    Where the plan was built without details, it gives names alone.

    Raises:
        ValueError: It is no such listing.
    """
    table = json.loads(text)
    layers = table.get("Layers") if isinstance(table, dict) else None
    if not isinstance(layers, list):
        raise ValueError("the engine inspector lists no layers")  # noqa: TRY004 - a malformed answer
    return tuple(_read_layer(layer) for layer in layers[:_MAX_LAYERS])


def _read_layer(layer: Any) -> Layer:
    if not isinstance(layer, dict):
        return Layer(_name(str(layer)), "", (), ())
    kind = str(layer.get("LayerType", ""))
    return Layer(_name(str(layer.get("Name", ""))), kind, _listed(layer, "Inputs"), _listed(layer, "Outputs"))


def _listed(layer: Mapping[str, Any], key: str) -> tuple[str, ...]:
    tensors = layer.get(key) or ()
    named = (tensor.get("Datatype") or tensor.get("Format/Datatype") for tensor in tensors)
    return tuple(sorted({name_type(str(name)) for name in named if name}))


def _types(text: str) -> tuple[str, ...]:
    return tuple(sorted({name_type(match) for match in _TYPE.findall(text)}))


def _name(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())[:_MAX_NAME]
