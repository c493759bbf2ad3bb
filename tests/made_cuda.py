"""CUDA without a GPU: ``cuda.bindings.runtime`` whose streams do what was put into them when they are waited for."""

from __future__ import annotations

import ctypes
import enum
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class Status(enum.IntEnum):
    """Of `FakeCudart`, by NVIDIA's names and numbers."""

    cudaSuccess = 0  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815
    cudaErrorInsufficientDriver = 35  # noqa: N815
    cudaErrorStreamCaptureUnsupported = 900  # noqa: N815


class FakeCudart:
    """``cuda.bindings.runtime``."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815
    cudaStreamNonBlocking = 1  # noqa: N815

    def __init__(
        self, *, driver: bool | None = True, name: str = "Fake GPU", capability: str = "8.6"
    ) -> None:
        self.driver = driver
        self.driver_version = 13050
        self.old_driver = 0
        """CUDA of a driver that is there and too old."""
        self.name = name
        self.capability = capability
        self.memory: dict[int, Any] = {}
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.capturing: list[Callable[[], None]] | None = None
        self.calls: list[str] = []
        self.budget = math.inf
        """Bytes that can still be taken."""
        self._next = 1

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("cuda") and name[4].isupper():
            object.__getattribute__(self, "calls").append(name)
        return object.__getattribute__(self, name)

    @property
    def leaks(self) -> int:
        """Blocks of memory, streams and graphs that were not given back."""
        return len(self.memory) + len(self.streams) + len(self.graphs)

    def count(self, name: str) -> int:
        """How often a function was called."""
        return self.calls.count(name)

    def put(self, work: Callable[[], None], stream: int) -> None:
        """Into the stream, or into the graph that is being captured."""
        (self.streams[int(stream)] if self.capturing is None else self.capturing).append(work)

    def cudaGetErrorString(self, status: Status) -> tuple[Status, bytes]:  # noqa: N802
        return Status.cudaSuccess, status.name.encode()

    def cudaGetDeviceProperties(self, _device: int) -> tuple[Any, ...]:  # noqa: N802
        if self.driver is None:
            raise RuntimeError("Failed to dlopen libcuda.so.1")
        if not self.driver:
            return Status.cudaErrorInsufficientDriver, None
        major, minor = map(int, self.capability.split("."))
        return Status.cudaSuccess, SimpleNamespace(name=self.name.encode(), major=major, minor=minor)

    def cudaDriverGetVersion(self) -> tuple[Status, int]:  # noqa: N802
        return Status.cudaSuccess, self.driver_version if self.driver else self.old_driver

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:  # noqa: N802
        if size > self.budget:
            return Status.cudaErrorMemoryAllocation, None
        self.budget -= size
        block = (ctypes.c_ubyte * size)()
        address = ctypes.addressof(block)
        self.memory[address] = block
        return Status.cudaSuccess, address

    cudaMallocHost = cudaMalloc  # noqa: N815

    def cudaFree(self, address: int) -> tuple[Status]:  # noqa: N802
        del self.memory[address]
        return (Status.cudaSuccess,)

    cudaFreeHost = cudaFree  # noqa: N815

    def cudaMemcpyAsync(self, target: int, source: int, size: int, _kind: int, stream: int) -> tuple[Status]:  # noqa: N802
        assert size <= len(self.memory[target])
        assert size <= len(self.memory[source])
        self.put(lambda: move(target, source, size), stream)
        return (Status.cudaSuccess,)

    def cudaStreamCreateWithFlags(self, _flags: int) -> tuple[Status, int]:  # noqa: N802
        self._next += 1
        self.streams[self._next] = []
        return Status.cudaSuccess, self._next

    def cudaStreamDestroy(self, stream: int) -> tuple[Status]:  # noqa: N802
        del self.streams[stream]
        return (Status.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Status]:  # noqa: N802
        for work in self.streams[stream]:
            work()
        self.streams[stream].clear()
        return (Status.cudaSuccess,)

    def cudaStreamBeginCapture(self, _stream: int, _mode: int) -> tuple[Status]:  # noqa: N802
        assert self.capturing is None
        self.capturing = []
        return (Status.cudaSuccess,)

    def cudaStreamEndCapture(self, _stream: int) -> tuple[Any, ...]:  # noqa: N802
        captured, self.capturing = self.capturing, None
        assert captured is not None
        if FORBIDDEN in captured:
            return Status.cudaErrorStreamCaptureUnsupported, None
        self._next += 1
        self.graphs[self._next] = captured
        return Status.cudaSuccess, self._next

    def cudaGraphInstantiate(self, graph: int, _flags: int) -> tuple[Status, int]:  # noqa: N802
        self._next += 1
        self.graphs[self._next] = self.graphs[graph]
        return Status.cudaSuccess, self._next

    def cudaGraphDestroy(self, graph: int) -> tuple[Status]:  # noqa: N802
        del self.graphs[graph]
        return (Status.cudaSuccess,)

    cudaGraphExecDestroy = cudaGraphDestroy  # noqa: N815

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Status]:  # noqa: N802
        for work in self.graphs[graph]:
            self.put(work, stream)
        return (Status.cudaSuccess,)


def move(target: int, source: int | bytes, size: int) -> None:
    """Copy bytes to an address."""
    ctypes.memmove(target, source, size)


def FORBIDDEN() -> None:  # noqa: N802 - a constant that is work
    """What no graph can hold."""
