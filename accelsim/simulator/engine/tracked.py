"""Ordered sums of channels that may overflow, in vectors where every value fits a lane: docs/numerics.md (102)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine
from accelsim.simulator.engine.bounds import ChannelBounds, for_kernels, register
from accelsim.simulator.engine.dots import aligned_empty
from accelsim_kernels.ordered_columns import PANEL, range_columns, step_columns
from accelsim_kernels.ordered_tiles import CHAINS, PRODUCTS, TILES, TREES, Stepping
from accelsim_kernels.processor import has_dot_instructions
from accelsim_kernels.scattered import Order
from accelsim_kernels.term_layout import lay_numbers
from accelsim_kernels.vectors.code import LANES
from accelsim_kernels.vectors.registers import at_top, scale
from accelsim_kernels.vectors.tile import ROWS

Integers = npt.NDArray[Any]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Ends = tuple[int, int]

_MOST = (1 << 31) - 1
"""Greatest value of a lane."""

_ROOM_BYTES = 1 << 20
"""Most bytes of activations that are laid out at a time, unless one block has more: half of a second-level cache."""


def _bits(ends: Ends) -> int:
    """Return the bits that hold magnitudes of a range in two's complement, without the sign."""
    return max(max(ends[1], 0).bit_length(), max(-ends[0] - 1, 0).bit_length())


