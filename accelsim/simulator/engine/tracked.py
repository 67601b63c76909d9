"""Ordered sums of channels that may overflow, in vectors where every value fits a lane: docs/numerics.md (102)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine
from accelsim.simulator.engine.bounds import ChannelBounds, register
from accelsim_kernels.accumulate_blocks import cut_into_blocks, step_products, step_range, step_tiles
from accelsim_kernels.scattered import Order
from accelsim_kernels.vectors.code import LANES, has_dot_instructions
from accelsim_kernels.vectors.steps import CHANNELS

Integers = npt.NDArray[Any]
Int64 = npt.NDArray[np.int64]

_MOST = (1 << 31) - 1
"""Greatest value of a lane."""


@dataclass(frozen=True, eq=False)
class BlockedOperands:
    """Operands in the form of the vector kernels.

    Parameters
    ----------
    weights : int32 or int16 array, shape (n, k)
        With one more value in memory behind the last one.
    columns : array of the same type, shape (blocks, k, 16)
        Activations, the last block filled up.
    greatest : int
        Greatest magnitude of a product.
    """

    weights: Integers
    columns: Integers
    greatest: int

    @staticmethod
    def of(weights: Integers, columns: Integers) -> BlockedOperands:
        """Bring weights (n, k) and activations (k, p) into this form."""
        ends = [(int(array.min()), int(array.max())) for array in (weights, columns)]
        halves = all(low >= -(1 << 15) and high < 1 << 15 for low, high in ends) and has_dot_instructions()
        kind: Any = np.int16 if halves else np.int32
        reduction, num_positions = columns.shape
        blocks = -(-num_positions // LANES)
        filled = np.zeros((reduction, blocks * LANES), dtype=kind)
        filled[:, :num_positions] = columns
        stored = np.empty(weights.size + 1, dtype=kind)
        stored[:-1] = weights.reshape(-1)
        stored[-1] = 0
        greatest = max(map(abs, ends[0])) * max(map(abs, ends[1]))
        apart = np.empty((blocks, reduction, LANES), dtype=kind)
        cut_into_blocks(filled, apart)
        return BlockedOperands(stored[:-1].reshape(weights.shape), apart, greatest)

    @property
    def num_positions(self) -> int:
        """Positions of all blocks."""
        return int(self.columns.shape[0]) * LANES


def _repeated(rows: Int64) -> Int64:
    """Return channels with the last one repeated up to a whole tile."""
    return np.concatenate([rows, np.full(-rows.size % CHANNELS, rows[-1])])


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
    bits = machine.adder_tree_bits if machine.dataflow == "broadcast" else machine.partial_sum_bits
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


def step_at_risk(
    operands: BlockedOperands, start: Int64, rows: Int64, machine: Machine, tile: int, noting: bool,
    outputs: tuple[Int64, Int64, Int64, Int64],
) -> bool:  # fmt: skip
    """Add in the order of the dataflow, where every value fits a lane.

    Parameters
    ----------
    operands : BlockedOperands
        All channels and positions.
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    rows : int64 array
        The channels to compute.
    machine : Machine
        Dataflow, widths, overflow mode; without truncated products.
    tile : int
        Products that reach the accumulator in one addition.
    noting : bool
        Keep the numbers of the first events.
    outputs : tuple of int64 arrays, shape (n, positions of all blocks)
        Accumulators, events, numbers of the first event, events of partial registers.

    Returns
    -------
    bool
        False, and nothing is done, where a value may leave its lane.
    """
    order = order_in_lanes(machine, operands.weights.shape[1], tile, operands.greatest)
    if order is None:
        return False
    tiled, _, low, high, chained = order
    accumulator = register(machine.accumulator_bits, machine.overflow)
    if not tiled:
        step_products(operands.weights, operands.columns, start, _repeated(rows), accumulator, noting, outputs)
        return True
    inner = low, high, machine.overflow == "saturate"
    step_tiles(
        operands.weights, operands.columns, start, _repeated(rows), accumulator, np.int64(tile), inner, chained, outputs
    )  # fmt: skip
    return True


def step_ranges(
    operands: BlockedOperands, bounds: ChannelBounds, least: int, greatest: int, tile: int,
    outputs: tuple[Int64, Int64, Int64],
) -> Int64:  # fmt: skip
    """Find the running ranges of the channels whose sums fit a lane.

    Parameters
    ----------
    operands : BlockedOperands
        All channels and positions.
    bounds : ChannelBounds
        With the start values.
    least, greatest : int
        Range of the activations.
    tile : int
        Products that reach the accumulator in one addition.
    outputs : tuple of int64 arrays, shape (n, positions of all blocks)
        Least and greatest value, and the sum.

    Returns
    -------
    int64 array
        The other channels, which are left alone.
    """
    low, high = bounds.of_sums(least, greatest)
    fits = (low >= -_MOST) & (high <= _MOST)
    rows = np.flatnonzero(fits)
    if rows.size:
        step_range(operands.weights, operands.columns, bounds.start, _repeated(rows), np.int64(tile), *outputs)
    return np.flatnonzero(~fits)
