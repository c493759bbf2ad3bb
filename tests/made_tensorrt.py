"""TensorRT without a GPU: as strict as the real one where bedside depends on it.

    FakeTensorRt  ``tensorrt``, and with ``rtx=True`` ``tensorrt_rtx``: engines that run a Python function
    start, check, images   a bundle on it, and whether it answers rightly
    half_bundle   a tiny bundle that also has an fp16 model

Memory of the GPU is main memory here. A context refuses to run without its memory, addresses, shape and profile; a
capture of a shape that never ran fails, as it may on a GPU.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

import tiny_bundle
from bedside.backends.base import Tuning
from bedside.backends.tensorrt.backend import EngineBackend
from bedside.backends.tensorrt.library import Library
from bedside.bundle import Bundle
from made_cuda import FORBIDDEN, FakeCudart, move
from tiny_bundle import SIDE, Network, make_bundle, manifest_of, seal

Floats = npt.NDArray[np.float32]
Shape = tuple[int, ...]


class FakeTensorRt:
    """The module ``tensorrt`` or ``tensorrt_rtx``.

    Args:
        cudart: Where engines run.
        respond: What they compute.
        rtx: Whether it is TensorRT for RTX.
    """

    def __init__(
        self,
        cudart: FakeCudart,
        respond: Callable[[Floats], dict[str, Floats]] | None = None,
        *,
        rtx: bool = False,
    ) -> None:
        self.cudart = cudart
        self.respond = respond or Network().run
        self.rtx = rtx
        self.__version__ = "10.3.0"
        self.built: list[dict[str, Any]] = []
        """The settings of each build."""
        self.opened: list[SimpleNamespace] = []
        """Each runtime that took a plan."""
        self.capturable = True
        """Whether a CUDA graph can hold what engines do."""
        self.dla_cores = 0
        self.output_type = "FLOAT"
        names = ("SM75", "SM86", "SM120") if rtx else ()
        self.ComputeCapability = SimpleNamespace(**{name: name for name in names})
        flags = ["TF32", "GPU_FALLBACK", "VERSION_COMPATIBLE", *["REQUIRE_USER_ALLOCATION"] * rtx]
        self.BuilderFlag = SimpleNamespace(**{name: name for name in flags})
        self.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
        self.OnnxParserFlag = SimpleNamespace(ADJUST_FOR_DLA="ADJUST_FOR_DLA")
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="WORKSPACE")
        self.ProfilingVerbosity = SimpleNamespace(DETAILED="DETAILED")
        self.DeviceType = SimpleNamespace(DLA="DLA")
        self.LayerInformationFormat = SimpleNamespace(JSON="JSON")
        self.TensorIOMode = SimpleNamespace(INPUT="INPUT", OUTPUT="OUTPUT")
        self.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="USER_MANAGED")
        self.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="EAGER")

    class ILogger:
        """Base of a log."""

    class IProgressMonitor:
        """Base of a monitor."""

    def Builder(self, log: Any) -> Any:  # noqa: N802
        return _Builder(self, log)

    def OnnxParser(self, _network: Any, _log: Any) -> Any:  # noqa: N802
        return SimpleNamespace(parse=lambda _data: True, set_flag=lambda _flag: None, num_errors=0)

    def Runtime(self, log: Any) -> Any:  # noqa: N802
        runtime = SimpleNamespace(log=log, DLA_core=-1, engine_host_code_allowed=False)

        def deserialize(plan: bytes) -> Any:
            runtime.plan = plan
            self.opened.append(runtime)
            settings = json.loads(plan)
            if settings.get("refused"):
                log.log(1, "the plan is of another version")
                return None
            return _Engine(self, settings)

        runtime.deserialize_cuda_engine = deserialize
        return runtime


class _Builder:
    def __init__(self, api: FakeTensorRt, log: Any) -> None:
        self.api, self.log = api, log
        self.num_DLA_cores = api.dla_cores

    def create_network(self, flags: int) -> Any:
        assert flags == 1 << 1, "not strongly typed"
        outputs = self.api.respond(np.zeros((1, 1, SIDE, SIDE), np.float32))
        tensors = [
            SimpleNamespace(name=name, dtype="FLOAT", shape=values.shape) for name, values in outputs.items()
        ]
        return SimpleNamespace(
            num_inputs=1,
            get_input=lambda _index: SimpleNamespace(name="image", dtype="FLOAT", shape=(-1, 1, SIDE, SIDE)),
            num_outputs=len(tensors),
            get_output=tensors.__getitem__,
        )

    def create_builder_config(self) -> Any:
        config = SimpleNamespace(
            profiles=[], flags=[], cleared=[], pools={}, timing=None, capabilities={}, dla=None
        )
        config.set_flag = config.flags.append
        config.clear_flag = config.cleared.append
        config.set_memory_pool_limit = config.pools.__setitem__
        config.add_optimization_profile = config.profiles.append
        config.set_compute_capability = lambda value, index: config.capabilities.__setitem__(index, value)
        config.create_timing_cache = lambda blob: blob
        config.set_timing_cache = lambda blob, ignore_mismatch: setattr(config, "timing", blob)
        config.get_timing_cache = lambda: SimpleNamespace(serialize=lambda: config.timing + b"measured")
        return config

    def create_optimization_profile(self) -> Any:
        shapes: list[Any] = []
        return SimpleNamespace(shapes=shapes, set_shape=lambda name, *bounds: shapes.append((name, *bounds)))

    def build_serialized_network(self, _network: Any, config: Any) -> bytes | None:
        monitor = config.progress_monitor
        monitor.phase_start("Building engine", None, 3)
        for step in range(3):
            if not monitor.step_complete("Building engine", step):
                return None
        monitor.phase_finish("Building engine")
        settings = {
            "profiles": [profile.shapes[0] for profile in config.profiles],
            "flags": config.flags,
            "cleared": config.cleared,
            "pools": config.pools,
            "capabilities": list(config.capabilities.values()),
            "dla": getattr(config, "DLA_core", None),
        }
        timing = None if config.timing is None else len(config.timing)
        self.api.built.append({**settings, "timing": timing})
        return json.dumps(settings).encode()


class _Engine:
    def __init__(self, api: FakeTensorRt, settings: dict[str, Any]) -> None:
        self.api = api
        self.profiles = settings["profiles"]
        sample = api.respond(np.zeros((1, *self.profiles[0][1][1:]), np.float32))
        self.names = [self.profiles[0][0], *sample]
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, index: int) -> str:
        return str(self.names[index])

    def get_tensor_mode(self, name: str) -> str:
        return "INPUT" if name == self.names[0] else "OUTPUT"

    def get_tensor_dtype(self, name: str) -> str:
        return "FLOAT" if name == self.names[0] else self.api.output_type

    def get_tensor_shape(self, _name: str) -> Shape:
        return (-1, 1)

    def create_engine_inspector(self) -> Any:
        layer = {
            "Name": "conv",
            "LayerType": "gemm",
            "Inputs": [{"Datatype": "Half"}],
            "Outputs": [{"Datatype": "Half"}],
        }
        text = json.dumps({"Layers": [layer]})
        return SimpleNamespace(get_engine_information=lambda _form: text)

    def get_device_memory_size_for_profile_v2(self, index: int) -> int:
        return 1000 + index

    def create_runtime_config(self) -> Any:
        assert self.api.rtx
        config = SimpleNamespace(strategy=None, cache=None)
        config.set_execution_context_allocation_strategy = lambda value: setattr(config, "strategy", value)
        config.set_runtime_cache = lambda cache: setattr(config, "cache", cache)
        config.create_runtime_cache = lambda: SimpleNamespace(
            deserialize=lambda _blob: True, serialize=lambda: b"kernels"
        )
        return config

    def create_execution_context(self, how: Any) -> Any:
        strategy = how.strategy if self.api.rtx else how
        assert strategy == "USER_MANAGED"
        if self.api.rtx:
            assert how.dynamic_shapes_kernel_specialization_strategy == "EAGER"
            assert how.cache is not None
        return _Context(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self.engine, self.api = engine, engine.api
        self.profile: int | None = None
        self.shape: Shape = ()
        self.scratch = 0
        self.addresses: dict[str, int] = {}
        self.ran: set[Shape] = set()

    def set_optimization_profile_async(self, index: int, _stream: int) -> bool:
        self.profile = index
        return True

    def set_input_shape(self, _name: str, shape: Sequence[int]) -> bool:
        assert self.profile is not None
        _, least, _, most = self.engine.profiles[self.profile]
        if not all(low <= side <= high for low, side, high in zip(least, shape, most, strict=True)):
            return False
        self.shape = tuple(shape)
        return True

    def set_device_memory(self, address: int, size: int) -> None:
        assert self.profile is not None
        assert size >= self.engine.get_device_memory_size_for_profile_v2(self.profile)
        assert len(self.api.cudart.memory[address]) >= size
        self.scratch = address

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.engine.names

    def get_tensor_shape(self, name: str) -> Shape:
        return self.api.respond(np.zeros(self.shape, np.float32))[name].shape

    def is_stream_capturable(self, _stream: int) -> bool:
        return self.api.capturable or not self.api.rtx

    def execute_async_v3(self, stream: int) -> bool:
        cudart, shape = self.api.cudart, self.shape
        if not (shape and self.scratch and set(self.addresses) == set(self.engine.names)):
            return False
        if cudart.capturing is not None and shape not in self.ran:
            return False
        self.ran.add(shape)
        if cudart.capturing is not None and not self.api.capturable:
            cudart.put(FORBIDDEN, stream)
            return True
        source, *targets = (self.addresses[name] for name in self.engine.names)

        def work() -> None:
            size = math.prod(shape)
            image = np.frombuffer(cudart.memory[source], np.float32)[:size].reshape(shape).copy()
            for target, values in zip(targets, self.api.respond(image).values(), strict=True):
                data = np.ascontiguousarray(values, np.float32).tobytes()
                move(target, data, len(data))

        cudart.put(work, stream)
        return True


def start(api: FakeTensorRt, bundle: Bundle, precision: str = "fp32", **tuning: Any) -> EngineBackend:
    """A bundle on the made-up package; keywords are those of `Tuning`."""
    name, extra = ("tensorrt-rtx", "rtx") if api.rtx else ("tensorrt", "tensorrt")
    library = Library(name, extra, api, rtx=api.rtx)
    return EngineBackend(library, bundle, precision=precision, threads=None, tuning=Tuning(**tuning))


def images(count: int) -> Any:
    """``(count, 1, SIDE, SIDE)`` float32 noise."""
    return np.random.default_rng(count).uniform(-1000, 1000, (count, 1, SIDE, SIDE)).astype(np.float32)


def check(engine: EngineBackend, count: int) -> None:
    """Whether an engine of `tiny_bundle.Network` answers rightly on so many pictures."""
    given = images(count)
    answers = engine.run({"image": given})
    expected = Network().run(given)
    assert list(answers) == list(expected)
    for name, values in expected.items():
        assert answers[name].dtype == np.float32
        np.testing.assert_allclose(answers[name], values, rtol=1e-5, atol=1e-5)


def _half(name: str, values: Floats | npt.NDArray[np.float64]) -> bytes:
    dims = b"".join(tiny_bundle._varint_field(1, size) for size in values.shape)
    data = struct.pack(f"<{values.size}e", *values.ravel())
    kind = tiny_bundle._varint_field(2, 10)  # data type 10: float16
    return dims + kind + tiny_bundle._bytes(8, name.encode()) + tiny_bundle._bytes(9, data)


def _cast(source: str, target: str, kind: int) -> bytes:
    to = tiny_bundle._bytes(1, b"to") + tiny_bundle._varint_field(3, kind) + tiny_bundle._varint_field(20, 2)
    return tiny_bundle._node("Cast", [source], target, [to])


def encode_half() -> bytes:
    """The graph of `tiny_bundle.Network` without its optional outputs, in half precision between float32 borders."""
    grid, network = SIDE // tiny_bundle.POOL, Network(pathologies=False)
    sides = (tiny_bundle.POOL, tiny_bundle.POOL)
    pool = [tiny_bundle._attribute_ints("kernel_shape", sides), tiny_bundle._attribute_ints("strides", sides)]
    node = tiny_bundle._node
    nodes = [
        _cast("image", "small", 10),
        node("AveragePool", ["small"], "features", pool),
        node("Mul", ["features", "weight"], "weighted"),
        node("Add", ["weighted", "bias"], "map"),
        _cast("map", "cam", 1),
        node("GlobalAveragePool", ["map"], "pooled"),
        node("Flatten", ["pooled"], "flat"),
        _cast("flat", "severity", 1),
    ]
    column = tiny_bundle._column
    graph = [tiny_bundle._bytes(1, each) for each in nodes]
    graph += [
        tiny_bundle._bytes(2, b"half"),
        tiny_bundle._bytes(5, _half("weight", column(network.weight))),
        tiny_bundle._bytes(5, _half("bias", column(network.bias))),
        tiny_bundle._bytes(11, tiny_bundle._value("image", ("N", 1, SIDE, SIDE))),
        tiny_bundle._bytes(12, tiny_bundle._value("severity", ("N", 2))),
        tiny_bundle._bytes(12, tiny_bundle._value("cam", ("N", 2, grid, grid))),
    ]
    opset = tiny_bundle._bytes(1, b"") + tiny_bundle._varint_field(2, 18)
    return (
        tiny_bundle._varint_field(1, 8)
        + tiny_bundle._bytes(7, b"".join(graph))
        + tiny_bundle._bytes(8, opset)
    )


def half_bundle(folder: Path) -> Path:
    """A bundle with an fp32 and an fp16 model."""
    network = Network(pathologies=False)
    make_bundle(folder, network=network)
    (folder / "model.fp16.onnx").write_bytes(encode_half())
    manifest = manifest_of(network)
    manifest["models"] = {"fp32": tiny_bundle.MODEL, "fp16": "model.fp16.onnx"}
    manifest["tolerances"]["fp16"] = {"extent": 0.1, "opacity": 0.1}
    return seal(folder, manifest)
