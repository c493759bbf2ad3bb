"""Memory, streams and graphs of CUDA, by NVIDIA's own Python package ``cuda-bindings``."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside.backends.tensorrt.library import line_of
from bedside.errors import BackendError, MissingExtraError

__all__ = ["Cuda", "CudaError", "PinnedBuffer", "load_runtime"]

_NO_GPU: Final = frozenset(
    {
        "cudaErrorInitializationError",
        "cudaErrorInsufficientDriver",
        "cudaErrorNoDevice",
        "cudaErrorStubLibrary",
        "cudaErrorSystemDriverMismatch",
        "cudaErrorSystemNotReady",
    }
)
"""Names of the errors that say that there is no GPU to use."""
_GPU: Final = 0
"""Number of the GPU that is used: the first that CUDA_VISIBLE_DEVICES leaves."""


class CudaError(BackendError):
    """A call of CUDA failed."""


class PinnedBuffer:
    """Main memory that the GPU copies from and to by itself.

    Args:
        address: Where it lies.
        size: Bytes.
    """

    def __init__(self, address: int, size: int) -> None:
        self.address = address
        """Where it lies."""
        self.array: npt.NDArray[np.uint8] = np.ctypeslib.as_array(
            (ctypes.c_ubyte * size).from_address(address)
        )
        """The same memory as bytes; not to be used once it is freed."""


class Cuda:
    """The calls of CUDA that an engine needs, each checked.

    Args:
        runtime: The module ``cuda.bindings.runtime``.
    """

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime

    def describe(self) -> tuple[str, str, str]:
        """Name of the GPU, its compute capability, and the version of CUDA that its driver is for.

        Raises:
            BackendError: ``engine-unsupported`` if there is no GPU, or no driver that this package can use.
        """
        properties = self._call("cudaGetDeviceProperties", _GPU)
        driver = int(self._call("cudaDriverGetVersion"))
        name = properties.name
        name = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
        capability = f"{int(properties.major)}.{int(properties.minor)}"
        return line_of(name.rstrip("\0")), capability, f"CUDA {_version(driver)}"

    def allocate(self, size: int) -> int:
        """Memory of the GPU; returns its address."""
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        """Give back what `allocate` gave."""
        self._call("cudaFree", address)

    def pin(self, size: int) -> PinnedBuffer:
        """Main memory for copies that the processor does not wait for."""
        return PinnedBuffer(int(self._call("cudaMallocHost", size)), size)

    def unpin(self, buffer: PinnedBuffer) -> None:
        """Give back what `pin` gave."""
        self._call("cudaFreeHost", buffer.address)

    def upload(self, target: int, source: PinnedBuffer, size: int, stream: Any) -> None:
        """Copy to the GPU, in the stream's order."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", target, source.address, size, kind, stream)

    def download(self, target: PinnedBuffer, source: int, size: int, stream: Any) -> None:
        """Copy from the GPU, in the stream's order."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target.address, source, size, kind, stream)

    def open_stream(self) -> Any:
        """A stream that waits for no other."""
        return self._call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)

    def close_stream(self, stream: Any) -> None:
        """End a stream."""
        self._call("cudaStreamDestroy", stream)

    def wait(self, stream: Any) -> None:
        """Until all that was put into the stream is done."""
        self._call("cudaStreamSynchronize", stream)

    def capture(self, stream: Any, enqueue: Callable[[], None]) -> Any:
        """What ``enqueue`` puts into the stream, as a graph that can be launched at once; it is not run.

        Raises:
            CudaError: It can't be captured.
            BackendError: From ``enqueue``.
        """
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)
        try:
            enqueue()
        except BaseException:
            self._runtime.cudaStreamEndCapture(
                stream
            )  # fails as what was captured did; the stream is usable again
            raise
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Any, stream: Any) -> None:
        """Run a captured graph, in the stream's order."""
        self._call("cudaGraphLaunch", graph, stream)

    def drop(self, graph: Any) -> None:
        """Free a captured graph."""
        self._call("cudaGraphExecDestroy", graph)

    def _call(self, name: str, *arguments: Any) -> Any:
        try:
            status, *values = getattr(self._runtime, name)(*arguments)
        except RuntimeError as error:  # before 13, where there is no driver's library
            raise _no_gpu(line_of(error)) from error
        if int(status) != 0:
            raise self._error(name, status)
        return values[0] if values else None

    def _error(self, name: str, status: Any) -> BackendError:
        text = self._runtime.cudaGetErrorString(status)[1]
        reason = line_of(text.decode(errors="replace") if isinstance(text, bytes) else text)
        kind = getattr(status, "name", "")
        if kind == "cudaErrorInsufficientDriver" and (driver := int(self._runtime.cudaDriverGetVersion()[1])):
            major = driver // 1000
            return BackendError(
                "engine-unsupported",
                f"NVIDIA's driver is for CUDA {_version(driver)}, and the package cuda-bindings for a newer one; "
                f"update the driver, or install 'cuda-bindings < {major + 1}'",
            )
        if kind in _NO_GPU:
            return _no_gpu(reason)
        return CudaError("engine-failed", f"CUDA failed in {name} ({reason}); use another engine")


def _version(number: int) -> str:
    """``12.6`` of CUDA's 12060."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _no_gpu(reason: str) -> BackendError:
    return BackendError(
        "engine-unsupported",
        f"there is no NVIDIA GPU to run on, or no driver for it ({reason}); install NVIDIA's driver, in a container "
        "start it with the GPU, or use another engine",
    )


def load_runtime(extra: str) -> Any:
    """The module of NVIDIA's CUDA runtime.

    Args:
        extra: The extra of bedside that brings it.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        from cuda.bindings import runtime  # noqa: PLC0415 - only running an engine needs it, building does not
    except ImportError as error:
        raise MissingExtraError.of("cuda-bindings", extra, "running a TensorRT engine") from error
    return runtime
