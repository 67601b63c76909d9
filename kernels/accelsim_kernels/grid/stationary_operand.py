"""A grid that keeps one operand and lets partial sums flow down: timing.md (2), (3), (6), (7), numerics.md (15), (16).

Weight-stationary and input-stationary grids are the same machine with the operands exchanged: rows are the reduction, a
column belongs to one index of the stationary operand, and the other operand's vectors stream through one after the
other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel
from accelsim_kernels.grid.pe import (
    ProductRounding,
    Register,
    Trace,
    Tracked,
    add,
    add_to_accumulators,
    any_outside,
    load_accumulator,
    mark_register,
    multiply,
    record,
    record_edge,
    record_fold,
    shift_down,
    shift_right,
)
from accelsim_kernels.integers import bring_in


@kernel
def step_stationary_operand(
    stationary: npt.NDArray[np.int32],
    moving: npt.NDArray[np.int32],
    start: npt.NDArray[np.int64],
    weights_stationary: bool,
    num_rows: Int,
    num_columns: Int,
    full_folds: bool,
    latency: Int,
    rounding: ProductRounding,
    register: Register,
    partial: Register,
    outputs: Tracked,
    partial_events: npt.NDArray[np.int64],
    trace: Trace,
) -> Int:
    """Step a GEMM through all its folds and cycles.

    Parameters
    ----------
    stationary : int32 array, shape (s, k)
        Kept in the PEs: weights (n, k), or activations (p, k).
    moving : int32 array, shape (k, m)
        Streams through: activations (k, p), or weights (k, n).
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    weights_stationary : bool
        Which of the two the stationary operand is.
    num_rows, num_columns : int64
        The grid.
    full_folds : bool
        A ragged fold runs for the cycles of the whole grid.
    latency : int64
        Cycles from a PE's operands to its adder, at least 1.
    rounding : tuple
        ``(shift, rule)`` of the products.
    register, partial : tuple
        ``(low, high, saturate)`` of the accumulators below the grid and of the partial-sum registers.
    outputs : tuple of int64 arrays, shape (n, p)
        Accumulators, events, first, unbounded sums, least, greatest; all written.
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
    low, high, saturate = partial
    num_stationary, num_terms = stationary.shape
    num_vectors = moving.shape[1]
    partial_events[:] = 0
    for channel in range(partial_events.shape[0]):
        for position in range(partial_events.shape[1]):
            load_accumulator(outputs, channel, position, start[channel], register)
    channels = np.empty(num_columns, dtype=np.int64)
    positions = np.empty(num_columns, dtype=np.int64)
    sums = np.empty(num_columns, dtype=np.int64)
    exact_sums = np.empty(num_columns, dtype=np.int64)
    marks = np.zeros(num_columns, dtype=np.uint8)
    cycle = 0
    fold = 0
    for s0 in range(0, num_stationary, num_columns):
        for tile in range((num_terms + num_rows - 1) // num_rows):
            k0 = tile * num_rows
            used_rows, used_columns = min(num_rows, num_terms - k0), min(num_columns, num_stationary - s0)
            rows = num_rows if full_folds else used_rows
            cols = num_columns if full_folds else used_columns
            kept = np.zeros((rows, cols), dtype=np.int64)
            for i in range(used_rows):
                for j in range(used_columns):
                    kept[i, j] = stationary[s0 + j, k0 + i]
            moving_now = np.zeros((rows, cols), dtype=np.int64)
            moving_next = np.zeros((rows, cols), dtype=np.int64)
            sum_now = np.zeros((rows, cols), dtype=np.int64)
            sum_next = np.zeros((rows, cols), dtype=np.int64)
            exact_now = np.zeros((rows, cols), dtype=np.int64)
            exact_next = np.zeros((rows, cols), dtype=np.int64)
            products = np.zeros((latency, rows, cols), dtype=np.int64)  # the multipliers' pipelines, bubbles at first
            for t in range(num_vectors + rows + cols - 2 + latency - 1):
                # Evaluate 1: the moving operand goes one PE right; every PE multiplies, or has a bubble.
                shift_right(moving_now, moving_next)
                for i in range(rows):
                    fed = 0 <= t - i < num_vectors and i < used_rows
                    moving_next[i, 0] = moving[k0 + i, t - i] if fed else 0
                multiply(kept, moving_next, rounding, products[t % latency])
                # Evaluate 2: the partial sum goes one PE down, with the product of latency - 1 cycles ago added.
                ready = products[(t + 1) % latency]
                vector_of_corner = t - (latency - 1)
                shift_down(exact_now, exact_next)
                add(exact_next, ready)
                shift_down(sum_now, sum_next)
                add(sum_next, ready)
                if any_outside(sum_next, partial):
                    for i in range(rows):
                        for j in range(cols):
                            value = sum_next[i, j]
                            if value < low or value > high:
                                vector = vector_of_corner - i - j
                                n, p = (s0 + j, vector) if weights_stationary else (vector, s0 + j)
                                partial_events[n, p] += 1
                                sum_next[i, j] = bring_in(value, low, high, saturate)
                                mark_register(trace, cycle, i, j)
                # Below the grid: the sums that leave the last row are added to their accumulators.
                leaving = 0
                for j in range(used_columns):
                    vector = vector_of_corner - (rows - 1) - j
                    if 0 <= vector < num_vectors:
                        channels[leaving] = s0 + j if weights_stationary else vector
                        positions[leaving] = vector if weights_stationary else s0 + j
                        sums[leaving] = sum_next[rows - 1, j]
                        exact_sums[leaving] = exact_next[rows - 1, j]
                        leaving += 1
                add_to_accumulators(outputs, channels, positions, sums, exact_sums, leaving, tile, register, marks)
                # Commit: the clock edge.
                moving_now, moving_next = moving_next, moving_now
                sum_now, sum_next = sum_next, sum_now
                exact_now, exact_next = exact_next, exact_now
                record(trace, trace[0], cycle, sum_now)
                # The moving operand also passes PEs that keep nothing in this fold; those do not use it.
                record(trace, trace[1], cycle, kept)
                record(trace, trace[2], cycle, moving_now[:used_rows, :used_columns])
                for i in range(leaving):
                    n, p = channels[i], positions[i]
                    column = (n if weights_stationary else p) - s0
                    record_edge(trace, cycle, column - trace[7][2], outputs[0][n, p], marks[i])
                record_fold(trace, cycle, fold)
                cycle += 1
            fold += 1
    return cycle
