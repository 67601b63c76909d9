"""Operators that move elements or add a constant: reshapes, Transpose, Concat, Pad. The batch stays axis 0."""

from __future__ import annotations

import math

from accelsim.graph.graph import Shape
from accelsim.graph.normalise.call import Call, Layer
from accelsim.graph.normalise.constants import axes_of


def flatten(call: Call) -> Layer:
    """Normalise Flatten: all axes but the batch become one."""
    shape, lengths = call.shape(), call.lengths()
    axis = call.integer("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        raise call.refuse(f"axis {axis} does not exist; the tensor has {len(shape)} axes")
    axis = axis + len(shape) if axis < 0 else axis
    if axis == 0 or math.prod(lengths[: axis - 1]) != 1:
        raise call.refuse(f"axis {axis} merges the batch with other axes of shape {shape}; only axis 1 keeps it")
    return Layer((call.inputs[0],), (None, math.prod(lengths)))


def reshape(call: Call) -> Layer:
    """Normalise Reshape to a constant shape that keeps the batch on axis 0."""
    shape, lengths = call.shape(), call.lengths()
    target = call.integers(1, "shape")
    size = math.prod(lengths)
    keep_zeros = call.flag("allowzero")
    unsupported = call.refuse(
        f"shape {target} moves, splits or merges the batch of an input of shape {_named(shape)}; "
        "write 0 or -1 for axis 0 and the lengths of one sample after it"
    )
    if not target or len(target) == 1:
        raise unsupported
    if any(length < -1 or (length == 0 and keep_zeros) for length in target) or target.count(-1) > 1:
        raise call.refuse(f"shape {target} is not a valid target")
    rest = []
    for axis, length in enumerate(target[1:], start=1):
        if length == 0 and axis >= len(shape):
            raise call.refuse(
                f"shape {target} copies axis {axis}, which the input of shape {_named(shape)} does not have"
            )
        rest.append(lengths[axis - 1] if length == 0 else length)
    # Axis 0 is the batch where it is copied, or equals the fixed batch; -1 is, where the rest makes one sample.
    if target[0] not in (0, -1, call.batch_size):
        raise unsupported
    if -1 in rest:
        known = math.prod(length for length in rest if length != -1)
        if size % known:
            raise unsupported
        rest = [size // known if length == -1 else length for length in rest]
    if math.prod(rest) != size:
        raise unsupported
    return Layer((call.inputs[0],), (None, *rest))


def squeeze(call: Call) -> Layer:
    """Normalise Squeeze of axes other than the batch."""
    shape = call.shape()
    axes = axes_of(call)
    if not axes:
        raise call.refuse("without axes it removes the batch where that is 1; name the axes")
    places = {call.axis(axis, len(shape)) for axis in axes}
    if 0 in places:
        raise call.refuse("it removes axis 0, the batch")
    if any(shape[place] != 1 for place in places):
        raise call.refuse(f"axes {axes} of an input of shape {_named(shape)} do not all have length 1")
    if len(shape) - len(places) < 2:
        raise call.refuse("it leaves no axis but the batch, which is not supported")
    return Layer((call.inputs[0],), tuple(length for place, length in enumerate(shape) if place not in places))


def unsqueeze(call: Call) -> Layer:
    """Normalise Unsqueeze behind the batch."""
    shape = call.shape()
    axes = axes_of(call) or ()
    total = len(shape) + len(axes)
    places = {call.axis(axis, total) for axis in axes}
    if len(places) != len(axes):
        raise call.refuse(f"axes {axes} repeat an axis")
    if 0 in places:
        raise call.refuse("it inserts an axis before the batch")
    lengths = iter(shape)
    return Layer((call.inputs[0],), tuple(1 if place in places else next(lengths) for place in range(total)))


def transpose(call: Call) -> Layer:
    """Normalise Transpose with the batch left in place."""
    shape = call.shape()
    perm = call.ints("perm") or tuple(reversed(range(len(shape))))
    if sorted(perm) != list(range(len(shape))):
        raise call.refuse(f"perm {perm} does not order the {len(shape)} axes of the input")
    if perm[0] != 0:
        raise call.refuse(f"perm {perm} moves the batch from axis 0, which is not supported")
    return Layer((call.inputs[0],), tuple(shape[axis] for axis in perm), {"perm": perm})


def concat(call: Call) -> Layer:
    """Normalise the axis of Concat."""
    shapes = [call.shape(index) for index in range(len(call.inputs))]
    first = shapes[0]
    axis = call.axis(call.integer("axis", 0), len(first))
    if axis == 0:
        raise call.refuse("axis 0 is the batch; only the other axes can be concatenated")
    for shape in shapes:
        if len(shape) != len(first) or any(
            place != axis and length != first[place] for place, length in enumerate(shape)
        ):
            raise call.refuse(f"inputs of shapes {_named(first)} and {_named(shape)} do not fit on axis {axis}")
    total = sum(shape[axis] or 0 for shape in shapes)
    return Layer(tuple(call.inputs), (*first[:axis], total, *first[axis + 1 :]), {"axis": axis})


def pad(call: Call) -> Layer:
    """Normalise Pad with a constant to one pair of values per axis."""
    shape = call.shape()
    rank = len(shape)
    mode = call.text("mode", "constant")
    if mode != "constant":
        raise call.refuse(f"mode {mode!r} is not supported; only padding with a constant is")
    given = call.integers(1, "pads")
    axes = call.integers(3, "axes") if call.has(3) else tuple(range(rank))
    places = [call.axis(axis, rank) for axis in axes]
    if len(set(places)) != len(places) or len(given) != 2 * len(places):
        raise call.refuse(f"pads {given} must be two values for each of the axes {axes}")
    pads = [0] * (2 * rank)
    for index, place in enumerate(places):
        pads[place], pads[place + rank] = given[index], given[index + len(places)]
    if min(pads) < 0:
        raise call.refuse(f"pads {given} must not be negative")
    if pads[0] or pads[rank]:
        raise call.refuse(f"pads {given} add to axis 0, the batch")
    value = call.scalar(2, "value", 0.0)
    if not math.isfinite(value):
        raise call.refuse(f"the value must be finite, got {value}")
    output = tuple(
        None if length is None else length + pads[axis] + pads[axis + rank] for axis, length in enumerate(shape)
    )
    return Layer((call.inputs[0],), output, {"pads": tuple(pads), "value": value})


def _named(shape: Shape) -> str:
    """Return a shape as messages show it."""
    return f"({', '.join('batch' if length is None else str(length) for length in shape)})"
