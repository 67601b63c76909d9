"""Constants: Constant nodes, and arithmetic and reshaping of constants done once at reading."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import AttributeProto

from accelsim.graph.limits import MAX_FOLDED_ELEMENTS, num_elements
from accelsim.graph.normalise.call import Call, Folded
from accelsim.graph.onnx_tensors import tensor_array


def fold(call: Call) -> Folded | None:
    """Evaluate a node whose inputs are all constant.

    Parameters
    ----------
    call : Call
        Any node.

    Returns
    -------
    Folded or None
        The value; None where an input is computed or the operator is not one that folds.

    Raises
    ------
    ModelError
        When the shapes do not fit.
    """
    if call.op == "Constant":
        return Folded(_stored(call))
    given = [index for index in range(len(call.inputs)) if call.has(index)]
    if not given or not all(call.is_constant(index) for index in given):
        return None
    value = call.constant(0, "input")
    match call.op:
        case "Add" | "Sub" | "Mul":
            return Folded(_arithmetic(call, value, call.constant(1, "second operand")))
        case "Transpose":
            perm = call.ints("perm") or tuple(reversed(range(value.ndim)))
            if sorted(perm) != list(range(value.ndim)):
                raise call.refuse(f"perm {perm} does not order the {value.ndim} axes of a constant")
            return Folded(np.ascontiguousarray(value.transpose(perm)))
        case "Reshape":
            return Folded(_reshaped(call, value, call.integers(1, "shape")))
        case "Flatten":
            axis = call.integer("axis", 1)
            if not -value.ndim <= axis <= value.ndim:
                raise call.refuse(f"axis {axis} does not exist; the constant has {value.ndim} axes")
            axis = axis % value.ndim if axis < 0 else axis
            rows = num_elements(_result(call), value.shape[:axis])
            return Folded(value.reshape((rows, value.size // max(rows, 1))))
        case "Squeeze":
            return Folded(_squeezed(call, value))
        case "Unsqueeze":
            axes = axes_of(call) or ()
            total = value.ndim + len(axes)
            num_elements(_result(call), [1] * total)  # bounds the rank
            places = {call.axis(axis, total) for axis in axes}
            if len(places) != len(axes):
                raise call.refuse(f"axes {axes} repeat an axis")
            lengths = iter(value.shape)
            return Folded(value.reshape([1 if place in places else next(lengths) for place in range(total)]))
        case _:
            return None


def axes_of(call: Call) -> tuple[int, ...] | None:
    """Return the axes of a node that takes them as an attribute or, in newer opsets, as input 1."""
    return call.integers(1, "axes") if call.has(1) else call.ints("axes")


def _result(call: Call) -> str:
    """Return what messages call the constant that a node makes."""
    return f"the result of {call.label}"


def _stored(call: Call) -> npt.NDArray[Any]:
    """Return the value of a Constant node."""
    name, attribute = next(
        ((name, value) for name in ("value", "value_float", "value_floats", "value_int", "value_ints")
         if (value := call.attribute(name)) is not None),
        ("", AttributeProto()),
    )  # fmt: skip
    match name:
        case "value":
            return tensor_array(attribute.t, f"the value of {call.label}")
        case "value_float":
            return np.array(attribute.f, dtype=np.float32)
        case "value_floats":
            return np.array(attribute.floats, dtype=np.float32)
        case "value_int":
            return np.array(attribute.i, dtype=np.int64)
        case "value_ints":
            return np.array(attribute.ints, dtype=np.int64)
        case _:
            raise call.refuse("only constants that are dense tensors of numbers are supported")


def _arithmetic(call: Call, left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the sum, difference or product of two constants, as ONNX has it: in their own type."""
    if left.dtype != right.dtype or left.dtype == np.bool_:
        raise call.refuse(f"the operands have the types {left.dtype} and {right.dtype}")
    try:
        shape = np.broadcast_shapes(left.shape, right.shape)
    except ValueError:
        raise call.refuse(f"constants of shapes {left.shape} and {right.shape} do not broadcast") from None
    num_elements(_result(call), shape, MAX_FOLDED_ELEMENTS)
    with np.errstate(all="ignore"):  # what is not finite is refused where it is used
        match call.op:
            case "Add":
                return np.asarray(left + right)
            case "Sub":
                return np.asarray(left - right)
            case _:
                return np.asarray(left * right)


def _reshaped(call: Call, value: npt.NDArray[Any], target: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return a constant under another shape."""
    keep_zeros = call.flag("allowzero")
    if any(length == 0 and not keep_zeros and axis >= value.ndim for axis, length in enumerate(target)):
        raise call.refuse(f"shape {target} copies an axis that the constant of shape {value.shape} does not have")
    wanted = [value.shape[axis] if length == 0 and not keep_zeros else length for axis, length in enumerate(target)]
    known = num_elements(_result(call), [length for length in wanted if length != -1])
    if wanted.count(-1) > 1 or (-1 in wanted and (known == 0 or value.size % known)):
        raise call.refuse(f"a constant of shape {value.shape} cannot take the shape {target}")
    wanted = [value.size // known if length == -1 else length for length in wanted]
    if num_elements(_result(call), wanted) != value.size:
        raise call.refuse(f"a constant of shape {value.shape} cannot take the shape {target}")
    return value.reshape(wanted)


def _squeezed(call: Call, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a constant without the given axes of length 1, or without all of them."""
    axes = axes_of(call)
    if not axes:
        return value.reshape([length for length in value.shape if length != 1])
    places = {call.axis(axis, value.ndim) for axis in axes}
    if any(value.shape[place] != 1 for place in places):
        raise call.refuse(f"axes {axes} of a constant of shape {value.shape} do not all have length 1")
    return value.reshape([length for place, length in enumerate(value.shape) if place not in places])
