"""float32 matrix products on Turing, as products and sums.

TensorRT for RTX 1.7 refuses a network for compute capability 7.5 that multiplies float32 matrices ("FP32 GEMM is not
supported"), and has its convolutions. The built-in X-ray network multiplies a few small ones where it finds the
lungs: the same sums without the operator cost little there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["replace_products"]


def replace_products(api: Any, network: Any) -> tuple[Any, ...]:
    """Replace each float32 matrix product ``(..., m, k) x (..., k, n)`` of a parsed network, or of ``(..., n, k)``.

    What is not of that form is left to TensorRT, which then tells what it does not have.

    Args:
        api: The package.
        network: Its ``INetworkDefinition``, changed in place.

    Returns:
        Arrays that the network refers to: to be kept until it is built.
    """
    kept: list[Any] = []
    outputs = {network.get_output(index).name for index in range(network.num_outputs)}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type != api.LayerType.MATRIX_MULTIPLY:
            continue
        left, right, product = layer.get_input(0), layer.get_input(1), layer.get_output(0)
        layer.__class__ = api.IMatrixMultiplyLayer
        turned = layer.op1 == api.MatrixOperation.TRANSPOSE
        known = layer.op0 == api.MatrixOperation.NONE and (turned or layer.op1 == api.MatrixOperation.NONE)
        floats = left.dtype == right.dtype == api.DataType.FLOAT
        if known and floats and len(left.shape) == len(right.shape) and product.name not in outputs:
            _swap(network, product, _multiply(api, network, (left, right), kept, turned=turned))
    return tuple(kept)


def _multiply(api: Any, network: Any, factors: tuple[Any, Any], kept: list[Any], *, turned: bool) -> Any:
    """``(..., m, k, 1)`` times ``(..., 1, k, n)``, or ``(..., m, 1, k)`` times ``(..., 1, n, k)``, summed over k."""
    left, right = factors
    rank = len(left.shape)
    summed = rank if turned else rank - 1
    rows = _unsqueeze(network, left, rank - 1 if turned else rank, kept)
    columns = _unsqueeze(network, right, rank - 2, kept)
    products = network.add_elementwise(rows, columns, api.ElementWiseOperation.PROD).get_output(0)
    return network.add_reduce(products, api.ReduceOperation.SUM, 1 << summed, keep_dims=False).get_output(0)


def _unsqueeze(network: Any, tensor: Any, axis: int, kept: list[Any]) -> Any:
    axes = np.array([axis], np.int32)
    kept.append(axes)
    constant = network.add_constant((1,), axes).get_output(0)
    return network.add_unsqueeze(tensor, constant).get_output(0)


def _swap(network: Any, old: Any, new: Any) -> None:
    """Have all layers take another tensor."""
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for place in range(layer.num_inputs):
            tensor = layer.get_input(place)
            if tensor is not None and tensor.name == old.name:
                layer.set_input(place, new)
