"""Operators that keep the shape, and Add, Sub and Mul, which broadcast."""

from __future__ import annotations

import numpy as np

from accelsim.graph.graph import Shape
from accelsim.graph.normalise.call import Call, Layer

_FLOAT32_MAX = float(np.finfo(np.float32).max)


def unary(call: Call) -> Layer:
    """Normalise a function of one element without attributes."""
    return Layer((call.inputs[0],), call.shape())


def swish(call: Call) -> Layer:
    """Normalise ``x · sigmoid(alpha · x)``."""
    return Layer((call.inputs[0],), call.shape(), {"alpha": call.real("alpha", 1.0)})


def leaky_relu(call: Call) -> Layer:
    """Normalise ``x if x >= 0 else alpha · x``."""
    return Layer((call.inputs[0],), call.shape(), {"alpha": call.real("alpha", 0.01)})


def hard_sigmoid(call: Call) -> Layer:
    """Normalise ``max(0, min(1, alpha · x + beta))``."""
    return Layer((call.inputs[0],), call.shape(), {"alpha": call.real("alpha", 0.2), "beta": call.real("beta", 0.5)})


def clip(call: Call) -> Layer:
    """Normalise the bounds of Clip to two numbers, infinite where there is none."""
    low = call.scalar(1, "lower bound", -np.inf)
    high = call.scalar(2, "upper bound", np.inf)
    # Exporters write "no bound" as float32's largest number; on finite values that is the same.
    low = -np.inf if low <= -_FLOAT32_MAX else low
    high = np.inf if high >= _FLOAT32_MAX else high
    if low > high or low == np.inf or high == -np.inf:
        raise call.refuse(f"the lower bound {low} must not be above the upper bound {high}")
    return Layer((call.inputs[0],), call.shape(), {"min": float(low), "max": float(high)})


def prelu(call: Call) -> Layer:
    """Normalise the slope to one value, or to one per channel of axis 1."""
    shape = call.shape()
    slope = call.floats(1, "slope")
    if slope.size == 1:
        return Layer((call.inputs[0], call.inputs[1] if slope.ndim == 0 else slope.reshape(())), shape)
    aligned = (1,) * (len(shape) - slope.ndim) + slope.shape
    if aligned != (1, shape[1], *(1,) * (len(shape) - 2)):
        raise call.refuse(
            f"the slope has shape {slope.shape} on an input of shape {shape}; "
            "only one slope, or one per channel of axis 1, is supported"
        )
    return Layer((call.inputs[0], call.inputs[1] if slope.ndim == 1 else slope.reshape(-1)), shape)


def batch_normalization(call: Call) -> Layer:
    """Normalise a batch norm with constant statistics."""
    shape = call.shape()
    if call.integer("training_mode", 0) or call.num_used_outputs > 1:
        raise call.refuse("training_mode=1, or a use of the running statistics; export the model for inference")
    for index, what in enumerate(("scale", "bias", "mean", "variance"), start=1):
        values = call.floats(index, what)
        if values.shape != (shape[1],):
            raise call.refuse(f"the {what} must have one value per channel, {shape[1]}, got shape {values.shape}")
    epsilon = call.real("epsilon", 1e-5)
    if float(call.floats(4, "variance").min()) + epsilon <= 0.0:
        raise call.refuse(f"variance + epsilon must be above 0, got {call.floats(4, 'variance').min()} + {epsilon}")
    return Layer(tuple(call.inputs[:5]), shape, {"epsilon": epsilon})


def binary(call: Call) -> Layer:
    """Normalise Add, Sub and Mul, with numpy's broadcasting and the batch left on axis 0."""
    shapes: list[Shape] = []
    for index in range(2):
        if call.is_constant(index):
            shapes.append(call.floats(index, "operand").shape)
        else:
            shapes.append(call.shape(index))
    rank = max(len(shape) for index, shape in enumerate(shapes) if not call.is_constant(index))
    aligned: list[Shape] = []
    for index, shape in enumerate(shapes):
        if call.is_constant(index):
            if len(shape) > rank or (len(shape) == rank and shape[0] != 1):
                raise call.refuse(
                    f"constant {call.inputs[index]!r} of shape {shape} reaches into the batch axis of an input with "
                    f"{rank} axes; its length there must be 1"
                )
            aligned.append((1,) * (rank - len(shape)) + tuple(shape))
        elif len(shape) != rank:
            raise call.refuse(
                f"operands of shapes {shapes[0]} and {shapes[1]} would be added batch to channel; "
                "both need the same number of axes"
            )
        else:
            aligned.append(shape)
    lengths: list[int | None] = [None]
    for left, right in zip(aligned[0][1:], aligned[1][1:], strict=True):
        if left != right and 1 not in (left, right):
            raise call.refuse(f"operands of shapes {shapes[0]} and {shapes[1]} do not broadcast")
        lengths.append(right if left == 1 else left)
    return Layer((call.inputs[0], call.inputs[1]), tuple(lengths))


def softmax(call: Call) -> Layer:
    """Normalise the axis of Softmax; below opset 13 it flattened all axes from ``axis`` on into one."""
    shape = call.shape()
    axis = call.axis(call.integer("axis", 1 if call.opset < 13 else -1), len(shape))
    if axis == 0:
        raise call.refuse("axis 0 is the batch")
    if call.opset < 13:
        long = [place for place in range(axis, len(shape)) if shape[place] != 1]
        if len(long) > 1:
            raise call.refuse(
                f"axis {axis} of a tensor of shape {shape} sums over {len(long)} axes together (so it was below opset "
                "13), which is not supported; flatten the input first"
            )
        axis = long[0] if long else axis
    return Layer((call.inputs[0],), shape, {"axis": axis})
