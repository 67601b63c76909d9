"""Planes of a broadcast grid's multipliers, their rows' adder trees and accumulators: docs/numerics.md (14)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, optimised_callee
from accelsim_kernels.grid.lanes import Lanes, Register
from accelsim_kernels.grid.pe import ProductRounding, Tracked
from accelsim_kernels.grid.recording import ACCUMULATOR_MARK, TREE_MARK, Trace, record_plane
from accelsim_kernels.integers import bring_in
from accelsim_kernels.rounding import round_shift

Planes = tuple[Any, Any, Any, Any, Any]
"""What the PEs hold in each cycle of a fold, plane after plane and column after column, and what is broadcast to their
columns: lanes; rows of a plane, a multiple of `LANES`; columns; rows in use."""


@optimised_callee
def multiply_plane(
    held: Lanes, operands: Lanes, number: Int, num_columns: Int, depth: Int, rounding: ProductRounding, products: Lanes
) -> None:
    """Multiply what the PEs hold in cycle ``number`` with what is broadcast, (13a); zeros before cycle 0."""
    shift, rule = rounding
    lane = products.dtype.type
    for j in range(num_columns):
        for i in range(j * depth, (j + 1) * depth):
            products[i] = 0
            if number >= 0:
                product = np.int64(held[number * num_columns * depth + i] * operands[number * num_columns + j])
                products[i] = lane(round_shift(product, shift, 0, rule)) if shift > 0 else lane(product)


@optimised_callee
def sum_plane(products: Lanes, num_columns: Int, depth: Int, sums: Lanes) -> None:
    """Sum the products of every row."""
    sums[:] = 0
    for j in range(num_columns):
        for i in range(depth):
            sums[i] += products[j * depth + i]


@optimised_callee
def add_trees(
    exact: Lanes, used_rows: Int, number: Int, register: Register, tree: Register, with_range: bool, rows: Tracked,
    tree_events: npt.NDArray[np.int64], marks: npt.NDArray[np.uint8],
) -> None:  # fmt: skip
    """Do addition ``number`` of the rows' accumulators: ``A = ov(A + ov(exact))``, with their counters; (14).

    Parameters
    ----------
    exact : lanes, length of the rows or more
        What the trees add up to.
    used_rows : int64
        Rows in use.
    number : int64
        Number of the addition.
    register, tree : tuple
        ``(low, high, saturate)`` of the accumulators and of the trees' outputs.
    with_range : bool
        Keep the range of the unbounded sums.
    rows, tree_events
        As in `accelsim_kernels.grid.broadcast.step_fold`.
    marks : uint8 array
        Which registers overflowed; written.
    """
    accumulators, events, first, unbounded, least, greatest = rows
    low, high, saturate = register
    tree_low, tree_high, tree_saturate = tree
    for i in range(used_rows):
        total: Int = np.int64(exact[i])
        marks[i] = 0
        if with_range:
            unbounded[0, i] += total
            least[0, i], greatest[0, i] = min(least[0, i], unbounded[0, i]), max(greatest[0, i], unbounded[0, i])
        if total < tree_low or total > tree_high:
            tree_events[i] += 1
            marks[i] = TREE_MARK
            total = bring_in(total, tree_low, tree_high, tree_saturate)
        value: Int = accumulators[0, i] + total
        if value < low or value > high:
            events[0, i] += 1
            if first[0, i] < 0:
                first[0, i] = number
            value = bring_in(value, low, high, saturate)
            marks[i] |= ACCUMULATOR_MARK
        accumulators[0, i] = value


@optimised_callee
def record_planes(planes: Planes, num_tiles: Int, t: Int, products: Lanes, trace: Trace, cycle: Int) -> None:
    """Record the products that leave the pipelines in cycle ``t`` of a fold, and the operands that enter."""
    held, operands, depth, num_columns, used_rows = planes
    shape = (used_rows, num_columns)
    made, weights, activations = (
        np.zeros(shape, dtype=held.dtype), np.zeros(shape, dtype=held.dtype), np.zeros(shape, dtype=held.dtype),
    )  # fmt: skip
    for i in range(used_rows):
        for j in range(num_columns):
            made[i, j] = products[j * depth + i]
            if t < num_tiles:
                weights[i, j] = held[(t * num_columns + j) * depth + i]
                activations[i, j] = operands[t * num_columns + j]
    record_plane(trace, trace[0], cycle, made.reshape(-1), num_columns, used_rows, num_columns)
    record_plane(trace, trace[1], cycle, weights.reshape(-1), num_columns, used_rows, num_columns)
    record_plane(trace, trace[2], cycle, activations.reshape(-1), num_columns, used_rows, num_columns)
