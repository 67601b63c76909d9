"""The output-stationary grid: every PE keeps its output; docs/timing.md (1) and (5), numerics.md (13)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel
from accelsim_kernels.grid.pe import (
    ProductRounding,
    Register,
    Trace,
    Tracked,
    add_plane,
    load_accumulator,
    multiply,
    record,
    record_fold,
    shift_down,
    shift_right,
    widen_range,
)


@kernel
def step_output_stationary(
    weights: npt.NDArray[np.int32],
    columns: npt.NDArray[np.int32],
    start: npt.NDArray[np.int64],
    num_rows: Int,
    num_columns: Int,
    full_folds: bool,
    with_range: bool,
    latency: Int,
    rounding: ProductRounding,
    register: Register,
    outputs: Tracked,
    trace: Trace,
) -> Int:
    """Step a GEMM through all its folds and cycles.

    Parameters
    ----------
    weights : int32 array, shape (n, k)
        Enter at the top of the columns.
    columns : int32 array, shape (k, p)
        Activations; enter at the left of the rows.
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    num_rows, num_columns : int64
        The grid.
    full_folds : bool
        A ragged fold runs for the cycles of the whole grid.
    with_range : bool
        Keep the range of the unbounded sums.
    latency : int64
        Cycles from a PE's operands to its adder, at least 1.
    rounding : tuple
        ``(shift, rule)`` of the products.
    register : tuple
        The accumulators' ``(low, high, saturate)``.
    outputs : tuple of int64 arrays, shape (n, p)
        Accumulators, events, first, unbounded sums, least, greatest; all written.
    trace : tuple
        Registers after each clock edge: accumulators, weights, activations; there are none at the edge.

    Returns
    -------
    int64
        Cycles in which a PE multiplied.
    """
    num_outputs, num_terms = weights.shape
    num_positions = columns.shape[1]
    cycle = 0
    fold = 0
    for n0 in range(0, num_outputs, num_columns):
        for p0 in range(0, num_positions, num_rows):
            used_rows, used_columns = min(num_rows, num_positions - p0), min(num_columns, num_outputs - n0)
            rows = num_rows if full_folds else used_rows
            cols = num_columns if full_folds else used_columns
            weight_now = np.zeros((rows, cols), dtype=np.int64)
            weight_next = np.zeros((rows, cols), dtype=np.int64)
            activation_now = np.zeros((rows, cols), dtype=np.int64)
            activation_next = np.zeros((rows, cols), dtype=np.int64)
            products = np.zeros((latency, rows, cols), dtype=np.int64)  # the multipliers' pipelines, bubbles at first
            # Each PE's accumulator and counters, kept beside each other while the fold runs.
            held, events, first, unbounded, least, greatest = load_pes(
                start, n0, rows, cols, used_rows, used_columns, register
            )
            for t in range(num_terms + rows + cols - 2 + latency - 1):
                # Evaluate 1: operands move one PE on; the edges feed the skewed streams.
                shift_right(activation_now, activation_next)
                for i in range(rows):
                    fed = 0 <= t - i < num_terms and i < used_rows
                    activation_next[i, 0] = columns[t - i, p0 + i] if fed else 0
                shift_down(weight_now, weight_next)
                for j in range(cols):
                    fed = 0 <= t - j < num_terms and j < used_columns
                    weight_next[0, j] = weights[n0 + j, t - j] if fed else 0
                # Evaluate 2: PE (i, j) multiplies term k = t - i - j, or zeros in a bubble.
                multiply(weight_next, activation_next, rounding, products[t % latency])
                # Evaluate 3: it adds the product that it made latency - 1 cycles ago.
                ready = products[(t + 1) % latency]
                add_plane(held, ready, register, t - (latency - 1), events, first, trace, cycle)
                if with_range:
                    widen_range(unbounded, ready, least, greatest)
                # Commit: the clock edge.
                weight_now, weight_next = weight_next, weight_now
                activation_now, activation_next = activation_next, activation_now
                record(trace, trace[0], cycle, held)
                # Operands also pass PEs that have no output in this fold; those do not use them.
                record(trace, trace[1], cycle, weight_now[:used_rows, :used_columns])
                record(trace, trace[2], cycle, activation_now[:used_rows, :used_columns])
                record_fold(trace, cycle, fold)
                cycle += 1
            # Drain: the used PEs' accumulators leave the grid.
            for i in range(used_rows):
                for j in range(used_columns):
                    n, p = n0 + j, p0 + i
                    outputs[0][n, p], outputs[1][n, p], outputs[2][n, p] = held[i, j], events[i, j], first[i, j]
                    outputs[3][n, p], outputs[4][n, p] = unbounded[i, j], least[i, j]
                    outputs[5][n, p] = greatest[i, j]
            fold += 1
    return cycle


@kernel
def load_pes(
    start: npt.NDArray[np.int64],
    n0: Int,
    rows: Int,
    cols: Int,
    used_rows: Int,
    used_columns: Int,
    register: Register,
) -> Tracked:
    """Return the PEs' accumulators and counters at the start of a fold; unused PEs hold 0."""
    held = np.zeros((rows, cols), dtype=np.int64)
    events = np.zeros((rows, cols), dtype=np.int64)
    first = np.full((rows, cols), -1, dtype=np.int64)
    unbounded = np.zeros((rows, cols), dtype=np.int64)
    least = np.zeros((rows, cols), dtype=np.int64)
    greatest = np.zeros((rows, cols), dtype=np.int64)
    planes = (held, events, first, unbounded, least, greatest)
    for i in range(used_rows):
        for j in range(used_columns):
            load_accumulator(planes, i, j, start[n0 + j], register)
    return planes
