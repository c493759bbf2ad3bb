"""Matrix products as products and sums: the same numbers, on a network definition that computes with numpy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bedside.backends.tensorrt.turing import replace_products

Array = npt.NDArray[Any]


class Tensor:
    def __init__(self, name: str, values: Array, dtype: str = "float") -> None:
        self.name, self.values, self.dtype, self.shape = name, values, dtype, values.shape


class Layer:
    def __init__(self, kind: str, inputs: list[Tensor], output: Tensor, operation: str = "none") -> None:
        self.type, self.inputs, self.output = kind, inputs, output
        self.op0, self.op1 = operation, "none"
        self.num_inputs = len(inputs)

    def get_input(self, index: int) -> Tensor:
        return self.inputs[index]

    def set_input(self, index: int, tensor: Tensor) -> None:
        self.inputs[index] = tensor

    def get_output(self, _index: int) -> Tensor:
        return self.output


API = SimpleNamespace(
    LayerType=SimpleNamespace(MATRIX_MULTIPLY="matmul"),
    IMatrixMultiplyLayer=Layer,
    MatrixOperation=SimpleNamespace(NONE="none", TRANSPOSE="transpose"),
    DataType=SimpleNamespace(FLOAT="float"),
    ElementWiseOperation=SimpleNamespace(PROD="product"),
    ReduceOperation=SimpleNamespace(SUM="sum"),
)


class Network:
    """Two matrices, their product, and a layer that takes it; ``turned``: of the second with its axes exchanged."""

    def __init__(
        self,
        left: Array,
        right: Array,
        *,
        dtype: str = "float",
        operation: str = "none",
        turned: bool = False,
    ) -> None:
        product = Tensor("product", left @ (right.swapaxes(-1, -2) if turned else right))
        inputs = [Tensor("left", left, dtype), Tensor("right", right, dtype)]
        self.user = Layer("relu", [product], Tensor("end", product.values))
        self.layers = [Layer("matmul", inputs, product, operation), self.user]
        self.layers[0].op1 = "transpose" if turned else "none"
        self.outputs = [self.user.output]

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def num_outputs(self) -> int:
        return len(self.outputs)

    def get_layer(self, index: int) -> Layer:
        return self.layers[index]

    def get_output(self, index: int) -> Tensor:
        return self.outputs[index]

    def add(self, kind: str, inputs: list[Tensor], values: Array) -> Layer:
        self.layers.append(Layer(kind, inputs, Tensor(f"new {len(self.layers)}", values)))
        return self.layers[-1]

    def add_constant(self, shape: tuple[int, ...], values: Array) -> Layer:
        return self.add("constant", [], values.reshape(shape))

    def add_unsqueeze(self, tensor: Tensor, axes: Tensor) -> Layer:
        return self.add(
            "unsqueeze", [tensor, axes], np.expand_dims(tensor.values, tuple(axes.values.tolist()))
        )

    def add_elementwise(self, one: Tensor, two: Tensor, operation: str) -> Layer:
        assert operation == "product"
        return self.add("product", [one, two], one.values * two.values)

    def add_reduce(self, tensor: Tensor, operation: str, axes: int, keep_dims: bool) -> Layer:
        assert (operation, keep_dims) == ("sum", False)
        dimensions = tuple(axis for axis in range(tensor.values.ndim) if axes >> axis & 1)
        return self.add("sum", [tensor], tensor.values.sum(axis=dimensions))


def matrices(*shapes: tuple[int, ...]) -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) for shape in shapes]


@pytest.mark.parametrize(
    "shapes",
    [((5, 3), (3, 4)), ((2, 1, 16), (2, 16, 7)), ((2, 5, 3), (1, 3, 4)), ((2, 3, 4, 5), (2, 3, 5, 6))],
)
@pytest.mark.parametrize("turned", [False, True])
def test_sums_of_products_are_the_matrix_product(
    shapes: tuple[tuple[int, ...], ...], *, turned: bool
) -> None:
    left, right = matrices(*shapes)
    network = Network(left, right.swapaxes(-1, -2) if turned else right, turned=turned)
    kept = replace_products(API, network)
    taken = network.user.get_input(0)
    assert taken.name != "product"
    np.testing.assert_allclose(taken.values, left @ right, rtol=1e-12, atol=1e-12)
    assert len(kept) == 2


@pytest.mark.parametrize("what", ["half", "transposed", "output"])
def test_what_is_no_plain_float32_product_is_left_alone(what: str) -> None:
    left, right = matrices((5, 3), (3, 4))
    network = Network(
        left,
        right,
        dtype="half" if what == "half" else "float",
        operation="transpose" if what == "transposed" else "none",
    )
    if what == "output":
        network.outputs.append(network.layers[0].output)
    assert replace_products(API, network) == ()
    assert network.user.get_input(0).name == "product"
    assert network.num_layers == 2
