"""The broadcast grid of the white paper's figure 1: rows of multipliers with an adder tree each; timing.md (4), (8)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel, optimised_callee
from accelsim_kernels.grid.adder_trees import Planes, add_trees, multiply_plane, record_planes, sum_plane
from accelsim_kernels.grid.lanes import Lanes
from accelsim_kernels.grid.pe import Tracked, copy_output, load_accumulator, tracked_planes
from accelsim_kernels.grid.recording import Trace, record_edge, record_fold, recorded_cycle
from accelsim_kernels.vectors.code import LANES
from accelsim_kernels.vectors.trees import sixteen_trees

Pe = tuple[Any, Any, Any, Any]
"""Cycles from a PE's operands to its adder, at least 1; ``(shift, rule)`` of the products; ``(low, high, saturate)`` of
the accumulators and of the trees' outputs."""


@kernel
def greatest_magnitude(operands: npt.NDArray[np.int32]) -> Int:
    """Return the greatest magnitude of some operands."""
    greatest = np.int64(0)
    for value in operands.flat:
        greatest = max(greatest, abs(np.int64(value)))
    return greatest


@kernel
def step_broadcast(
    lanes: Lanes,
    weights: npt.NDArray[np.int32],
    columns: npt.NDArray[np.int32],
    start: npt.NDArray[np.int64],
    grid: tuple[Any, Any],
    with_range: bool,
    pe: Pe,
    outputs: Tracked,
    tree_events: npt.NDArray[np.int64],
    trace: Trace,
) -> Int:
    """Step a GEMM through all its folds and cycles, numerics.md (14).

    Parameters
    ----------
    lanes : lanes, length 0
        Of the type of operands and products: int32 where that holds the sum of products over all columns, else int64.
    weights : int32 array, shape (n, k)
        One row of the grid per output channel.
    columns : int32 array, shape (k, p)
        Activations, one column of the grid per term.
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    grid : tuple of int64
        Rows and columns.
    with_range : bool
        Keep the range of the unbounded sums.
    pe : tuple
        See `Pe`.
    outputs : tuple of int64 arrays, shape (n, p)
        Accumulators, events, first, unbounded sums, least, greatest; all written, the last three with ``with_range``.
    tree_events : int64 array, shape (n, p)
        Events at the trees' outputs; written.
    trace : tuple
        Registers after each clock edge: products, weights, activations; at the edge the rows' accumulators.

    Returns
    -------
    int64
        Cycles in which a PE multiplied.
    """
    num_rows, num_columns = grid
    (num_outputs, num_terms), num_positions = weights.shape, columns.shape[1]
    num_tiles, depth = (num_terms + num_columns - 1) // num_columns, (num_rows + LANES - 1) // LANES * LANES
    held = np.empty(num_tiles * num_columns * depth, dtype=lanes.dtype)
    entering = np.zeros((num_positions, num_tiles * num_columns), dtype=lanes.dtype)
    for k in range(num_terms):
        for p in range(num_positions):
            entering[p, k] = columns[k, p]
    rows = tracked_planes(1, depth)
    cycle: Int = np.int64(0)  # not a literal, which would be a type of its own to the compiler
    fold = np.int64(0)
    for n0 in range(0, num_outputs, num_rows):
        used_rows = min(num_rows, num_outputs - n0)
        held[:] = 0
        for i in range(used_rows):
            for k in range(num_terms):
                held[k * depth + i] = weights[n0 + i, k]
        for p in range(num_positions):
            for i in range(used_rows):
                load_accumulator(rows, np.int64(0), i, start[n0 + i], pe[2])
                tree_events[n0 + i, p] = 0
            planes = (held, entering[p], depth, num_columns, used_rows)
            cycle = step_fold(planes, num_tiles, with_range, pe, rows, tree_events[n0:, p], trace, cycle, fold)
            for i in range(used_rows):
                copy_output(outputs, n0 + i, p, rows, np.int64(0), i)
            fold += 1
    return cycle


@optimised_callee
def step_fold(
    planes: Planes,
    num_tiles: Int,
    with_range: bool,
    pe: Pe,
    rows: Tracked,
    tree_events: npt.NDArray[np.int64],
    trace: Trace,
    cycle: Int,
    fold: Int,
) -> Int:
    """Step one fold: a channel tile at one position.

    Parameters
    ----------
    planes : tuple
        See `accelsim_kernels.grid.adder_trees.Planes`.
    num_tiles : int64
        Cycles in which operands enter.
    with_range : bool
        Keep the range of the unbounded sums.
    pe : tuple
        See `Pe`.
    rows : tuple of int64 arrays, shape (1, rows)
        Loaded accumulators with their counters; updated.
    tree_events : int64 array, shape (rows in use or more,)
        Updated.
    trace : tuple
        Where the registers are recorded.
    cycle, fold : int64
        Numbers of the first cycle and of the fold.

    Returns
    -------
    int64
        Number of the cycle after the fold.

    Notes
    -----
    The multipliers' pipelines are a moving index: what leaves them is of the operands of ``latency - 1`` cycles ago.
    """
    held, operands, depth, num_columns, used_rows = planes
    latency, rounding, register, tree = pe
    size, marks = num_columns * depth, np.zeros(depth, dtype=np.uint8)
    exact, products = np.zeros(depth, dtype=held.dtype), np.empty(size, dtype=held.dtype)
    for t in range(num_tiles + latency - 1):
        number, recorded = t - (latency - 1), recorded_cycle(trace, cycle) >= 0
        # Evaluate 1: all PEs multiply; columns beyond the reduction, and cycles beyond it, have zero operands.
        if recorded or rounding[0] > 0:
            multiply_plane(held, operands, number, num_columns, depth, rounding, products)
        # Evaluate 2: each row's tree sums the products of latency - 1 cycles ago, its accumulator adds the sum.
        if number >= 0:
            if rounding[0] > 0:
                sum_plane(products, num_columns, depth, exact)
            else:
                for i in range(0, depth, LANES):
                    sixteen_trees(
                        held, number * size + i, depth, operands, number * num_columns, num_columns, exact, i
                    )  # fmt: skip
            add_trees(exact, used_rows, number, register, tree, with_range, rows, tree_events, marks)
        # Commit.
        if recorded:
            record_planes(planes, num_tiles, t, products, trace, cycle)
            for i in range(used_rows):
                mark = np.int64(marks[i]) if number >= 0 else np.int64(0)
                record_edge(trace, cycle, i - trace[7][1], rows[0][0, i], mark)
            record_fold(trace, cycle, fold)
        cycle += 1
    return cycle
