"""One profile of an engine, ready to run: buffers, one stream, and a CUDA graph for each shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bedside.backends.tensorrt.cuda import Cuda, CudaError, PinnedBuffer
from bedside.backends.tensorrt.recipe import Profile
from bedside.errors import BackendError

__all__ = ["Interface", "Session"]

_Float32 = npt.NDArray[np.float32]
_Shape = tuple[int, ...]

MAX_LANES: Final = 8
"""Most shapes that are kept ready: each holds a context of TensorRT and a graph of the driver, and a scan has a handful
of shapes."""
_BYTES: Final = 4
"""Of a float32, in which all goes in and out."""


@dataclass(frozen=True, slots=True)
class Interface:
    """What a session needs of the engine that it runs."""

    input: str
    """Name of the input."""
    outputs: tuple[str, ...]
    """Names of the outputs, in the order of the answer."""
    scratch_bytes: int
    """Memory of the GPU that the layers need at this profile."""
    make_context: Callable[[], Any]
    """A new execution context without memory of its own, with the profile chosen."""


@dataclass(slots=True)
class _Lane:
    """One shape, ready to run."""

    context: Any
    """Its own: a graph depends on the state of the context that it was captured of (TensorRT's developer guide)."""
    sizes: dict[str, int]
    """Tensor -> bytes."""
    given: _Float32
    """The pinned memory of the input, in this shape."""
    answers: dict[str, _Float32]
    """Output -> its pinned memory, in its shape."""
    graph: Any = None
    """What is launched; None where the engine does what no graph can hold."""


class Session:
    """Runs one profile of an engine, from one thread.

    Its memory is all taken at the start, for the largest shape of the profile, and shared by the shapes. The first run
    of a shape runs it as it is and then captures it, copies and all; every other run launches that graph and waits.

    Args:
        cuda: CUDA.
        stream: Where all runs.
        profile: What it takes.
        interface: What it runs.
    """

    def __init__(self, cuda: Cuda, stream: Any, profile: Profile, interface: Interface) -> None:
        self.profile = profile
        self._cuda = cuda
        self._stream = stream
        self._interface = interface
        self._lanes: dict[_Shape, _Lane] = {}
        self._device: dict[str, int] = {}
        self._host: dict[str, PinnedBuffer] = {}
        self._memory = ExitStack()
        with ExitStack() as undo:
            undo.callback(self.close)
            self._scratch = self._keep(cuda.allocate(max(interface.scratch_bytes, 1)), cuda.free)
            shapes = self._shapes(interface.make_context(), profile.largest)
            for name, shape in shapes.items():
                size = math.prod(shape) * _BYTES
                self._device[name] = self._keep(cuda.allocate(size), cuda.free)
                self._host[name] = self._keep(cuda.pin(size), cuda.unpin)
            undo.pop_all()

    def run(self, image: _Float32) -> dict[str, _Float32]:
        """Answer on at most as many pictures as the profile takes.

        Args:
            image: ``(N, C, ...)`` float32, of sides that the profile takes.

        Returns:
            Output name -> float32 array that aliases pinned memory, good until the next run.

        Raises:
            BackendError: ``engine-failed`` if TensorRT or CUDA fails.
        """
        count = len(image)
        shape = (max(count, self.profile.batches[0]), *image.shape[1:])
        lane = self._lanes.get(shape)
        if lane is not None and lane.graph is not None:
            self._fill(lane, image)
            self._cuda.launch(lane.graph, self._stream)
        else:
            lane = lane or self._open(shape)
            self._fill(lane, image)
            self._enqueue(lane)
            if shape not in self._lanes:
                self._cuda.wait(self._stream)  # a new shape's first run prepares what can't be captured
                lane.graph = self._capture(lane)
                self._admit(shape, lane)
        self._cuda.wait(self._stream)
        return {name: values[:count] for name, values in lane.answers.items()}

    def close(self) -> None:
        """Free all; closing twice is harmless."""
        while self._lanes:
            self._close(self._lanes.popitem()[1])
        self._memory.close()

    def _keep(self, resource: Any, free: Callable[[Any], None]) -> Any:
        self._memory.callback(free, resource)
        return resource

    def _open(self, shape: _Shape) -> _Lane:
        context = self._interface.make_context()
        shapes = self._shapes(context, shape)
        context.set_device_memory(self._scratch, max(self._interface.scratch_bytes, 1))
        for name, address in self._device.items():
            if not context.set_tensor_address(name, address):
                raise BackendError(
                    "engine-failed", f"TensorRT takes no memory for {name!r}; use another engine"
                )
        sizes = {name: math.prod(each) * _BYTES for name, each in shapes.items()}
        views = {
            name: self._host[name].array[:size].view(np.float32).reshape(shapes[name])
            for name, size in sizes.items()
        }
        given = views.pop(self._interface.input)
        return _Lane(context, sizes, given, views)

    def _shapes(self, context: Any, shape: _Shape) -> dict[str, _Shape]:
        """Tensor -> its shape where the input has this one."""
        name = self._interface.input
        if not context.set_input_shape(name, shape):
            raise BackendError("engine-failed", f"TensorRT takes no input of {shape}; use another engine")
        shapes: dict[str, _Shape] = {name: shape}
        for output in self._interface.outputs:
            shapes[output] = tuple(int(side) for side in context.get_tensor_shape(output))
            if min(shapes[output], default=0) < 0:
                raise BackendError(
                    "engine-failed",
                    f"the size of the output {output!r} is not known before it is computed; use another engine",
                )
        return shapes

    def _admit(self, shape: _Shape, lane: _Lane) -> None:
        if len(self._lanes) >= MAX_LANES:
            self._close(self._lanes.pop(next(iter(self._lanes))))
        self._lanes[shape] = lane

    def _close(self, lane: _Lane) -> None:
        if lane.graph is not None:
            self._cuda.drop(lane.graph)

    def _fill(self, lane: _Lane, image: _Float32) -> None:
        """Put the pictures into pinned memory; what a DLA's fixed batch has beyond them is 0."""
        lane.given[: len(image)] = image
        lane.given[len(image) :] = 0

    def _enqueue(self, lane: _Lane) -> None:
        name, stream = self._interface.input, self._stream
        self._cuda.upload(self._device[name], self._host[name], lane.sizes[name], stream)
        if not lane.context.execute_async_v3(int(stream)):
            raise BackendError("engine-failed", "TensorRT could not run the model; use another engine")
        for output in lane.answers:
            self._cuda.download(self._host[output], self._device[output], lane.sizes[output], stream)

    def _capture(self, lane: _Lane) -> Any:
        """The graph of a shape; None where the engine does what no graph can hold."""
        capturable = getattr(lane.context, "is_stream_capturable", None)  # not in TensorRT 10.3
        if capturable is not None and not capturable(int(self._stream)):
            return None
        try:
            return self._cuda.capture(self._stream, lambda: self._enqueue(lane))
        except CudaError:
            return None
