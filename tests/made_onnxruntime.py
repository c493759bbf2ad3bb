"""A stand-in for the module ``onnxruntime`` with whatever provider a test wants, and leaves that are opened on it."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import onnxruntime

from bedside.backends import Tuning
from bedside.backends.onnxruntime_gpu.leaf import OnnxRuntimeGpuBackend
from bedside.backends.onnxruntime_gpu.providers import CUDA, TENSORRT, Provider
from bedside.bundle import Bundle
from tiny_bundle import MODEL, Network, make_bundle, read_manifest, seal

PROVIDERS = {provider.backend: provider for provider in (CUDA, TENSORRT)}
PROCESSOR = Provider(
    "onnxruntime-processor",
    "CPUExecutionProvider",
    MappingProxyType({"fp32": "fp32", "int8": "int8"}),
    builds=False,
    file="none.so",
    memory="cpu",
)
"""Stands in for a GPU."""


class Library(SimpleNamespace):
    """ONNX Runtime with sessions that remember what they were told, and providers as a test wants them.

    A session that was told to leave the processor alone may yet run on it here, for want of a GPU.
    """

    def __init__(self, *, available: tuple[str, ...], loads: bool = True, folder: Path | None = None) -> None:
        super().__init__(
            __version__=onnxruntime.__version__,
            __file__=str((folder or Path("/nowhere")) / "__init__.py"),
            OrtValue=self,
            SessionOptions=Options,
            get_available_providers=lambda: list(available),
            preload_dlls=lambda: print("Failed to load libcublas.so.13"),  # noqa: T201 -- as ONNX Runtime does
            told=[],
            loads=loads,
        )

    def InferenceSession(  # noqa: N802 -- ONNX Runtime's name
        self, data: bytes, options: Options | None = None, *, providers: list[Any], enable_fallback: int
    ) -> Any:
        assert not enable_fallback
        (provider,) = providers
        name, told = provider
        print("*************** EP Error ***************")  # noqa: T201 -- as ONNX Runtime 1.21 does
        if options is not None:
            self.told.append((dict(told), options.entries, options.sizes))
            for path in (told.get("trt_engine_cache_path"), told.get("trt_timing_cache_path")):
                if path:
                    (Path(path) / "engine_sm89.engine").write_bytes(b"engine")
        real = onnxruntime.SessionOptions()
        for symbol, size in (options.sizes if options else {}).items():
            real.add_free_dimension_override_by_name(symbol, size)
        session = onnxruntime.InferenceSession(data, real, providers=["CPUExecutionProvider"])
        return Session(session, name if self.loads else "CPUExecutionProvider")

    def ortvalue_from_shape_and_type(self, shape: list[int], dtype: Any, memory: str, device: int) -> Any:
        assert (memory, device) in {("cuda", 0), ("cpu", 0)}
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, "cpu", 0)


class Options:
    """What a session is told."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.sizes: dict[str, int] = {}

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value

    def add_free_dimension_override_by_name(self, symbol: str, size: int) -> None:
        self.sizes[symbol] = size


class Session:
    """A session on the processor that says that it is elsewhere."""

    def __init__(self, session: Any, provider: str) -> None:
        self._session, self._provider = session, provider
        self.runs = 0

    def get_providers(self) -> list[str]:
        return [self._provider, "CPUExecutionProvider"][: 1 + (self._provider != "CPUExecutionProvider")]

    def run_with_iobinding(self, binding: Any) -> None:
        self.runs += 1
        self._session.run_with_iobinding(binding)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def backend_of(provider: Provider) -> type[OnnxRuntimeGpuBackend]:
    """The leaf of a provider."""
    return type("Leaf", (OnnxRuntimeGpuBackend,), {"provider": provider})


def open_leaf(bundle: Bundle, provider: Provider, library: Any, **how: Any) -> OnnxRuntimeGpuBackend:
    """A leaf on a stand-in for ONNX Runtime; ``how`` is its precision and its `Tuning`."""
    precision = how.pop("precision", "fp32")
    tuning = Tuning(**how)
    return backend_of(provider)(bundle, precision=precision, threads=None, tuning=tuning, library=library)


def with_gpu(provider: Provider, **how: Any) -> Library:
    """A stand-in that has the provider."""
    return Library(available=(provider.name, "CPUExecutionProvider"), **how)


def files_bundle(folder: Path) -> Bundle:
    """A bundle with files for fp32, fp16 and int8, which are all the same."""
    make_bundle(folder, network=Network(lungs=True))
    manifest = {key: value for key, value in read_manifest(folder).items() if key != "files"}
    for precision in ("fp16", "int8"):
        (folder / f"{precision}.onnx").write_bytes((folder / MODEL).read_bytes())
        manifest["models"][precision] = f"{precision}.onnx"
        manifest["tolerances"][precision] = manifest["tolerances"]["bf16"]
    return Bundle.open(seal(folder, manifest))


def has_gpu() -> bool:
    """Whether there is a driver of NVIDIA, or a Jetson's."""
    return Path("/dev/nvidiactl").exists() or Path("/dev/nvhost-gpu").exists()
