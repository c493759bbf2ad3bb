"""From a bundle to a model that OpenVINO has compiled for one shape."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import openvino

from bedside.backends.base import Tuning
from bedside.backends.explanation import explain
from bedside.backends.openvino.beginning import cut_beginning, gives
from bedside.backends.openvino.blobs import Blobs
from bedside.backends.openvino.islands import keep_float32
from bedside.bundle import Bundle
from bedside.errors import BackendError, OutputError
from bedside.onnxfile import NodeInfo

__all__ = ["DEVICE", "Builder", "open_core"]

DEVICE: Final = "CPU"
"""OpenVINO's name of the one device that is used."""


class _Arithmetic(NamedTuple):
    file: str
    """Precision of the bundle's file that is read."""
    hint: openvino.Type
    """What runs in it, but for what a file of int8 has quantised."""
    islands: str
    """Key of `bedside.manifest.Manifest.float32_nodes`; empty where all is float32 anyway."""
    needs: tuple[str, ...]
    """What the processor must be able to, in OpenVINO's words (OPTIMIZATION_CAPABILITIES)."""


_ARITHMETIC: Final[Mapping[str, _Arithmetic]] = {
    "fp32": _Arithmetic("fp32", openvino.Type.f32, "", ()),
    "bf16": _Arithmetic("fp32", openvino.Type.bf16, "bf16", ("BF16",)),
    "fp16": _Arithmetic("fp32", openvino.Type.f16, "fp16", ("FP16",)),
    "int8": _Arithmetic("int8", openvino.Type.f32, "", ("INT8",)),
    "int8-bf16": _Arithmetic("int8", openvino.Type.bf16, "bf16", ("INT8", "BF16")),
    "int8-fp16": _Arithmetic("int8", openvino.Type.f16, "fp16", ("INT8", "FP16")),
}
"""Precision -> how it is run. Left to itself, OpenVINO takes bf16 wherever the processor has it.

fp16 runs the fp32 file, which OpenVINO halves itself, all but the nodes that the manifest keeps in float32.
"""
_NUMBERS: Final[Mapping[str, str]] = {"BF16": "bfloat16", "FP16": "float16", "INT8": "int8"}
"""OpenVINO's word for what a processor is able to -> the numbers that it computes with."""


_FOLDED: Final = frozenset({"Constant", "Dropout", "Identity", "Shape"})
"""Operators that OpenVINO has no layer of that name for, and that round nothing."""

_BEGINNING: Final = "beginning"
_PARTS: Final[Mapping[int, tuple[str, ...]]] = {1: ("whole",), 2: (_BEGINNING, "rest")}
"""How many parts a model is compiled in -> their names."""


@cache
def open_core() -> openvino.Core:
    """The one of this process, which stays.

    Each brings a stack for signals of its own, for AMX, and puts back the one before it when it goes: of two that
    overlap, the last puts back a stack that is freed, and the next Ctrl-C crashes the process.
    """
    return openvino.Core()


