"""The beginning of a network that stays float32, cut off as a model of its own.

The first layers see the picture itself, and what half precision rounds away there is gone for all later ones: mostly it
is they that have to stay float32. OpenVINO keeps single nodes in float32 as well (`bedside.backends.openvino.islands`),
but at bf16 not all; a model of its own it runs in the precision that it is compiled for.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

import openvino
from openvino import opset13
from openvino.passes import ConstantFolding, Manager

from bedside.onnxfile import NodeInfo

__all__ = ["ChainedRequest", "cut_beginning", "gives"]

_CUT: Final = "bedside-cut-"
"""Names of the values that cross from the beginning to the rest begin so."""
_SOURCES: Final = frozenset({"Constant", "Parameter"})
"""Types of operations that compute nothing."""
_PASSING: Final = frozenset({"Dropout", "Identity"})
"""Operators of ONNX that give what they are given."""
_QUANTISED: Final = (openvino.Type.i8, openvino.Type.u8)
"""Types of quantised numbers."""
_HEAVY: Final = frozenset({"Convolution", "GroupConvolution", "MatMul"})
"""Types of operations for whose sake a model is cut: another would cost more than it spares."""


def cut_beginning(
    model: openvino.Model, nodes: Mapping[str, NodeInfo], stays: AbstractSet[str]
) -> tuple[openvino.Model, openvino.Model] | None:
    """Cut a model where the nodes end that stay float32 together with all that leads to them.

    Args:
        model: As read from ONNX, of fixed shapes; taken apart.
        nodes: All nodes of the ONNX graph.
        stays: Names of those that stay float32.

    Returns:
        The beginning, and the rest, whose inputs are the beginning's outputs by name, and the model's own where it
        needs them. None if there is no beginning worth a cut, or nothing is left; the model is then as it was.
    """
    _fold(model)  # shapes become numbers: crossing as values, they would make the rest's dynamic
    beginning = _find_beginning(model, nodes, stays)
    types = {
        operation.get_type_name() for operation in model.get_ordered_ops() if _key(operation) in beginning
    }
    if not types & _HEAVY:
        return None
    crossing = []
    for operation in model.get_ordered_ops():
        if _key(operation) not in beginning or operation.get_type_name() in _SOURCES:
            continue
        for port in operation.outputs():
            outside = [each for each in port.get_target_inputs() if _key(each.get_node()) not in beginning]
            if outside:
                crossing.append((port, outside))
    if all(each.get_node().get_type_name() == "Result" for _, outside in crossing for each in outside):
        return None
    results, given = [], []
    for number, (port, outside) in enumerate(crossing):
        name = f"{_CUT}{number}"
        value = opset13.parameter(port.get_partial_shape(), port.get_element_type())
        value.set_friendly_name(name)
        value.output(0).get_tensor().set_names({name})
        for target in outside:
            target.replace_source_output(value.output(0))
        port.get_tensor().add_names({name})
        results.append(opset13.result(port))
        given.append(value)
    own = [
        each
        for each in model.get_parameters()
        if any(_key(target.get_node()) not in beginning for target in each.output(0).get_target_inputs())
    ]
    return (
        openvino.Model(results, model.get_parameters()),
        openvino.Model(model.get_results(), given + own),
    )


def gives(model: openvino.Model, node: NodeInfo) -> bool:
    """Whether a model computes what a node of the ONNX graph gives."""
    wanted = {value for value in node.outputs if value}
    return any(
        wanted & port.get_names()
        for operation in model.get_ordered_ops()
        if operation.get_type_name() not in _SOURCES
        for port in operation.outputs()
    )


class ChainedRequest:
    """A request to a beginning and to its rest, as one: what crosses stays where the first wrote it."""

    def __init__(self, beginning: openvino.CompiledModel, rest: openvino.CompiledModel) -> None:
        self._beginning = beginning.create_infer_request()
        self._rest = rest.create_infer_request()
        for port in rest.inputs:
            self._rest.set_tensor(port, self._beginning.get_tensor(port.get_any_name()))

    def get_input_tensor(self) -> openvino.Tensor:
        """As of `openvino.InferRequest`."""
        return self._beginning.get_input_tensor()

    def get_tensor(self, name: str) -> openvino.Tensor:
        """As of `openvino.InferRequest`, for outputs."""
        return self._rest.get_tensor(name)

    def start_async(self) -> None:
        """Run the beginning, and start the rest."""
        self._beginning.infer()
        self._rest.start_async()

    def wait(self) -> None:
        """Wait for the rest."""
        self._rest.wait()


def _fold(model: openvino.Model) -> None:
    """Compute what depends on no input, but for what is made of numbers of 8 bits.

    Quantised weights are such numbers and a scale: folded, they are float32, and the layer is never run in int8. They
    are inputs while the rest is folded.
    """
    kept = []
    for operation in model.get_ordered_ops():
        if operation.get_type_name() == "Constant" and operation.get_element_type() in _QUANTISED:
            stand_in = opset13.parameter(operation.get_output_partial_shape(0), operation.get_element_type())
            _replace(operation, stand_in)
            kept.append((operation, stand_in))
    model.add_parameters([stand_in for _, stand_in in kept])
    fold = Manager()
    fold.register_pass(ConstantFolding())
    fold.run_passes(model)
    for operation, stand_in in kept:
        _replace(stand_in, operation)
        model.remove_parameter(stand_in)


def _replace(operation: Any, other: Any) -> None:
    for target in operation.output(0).get_target_inputs():
        target.replace_source_output(other.output(0))


def _find_beginning(
    model: openvino.Model, nodes: Mapping[str, NodeInfo], stays: AbstractSet[str]
) -> frozenset[str]:
    """Keys of the operations that stay float32 with all that leads to them, sources included.

    An operation is of the ONNX node whose value it gives. One that gives no value of the graph is a part of whatever
    uses it: it stays float32 if all of those do. Integers have no half precision.
    """
    values = {
        value: name for name, node in nodes.items() if node.operator not in _PASSING for value in node.outputs
    }
    operations = model.get_ordered_ops()
    float32: dict[str, bool] = {}
    for operation in reversed(operations):
        names = {values[name] for port in operation.outputs() for name in port.get_names() if name in values}
        if operation.get_type_name() == "Result":
            float32[_key(operation)] = False
        elif not all(port.get_element_type().is_real() for port in operation.outputs()):
            float32[_key(operation)] = True
        elif names:
            float32[_key(operation)] = names <= stays
        else:
            users = [each.get_node() for port in operation.outputs() for each in port.get_target_inputs()]
            float32[_key(operation)] = all(float32[_key(user)] for user in users)
    beginning: set[str] = set()
    for operation in operations:
        sources = (port.get_source_output().get_node() for port in operation.inputs())
        if operation.get_type_name() in _SOURCES or (
            float32[_key(operation)] and all(_key(source) in beginning for source in sources)
        ):
            beginning.add(_key(operation))
    return frozenset(beginning)


def _key(operation: Any) -> str:
    """What names an operation in its model alone."""
    name: str = operation.get_name()
    return name
