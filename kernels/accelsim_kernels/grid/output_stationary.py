"""The output-stationary grid: every PE keeps its output; docs/timing.md (1) and (5), numerics.md (13)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel
from accelsim_kernels.grid.pe import Register, Tracked, add_to_accumulator, load_accumulator, record

Trace = tuple[Any, Any, Any, Any]
"""Arrays (cycles, rows, columns) of accumulators, weights and activations, and (cycles,) of the fold; or empty ones."""


@kernel
def step_output_stationary(
    weights: npt.NDArray[np.int32],
    columns: npt.NDArray[np.int32],
    start: npt.NDArray[np.int64],
    num_rows: Int,
    num_columns: Int,
    full_folds: bool,
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
    register : tuple
        The accumulators' ``(low, high, saturate)``.
    outputs : tuple of int64 arrays, shape (n, p)
        Accumulators, events, first, unbounded sums, least, greatest; all written.
    trace : tuple of int64 arrays
        Registers after each clock edge, where not empty.

    Returns
    -------
    int64
        Cycles in which a PE multiplied.
    """
    trace_accumulators, trace_weights, trace_activations, trace_fold = trace
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
            held = np.zeros((rows, cols), dtype=np.int64)
            for i in range(used_rows):
                for j in range(used_columns):
                    load_accumulator(outputs, n0 + j, p0 + i, start[n0 + j], register)
                    held[i, j] = outputs[0][n0 + j, p0 + i]
            for t in range(num_terms + rows + cols - 2):
                # Evaluate 1: operands move one PE on; the edges feed the skewed streams.
                for i in range(rows):
                    activation_next[i, 1:] = activation_now[i, : cols - 1]
                    fed = 0 <= t - i < num_terms and i < used_rows
                    activation_next[i, 0] = columns[t - i, p0 + i] if fed else 0
                weight_next[1:] = weight_now[: rows - 1]
                for j in range(cols):
                    fed = 0 <= t - j < num_terms and j < used_columns
                    weight_next[0, j] = weights[n0 + j, t - j] if fed else 0
                # Evaluate 2: PE (i, j) adds term k = t - i - j to its output.
                for i in range(used_rows):
                    for j in range(max(0, t - i - num_terms + 1), min(used_columns, t - i + 1)):
                        product = weight_next[i, j] * activation_next[i, j]
                        add_to_accumulator(outputs, n0 + j, p0 + i, product, product, t - i - j, register)
                        held[i, j] = outputs[0][n0 + j, p0 + i]
                # Commit: the clock edge.
                weight_now, weight_next = weight_next, weight_now
                activation_now, activation_next = activation_next, activation_now
                record(trace_accumulators, cycle, held)
                record(trace_weights, cycle, weight_now)
                record(trace_activations, cycle, activation_now)
                if trace_fold.size > 0:
                    trace_fold[cycle] = fold
                cycle += 1
            fold += 1
    return cycle
