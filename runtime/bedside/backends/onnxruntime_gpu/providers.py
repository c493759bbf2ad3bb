"""What ONNX Runtime's providers for GPUs take, and whether they are there.

A provider that can't be loaded is no error to ONNX Runtime: it says so on the console, and runs on the processor.
"""

from __future__ import annotations

import ctypes
import io
import mmap
import re
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from bedside.backends.base import Tuning
from bedside.backends.explanation import shorten
from bedside.errors import BackendError

__all__ = ["CUDA", "TENSORRT", "Provider", "load_provider", "open_session"]

_EMPTY_NETWORK: Final = (
    b"\x08\x08:#\x12\x01g*\r\x08\x01\x10\x01B\x01yJ\x04\x00\x00\x00\x00b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02"
    b"\x08\x01B\x04\n\x00\x10\x12"
)
"""An ONNX file whose output is a constant: ONNX Runtime opens it on any provider, and computes nothing."""
_NEED: Final = re.compile(rb"\0(lib[A-Za-z0-9_+-]+\.so\.\d+)(?=\0)")
"""Name of a shared library in another."""
_LAST_NEED: Final = "libc.so.6"
_DRIVER: Final = "libcuda.so.1"
"""What NVIDIA's driver brings."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One of ONNX Runtime's ways to a GPU."""

    backend: str
    """Name of the backend, as in `bedside.backends.BACKENDS`."""
    name: str
    """Its name in ONNX Runtime."""
    files: Mapping[str, str]
    """Precision that it runs -> precision of the bundle's file for it."""
    builds: bool
    """Whether it compiles engines that are worth keeping."""
    file: str
    """The shared library that it is in."""
    memory: str = "cuda"
    """Where ONNX Runtime puts its inputs and outputs."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What it is always told."""

    def options_for(self, precision: str, tuning: Tuning, folder: Path | None) -> dict[str, str]:
        """All that it is told.

        Args:
            precision: One of `files`.
            tuning: Its workspace and accelerator count.
            folder: Where built engines are kept; None keeps none.
        """
        options = dict(self.options)
        if not self.builds:
            return options
        options["trt_fp16_enable"] = str(int(precision.endswith("fp16")))
        options["trt_int8_enable"] = str(int(precision.startswith("int8")))
        if tuning.workspace_bytes is not None:
            options["trt_max_workspace_size"] = str(tuning.workspace_bytes)
        if tuning.dla is not None:
            options |= {"trt_dla_enable": "1", "trt_dla_core": str(tuning.dla)}
        if folder is not None:
            options |= {
                "trt_engine_cache_enable": "1",
                "trt_engine_cache_path": str(folder),
                "trt_timing_cache_enable": "1",
                "trt_timing_cache_path": str(folder),
            }
        return options


CUDA: Final = Provider(
    "onnxruntime-cuda",
    "CUDAExecutionProvider",
    MappingProxyType({"fp32": "fp32", "fp16": "fp16"}),
    builds=False,
    file="libonnxruntime_providers_cuda.so",
    options=MappingProxyType(
        {
            "device_id": "0",
            "enable_cuda_graph": "1",
            "use_tf32": "0",  # fp32 is fp32: TensorFloat-32 keeps 10 bits of a factor
        }
    ),
)
"""int8 is not here: the CUDA provider computes a quantised graph in float32, which is slower than fp32 itself."""
TENSORRT: Final = Provider(
    "onnxruntime-tensorrt",
    "TensorrtExecutionProvider",
    MappingProxyType({"fp32": "fp32", "fp16": "fp16", "int8": "int8", "int8-fp16": "int8"}),
    builds=True,
    file="libonnxruntime_providers_tensorrt.so",
    options=MappingProxyType({"device_id": "0", "trt_cuda_graph_enable": "1"}),
)
"""In fp32 TensorRT may take TensorFloat-32, which the provider has no option against; the golden inputs find it where
it matters."""


def load_provider(library: Any, provider: Provider, errors: tuple[type[Exception], ...]) -> None:
    """See that ONNX Runtime has a provider, and that it can be loaded here.

    Args:
        library: The module ``onnxruntime``.
        provider: Which.
        errors: What the module raises.

    Raises:
        BackendError: ``engine-unsupported`` if this build of ONNX Runtime does not have it, or what it needs is
            missing: the driver, or libraries of NVIDIA's.
    """
    there = library.get_available_providers()
    if provider.name not in there:
        raise BackendError(
            "engine-unsupported",
            f"onnxruntime {library.__version__} is without {provider.name}: it has {', '.join(there)}; "
            "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'bedside[gpu]'",
        )
    _preload(library)
    loaded: list[str] = []
    lacking = ""
    try:
        session = open_session(library, _EMPTY_NETWORK, None, (provider.name, {}))
        loaded = session.get_providers()
    except errors as error:
        lacking = shorten(error)
    if provider.name not in loaded:
        lacking = _find_missing(library, provider) or lacking
        raise BackendError(
            "engine-unsupported",
            f"{provider.name} of onnxruntime {library.__version__} can't be loaded"
            f"{f' ({lacking})' if lacking else ''}: {_remedy(lacking)}; bedside doctor tells what else is missing",
        )


def open_session(library: Any, data: bytes, options: Any, provider: tuple[str, Mapping[str, str]]) -> Any:
    """A session on one provider; ONNX Runtime may have taken another all the same.

    Some of its versions say so on the standard output, where results go.
    """
    with redirect_stdout(io.StringIO()):
        return library.InferenceSession(data, options, providers=[provider], enable_fallback=0)


def _preload(library: Any) -> None:
    """Load the libraries that pip installed, which the system does not look for; what is missing is told later."""
    if hasattr(library, "preload_dlls"):  # since 1.21; builds for Jetson are older, and find the system's
        with redirect_stdout(io.StringIO()):
            library.preload_dlls()


def _find_missing(library: Any, provider: Provider) -> str:
    """Name of the first shared library that a provider's own needs and that is not here; empty if all are.

    The provider's own library must not be loaded to learn it: only ONNX Runtime knows how. Its needs stand in it as
    text, the last of them the C library.
    """
    file = Path(library.__file__).parent / "capi" / provider.file
    if not file.exists():
        return ""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as text:
        names = [found.group(1).decode() for found in _NEED.finditer(text)]
    for name in (*names[: names.index(_LAST_NEED) if _LAST_NEED in names else None], _DRIVER):
        try:
            ctypes.CDLL(name)
        except OSError:
            return name
    return ""


def _remedy(lacking: str) -> str:
    if lacking == _DRIVER:
        return "install NVIDIA's driver; in a container, start it with its GPUs (--gpus all)"
    if lacking.startswith("libnv"):
        return "install the TensorRT that this build was made for, and name its folder in LD_LIBRARY_PATH"
    if lacking.startswith("lib"):
        return "install CUDA and cuDNN: pip install 'bedside[gpu]'"
    return "nvidia-smi must list a GPU that this build of ONNX Runtime was made for"
