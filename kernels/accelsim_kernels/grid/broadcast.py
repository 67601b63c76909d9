"""The broadcast grid of the white paper's figure 1: rows of multipliers with an adder tree each; timing.md (4), (8)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel
from accelsim_kernels.grid.lanes import Register
from accelsim_kernels.grid.pe import ProductRounding, Tracked, add_to_accumulators, load_accumulator, multiply
from accelsim_kernels.grid.recording import TREE_MARK, Trace, record_edge, record_fold, record_plane, recorded_cycle
from accelsim_kernels.integers import bring_in


@kernel
def step_broadcast(
    weights: npt.NDArray[np.int32],
    columns: npt.NDArray[np.int32],
    start: npt.NDArray[np.int64],
    num_rows: Int,
    num_columns: Int,
    latency: Int,
    rounding: ProductRounding,
    register: Register,
    tree: Register,
    outputs: Tracked,
    tree_events: npt.NDArray[np.int64],
    trace: Trace,
) -> Int:
    """Step a GEMM through all its folds and cycles, numerics.md (14).

    Parameters
    ----------
    weights : int32 array, shape (n, k)
        One row of the grid per output channel.
    columns : int32 array, shape (k, p)
        Activations, one column of the grid per term.
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    num_rows, num_columns : int64
        The grid.
    latency : int64
        Cycles from a PE's operands to its adder, at least 1.
    rounding : tuple
        ``(shift, rule)`` of the products.
    register, tree : tuple
        ``(low, high, saturate)`` of the accumulators and of the trees' outputs.
    outputs : tuple of int64 arrays, shape (n, p)
        Accumulators, events, first, unbounded sums, least, greatest; all written.
    tree_events : int64 array, shape (n, p)
        Events at the trees' outputs; written.
    trace : tuple
        Registers after each clock edge: products, weights, activations; at the edge the rows' accumulators.

    Returns
    -------
    int64
        Cycles in which a PE multiplied.
    """
    tree_low, tree_high, tree_saturate = tree
    num_outputs, num_terms = weights.shape
    weight_held = np.zeros((num_rows, num_columns), dtype=np.int64)
    activation_held = np.zeros((num_rows, num_columns), dtype=np.int64)
    products = np.zeros((latency, num_rows, num_columns), dtype=np.int64)  # the multipliers' pipelines
    operands = np.zeros(num_columns, dtype=np.int64)
    channels = np.empty(num_rows, dtype=np.int64)
    positions = np.empty(num_rows, dtype=np.int64)
    sums = np.empty(num_rows, dtype=np.int64)
    exact_sums = np.empty(num_rows, dtype=np.int64)
    marks = np.zeros(num_rows, dtype=np.uint8)
    tree_marks = np.zeros(num_rows, dtype=np.uint8)
    cycle = 0
    fold = 0
    for n0 in range(0, num_outputs, num_rows):
        for p in range(columns.shape[1]):
            used_rows = min(num_rows, num_outputs - n0)
            weight_held[:] = 0
            activation_held[:] = 0
            for i in range(used_rows):
                load_accumulator(outputs, n0 + i, p, start[n0 + i], register)
                tree_events[n0 + i, p] = 0
            products[:] = 0
            for t in range((num_terms + num_columns - 1) // num_columns + latency - 1):
                # Evaluate 1: all PEs multiply; columns beyond the reduction, and cycles beyond it, have zero operands.
                made, ready = products[t % latency], products[(t + 1) % latency]
                k0 = t * num_columns
                used_columns = max(0, min(num_columns, num_terms - k0))
                for j in range(num_columns):
                    operands[j] = columns[k0 + j, p] if j < used_columns else 0
                for i in range(used_rows):
                    for j in range(used_columns):
                        weight_held[i, j] = weights[n0 + i, k0 + j]
                    weight_held[i, used_columns:] = 0
                    activation_held[i] = operands
                count = used_rows * num_columns
                multiply(
                    weight_held.reshape(-1)[:count], activation_held.reshape(-1)[:count], rounding,
                    made.reshape(-1)[:count],
                )  # fmt: skip
                # Evaluate 2: each row's tree sums the products of latency - 1 cycles ago, its accumulator adds the sum.
                number = t - (latency - 1)
                if number >= 0:
                    for i in range(used_rows):
                        exact = np.int64(0)
                        for j in range(num_columns):
                            exact += ready[i, j]
                        outside = exact < tree_low or exact > tree_high
                        tree_events[n0 + i, p] += np.int64(outside)
                        tree_marks[i] = TREE_MARK if outside else 0
                        exact_sums[i] = exact
                        sums[i] = bring_in(exact, tree_low, tree_high, tree_saturate)
                        channels[i] = n0 + i
                        positions[i] = p
                    add_to_accumulators(
                        outputs, channels, positions, sums, exact_sums, used_rows, number, register, marks
                    )
                # Commit.
                if recorded_cycle(trace, cycle) >= 0:
                    record_plane(trace, trace[0], cycle, ready.reshape(-1), num_columns, num_rows, num_columns)
                    record_plane(trace, trace[1], cycle, weight_held.reshape(-1), num_columns, num_rows, num_columns)
                    record_plane(
                        trace, trace[2], cycle, activation_held.reshape(-1), num_columns, num_rows, num_columns
                    )  # fmt: skip
                    for i in range(used_rows):
                        mark = np.int64(marks[i]) | np.int64(tree_marks[i]) if number >= 0 else np.int64(0)
                        record_edge(trace, cycle, i - trace[7][1], outputs[0][n0 + i, p], mark)
                    record_fold(trace, cycle, fold)
                cycle += 1
            fold += 1
    return cycle