@dataclass(frozen=True)
class Layout:
    """How operands lie for the steps of six rows by sixteen lanes, and how terms are added.

    Parameters
    ----------
    kind : int
        `PRODUCTS`, `TILES`, `TREES` or `CHAINS` of `accelsim_kernels.ordered_tiles`.
    reduction, tile : int
        Terms, and terms after which a tile ends.
    paired : bool
        Operands of 16 bits, two terms to a lane.
    lane_shift, row_shift : int
        By how much lanes' and rows' terms are shifted to the left.
    inner : tuple of int
        Ends of the register inside a tile.
    doubled : bool
        Both terms of a pair are the same one, whose product counts twice: one more bit of scale.
    """

    kind: int
    reduction: int
    tile: int
    paired: bool
    lane_shift: int = 0
    row_shift: int = 0
    inner: tuple[Any, Any] = (np.int64(0), np.int64(0))
    doubled: bool = False

    @property
    def halves(self) -> bool:
        """Whether a row's number has one term beside a 0."""
        return self.paired and self.kind in (PRODUCTS, CHAINS)

    @property
    def terms(self) -> int:
        """Terms after which a new pair begins."""
        return self.reduction if self.kind == PRODUCTS else min(self.tile, self.reduction)

    @property
    def slots(self) -> int:
        """Terms of a lane, those that fill pairs up among them."""
        if not self.paired:
            return self.reduction
        whole, rest = divmod(self.reduction, self.terms)
        return whole * _even(self.terms) + _even(rest)

    @property
    def length(self) -> int:
        """Numbers of a row."""
        return self.slots // 2 if self.paired and not self.halves else self.slots

    @property
    def numbers_of_tile(self) -> int:
        """Numbers of a row's tile."""
        if not self.paired:
            return self.terms
        return _even(self.terms) if self.halves else _even(self.terms) // 2

    @property
    def dtype(self) -> Any:
        """Type of the lanes' terms."""
        return np.int16 if self.paired else np.int32

    def numbers(self, weights: Integers) -> Int32:
        """Return rows' terms (rows, k) in this layout, filled up to whole tiles of rows."""
        numbers = np.zeros((-(-len(weights) // ROWS) * ROWS, self.length), dtype=np.int32)
        values = np.ascontiguousarray(weights, dtype=np.int32)
        lay_numbers(values, np.int64(self.terms), np.int64(self.row_shift), self.paired, self.halves, numbers)
        return numbers

    def room(self, num_positions: int) -> Integers:
        """Return an array for the activations of some blocks of positions."""
        block = LANES * self.slots
        at_most = max(1, _ROOM_BYTES // (block * np.dtype(self.dtype).itemsize))
        return aligned_empty((min(PANEL, at_most, -(-num_positions // LANES)), block), self.dtype)

    def fitting(self, columns: Integers) -> Integers:
        """Return activations in a type of which kernels are compiled."""
        if columns.dtype != np.uint8 or not self.paired:
            columns = columns.astype(self.dtype, copy=False)
        return for_kernels(columns)

    def stepping(self, machine: Machine) -> tuple[Stepping, bool]:
        """Return what `accelsim_kernels.ordered_tiles.step_tile` takes of a machine."""
        low, high, saturate = register(machine.accumulator_bits, machine.overflow)
        return (np.int64(self.kind), np.int64(self.numbers_of_tile), low, high, *self.inner), saturate


def _even(count: int) -> int:
    return count + count % 2


def layout(machine: Machine, reduction: int, tile: int, lanes: Ends, rows: Ends) -> Layout | None:
    """Return how terms are added where no value can leave a lane of 32 bits: docs/numerics.md (102), (112).

    Parameters
    ----------
    machine : Machine
        Dataflow, widths, overflow mode; without truncated products.
    reduction : int
        K.
    tile : int
        Products that reach the accumulator in one addition.
    lanes, rows : tuple of int
        Least and greatest term of the lanes and of the rows.

    Returns
    -------
    Layout or None
        None where a value may leave its lane.
    """
    paired = _bits(lanes) <= 15 and _bits(rows) <= 15 and has_dot_instructions()
    greatest, bits = max(map(abs, lanes)) * max(map(abs, rows)), machine.accumulator_bits
    if machine.dataflow == "output_stationary":
        shifts = _scaled(machine.overflow, bits, lanes, rows, paired)
        if shifts is not None:
            return Layout(PRODUCTS, reduction, 1, paired, *shifts)
    tiles_sum = min(tile, reduction) * greatest
    width = inner_bits(machine)
    if width is None or tiles_sum < 1 << (width - 1):
        if (1 << bits) + tiles_sum > _MOST:
            return None
        return Layout(TILES, reduction, tile, paired)
    low, high, _ = register(width, machine.overflow)
    if machine.dataflow == "broadcast":
        if (1 << width) + tiles_sum + (1 << bits) > _MOST:
            return None
        return Layout(TREES, reduction, tile, paired, inner=(low, high))
    shifts = _scaled(machine.overflow, width, lanes, rows, paired)
    if shifts is None and paired:  # 32 bits of an operand leave more room
        paired, shifts = False, _scaled(machine.overflow, width, lanes, rows, False)
    if shifts is None or (1 << width) + (1 << bits) > _MOST:
        return None
    return Layout(CHAINS, reduction, tile, paired, *shifts, inner=(low, high))


def layout_in_place(machine: Machine, reduction: int, tile: int, lanes: Ends, rows: Ends) -> Layout | None:
    """Return what `layout` does, or pairs of the same term where these alone reach the top of the lane."""
    found, paired = layout(machine, reduction, tile, lanes, rows), max(map(_bits, (lanes, rows))) <= 15
    one_by_one = machine.dataflow == "output_stationary"
    if found is None or not (paired and has_dot_instructions()):
        return found
    if not (found.kind == TILES and one_by_one) and not (found.kind == CHAINS and not found.paired):
        return found
    bits = machine.accumulator_bits if one_by_one else inner_bits(machine)
    assert bits is not None
    shifts = _scaled(machine.overflow, bits + 1, lanes, rows, True)
    if shifts is None:
        return found
    kind = PRODUCTS if one_by_one else CHAINS
    return Layout(kind, reduction, found.tile, True, *shifts, inner=found.inner, doubled=True)


def _scaled(overflow: str, bits: int, lanes: Ends, rows: Ends, paired: bool) -> tuple[int, int] | None:
    """Return by how much lanes' and rows' terms are shifted for products added one by one, (112); None if none fits."""
    saturate, greatest = overflow == "saturate", max(map(abs, lanes)) * max(map(abs, rows))
    shift = scale(bits, saturate)
    if not at_top(saturate):
        return (0, 0) if (1 << (bits - 1)) + greatest <= 1 << 31 else None
    if paired and 0 <= shift <= 30 - _bits(lanes) - _bits(rows):
        lane_shift = min(shift, 15 - _bits(lanes))
        return lane_shift, shift - lane_shift
    if not paired and shift >= 0 and max(greatest, *map(abs, rows)) < 1 << (bits - 1):
        return 0, shift
    return None


def order_in_lanes(machine: Machine, reduction: int, tile: int, greatest: int) -> Order | None:
    """Return how terms are added, where no value can leave a lane of 32 bits: docs/numerics.md (102).

    Parameters
    ----------
    machine : Machine
        Dataflow, widths, overflow mode; without truncated products.
    reduction : int
        K.
    tile : int
        Products that reach the accumulator in one addition.
    greatest : int
        Greatest magnitude of a product.

    Returns
    -------
    Order or None
        None where a value may leave its lane. An inner register that cannot overflow is one of just enough bits.
    """
    if (1 << machine.accumulator_bits) + greatest > _MOST:
        return None
    if machine.dataflow == "output_stationary":
        return False, np.int64(1), np.int64(0), np.int64(0), False
    tiles_sum = min(tile, reduction) * greatest
    bits = inner_bits(machine)
    fits = bits is None or tiles_sum < 1 << (bits - 1)
    chained = machine.dataflow != "broadcast" and not fits
    if fits:
        bits = tiles_sum.bit_length() + 1
    assert bits is not None
    widest = (1 << bits) + (greatest if chained else tiles_sum)
    if widest + (1 << machine.accumulator_bits) > _MOST:
        return None
    low, high, _ = register(bits, machine.overflow)
    return True, np.int64(tile), low, high, chained


def inner_bits(machine: Machine) -> int | None:
    """Return the width of the register inside a tile; None where it holds everything."""
    if machine.dataflow == "output_stationary":
        return None
    return machine.adder_tree_bits if machine.dataflow == "broadcast" else machine.partial_sum_bits


def step_at_risk(
    weights: Integers, columns: Integers, ends: Ends, start: Int64, rows: Int64, machine: Machine, tile: int,
    outputs: tuple[Int64, Int64, Int64, Int64],
) -> bool:  # fmt: skip
    """Add in the order of the dataflow, where every value fits a lane.

    Parameters
    ----------
    weights, columns : integer arrays, shapes (n, k) and (k, p)
        Operands as the PEs multiply them.
    ends : tuple of int
        Range of the activations.
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    rows : int64 array
        The channels to compute, at least one.
    machine : Machine
        Dataflow, widths, overflow mode; without truncated products.
    tile : int
        Products that reach the accumulator in one addition.
    outputs : tuple of int64 arrays, shape (n, p)
        Accumulators, events, numbers of the first event, events of partial registers, which may be of shape (0, 0)
        where those have no width; other channels are left alone.

    Returns
    -------
    bool
        False, and nothing is done, where a value may leave its lane.
    """
    some = weights[rows]
    form = layout(machine, weights.shape[1], tile, ends, (int(some.min()), int(some.max())))
    if form is None:
        return False
    stepping, saturate = form.stepping(machine)
    step_columns(
        form.fitting(columns), form.numbers(some), rows, start, np.int64(form.terms), np.int64(form.lane_shift),
        stepping, saturate, form.room(columns.shape[1]), outputs,
    )  # fmt: skip
    return True


def range_layout(reduction: int, tile: int, lanes: Ends, rows: Ends) -> Layout:
    """Return how terms of running sums that fit a lane are added; parameters as of `layout`."""
    paired = max(map(_bits, (lanes, rows))) <= 15 and has_dot_instructions()
    return Layout(PRODUCTS if tile == 1 else TILES, reduction, tile, paired)


def step_ranges(
    bounds: ChannelBounds, columns: Integers, ends: Ends, tile: int, outputs: tuple[Int64, Int64, Int64]
) -> Int64:
    """Find the running ranges of the channels whose sums fit a lane.

    Parameters
    ----------
    bounds : ChannelBounds
        With weights and start values.
    columns : integer array, shape (k, p)
        Activations.
    ends : tuple of int
        Their range.
    tile : int
        Products that reach the accumulator in one addition.
    outputs : tuple of int64 arrays, shape (n, p)
        Least and greatest value, and the sum.

    Returns
    -------
    int64 array
        The other channels, which are left alone.
    """
    low, high = bounds.of_sums(*ends)
    fits = (low >= -_MOST) & (high <= _MOST)
    rows = np.flatnonzero(fits)
    if rows.size:
        some = bounds.weights[rows]
        form = range_layout(some.shape[1], tile, ends, (int(some.min()), int(some.max())))
        range_columns(
            form.fitting(columns), form.numbers(some), rows, bounds.start, np.int64(form.terms),
            np.int64(0 if tile == 1 else form.numbers_of_tile), form.room(columns.shape[1]), *outputs,
        )  # fmt: skip
    return np.flatnonzero(~fits)
