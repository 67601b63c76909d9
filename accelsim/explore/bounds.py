"""The least and greatest value that a register of a layer can take, for any input: docs/widths.md section 1.

Nothing here looks at data. An input is any array of codes of the layer's input format; a padded tap holds a fixed code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine
from accelsim.machine.machine import MIN_REGISTER_BITS
from accelsim.program.geometry import Geometry
from accelsim.program.layers import MacLayer
from accelsim.simulator.engine.gemm import in_accumulator_units, terms_per_addition

Int64 = npt.NDArray[np.int64]
Taps = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Bounds:
    """What a register holds at most, per output channel.

    Parameters
    ----------
    low, high : int64 arrays, shape (channels,)
        Least and greatest value before `ov`, over all inputs and positions.
    tight : bool
        Whether some input takes each of them.
    """

    low: Int64
    high: Int64
    tight: bool

    @property
    def bits(self) -> int:
        """Width of the narrowest register that holds both ends of every channel."""
        return register_bits(int(self.low.min()), int(self.high.max()))

    @property
    def channel_bits(self) -> list[int]:
        """The same for each channel."""
        return [register_bits(low, high) for low, high in zip(self.low.tolist(), self.high.tolist(), strict=True)]


def register_bits(low: int, high: int) -> int:
    """Return the width of the narrowest register, of at least 4 bits, that holds two values."""
    magnitude = max(high, -low - 1, 0)
    return max(MIN_REGISTER_BITS, magnitude.bit_length() + 1)


def accumulator_bounds(layer: MacLayer, machine: Machine) -> Bounds:
    """Bound what is brought into the accumulators of a layer, docs/widths.md (1) to (4).

    Parameters
    ----------
    layer : MacLayer
        Weights and start values as lowered for the machine.
    machine : Machine
        Its dataflow decides after which terms an addition ends.

    Returns
    -------
    Bounds
        Partial sums and adder trees are taken to be wide enough. Not tight only where products are truncated and
        weights asymmetric.
    """
    start = in_accumulator_units(layer.start, machine)
    low, high = start.copy(), start.copy()
    asymmetric = layer.weight_zero_points != 0
    for inside in tap_classes(layer, machine):
        least, greatest = _terms(layer.weights.astype(np.int64), inside, layer, machine)
        ends = _addition_ends(layer.reduction, machine)
        lows, highs = start[:, None] + least.cumsum(axis=1)[:, ends], start[:, None] + greatest.cumsum(axis=1)[:, ends]
        np.minimum(low, lows.min(axis=1), out=low)
        np.maximum(high, highs.max(axis=1), out=high)
        if asymmetric.any():
            last_low, last_high = _after_last(layer, machine, inside, start, lows[:, -1], highs[:, -1])
            low[asymmetric] = np.minimum(low, last_low)[asymmetric]
            high[asymmetric] = np.maximum(high, last_high)[asymmetric]
    return Bounds(low, high, tight=not (asymmetric.any() and machine.product_shift_bits > 0))


def partial_bounds(layer: MacLayer, machine: Machine) -> Bounds | None:
    """Bound what is brought into partial sums or adder trees, docs/widths.md (5) and (6).

    Parameters
    ----------
    layer, machine
        As in `accumulator_bounds`.

    Returns
    -------
    Bounds or None
        None on an output-stationary grid, which has no such register.
    """
    if machine.dataflow == "output_stationary":
        return None
    channels = layer.weights.shape[0]
    low, high = np.zeros(channels, dtype=np.int64), np.zeros(channels, dtype=np.int64)
    tree, size = machine.dataflow == "broadcast", terms_per_addition(machine)
    for inside in tap_classes(layer, machine):
        for terms, extreme, bound in zip(
            _terms(layer.weights.astype(np.int64), inside, layer, machine), (np.minimum, np.maximum), (low, high),
            strict=True,
        ):  # fmt: skip
            for begin in range(0, layer.reduction, size):
                tile = terms[:, begin : begin + size]
                sums = tile.sum(axis=1, keepdims=True) if tree else tile.cumsum(axis=1)
                extreme(bound, extreme.reduce(sums, axis=1), out=bound)
    return Bounds(low, high, tight=True)


def tap_classes(layer: MacLayer, machine: Machine) -> Iterator[Taps]:
    """Yield which taps of the window lie inside the image, bool (k,), for each different case of the positions.

    The order of the taps is that of the machine's reduction.
    """
    if layer.geometry is None:
        yield np.ones(layer.reduction, dtype=np.bool_)
        return
    for inside, _ in window_classes(layer):
        yield (np.moveaxis(inside, 0, -1) if machine.reduction_order == "spatial_first" else inside).reshape(-1)


def window_classes(layer: MacLayer) -> Iterator[tuple[Taps, tuple[int, int, int]]]:
    """Yield which taps lie inside the image, and one position (depth, row, column) of each case.

    The taps are bool (channels of a group, kernel rows, kernel columns); those along a third axis are channels, as in
    `DepthWindow`.
    """
    geometry, depth = layer.geometry, layer.depth
    assert geometry is not None
    along_depth: dict[tuple[bool, ...], int] = {(True,): 0}
    if depth is not None:
        along_depth = {}
        for position, taps in enumerate(depth.taps()):
            along_depth.setdefault(tuple(tap is not None for tap in taps), position)
    rows, columns = (_axis_classes(geometry.input_shape[1 + axis], geometry, axis) for axis in (0, 1))
    for planes, z in along_depth.items():
        channels = np.tile(np.array(planes), geometry.group_channels // len(planes))
        for down, y in rows.items():
            for across, x in columns.items():
                yield np.multiply.outer(channels, np.outer(np.array(down), np.array(across))), (z, y, x)


def _axis_classes(length: int, geometry: Geometry, axis: int) -> dict[tuple[bool, ...], int]:
    """Return the different cases along one axis with the first position of each."""
    kinds: dict[tuple[bool, ...], int] = {}
    for position in range(geometry.output_shape[axis]):
        first = position * geometry.strides[axis] - geometry.pads[axis]
        taps = [first + tap * geometry.dilations[axis] for tap in range(geometry.kernel_shape[axis])]
        kinds.setdefault(tuple(0 <= tap < length for tap in taps), position)
    return kinds


def operand_range(layer: MacLayer) -> tuple[int, int]:
    """Return the least and greatest activation as the PEs multiply them."""
    return layer.input_format.minimum - layer.input_offset, layer.input_format.maximum - layer.input_offset


def _terms(weights: Int64, inside: Taps, layer: MacLayer, machine: Machine) -> tuple[Int64, Int64]:
    """Return the least and greatest value of every term, int64 (n, k) each; those of padded taps are the same."""
    ends = [weights * np.where(inside, end, layer.pad_value) for end in operand_range(layer)]
    least, greatest = np.minimum(*ends), np.maximum(*ends)
    return in_accumulator_units(least, machine), in_accumulator_units(greatest, machine)


def _addition_ends(reduction: int, machine: Machine) -> list[int]:
    """Return the index of the last term of every addition to the accumulator."""
    size = terms_per_addition(machine)
    return sorted({*range(size - 1, reduction, size), reduction - 1})


def _after_last(
    layer: MacLayer, machine: Machine, inside: Taps, start: Int64, low: Int64, high: Int64
) -> tuple[Int64, Int64]:
    """Bound the value after addition (8) of docs/numerics.md; low and high bound the value before it."""
    zero_points = layer.weight_zero_points
    if machine.product_shift_bits == 0:  # one sum of (w - z_w) x: each term takes its own extreme
        least, greatest = _terms(layer.weights - zero_points[:, None], inside, layer, machine)
        return start + least.sum(axis=1), start + greatest.sum(axis=1)
    sums = [np.where(inside, end, layer.pad_value).sum(dtype=np.int64) for end in operand_range(layer)]
    ends = [in_accumulator_units(-zero_points * total, machine) for total in sums]
    return low + np.minimum(*ends), high + np.maximum(*ends)
