"""Sliding windows of convolution and pooling: strides, padding and dilation resolved to explicit numbers."""

from __future__ import annotations

from typing import NamedTuple

from accelsim.graph.limits import num_elements
from accelsim.graph.normalise.call import Call


class Window(NamedTuple):
    """A window on one or two spatial axes.

    Attributes
    ----------
    strides, dilations : tuple of int
        One value per axis.
    pads : tuple of int
        ONNX order: begins of all axes, then ends.
    output : tuple of int
        Number of positions per axis.
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    output: tuple[int, ...]


def resolve_window(call: Call, kernel: tuple[int, ...], ceil_mode: bool = False) -> Window:
    """Resolve the attributes strides, dilations, pads and auto_pad.

    Parameters
    ----------
    call : Call
        A node whose input 0 has as many spatial axes as the kernel.
    kernel : tuple of int
        Lengths of the kernel.
    ceil_mode : bool
        Round the number of positions up; a window that would start in the padding at the end is dropped.

    Returns
    -------
    Window
        Explicit numbers.

    Raises
    ------
    ModelError
        When a value is out of range, or the window is larger than the padded input.
    """
    spatial = call.lengths()[1:]
    axes = len(spatial)
    if len(kernel) != axes or min(kernel) < 1:
        raise call.refuse(f"kernel {kernel} must have {axes} lengths of at least 1, one per spatial axis")
    strides = _per_axis(call, "strides", axes)
    dilations = _per_axis(call, "dilations", axes)
    extents = tuple(dilation * (length - 1) + 1 for dilation, length in zip(dilations, kernel, strict=True))
    pads = _pads(call, spatial, extents, strides)
    if call.text("auto_pad", "NOTSET").startswith("SAME") and extents != kernel:
        # ONNX Runtime refuses it for Conv, and pads as if there was no dilation in its pools.
        raise call.refuse(
            f"auto_pad with dilations {dilations} means different things in different runtimes; give pads"
        )
    output = []
    for axis in range(axes):
        padded = spatial[axis] + pads[axis] + pads[axis + axes]
        if padded < extents[axis]:
            raise call.refuse(
                f"the kernel covers {extents[axis]} elements of spatial axis {axis}, the padded input has {padded}"
            )
        steps = padded - extents[axis]
        count = (-(-steps // strides[axis]) if ceil_mode else steps // strides[axis]) + 1
        if ceil_mode and (count - 1) * strides[axis] >= spatial[axis] + pads[axis]:
            count -= 1
        output.append(count)
    padded_lengths = [spatial[axis] + pads[axis] + pads[axis + axes] for axis in range(axes)]
    num_elements(f"the padded input of {call.label}", [call.lengths()[0], *padded_lengths])
    return Window(strides, dilations, pads, tuple(output))


def _per_axis(call: Call, name: str, axes: int) -> tuple[int, ...]:
    """Return an attribute with one value of at least 1 per spatial axis."""
    values = call.ints(name) or (1,) * axes
    if len(values) != axes or min(values) < 1:
        raise call.refuse(f"{name} {values} must be {axes} values of at least 1, one per spatial axis")
    return values


def _pads(call: Call, spatial: tuple[int, ...], extents: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    """Return explicit padding."""
    axes = len(spatial)
    explicit = call.ints("pads") or (0,) * (2 * axes)
    if len(explicit) != 2 * axes or min(explicit) < 0:
        raise call.refuse(f"pads {explicit} must be {2 * axes} values of at least 0")
    mode = call.text("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return explicit
    if any(explicit):
        raise call.refuse(f"auto_pad {mode} and pads {explicit} contradict each other; give one of them")
    if mode == "VALID":
        return explicit
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise call.refuse(f"auto_pad must be NOTSET, SAME_UPPER, SAME_LOWER or VALID, got {mode!r}")
    totals = [
        (-(-length // stride) - 1) * stride + extent - length
        for length, stride, extent in zip(spatial, strides, extents, strict=True)
    ]
    if min(totals) < -1:
        # The formula says to cut elements off both ends; ONNX Runtime does, TensorFlow takes it as no padding.
        # (One element too many is at the end, where no window reads it.)
        raise call.refuse(f"auto_pad with strides {strides} beyond the kernel differs between runtimes; give pads")
    totals = [max(total, 0) for total in totals]
    small = tuple(total // 2 for total in totals)
    large = tuple(total - total // 2 for total in totals)
    return small + large if mode == "SAME_UPPER" else large + small
