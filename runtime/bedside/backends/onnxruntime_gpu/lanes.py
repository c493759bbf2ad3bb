"""A session of one shape, its inputs and outputs in memory of the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bedside.backends.base import Arrays
from bedside.backends.onnxruntime_gpu.providers import Provider

__all__ = ["Lane"]


class Lane:
    """Runs batches of one size.

    All memory is taken here, and the session is run as often as it needs to record what it launches on the device
    (the CUDA graph): the first picture takes no longer than the next.

    Args:
        library: The module ``onnxruntime``.
        session: Of fixed shapes.
        provider: What it runs on.
        shape: ``(N, C, ...)`` of a run.
    """

    def __init__(self, library: Any, session: Any, provider: Provider, shape: tuple[int, ...]) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._host: npt.NDArray[np.float32] = np.zeros(shape, np.float32)

        def on_device(sides: tuple[int, ...]) -> Any:
            return library.OrtValue.ortvalue_from_shape_and_type(list(sides), np.float32, provider.memory, 0)

        (source,) = session.get_inputs()
        self._input = on_device(shape)
        self._binding.bind_ortvalue_input(source.name, self._input)
        self._outputs: Mapping[str, Any] = {
            each.name: on_device(tuple(each.shape)) for each in session.get_outputs()
        }
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)
        for _ in range(_RUNS_TO_RECORD):
            self._launch()

    def run(self, pictures: npt.NDArray[np.float32]) -> Arrays:
        """Run pictures ``(n, C, ...)``, however many, in batches; the last is filled up with what was there before."""
        size = len(self._host)
        answers = {
            name: np.empty((len(pictures), *value.shape()[1:]), np.float32)
            for name, value in self._outputs.items()
        }
        for start in range(0, len(pictures), size):
            batch = pictures[start : start + size]
            self._host[: len(batch)] = batch
            self._launch()
            for name, answer in answers.items():
                answer[start : start + size] = self._outputs[name].numpy()[: len(batch)]
        return answers

    def _launch(self) -> None:
        self._input.update_inplace(self._host)
        self._session.run_with_iobinding(self._binding)


_RUNS_TO_RECORD = 3
"""ONNX Runtime runs a graph once or twice plainly, then records it; what is recorded is first used by the next run."""
