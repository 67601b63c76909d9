"""The output-stationary grid: every PE keeps its output; docs/timing.md (1) and (5), numerics.md (13)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel, optimised_callee
from accelsim_kernels.grid.lanes import (
    Lanes,
    accumulate,
    feed_rows,
    lane_limits,
    multiply_accumulate,
    skew_down,
    skew_right,
    skewed_stride,
)
from accelsim_kernels.grid.pe import (
    Tracked,
    copy_output,
    load_accumulator,
    multiply,
    number_first_events,
    settle,
    tracked_planes,
    widen_range,
)
from accelsim_kernels.grid.recording import Trace, record_fold, record_plane, recorded_cycle
from accelsim_kernels.integers import copy

Grid = tuple[Any, Any, Any]
"""Rows, columns, and whether a ragged fold runs for the cycles of the whole grid."""

Pe = tuple[Any, Any, Any]
"""Cycles from a PE's operands to its adder, at least 1; ``(shift, rule)`` of the products; ``(low, high, saturate)`` of
the accumulators."""

Used = tuple[Any, Any, Any, Any]
"""Rows and columns that are stepped in a fold, rows and columns that hold outputs."""

Moving = tuple[Any, Any, Any, Any, Any]
"""Weights by `skew_down`; activations by `skew_right` and the stride of a row; the buffer whose window they pass; where
both windows begin in cycle 0, in rows and in cells."""


@kernel
def step_output_stationary(
    lanes: Lanes,
    weights: npt.NDArray[np.int32],
    positions: npt.NDArray[np.int32],
    start: npt.NDArray[np.int64],
    grid: Grid,
    with_range: bool,
    pe: Pe,
    outputs: Tracked,
    trace: Trace,
) -> Int:
    """Step a GEMM through all its folds and cycles.

    Parameters
    ----------
    lanes : lanes, length 0
        Of the type of the registers: int32 where `accelsim_kernels.grid.lanes.int32_suffices`, else int64.
    weights : int32 array, shape (n, k)
        Enter at the top of the columns.
    positions : int32 array, shape (p, k)
        Activations; enter at the left of the rows.
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    grid : tuple
        See `Grid`.
    with_range : bool
        Keep the range of the unbounded sums.
    pe : tuple
        See `Pe`.
    outputs : tuple of int64 arrays, shape (n, p)
        Accumulators, events, first, unbounded sums, least, greatest; all written, the last three with ``with_range``.
    trace : tuple
        Registers after each clock edge: accumulators, weights, activations; there are none at the edge.

    Returns
    -------
    int64
        Cycles in which a PE multiplied.
    """
    num_rows, num_columns, full_folds = grid
    latency = pe[0]
    num_outputs, num_terms = weights.shape
    num_positions = positions.shape[0]
    # Cycle t of a fold sees terms t - i - j <= t in row i and column j: row 0 of `descending` is the greatest t.
    most_cycles = num_terms + num_rows + num_columns - 2 + latency - 1
    descending = np.zeros((most_cycles + num_rows) * num_columns, dtype=np.int32)
    stride = skewed_stride(most_cycles)
    entering = np.zeros(num_rows * stride, dtype=np.int32)
    passing = np.zeros(most_cycles + num_rows * num_columns, dtype=np.int32)
    cycle: Int = np.int64(0)  # not a literal, which would be a type of its own to the compiler
    fold = np.int64(0)
    for n0 in range(0, num_outputs, num_columns):
        used_columns = min(num_columns, num_outputs - n0)
        cols = num_columns if full_folds else used_columns
        skew_down(weights, n0, used_columns, cols, most_cycles - 1, descending)
        for p0 in range(0, num_positions, num_rows):
            used_rows = min(num_rows, num_positions - p0)
            rows = num_rows if full_folds else used_rows
            planes = tracked_planes(rows, cols)
            for i in range(used_rows):
                for j in range(used_columns):
                    load_accumulator(planes, i, j, start[n0 + j], pe[2])
            used = (rows, cols, used_rows, used_columns)
            # np.bool_: a literal would be a type of its own, and `skew_right` compiled twice
            skew_right(positions, np.bool_(True), p0, used_rows, stride, entering)
            moving = (descending, entering, stride, passing, most_cycles - 1)
            cycle = step_fold(lanes, used, num_terms, with_range, pe, moving, planes, trace, cycle, fold)
            # Drain: the used PEs' accumulators leave the grid.
            for i in range(used_rows):
                for j in range(used_columns):
                    copy_output(outputs, n0 + j, p0 + i, planes, i, j)
            fold += 1
    return cycle


@optimised_callee
def step_fold(
    lanes: Lanes,
    used: Used,
    num_terms: Int,
    with_range: bool,
    pe: Pe,
    moving: Moving,
    planes: Tracked,
    trace: Trace,
    cycle: Int,
    fold: Int,
) -> Int:
    """Step one fold.

    Parameters
    ----------
    lanes : lanes, length 0
        Of the type of the registers.
    used : tuple
        What of the grid.
    num_terms : int64
        K.
    with_range : bool
        Keep the range of the unbounded sums.
    pe, moving : tuple
        What a PE does, and what passes it.
    planes : tuple of int64 arrays, shape (rows, columns)
        Loaded accumulators with their counters; what they come to is written.
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
    Up to the first overflow of a fold the unbounded sums are what the accumulators hold, so they are copied then and
    kept only from there on.
    """
    rows, columns, used_rows, used_columns = used
    latency, rounding, register = pe
    descending, entering, stride, passing, top = moving
    size = rows * columns
    low, high = lane_limits(lanes, register)
    held = planes[0].reshape(-1).astype(lanes.dtype)
    unbounded = planes[3].reshape(-1).astype(lanes.dtype)
    least, greatest = unbounded.copy(), unbounded.copy()
    events = np.zeros(size, dtype=lanes.dtype)
    overflowed = np.zeros(size, dtype=lanes.dtype)
    first = planes[2].reshape(-1).astype(lanes.dtype)
    steps = np.empty(size, dtype=lanes.dtype)  # cycles by which a PE is later than the corner
    for i in range(size):
        steps[i] = i // columns + i % columns
    products = np.zeros((latency, size), dtype=lanes.dtype)  # the multipliers' pipelines, bubbles at first
    at_once = latency == 1 and rounding[0] == 0
    apart = False  # the unbounded sums are kept, as accumulators have overflowed
    if with_range:
        for i in range(size):
            apart |= bool(held[i] != unbounded[i])
    passing[top + 1 : top + 1 + size] = 0
    for t in range(num_terms + rows + columns - 2 + latency - 1):
        # Evaluate 1: operands move one PE on; the left edge is fed.
        weight = descending[(top - t) * columns : (top - t) * columns + size]
        activation = passing[top - t : top - t + size]
        feed_rows(activation, columns, entering, stride, rows, t)
        # Evaluate 2: PE (i, j) multiplies term k = t - i - j, or zeros in a bubble, and adds the product that it made
        # latency - 1 cycles ago.
        if at_once and not apart:
            outside = multiply_accumulate(held, weight, activation, low, high)
        else:
            multiply(weight, activation, rounding, products[t % latency])
            ready = products[(t + 1) % latency]
            outside = accumulate(held, ready, low, high)
            if apart:
                accumulate(unbounded, ready, low, high)
        if with_range:
            widen_range(unbounded if apart else held, least, greatest)
        # Commit: the clock edge.
        if outside:
            if with_range and not apart:
                copy(held, unbounded)
                apart = True
            settle(held, register, events, overflowed)
            number_first_events(overflowed, t - (latency - 1), steps, first)
        if recorded_cycle(trace, cycle) >= 0:
            record_plane(trace, trace[0], cycle, held, columns, rows, columns)
            # Operands also pass PEs that have no output in this fold; those do not use them.
            record_plane(trace, trace[1], cycle, weight, columns, used_rows, used_columns)
            record_plane(trace, trace[2], cycle, activation, columns, used_rows, used_columns)
            if outside:
                record_plane(trace, trace[3], cycle, overflowed, columns, rows, columns)
            record_fold(trace, cycle, fold)
        cycle += 1
    copy(held, planes[0].reshape(-1))
    copy(first, planes[2].reshape(-1))
    counted = planes[1].reshape(-1)
    for i in range(events.size):
        counted[i] += events[i]
    copy(unbounded if apart else held, planes[3].reshape(-1))
    copy(least, planes[4].reshape(-1))
    copy(greatest, planes[5].reshape(-1))
    return cycle
