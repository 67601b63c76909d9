"""Types of what ONNX Runtime's own operators make (domain com.microsoft): ONNX has no schema of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from onnx import AttributeProto, TensorProto, defs, helper, shape_inference

from accelsim.errors import ModelError
from accelsim.program.onnx.tensors import TensorType

if TYPE_CHECKING:
    from accelsim.program.onnx.structure import Step

Types = Mapping[str, TensorType]

_WINDOW = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
_POOL_OPSET = 11


def contrib_types(step: Step, types: Types) -> dict[str, TensorType]:
    """Return the type of a node's output.

    Parameters
    ----------
    step : Step
        A node of one of the operators in `CONTRIB`.
    types : mapping of str to TensorType
        Of the tensors before it.

    Raises
    ------
    ModelError
        When inputs are missing or do not fit together.
    """
    required, rule = CONTRIB[step.op]
    missing = [index for index in required if step.input(index) is None]
    if missing:
        raise ModelError(f"{step.label}: its input {missing[0]} is missing")
    if len(step.proto.output) != 1:
        raise ModelError(f"{step.label} must have one output, got {len(step.proto.output)}")
    for attribute in step.proto.attribute:
        if attribute.name not in _ATTRIBUTES or attribute.type != _ATTRIBUTES[attribute.name]:
            raise ModelError(f"{step.label}: attribute {attribute.name!r} is unknown or of the wrong type")
    return {step.output: rule(step, types)}


def _same(step: Step, types: Types) -> TensorType:
    return types[step.inputs[0]]


def _broadcast(step: Step, types: Types) -> TensorType:
    a, b = types[step.inputs[0]], types[step.inputs[3]]
    try:
        shape = np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ModelError(f"{step.label}: shapes {a.shape} and {b.shape} cannot be broadcast") from None
    if a.type != b.type:
        raise ModelError(f"{step.label}: its inputs must be of one type")
    return TensorType(a.type, tuple(int(length) for length in shape))


def _concat(step: Step, types: Types) -> TensorType:
    names = step.inputs[2::3]
    if len(step.inputs) % 3 != 2 or not all(step.inputs):
        raise ModelError(f"{step.label} must have an output scale and zero point and three inputs per tensor")
    shapes = [types[name].shape for name in names]
    rank, axis = len(shapes[0]), step.attribute("axis", None)
    if not isinstance(axis, int) or not -rank <= axis < rank:
        raise ModelError(f"{step.label}: axis must be one of the {rank} axes, got {axis!r}")
    axis %= rank
    others = {shape[:axis] + shape[axis + 1 :] for shape in shapes if len(shape) == rank}
    if len(others) != 1 or any(len(shape) != rank for shape in shapes):
        raise ModelError(f"{step.label}: shapes {shapes} cannot be joined along axis {axis}")
    joined = sum(shape[axis] for shape in shapes)
    return TensorType(types[names[0]].type, (*shapes[0][:axis], joined, *shapes[0][axis + 1 :]))


def _pool(step: Step, types: Types) -> TensorType:
    """Return the type of a pool, by ONNX's rule for the float operator."""
    source = types[step.inputs[0]]
    is_last = bool(step.attribute("channels_last", 0))
    shape = source.shape
    if len(shape) < 3:
        raise ModelError(f"{step.label} needs an input with spatial axes, got shape {shape}")
    first = (shape[0], shape[-1], *shape[1:-1]) if is_last else shape
    op = step.op.removeprefix("QLinear")
    window = {name: step.attribute(name, None) for name in (_WINDOW if op == "AveragePool" else ())}
    given = {name: value for name, value in window.items() if value is not None}
    try:
        node = helper.make_node(op, ["x"], ["y"], **given)
        found = shape_inference.infer_node_outputs(
            defs.get_schema(op, _POOL_OPSET, ""),
            node,
            {"x": helper.make_tensor_type_proto(TensorProto.FLOAT, first)},
            opset_imports=[helper.make_opsetid("", _POOL_OPSET)],
            ir_version=8,
        )
        pooled = tuple(int(dim.dim_value) for dim in found["y"].tensor_type.shape.dim)
    except Exception as error:  # the inference's and the binding's exceptions have no common base
        raise ModelError(f"{step.label} does not fit its input: {' '.join(str(error).split())}") from None
    if step.attribute("ceil_mode", 0):
        pooled = without_empty_windows(step, first, pooled)
    if min(pooled, default=0) < 1:
        raise ModelError(f"{step.label} leaves nothing of an input of shape {shape}")
    return TensorType(source.type, (pooled[0], *pooled[2:], pooled[1]) if is_last else pooled)


def without_empty_windows(step: Step, x: tuple[int, ...], y: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a pool that rounds up: a window that would start in the padding at the end is dropped.

    ONNX's text and ONNX Runtime have it so; ONNX's shape inference has not in all versions.
    """
    axes = len(x) - 2
    strides, pads = step.attribute("strides", (1,) * axes), step.attribute("pads", (0,) * (2 * axes))
    if (
        len(strides) != axes
        or len(pads) != 2 * axes
        or len(y) != len(x)
        or step.attribute("auto_pad", "NOTSET") != "NOTSET"
    ):
        return y
    kept = [
        length - 1 if (length - 1) * stride >= space + pad else length
        for length, stride, space, pad in zip(y[2:], strides, x[2:], pads[:axes], strict=True)
    ]
    return (*y[:2], *kept)


def _gemm(step: Step, types: Types) -> TensorType:
    a, b = types[step.inputs[0]], types[step.inputs[3]]
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise ModelError(f"{step.label}: A and B must be matrices, got shapes {a.shape} and {b.shape}")
    rows, reduction = a.shape[::-1] if step.attribute("transA", 0) else a.shape
    other, columns = b.shape[::-1] if step.attribute("transB", 0) else b.shape
    if reduction != other:
        raise ModelError(f"{step.label}: A and B share no length, got shapes {a.shape} and {b.shape}")
    is_float = step.input(7) is None
    target = step.input(8)
    data_type = TensorProto.FLOAT if is_float else a.type if target is None else types[target].type
    return TensorType(data_type, (rows, columns))


CONTRIB: dict[str, tuple[tuple[int, ...], Callable[[Step, Types], TensorType]]] = {
    "QLinearAdd": ((0, 1, 3, 4, 6), _broadcast),
    "QLinearMul": ((0, 1, 3, 4, 6), _broadcast),
    "QLinearConcat": ((0, 1, 2, 3, 4), _concat),
    "QLinearLeakyRelu": ((0, 1, 3), _same),
    "QLinearSigmoid": ((0, 1, 3), _same),
    "QLinearAveragePool": ((0, 1, 3), _pool),
    "QLinearGlobalAveragePool": ((0, 1, 2, 3, 4), _pool),
    "QGemm": ((0, 1, 2, 3, 4, 5), _gemm),
}
"""Operators with the inputs that they must have and the rule of their output."""

_ATTRIBUTES = {
    "alpha": AttributeProto.FLOAT,
    "auto_pad": AttributeProto.STRING,
    "axis": AttributeProto.INT,
    "ceil_mode": AttributeProto.INT,
    "channels_last": AttributeProto.INT,
    "count_include_pad": AttributeProto.INT,
    "kernel_shape": AttributeProto.INTS,
    "pads": AttributeProto.INTS,
    "strides": AttributeProto.INTS,
    "transA": AttributeProto.INT,
    "transB": AttributeProto.INT,
}
