"""A grid that keeps one operand and lets partial sums flow down: timing.md (2), (3), (6), (7), numerics.md (15), (16).

Weight-stationary and input-stationary grids are the same machine with the operands exchanged: rows are the reduction, a
column belongs to one index of the stationary operand, and the other operand's vectors stream through one after the
other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel, optimised_callee
from accelsim_kernels.grid.below import (
    add_below,
    add_events,
    count_partial_events,
    load_below,
    store_below,
    widen_range_below,
)
from accelsim_kernels.grid.lanes import (
    Lanes,
    accumulate,
    feed_rows,
    lane_limits,
    multiply_accumulate,
    skew_right,
    skewed_stride,
)
from accelsim_kernels.grid.pe import Tracked, multiply, settle, tracked_planes
from accelsim_kernels.grid.recording import Trace, record_fold, record_plane, recorded_cycle
from accelsim_kernels.integers import copy

Operands = tuple[Any, Any, Any]
"""int32 arrays: what is kept, (n, k) or (p, k), and what moves, activations (k, p) or weights (n, k); int64 array (n,):
what the accumulators are loaded with."""

Grid = tuple[Any, Any, Any, Any]
"""Rows, columns, whether a ragged fold runs for the cycles of the whole grid, whether weights are kept."""

Pe = tuple[Any, Any, Any, Any]
"""Cycles from a PE's operands to its adder, at least 1; ``(shift, rule)`` of the products; ``(low, high, saturate)`` of
the accumulators below the grid and of the partial sums."""

Used = tuple[Any, Any, Any, Any]
"""Rows and columns that are stepped in a fold, rows and columns that keep an operand."""

Planes = tuple[Any, Any, Any, Any, Any, Any, Any, Any]
"""Kept operands; moving ones by `skew_right` and the stride of a row; the buffers whose windows are passed by operands,
by partial sums, by exact partial sums and by their events; where the windows begin in cycle 0, in cells and in rows."""


@kernel
def step_stationary_operand(
    lanes: Lanes,
    operands: Operands,
    grid: Grid,
    with_range: bool,
    pe: Pe,
    outputs: Tracked,
    partial_events: npt.NDArray[np.int64],
    trace: Trace,
) -> Int:
    """Step a GEMM through all its folds and cycles.

    Parameters
    ----------
    lanes : lanes, length 0
        Of the type of the partial sums, which start from 0 at the top: int32 where
        `accelsim_kernels.grid.lanes.int32_suffices`, else int64.
    operands, grid, pe : tuple
        See `Operands`, `Grid`, `Pe`.
    with_range : bool
        Keep the range of the unbounded sums.
    outputs : tuple of int64 arrays, shape (n, p)
        Accumulators, events, first, unbounded sums, least, greatest; all written, the last three with ``with_range``.
    partial_events : int64 array, shape (n, p)
        Events of the partial-sum registers; written.
    trace : tuple
        Registers after each clock edge: partial sums, stationary and moving operands; at the edge the accumulators
        below the grid that a sum of this cycle was added to.

    Returns
    -------
    int64
        Cycles in which a PE multiplied.
    """
    stationary, moving, start = operands
    num_rows, num_columns, full_folds, weights_stationary = grid
    latency, register = pe[0], pe[2]
    num_stationary, num_terms = stationary.shape
    num_vectors = moving.shape[1] if weights_stationary else moving.shape[0]
    most_cycles = num_vectors + num_rows + num_columns - 2 + latency - 1
    stride = skewed_stride(most_cycles)
    entering = np.zeros(num_rows * stride, dtype=np.int32)
    passing = np.zeros(most_cycles + num_rows * num_columns, dtype=np.int32)
    length = (most_cycles + num_rows) * num_columns
    falling = np.zeros(length, dtype=lanes.dtype)
    events = np.zeros(length, dtype=lanes.dtype)
    exact = np.empty(length if with_range else 0, dtype=lanes.dtype)
    cycle: Int = np.int64(0)  # not a literal, which would be a type of its own to the compiler
    fold = np.int64(0)
    for s0 in range(0, num_stationary, num_columns):
        used_columns = min(num_columns, num_stationary - s0)
        columns = num_columns if full_folds else used_columns
        tile = (s0, used_columns, num_vectors, weights_stationary)
        below = tracked_planes(num_vectors + columns - 1, columns)
        tile_events = np.zeros(below[0].size, dtype=np.int64)
        load_below(below, start, tile, register)
        for k0 in range(0, num_terms, num_rows):
            used_rows = min(num_rows, num_terms - k0)
            rows = num_rows if full_folds else used_rows
            kept = np.zeros(rows * columns, dtype=np.int32)
            for i in range(used_rows):
                for j in range(used_columns):
                    kept[i * columns + j] = stationary[s0 + j, k0 + i]
            falling[:] = 0
            used = (rows, columns, used_rows, used_columns)
            skew_right(moving, weights_stationary, k0, used_rows, stride, entering)
            planes = (kept, entering, stride, passing, falling, exact, events, most_cycles - 1)
            begin = cycle
            cycle, overflowed = step_fold(lanes, num_vectors, used, with_range, pe, planes, trace, cycle, fold)
            # Below the grid: the sums that have left the last row are still in the buffer; row ``last - d`` is the
            # diagonal d. Each is added to its accumulator in the cycle in which it left.
            last = most_cycles - latency
            left = slice((last + 1 - below[0].shape[0]) * columns, (last + 1) * columns)
            leaves = begin + (latency - 1) + rows - 1
            add_below(below, falling[left], k0 // num_rows, register, tile, trace, leaves)
            if with_range:
                widen_range_below(below, exact[left] if overflowed else falling[left])
            if overflowed:
                add_events(events[left], tile_events)
                events[:] = 0
            fold += 1
        store_below(below, outputs, tile)
        count_partial_events(tile_events, columns, partial_events, tile)
    return cycle


@optimised_callee
def step_fold(
    lanes: Lanes,
    num_vectors: Int,
    used: Used,
    with_range: bool,
    pe: Pe,
    planes: Planes,
    trace: Trace,
    cycle: Int,
    fold: Int,
) -> tuple[Any, Any]:
    """Step one fold.

    Parameters
    ----------
    lanes : lanes, length 0
        Of the type of the partial sums.
    num_vectors : int64
        Vectors that stream through.
    used : tuple
        What of the grid.
    with_range : bool
        Keep exact partial sums, too.
    pe, planes : tuple
        What a PE does, and its registers.
    trace : tuple
        Where the registers are recorded.
    cycle, fold : int64
        Numbers of the first cycle and of the fold.

    Returns
    -------
    tuple of int64 and bool
        Number of the cycle after the fold, and whether a partial sum overflowed.

    Notes
    -----
    Up to the first overflow of a fold the exact partial sums are the partial sums, so they are copied then and kept
    only from there on.
    """
    rows, columns, used_rows, used_columns = used
    latency, rounding, _, partial = pe
    kept, entering, stride, passing, falling, exact, events, top = planes
    size = rows * columns
    low, high = lane_limits(lanes, partial)
    marks = np.zeros(size, dtype=lanes.dtype)
    products = np.zeros((latency, size), dtype=lanes.dtype)  # the multipliers' pipelines, bubbles at first
    at_once, apart = latency == 1 and rounding[0] == 0, False  # apart: exact sums are kept, as sums have overflowed
    overflowed = False
    passing[top + 1 : top + 1 + size] = 0
    for t in range(num_vectors + rows + columns - 2 + latency - 1):
        # Evaluate 1: the moving operand goes one PE right, the partial sums go one PE down; zeros enter the top.
        operand = passing[top - t : top - t + size]
        feed_rows(operand, columns, entering, stride, rows, t)
        plane = slice((top - t) * columns, (top - t) * columns + size)
        sums = falling[plane]
        # Evaluate 2: every PE multiplies, or has a bubble, and adds the product of latency - 1 cycles ago.
        if at_once and not apart:
            outside = multiply_accumulate(sums, kept, operand, low, high)
        else:
            multiply(kept, operand, rounding, products[t % latency])
            ready = products[(t + 1) % latency]
            outside = accumulate(sums, ready, low, high)
            if apart:
                accumulate(exact[plane], ready, low, high)
        # Commit: the clock edge. What a sum has overflowed so far falls with it.
        if outside:
            if with_range and not apart:
                copy(falling, exact)
                apart = True
            settle(sums, partial, events[plane], marks)
            overflowed = True
        if recorded_cycle(trace, cycle) >= 0:
            record_plane(trace, trace[0], cycle, sums, columns, rows, columns)
            # The moving operand also passes PEs that keep nothing in this fold; those do not use it.
            record_plane(trace, trace[1], cycle, kept, columns, rows, columns)
            record_plane(trace, trace[2], cycle, operand, columns, used_rows, used_columns)
            if outside:
                record_plane(trace, trace[3], cycle, marks, columns, rows, columns)
            record_fold(trace, cycle, fold)
        cycle += 1
    return cycle, overflowed
