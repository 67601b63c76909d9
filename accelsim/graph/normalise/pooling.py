"""Pooling and means over space."""

from __future__ import annotations

from accelsim.graph.normalise.call import Call, Layer
from accelsim.graph.normalise.constants import axes_of
from accelsim.graph.normalise.window import resolve_window


def max_pool(call: Call) -> Layer:
    """Normalise MaxPool without indices."""
    if call.num_used_outputs > 1:
        raise call.refuse("the indices, output 1, are used, which is not supported")
    if call.integer("storage_order", 0):
        raise call.refuse("storage_order=1 is not supported")
    return _pool(call, count_include_pad=0)


def average_pool(call: Call) -> Layer:
    """Normalise AveragePool."""
    return _pool(call, count_include_pad=call.flag("count_include_pad"))


def _pool(call: Call, count_include_pad: int) -> Layer:
    """Normalise a pooling window."""
    shape = call.shape()
    if len(shape) not in (3, 4):
        raise call.refuse(
            f"pooling over {len(shape) - 2} spatial axes is not supported (input shape {shape}), 1 or 2 are"
        )
    kernel = call.ints("kernel_shape") or ()
    ceil_mode = call.flag("ceil_mode")
    window = resolve_window(call, kernel, bool(ceil_mode))
    axes = len(kernel)
    if any(pad >= kernel[index % axes] for index, pad in enumerate(window.pads)):
        raise call.refuse(
            f"pads {window.pads} must be smaller than the kernel {kernel}, or a window holds padding only"
        )
    return Layer(
        (call.inputs[0],),
        (None, shape[1], *window.output),
        {
            "kernel_shape": kernel,
            "strides": window.strides,
            "pads": window.pads,
            "dilations": window.dilations,
            "ceil_mode": ceil_mode,
            "count_include_pad": count_include_pad,
        },
    )


def global_average_pool(call: Call) -> Layer:
    """Normalise the mean over all spatial axes."""
    shape = call.shape()
    if len(shape) not in (3, 4):
        raise call.refuse(
            f"pooling over {len(shape) - 2} spatial axes is not supported (input shape {shape}), 1 or 2 are"
        )
    return Layer((call.inputs[0],), (None, shape[1], *(1,) * (len(shape) - 2)))


def reduce_mean(call: Call) -> Layer:
    """Normalise a mean over exactly all spatial axes."""
    shape = call.shape()
    rank = len(shape)
    axes = axes_of(call)
    if axes is None:
        axes = ()
    if not axes:
        # Without axes it averages over everything (or, on request, over nothing): the batch too.
        raise call.refuse("without axes it averages over the batch too; name the spatial axes")
    places = tuple(sorted(call.axis(axis, rank) for axis in axes))
    if rank not in (3, 4) or places != tuple(range(2, rank)):
        raise call.refuse(
            f"axes {axes} of an input of shape {shape}; only the mean over exactly all spatial axes of an input with "
            "3 or 4 axes is supported"
        )
    keep = call.flag("keepdims", 1)
    output = (None, shape[1], *(1,) * (rank - 2)) if keep else (None, shape[1])
    return Layer((call.inputs[0],), output, {"axes": places, "keepdims": keep})
