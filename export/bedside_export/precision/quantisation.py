"""8-bit integers where the weights are, by NNCF's post-training quantisation.

Ranges        which values of an activation are inside its range
Calibration   how a network is fitted to 8 bits
CALIBRATIONS  the ways that are tried
quantise      a graph, by one of them

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
from dataclasses import dataclass
from enum import Enum
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

from bedside.errors import MissingExtraError
from bedside_export.errors import ExportError
from bedside_export.precision.graph import PASSED_THROUGH, check_operators, find_layers, narrow

__all__ = ["CALIBRATIONS", "Calibration", "Ranges", "quantise"]

_MARK: Final = "NNCF_CI"
"""NNCF reports its use to its maker over the network, unless this is in the environment when it is imported."""


class Ranges(Enum):
    """Which values of an activation lie inside its range; those outside saturate."""

    TYPICAL = "the mean over pictures of their extremes"
    """NNCF's own choice."""
    ALL = "all values"
    """Where what counts is rare, as in a DenseNet: a channel that few pictures wake up."""
    MOST = "all but 0.1 % at each end"
    """Where few values are far from the others: finer steps for these."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a network is fitted to 8 bits by pictures."""

    ranges: Ranges
    """Of activations."""
    correct_biases: bool = False
    """Whether each layer's bias makes up for the mean error of its rounded weights, told from mean inputs alone."""

    def __str__(self) -> str:
        return self.ranges.value + (", biases corrected" if self.correct_biases else "")


CALIBRATIONS: Final = (
    Calibration(Ranges.TYPICAL),
    Calibration(Ranges.TYPICAL, correct_biases=True),
    Calibration(Ranges.ALL),
    Calibration(Ranges.MOST),
)
"""What is tried: each is the best of a network that was looked at, and out of tolerance in another."""
_OUTLIERS: Final = 0.001
"""Share of the values of a picture that `Ranges.MOST` leaves out at each end."""


def quantise(
    model: onnx.ModelProto,
    images: Sequence[npt.NDArray[np.float32]],
    keep: Collection[str] = (),
    *,
    calibration: Calibration = CALIBRATIONS[0],
) -> onnx.ModelProto:
    """Quantise a network.

    Args:
        model: The fp32 graph.
        images: ``(1, C, ...)`` each: what the network sees in use; ranges are taken from them.
        keep: Names of the nodes that stay float32.
        calibration: How.

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
    from nncf.quantization.range_estimator import (  # noqa: PLC0415 - the same
        AggregatorType,
        RangeEstimatorParameters,
        RangeEstimatorParametersSet,
        StatisticsCollectorParameters,
        StatisticsType,
    )

    ignored = [n.name for n in model.graph.node if n.name not in layers and n.op_type not in PASSED_THROUGH]
    name = model.graph.input[0].name
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    end = StatisticsCollectorParameters(
        StatisticsType.QUANTILE, AggregatorType.MEAN, quantile_outlier_prob=_OUTLIERS
    )
    ranges = {
        Ranges.TYPICAL: RangeEstimatorParametersSet.MEAN_MINMAX,
        Ranges.ALL: RangeEstimatorParametersSet.MINMAX,
        Ranges.MOST: RangeEstimatorParameters(min=end, max=end),
    }[calibration.ranges]
    parameters = AdvancedQuantizationParameters(
        disable_bias_correction=not calibration.correct_biases,
        activations_range_estimator_params=ranges,
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
