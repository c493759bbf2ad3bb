"""Engines behind one Protocol; a leaf is imported only when asked for."""

from __future__ import annotations

import importlib
from importlib import metadata
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Final, NamedTuple

from bedside.backends.base import PRECISIONS, Backend, EngineInfo, Tuning, check_threads
from bedside.backends.discretion import without_telemetry
from bedside.backends.fake import FakeBackend
from bedside.errors import BackendError, MissingExtraError

if TYPE_CHECKING:
    from bedside.bundle import Bundle

__all__ = ["BACKENDS", "PRECISIONS", "Backend", "EngineInfo", "FakeBackend", "Tuning", "open_backend"]


class _Leaf(NamedTuple):
    module: str
    opener: str
    package: str
    extra: str
    distribution: str = ""
    """What pip calls it, where another one brings a package of the same name that can't do it."""

    @property
    def installed(self) -> bool:
        """Whether the package is here, and is the right one; nothing is imported."""
        if find_spec(self.package) is None:
            return False
        return not self.distribution or any(metadata.distributions(name=self.distribution))


BACKENDS: Final[dict[str, _Leaf]] = {
    "onnxruntime": _Leaf("bedside.backends.onnxruntime", "OnnxRuntimeBackend", "onnxruntime", "cpu"),
    "onnxruntime-cuda": _Leaf(
        "bedside.backends.onnxruntime_gpu", "OnnxRuntimeCudaBackend", "onnxruntime", "gpu", "onnxruntime-gpu"
    ),
    "onnxruntime-tensorrt": _Leaf(
        "bedside.backends.onnxruntime_gpu",
        "OnnxRuntimeTensorRtBackend",
        "onnxruntime",
        "gpu",
        "onnxruntime-gpu",
    ),
    "openvino": _Leaf("bedside.backends.openvino", "OpenVinoBackend", "openvino", "openvino"),
    "tensorrt": _Leaf("bedside.backends.tensorrt.full", "TensorRtBackend", "tensorrt", "tensorrt"),
    "tensorrt-rtx": _Leaf("bedside.backends.tensorrt.rtx", "TensorRtRtxBackend", "tensorrt_rtx", "rtx"),
}
"""Name of a backend -> its leaf, its class, the package that it needs, and the extra that installs it."""


def open_backend(
    name: str,
    bundle: Bundle,
    *,
    precision: str = "fp32",
    threads: int | None = None,
    tuning: Tuning | None = None,
) -> Backend:
    """Load a bundle's model into an engine.

    Args:
        name: One of `BACKENDS`. What is missing is an error; nothing falls back.
        bundle: The opened bundle.
        precision: One of `PRECISIONS`.
        threads: Threads inside one inference; None leaves it to the engine (one per physical core).
        tuning: How it is set up beyond that; None for one picture at a time, as fast as it goes.

    Returns:
        The engine, to be closed by the caller.

    Raises:
        MissingExtraError: The engine's package is not installed.
        BackendError: ``engine-unsupported`` for an unknown backend or precision, or one that this engine or
            device does not have; ``engine-failed`` if the model can't be loaded.
        BundleError: ``bundle-precision`` if the bundle has no model of that precision.
    """
    leaf = _find_leaf(name)
    if precision not in PRECISIONS:
        raise BackendError(
            "engine-unsupported", f"no precision {precision!r}; choose from: {', '.join(PRECISIONS)}"
        )
    check_threads(threads)
    module = import_leaf(name)
    backend: Backend = getattr(module, leaf.opener)(
        bundle, precision=precision, threads=threads, tuning=tuning or Tuning()
    )
    return backend


def import_leaf(name: str) -> ModuleType:
    """The module of a backend's leaf, for `open_backend` and for what builds engines without running them.

    Raises:
        MissingExtraError: The engine's package is not installed.
        BackendError: ``engine-unsupported`` for an unknown backend; ``engine-failed`` if its package is broken.
    """
    leaf = _find_leaf(name)
    try:
        with without_telemetry():
            return importlib.import_module(leaf.module)
    except (ImportError, AttributeError) as error:  # AttributeError: the remains of an uninstalled package
        if isinstance(error, ModuleNotFoundError) and error.name == leaf.package:
            raise MissingExtraError.of(leaf.package, leaf.extra, f"the backend {name!r}") from error
        reason = " ".join(str(error).split())[:200]
        raise BackendError(
            "engine-failed", f"{leaf.package} is installed and can't be imported ({reason}); install it again"
        ) from error


def _find_leaf(name: str) -> _Leaf:
    leaf = BACKENDS.get(name)
    if leaf is None:
        raise BackendError("engine-unsupported", f"no backend {name!r}; choose from: {', '.join(BACKENDS)}")
    return leaf
