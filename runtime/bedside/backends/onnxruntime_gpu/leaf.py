"""ONNX Runtime on a GPU behind the seam: from arrays to arrays."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from bedside.backends.base import Arrays, EngineInfo, Tuning, check_inputs
from bedside.backends.explanation import explain, shorten
from bedside.backends.onnxruntime_gpu.lanes import Lane
from bedside.backends.onnxruntime_gpu.providers import CUDA, TENSORRT, Provider, load_provider, open_session
from bedside.backends.onnxruntime_gpu.sealing import seal, unseal
from bedside.backends.shapes import expected_shape
from bedside.bundle import Bundle
from bedside.device import describe_device
from bedside.errors import BackendError

__all__ = ["OnnxRuntimeCudaBackend", "OnnxRuntimeGpuBackend", "OnnxRuntimeTensorRtBackend"]

SHAPES: Final = 4
"""Most shapes that sessions are kept for; each takes memory of the device."""
_ERRORS: Final[tuple[type[Exception], ...]] = (
    *(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    TypeError,
    ValueError,
)
"""What ONNX Runtime raises: its own exceptions have no common base but Exception."""
_ERRORS_ONLY: Final = 3
"""Severity from which ONNX Runtime logs."""


class OnnxRuntimeGpuBackend:
    """See `bedside.backends.base.Backend`.

    Each shape has a session of its own, in which every size is fixed. All of the network runs on the provider: where
    it lacks an operator, opening fails, for ONNX Runtime would run that part on the processor.

    Args:
        bundle: The opened bundle.
        precision: One of `Provider.files`.
        threads: Of the little that the processor does.
        tuning: `Tuning.batch` is the size of a run: pictures come in such batches, the last one filled up.
        library: The module ``onnxruntime``, or one that stands in for it.
    """

    provider: ClassVar[Provider]

    def __init__(
        self,
        bundle: Bundle,
        *,
        precision: str,
        threads: int | None,
        tuning: Tuning,
        library: Any = onnxruntime,
    ) -> None:
        provider = self.provider
        if precision not in provider.files:
            raise BackendError(
                "engine-unsupported",
                f"{provider.backend} has no {precision}; ask for one of: {', '.join(provider.files)}",
            )
        self._file = provider.files[precision]
        bundle.model(self._file)
        load_provider(library, provider, _ERRORS)
        self._bundle, self._tuning, self._library = bundle, tuning, library
        self._input = bundle.manifest.input
        self._outputs = [output.name for output in bundle.manifest.outputs]
        self._info = EngineInfo(provider.backend, library.__version__, precision, "GPU", threads)
        self._lanes: OrderedDict[tuple[int, ...], Lane] = OrderedDict()
        self._closed = False
        self._lane(expected_shape(bundle.manifest, tuning)[1:])

    @property
    def info(self) -> EngineInfo:
        """What runs here."""
        return self._info

    def run(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> Arrays:
        """Run the network once; see `bedside.backends.base.Backend.run`."""
        if self._closed:
            raise BackendError("engine-failed", "the engine is closed; open it again")
        check_inputs(inputs, self._input)
        pictures = inputs[self._input.name]
        lane = self._lane(pictures.shape[1:])
        try:
            answers = lane.run(pictures)
        except _ERRORS as error:
            raise BackendError(
                "engine-failed", f"{self.provider.backend} could not run the model ({shorten(error)})"
            ) from error
        return {name: answers[name] for name in self._outputs}

    def close(self) -> None:
        """Free the sessions and their memory on the device."""
        self._closed = True
        self._lanes.clear()

    def _lane(self, sides: tuple[int, ...]) -> Lane:
        """That of one picture's shape ``(C, ...)``."""
        if sides not in self._lanes:
            batch = 1 if self._input.shape[0] == 1 else self._tuning.batch
            self._lanes[sides] = self._open_lane((batch, *sides))
            if len(self._lanes) > SHAPES:
                self._lanes.popitem(last=False)
        self._lanes.move_to_end(sides)
        return self._lanes[sides]

    def _open_lane(self, shape: tuple[int, ...]) -> Lane:
        folder = self._folder(shape)
        if folder is not None:
            unseal(folder)
        try:
            lane = Lane(self._library, self._open_session(shape, folder), self.provider, shape)
        except _ERRORS as error:
            if isinstance(error, BackendError):
                raise
            raise self._refusal(error) from error
        if folder is not None:
            seal(folder)
        return lane

    def _open_session(self, shape: tuple[int, ...], folder: Path | None) -> Any:
        options = self._library.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = self._info.threads or 0
        options.add_session_config_entry("session.load_model_format", "ONNX")
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        (source,) = self._bundle.onnx(self._file).inputs
        for symbol, size in zip(source.symbols, shape, strict=True):
            if symbol:
                options.add_free_dimension_override_by_name(symbol, size)
        told = self.provider.options_for(self._info.precision, self._tuning, folder)
        data = self._bundle.read(self._bundle.model(self._file))
        session = open_session(self._library, data, options, (self.provider.name, told))
        if session.get_providers()[:1] != [self.provider.name]:
            raise BackendError(
                "engine-unsupported",
                f"onnxruntime took {', '.join(session.get_providers())} instead of {self.provider.name}",
            )
        return session

    def _refusal(self, error: Exception) -> BackendError:
        if "default CPU EP" in str(error) or "have not been partitioned" in str(error):
            return BackendError(
                "engine-unsupported",
                f"{self.provider.name} lacks a part of the network, which onnxruntime would run on the processor; "
                "take another backend",
            )
        reason = explain(error, self._bundle.onnx(self._file))
        return BackendError("engine-failed", f"{self.provider.backend} can't load the model ({reason})")

    def _folder(self, shape: tuple[int, ...]) -> Path | None:
        """Where engines of this bundle, library, device and shape are kept; None for a provider that builds none."""
        if self._tuning.cache is None or not self.provider.builds:
            return None
        kind = f"{self._bundle.digest[:16]}-{self._info.precision}"
        where = f"{self._info.version}-{describe_device().fingerprint}"
        setting = f"{self._tuning.workspace_bytes}-{self._tuning.dla}"
        return (
            self._tuning.cache
            / self.provider.backend
            / kind
            / where
            / f"{'x'.join(map(str, shape))}-{setting}"
        )


class OnnxRuntimeCudaBackend(OnnxRuntimeGpuBackend):
    """Through CUDA and cuDNN."""

    provider = CUDA


class OnnxRuntimeTensorRtBackend(OnnxRuntimeGpuBackend):
    """Through TensorRT, which builds an engine for each shape: minutes, once, with a cache."""

    provider = TENSORRT