class Builder:
    """Compiles one bundle's model in one precision.

    Args:
        bundle: The bundle.
        precision: One of `bedside.backends.PRECISIONS`.
        threads: Threads inside one inference; None leaves it to OpenVINO.
        tuning: How it is set up beyond that.

    Raises:
        BackendError: ``engine-unsupported`` if the processor does not have that arithmetic.
        BundleError: ``bundle-precision`` if the bundle has no such file.
    """

    def __init__(self, bundle: Bundle, *, precision: str, threads: int | None, tuning: Tuning) -> None:
        self._bundle, self._precision = bundle, precision
        arithmetic = self._arithmetic = _ARITHMETIC[precision]
        self._file = bundle.model(arithmetic.file)
        self._core = open_core()
        able = frozenset(self._core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"))
        if missing := [need for need in arithmetic.needs if need not in able]:
            there = [
                name
                for name, other in _ARITHMETIC.items()
                if other.file in bundle.manifest.models and able.issuperset(other.needs)
            ]
            raise BackendError(
                "engine-unsupported",
                f"this processor has no {_NUMBERS[missing[-1]]} arithmetic; ask for {' or '.join(there)}",
            )
        self._properties = _properties(arithmetic, threads, tuning)
        self._blobs = None if tuning.cache is None else Blobs(_folder(tuning.cache, bundle, precision))
        self._circumstances = (
            openvino.__version__,
            self._core.get_property(DEVICE, "FULL_DEVICE_NAME"),
            sorted(able),
            self._properties,
        )

    def build(self, shape: tuple[int, ...]) -> tuple[openvino.CompiledModel, ...]:
        """The model, compiled for inputs of one shape and no other, or so taken from the cache.

        A graph of fixed shapes takes about a sixth less processor time than a dynamic one (DenseNet-121, bf16).

        Returns:
            The model; or its beginning, which stays float32, and the rest.

        Raises:
            BackendError: ``engine-failed`` if OpenVINO can't read or compile it; ``engine-unsupported`` if it took
                another precision than it was told, or can't keep a node in float32.
            BundleError: ``bundle-altered`` if the file is not what it was when the bundle was opened.
        """
        key = repr((shape, *self._circumstances))
        parts = self._load(key)
        if not parts:
            parts = self._compile(shape)
            self._keep(key, parts)
        took = parts[-1].get_property("INFERENCE_PRECISION_HINT")
        if took != self._arithmetic.hint:
            raise BackendError(
                "engine-unsupported", f"openvino took {took.to_string()} instead of {self._precision}"
            )
        return parts

    def _load(self, key: str) -> tuple[openvino.CompiledModel, ...]:
        """What is kept under a key; empty if it is not, or not all of it."""
        if self._blobs is None:
            return ()
        for names in _PARTS.values():
            blobs = [self._blobs.read(f"{key} {name}") for name in names]
            kept = [(name, blob) for name, blob in zip(names, blobs, strict=True) if blob is not None]
            if len(kept) < len(names):
                continue
            try:
                return tuple(
                    self._core.import_model(blob, DEVICE, self._properties_of(name)) for name, blob in kept
                )
            except RuntimeError:  # whole, and still not for this OpenVINO: it is compiled and kept anew
                return ()
        return ()

    def _keep(self, key: str, parts: tuple[openvino.CompiledModel, ...]) -> None:
        """Keep what was compiled.

        Where the folder can't be written it runs all the same, and is compiled again the next time; ``bedside tune``
        and ``bedside doctor``, which tell of that, look at the folder themselves.
        """
        if self._blobs is None:
            return
        with suppress(OutputError):
            for name, part in zip(_PARTS[len(parts)], parts, strict=True):
                stream = io.BytesIO()
                part.export_model(stream)
                self._blobs.write(f"{key} {name}", stream.getvalue())

    def _properties_of(self, part: str) -> dict[str, Any]:
        float32 = {"INFERENCE_PRECISION_HINT": openvino.Type.f32} if part == _BEGINNING else {}
        return self._properties | float32

    def _compile(self, shape: tuple[int, ...]) -> tuple[openvino.CompiledModel, ...]:
        onnx = self._bundle.onnx(self._arithmetic.file)
        try:
            model = self._core.read_model(self._bundle.read(self._file))
            model.reshape(list(shape))
            stays = _computing(self._bundle, self._arithmetic)
            named = frozenset(self._bundle.manifest.float32_nodes.get(self._arithmetic.islands, ()))
            cut = cut_beginning(model, onnx.nodes, named) if stays else None
            if cut is None:
                return (self._finish(model, stays),)
            beginning, rest = cut
            left = {name: node for name, node in stays.items() if gives(rest, node)}
            first = self._core.compile_model(beginning, DEVICE, self._properties_of(_BEGINNING))
            return first, self._finish(rest, left)
        except BackendError:
            raise
        except RuntimeError as error:
            raise BackendError(
                "engine-failed", f"openvino can't load the model ({explain(error, onnx)})"
            ) from error

    def _finish(self, model: openvino.Model, stays: Mapping[str, NodeInfo]) -> openvino.CompiledModel:
        if stays:
            model = keep_float32(self._core, model, stays)
        return self._core.compile_model(model, DEVICE, self._properties)


def _computing(bundle: Bundle, arithmetic: _Arithmetic) -> dict[str, NodeInfo]:
    """The nodes that stay float32, of those that the file still has and that compute."""
    names = bundle.manifest.float32_nodes.get(arithmetic.islands, ())
    if not names:
        return {}
    nodes = bundle.onnx(arithmetic.file).nodes
    return {name: nodes[name] for name in names if name in nodes and nodes[name].operator not in _FOLDED}


def _folder(cache: Path, bundle: Bundle, precision: str) -> Path:
    version = openvino.__version__.partition("-")[0]  # 2026.4.1-22982-e213a147257-releases/2026/4
    return cache / "openvino" / f"{bundle.digest[:16]}-{precision}-{version}"


def _properties(arithmetic: _Arithmetic, threads: int | None, tuning: Tuning) -> dict[str, Any]:
    properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": arithmetic.hint}
    if tuning.hint == "throughput":
        properties["PERFORMANCE_HINT"] = "THROUGHPUT"
    else:
        properties |= {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    if threads is not None:
        properties["INFERENCE_NUM_THREADS"] = threads
    if tuning.pinned is not None:
        properties["ENABLE_CPU_PINNING"] = tuning.pinned
    return properties
