"""The memory of a trace, and how the kernels write into it: docs/trace.md."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from accelsim_kernels._jit import Int, optimised_callee

Trace = tuple[Any, Any, Any, Any, Any, Any, Any, Any]
"""Memory of a trace; its arrays have no cycles where nothing is recorded.

0, 1, 2 : int64 arrays, shape (cycles, rows, columns)
    Registers and the two operands, as the kernel that fills them says.
3 : uint8 array, shape (cycles, rows, columns)
    Marks of registers that overflowed.
4, 5 : int64 and uint8 array, shape (cycles, rows) or (cycles, columns)
    Accumulators at the edge of the grid, and their marks.
6 : int64 array, shape (cycles,)
    Fold.
7 : tuple of int64
    First cycle, row and column of the window that is recorded; its size is the arrays'.
"""

ACCUMULATOR_MARK, TREE_MARK = 1, 2
"""Bits of a mark: the accumulator overflowed (or the partial sum), the adder tree overflowed."""


@optimised_callee
def recorded_cycle(trace: Trace, cycle: Int) -> Int:
    """Return where in the trace's arrays a cycle is recorded, -1 outside the window."""
    row = cycle - trace[7][0]
    return row if 0 <= row < trace[6].shape[0] else -1


@optimised_callee
def record_plane(
    trace: Trace,
    which: npt.NDArray[Any],
    cycle: Int,
    plane: npt.NDArray[Any],
    num_columns: Int,
    rows: Int,
    columns: Int,
) -> None:
    """Copy the part of a plane that is in the window into one of the trace's arrays.

    Parameters
    ----------
    trace : tuple
        Says which cycles, rows and columns are recorded.
    which : int64 or uint8 array, shape (cycles, rows, columns)
        The array of the trace that is written.
    cycle : int64
        Index of a cycle in the window.
    plane : array of one dimension
        Registers row after row.
    num_columns : int64
        Of the plane.
    rows, columns : int64
        What of it is recorded; what lies outside stays 0.
    """
    at = cycle - trace[7][0]
    first_row, first_column = trace[7][1], trace[7][2]
    for i in range(first_row, min(rows, first_row + which.shape[1])):
        for j in range(first_column, min(columns, first_column + which.shape[2])):
            which[at, i - first_row, j - first_column] = plane[i * num_columns + j]


@optimised_callee
def record_edge(trace: Trace, cycle: Int, index: Int, value: Int, mark: Int) -> None:
    """Record an accumulator at the edge of the grid; ``index`` counts from the first one in the window."""
    at = recorded_cycle(trace, cycle)
    if at >= 0 and 0 <= index < trace[4].shape[1]:
        trace[4][at, index] = value
        trace[5][at, index] = mark


@optimised_callee
def record_fold(trace: Trace, cycle: Int, fold: Int) -> None:
    """Record which fold a cycle belongs to."""
    at = recorded_cycle(trace, cycle)
    if at >= 0:
        trace[6][at] = fold
