"""The input that drives a register to the end of its range: docs/widths.md (7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from accelsim.errors import OperandError
from accelsim.explore.bounds import (
    Bounds,
    accumulator_bounds,
    operand_range,
    partial_bounds,
    tap_classes,
    window_classes,
)
from accelsim.machine import Machine
from accelsim.program.layers import MacLayer
from accelsim.simulator.engine.gemm import in_accumulator_units, terms_per_addition

RegisterName = Literal["accumulator", "partial_sum", "adder_tree"]
Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Adversary:
    """An input that takes a register to its bound.

    Parameters
    ----------
    codes : int32 array, shape (1, *input shape)
        Stored input of the layer.
    channel : int
        Output channel whose register it is.
    value : int
        What the register is given at its extreme.
    """

    codes: Int32
    channel: int
    value: int


def adversary(layer: MacLayer, machine: Machine, register: RegisterName = "accumulator") -> Adversary:
    """Return an input at which a register needs its proven width.

    Parameters
    ----------
    layer : MacLayer
        As lowered for the machine.
    machine : Machine
        Where it runs.
    register : {"accumulator", "partial_sum", "adder_tree"}
        Which register.

    Returns
    -------
    Adversary
        At one bit less than the proven width this input overflows; see `Bounds.tight`.

    Raises
    ------
    OperandError
        When the machine's dataflow has no such register, or the bound is not tight.
    """
    bounds = _bounds(layer, machine, register)
    if not bounds.tight:
        raise OperandError(
            f"layer {layer.name!r}: with truncated products and asymmetric weights the {register}'s bound is proven, "
            "but not known to be reached; set product_shift_bits = 0 or quantize weights symmetrically"
        )
    low, high = int(bounds.low.min()), int(bounds.high.max())
    upwards = high >= -low - 1  # the end that decides the width
    channel = int(bounds.high.argmax() if upwards else bounds.low.argmin())
    operands, place = _operands(layer, machine, register, channel, upwards, high if upwards else low)
    return Adversary(
        _image(layer, machine, operands + layer.input_offset, channel, place), channel, high if upwards else low
    )


def _bounds(layer: MacLayer, machine: Machine, register: RegisterName) -> Bounds:
    """Return the bounds of a register; refuse one that the machine does not have."""
    if register == "accumulator":
        return accumulator_bounds(layer, machine)
    bounds = partial_bounds(layer, machine)
    has = "adder_tree" if machine.dataflow == "broadcast" else "partial_sum"
    if bounds is None or register != has:
        raise OperandError(f"register {register!r}: a {machine.dataflow} grid has none")
    return bounds


def _operands(
    layer: MacLayer, machine: Machine, register: RegisterName, channel: int, upwards: bool, value: int
) -> tuple[Int32, int]:
    """Return activations (k,) as a PE multiplies them that take the register to a value, and the number of the case.

    Every weight takes the end of the range that its sign asks for. The bound may be reached before the last addition,
    or after (8), where the sign is that of ``w - z_w``: the one that reaches it is found by adding up.
    """
    least, greatest = operand_range(layer)
    weights, zero_point = layer.weights[channel].astype(np.int64), int(layer.weight_zero_points[channel])
    for place, inside in enumerate(tap_classes(layer, machine)):
        for signs in (weights, weights - zero_point):
            chosen = np.where((signs > 0) == upwards, greatest, least)
            operands = np.where(inside, chosen, layer.pad_value)
            if value in _register_values(layer, machine, register, channel, operands):
                return operands.astype(np.int32), place
    raise AssertionError("a tight bound is reached by one of these inputs")


def _register_values(
    layer: MacLayer, machine: Machine, register: RegisterName, channel: int, operands: npt.NDArray[np.int64]
) -> set[int]:
    """Return all values that a register is given."""
    products = in_accumulator_units(layer.weights[channel].astype(np.int64) * operands, machine)
    tiles = np.split(products, range(terms_per_addition(machine), products.size, terms_per_addition(machine)))
    if register == "partial_sum":
        return {int(value) for tile in tiles for value in tile.cumsum()}
    sums = np.array([tile.sum() for tile in tiles])
    if register == "adder_tree":
        return {int(value) for value in sums}
    start = int(in_accumulator_units(layer.start[channel : channel + 1], machine)[0])
    running = start + sums.cumsum()
    last = np.array([-int(layer.weight_zero_points[channel]) * int(operands.sum())])
    return {start, *running.tolist(), int(running[-1]) + int(in_accumulator_units(last, machine)[0])}


def _image(layer: MacLayer, machine: Machine, stored: Int32, channel: int, place: int) -> Int32:
    """Return an input whose window at one position holds some codes; the rest is the padding's code."""
    if layer.geometry is None:
        return stored.reshape(1, -1)
    geometry, depth = layer.geometry, layer.depth
    inside, (z, y, x) = list(window_classes(layer))[place]
    per_tap = 1 if depth is None else depth.kernel
    shape = (geometry.input_shape[0] // per_tap, 1 if depth is None else depth.length, *geometry.input_shape[1:])
    image = np.full(shape, layer.pad_value + layer.input_offset, dtype=np.int32)
    group, channels, kernel = channel // layer.num_outputs, geometry.group_channels, geometry.kernel_shape
    if machine.reduction_order == "spatial_first":
        window = np.moveaxis(stored.reshape(*kernel, channels), -1, 0)
    else:
        window = stored.reshape(channels, *kernel)
    for tap, row, column in zip(*np.nonzero(inside), strict=True):
        plane = 0 if depth is None else depth.taps()[z][tap % per_tap]
        assert plane is not None
        at = (
            y * geometry.strides[0] - geometry.pads[0] + row * geometry.dilations[0],
            x * geometry.strides[1] - geometry.pads[1] + column * geometry.dilations[1],
        )
        image[group * (channels // per_tap) + tap // per_tap, plane, at[0], at[1]] = window[tap, row, column]
    whole = image[:, 0] if depth is None else image
    return (np.moveaxis(whole, 0, -1) if layer.channels_last else whole)[np.newaxis]
