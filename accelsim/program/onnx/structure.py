"""The skeleton of a quantized ONNX model: nodes in order, and the type and shape of every tensor.

Only ONNX's own shape inference, node by node, and the inputs' declarations are relied on; what a file declares of inner
tensors is not looked at. Nodes without any input that varies are computed here, except where they are the quantized
constants that integer layers need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, defs, helper, shape_inference

from accelsim.errors import ModelError
from accelsim.graph.limits import num_elements
from accelsim.graph.onnx_structure import (
    STANDARD_DOMAINS,
    check_schema,
    check_texts,
    checker_context,
    describe,
    needed_nodes,
    opset_of,
    order_nodes,
)
from accelsim.program.onnx.contrib import CONTRIB, contrib_types, without_empty_windows
from accelsim.program.onnx.tensors import FORMATS, Array, TensorType, check_type, constant_array

OLDEST_OPSET = 10
"""The first with QLinearConv."""

CONTRIB_DOMAIN = "com.microsoft"

_SMALL = 4096
"""Elements of a constant whose values shape inference may look at."""


@dataclass(frozen=True)
class Step:
    """A node with what is known of it.

    Parameters
    ----------
    proto : NodeProto
        As in the model.
    label : str
        What messages call it.
    """

    proto: NodeProto
    label: str

    @property
    def op(self) -> str:
        """Operator."""
        return str(self.proto.op_type)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs; an empty one is left out."""
        return tuple(self.proto.input)

    @property
    def output(self) -> str:
        """Name of the first output."""
        return str(self.proto.output[0])

    def input(self, index: int) -> str | None:
        """Return the name of an input, None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) and self.inputs[index] else None

    def attribute(self, name: str, default: Any) -> Any:
        """Return the value of an attribute; strings as text."""
        for entry in self.proto.attribute:
            if entry.name == name:
                value = helper.get_attribute_value(entry)
                if isinstance(value, bytes):
                    return value.decode("utf-8", "replace")
                return tuple(value) if isinstance(value, list) else value
        return default


@dataclass(frozen=True)
class Structure:
    """A quantized model whose structure is sound.

    Parameters
    ----------
    opset : int
        Version of the standard operator set.
    inputs, outputs : tuple of str
        Names, in the model's order.
    symbolic : tuple of str
        Inputs whose leading length is open; it is 1 here.
    steps : tuple of Step
        Nodes that an output needs, in order.
    types : mapping of str to TensorType
        Of every tensor.
    constants : mapping of str to array
        Every tensor that does not vary.
    """

    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    symbolic: tuple[str, ...]
    steps: tuple[Step, ...]
    types: Mapping[str, TensorType]
    constants: Mapping[str, Array]

    def consumers(self) -> dict[str, list[Step]]:
        """Return the nodes that read each tensor."""
        users: dict[str, list[Step]] = {}
        for step in self.steps:
            for name in dict.fromkeys(filter(None, step.inputs)):
                users.setdefault(name, []).append(step)
        return users


def read_structure(model: ModelProto, batch: int) -> Structure:
    """Check the structure of a model and find the type of every tensor.

    Parameters
    ----------
    model : ModelProto
        A parsed model without external data.
    batch : int
        What stands in for an open leading length.

    Raises
    ------
    ModelError
        Naming the first thing that is wrong.
    """
    check_texts(model)
    opset = opset_of(model, OLDEST_OPSET)
    graph = model.graph
    if model.functions:
        raise ModelError(
            f"the model defines its own function {model.functions[0].name!r}; inline it with "
            "onnx.inliner.inline_local_functions"
        )
    if graph.sparse_initializer:
        raise ModelError(f"constant {graph.sparse_initializer[0].values.name!r} is a sparse initializer")
    stored: dict[str, TensorProto] = {}
    for tensor in graph.initializer:
        if tensor.name in stored:
            raise ModelError(f"constant {tensor.name!r} is stored twice")
        stored[tensor.name] = tensor
    fed = [value for value in graph.input if value.name not in stored]
    if not fed:
        raise ModelError("the model has no input")
    if len({value.name for value in fed}) != len(fed):
        raise ModelError("the model has two inputs of one name")
    outputs = tuple(value.name for value in graph.output)
    if not outputs or len(set(outputs)) != len(outputs):
        raise ModelError(f"the model must have outputs, each of them once, got {', '.join(outputs) or 'none'}")
    ordered = order_nodes(list(graph.node), {value.name for value in fed} | set(stored), opset)
    reading = _Reading(model, opset, stored)
    symbolic = []
    for value in fed:
        shape, is_open = _input_shape(value, batch)
        symbolic += [value.name] if is_open else []
        reading.types[value.name] = TensorType(check_type(value.type.tensor_type.elem_type, _input(value)), shape)
    for node in needed_nodes(ordered, outputs):
        reading.add(node)
    for name in outputs:
        if name not in reading.types:
            raise ModelError(f"graph output {name!r} is made by no node and is no input")
        if name in reading.constants:
            raise ModelError(f"graph output {name!r} is a constant; it does not depend on any input")
    return Structure(
        opset,
        tuple(value.name for value in fed),
        outputs,
        tuple(symbolic),
        tuple(reading.steps),
        MappingProxyType(reading.types),
        MappingProxyType(reading.constants),
    )


def _input(value: ValueInfoProto) -> str:
    return f"input {value.name!r}"


def _input_shape(value: ValueInfoProto, batch: int) -> tuple[tuple[int, ...], bool]:
    """Return the shape of an input, and whether its leading length is open."""
    what = _input(value)
    if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
        raise ModelError(f"{what} must be a tensor with a declared shape")
    lengths, is_open = [], False
    for axis, dim in enumerate(value.type.tensor_type.shape.dim):
        if dim.HasField("dim_value"):
            if dim.dim_value < 1:
                raise ModelError(f"{what} has length {dim.dim_value} on axis {axis}; lengths must be at least 1")
            lengths.append(int(dim.dim_value))
        elif axis == 0:
            is_open = True
            lengths.append(batch)
        else:
            raise ModelError(
                f"{what} has the dynamic length {dim.dim_param!r} on axis {axis}; only axis 0 may be dynamic: export "
                "the model with a fixed length there"
            )
    num_elements(what, lengths)
    return tuple(lengths), is_open


class _Reading:
    """The state while the nodes of one model are walked through."""

    def __init__(self, model: ModelProto, opset: int, stored: Mapping[str, TensorProto]) -> None:
        self.opset, self._stored = opset, stored
        self._context = checker_context(model, opset)
        self._imports = [helper.make_opsetid("", opset)]
        self._ir_version = model.ir_version
        self._has_contrib = any(entry.domain == CONTRIB_DOMAIN for entry in model.opset_import)
        self._num_computed = 0
        self.steps: list[Step] = []
        self.types: dict[str, TensorType] = {}
        self.constants: dict[str, Array] = {}

    def add(self, node: NodeProto) -> None:
        """Take up one node."""
        step = Step(node, describe(node, self.opset))
        self._check(step)
        for name in filter(None, node.input):
            if name not in self.types:
                what = f"{step.label}: constant {name!r}"
                self.constants[name] = constant_array(self._stored[name], what)
                self.types[name] = TensorType(self._stored[name].data_type, self.constants[name].shape)
        if step.op == "Constant":
            self._constant(step)
            return
        self._infer(step)
        if step.op != "DequantizeLinear" and all(name in self.constants for name in filter(None, node.input)):
            self._fold(step)
            return
        self.steps.append(step)

    def _check(self, step: Step) -> None:
        """Refuse operators that are unknown, and nodes that do not fit their schema."""
        node = step.proto
        if node.domain == CONTRIB_DOMAIN:
            if step.op not in CONTRIB or not self._has_contrib:
                raise ModelError(
                    f"{step.label}: the {CONTRIB_DOMAIN} operator {step.op} is not supported or not imported; of this "
                    f"domain {', '.join(sorted(CONTRIB))} are"
                )
            return
        if node.domain not in STANDARD_DOMAINS:
            raise ModelError(f"{step.label} is an operator of the domain {node.domain!r}, which is not supported")
        if not node.output or not node.output[0]:
            raise ModelError(f"{step.label} has no output")
        check_schema(node, step.label, self._context)

    def _constant(self, step: Step) -> None:
        """Take up a Constant node."""
        value = step.attribute("value", None)
        if isinstance(value, TensorProto):
            self.constants[step.output] = constant_array(value, step.label)
            self.types[step.output] = TensorType(value.data_type, self.constants[step.output].shape)
            return
        for name, dtype, data_type in (("value_float", np.float32, 1), ("value_int", np.int64, 7)):
            for key in (name, f"{name}s"):
                given = step.attribute(key, None)
                if given is not None:
                    self.constants[step.output] = np.array(given, dtype=dtype)
                    self.types[step.output] = TensorType(data_type, self.constants[step.output].shape)
                    return
        raise ModelError(f"{step.label}: only constants of numbers are supported")

    def _infer(self, step: Step) -> None:
        """Find the types of a node's outputs."""
        node = step.proto
        if node.domain == CONTRIB_DOMAIN:
            found = contrib_types(step, self.types)
        else:
            found = self._infer_standard(step)
        for name in filter(None, node.output):
            if name not in found:
                raise ModelError(f"{step.label}: the shape of its output {name!r} does not follow from its inputs")
            num_elements(f"the output {name!r} of {step.label}", found[name].shape)
            self.types[name] = found[name]

    def _infer_standard(self, step: Step) -> dict[str, TensorType]:
        """Ask ONNX's shape inference."""
        names = list(filter(None, step.inputs))
        given = {name: helper.make_tensor_type_proto(self.types[name].type, self.types[name].shape) for name in names}
        data = {
            name: onnx.numpy_helper.from_array(np.asarray(self.constants[name], order="C"), name)
            for name in names
            if name in self.constants and self.constants[name].size <= _SMALL and self.types[name].type not in FORMATS
        }
        try:
            schema = defs.get_schema(step.op, self.opset, "")
            inferred = shape_inference.infer_node_outputs(
                schema, step.proto, given, data, opset_imports=self._imports, ir_version=self._ir_version
            )
        except Exception as error:  # the checker's, the inference's and the binding's exceptions have no common base
            reason = " ".join(str(error).split())
            raise ModelError(f"{step.label} does not fit its inputs: {reason}") from None
        found = {}
        for name, proto in inferred.items():
            tensor = proto.tensor_type
            dims = tensor.shape.dim
            if not tensor.HasField("shape") or not all(dim.HasField("dim_value") for dim in dims):
                continue
            shape = tuple(int(dim.dim_value) for dim in dims)
            if step.attribute("ceil_mode", 0):
                shape = without_empty_windows(step, self.types[step.inputs[0]].shape, shape)
            if prod(shape) > 0:
                found[name] = TensorType(check_type(tensor.elem_type, f"the output of {step.label}"), shape)
        return found

    def _fold(self, step: Step) -> None:
        """Compute a node whose inputs do not vary."""
        from accelsim.program.onnx.folding import fold

        if step.proto.domain == CONTRIB_DOMAIN or step.op.startswith("QLinear") or step.op.endswith("Integer"):
            raise ModelError(f"{step.label} computes a constant; simplify the model")
        if len(step.proto.output) != 1:
            raise ModelError(f"{step.label} computes several constants, which is not supported; simplify the model")
        what = f"{step.label}: the constants computed so far"
        self._num_computed += prod(self.types[step.output].shape)
        num_elements(what, [self._num_computed])
        self.constants[step.output] = fold(step, self.opset, self.types, self.constants)
