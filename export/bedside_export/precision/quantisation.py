"""8-bit integers where the weights are, by NNCF's post-training quantisation.

The graph holds pairs of QuantizeLinear and DequantizeLinear that ONNX Runtime, OpenVINO and TensorRT all read: weights
signed and per output channel, activations per tensor, every zero point 0 (which TensorRT asks for).
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Collection, Iterator, Sequence
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

from bedside.errors import MissingExtraError
from bedside_export.errors import ExportError
from bedside_export.precision.graph import PASSED_THROUGH, check_operators, find_layers, narrow

__all__ = ["quantise"]

_MARK: Final = "NNCF_CI"
"""NNCF reports its use to its maker over the network, unless this is in the environment when it is imported."""


def quantise(
    model: onnx.ModelProto, images: Sequence[npt.NDArray[np.float32]], keep: Collection[str] = ()
) -> onnx.ModelProto:
    """Quantise a network.

    Args:
        model: The fp32 graph.
        images: ``(1, C, ...)`` each: what the network sees in use; ranges are taken from them.
        keep: Names of the nodes that stay float32.

    Returns:
        The graph; its nodes keep their names. The same for the same arguments.

    Raises:
        ExportError: It holds an operator that is not standard, has no layer to quantise, or NNCF can't take it.
        MissingExtraError: NNCF is not installed.
    """
    check_operators(model)
    layers = frozenset(find_layers(model)) - set(keep)
    if not layers:
        raise ExportError("the network has no layer left to quantise; it would be the float32 network")
    nncf = _import_nncf()
    from nncf.common.quantization.structs import QuantizationScheme  # noqa: PLC0415 - after _import_nncf
    from nncf.quantization.advanced_parameters import (  # noqa: PLC0415 - the same
        AdvancedQuantizationParameters,
        OverflowFix,
        QuantizationParameters,
    )

    ignored = [n.name for n in model.graph.node if n.name not in layers and n.op_type not in PASSED_THROUGH]
    name = model.graph.input[0].name
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    parameters = AdvancedQuantizationParameters(
        overflow_fix=OverflowFix.DISABLE,  # see bedside_export.precision.graph.narrow
        activations_quantization_params=QuantizationParameters(
            mode=QuantizationScheme.SYMMETRIC, per_channel=False
        ),
        weights_quantization_params=QuantizationParameters(
            mode=QuantizationScheme.SYMMETRIC, signedness_to_force=True, per_channel=True
        ),
    )
    try:
        with _quiet():
            quantised: onnx.ModelProto = nncf.quantize(
                copy,
                nncf.Dataset([{name: image} for image in images]),
                subset_size=len(images),
                target_device=nncf.TargetDevice.CPU,
                ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
                advanced_parameters=parameters,
            )
    except MissingExtraError:
        raise
    except Exception as error:  # NNCF raises its own, onnx's and ONNX Runtime's, without a common base
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ExportError(f"NNCF can't quantise the network ({reason})") from error
    quantised.graph.ClearField("value_info")
    narrow(quantised)
    return quantised


def _import_nncf() -> ModuleType:
    before = os.environ.get(_MARK)
    os.environ[_MARK] = "1"
    try:
        with _quiet():
            import nncf  # noqa: PLC0415 - it takes seconds, and brings torch
    except ModuleNotFoundError as error:
        if error.name != "nncf":
            raise
        raise MissingExtraError.of("nncf", "export", "quantising to int8") from error
    finally:
        if before is None:
            del os.environ[_MARK]
        else:
            os.environ[_MARK] = before
    module: Any = nncf
    return module  # type: ignore[no-any-return]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep NNCF's progress bars, logs and warnings off the terminal."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
