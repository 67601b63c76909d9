"""A plane of registers as one vector, and shift registers that move as an index into memory.

The R x C registers of a plane lie flat in memory, row after row, so that one loop over R*C lanes does what all PEs do
in a cycle. Lanes have 32 bits where no value can leave them, else 64: twice as many to a vector. Operands have 32 bits
in any case, which one instruction multiplies to 64.

A plane whose registers all move on in every cycle is a window of R*C cells into a longer buffer, which begins some
cells earlier in the next cycle. With a step of 1 each register's value is then one PE further right, with a step of C
one PE further down, and nothing was copied::

    cycle t        . . a b c d e f      the window of a 2 x 3 plane: rows a b c and d e f
    cycle t + 1    . x a b y d e f      one cell earlier: rows x a b and y d e; x and y were fed, c and f have left

What enters at the edge is written into the cells that the window gains, and into those that the row before has left.
A window that moves down gains whole rows; their cells were filled beforehand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel, optimised_callee
from accelsim_kernels.integers import copy

Register = tuple[Any, Any, Any]
"""``(low, high, saturate)`` of a register."""

Lanes = npt.NDArray[Any]
"""int32 or int64 array of one dimension: registers of a plane, row after row."""

OperandLanes = npt.NDArray[np.int32]
"""The same of registers that hold operands."""

INT32_MOST = (1 << 31) - 1
"""Greatest value of a lane of 32 bits."""


@kernel
def int32_suffices(
    weights: npt.NDArray[np.int32],
    columns: npt.NDArray[np.int32],
    start: npt.NDArray[np.int64],
    register: Register,
    with_range: bool,
) -> bool:
    """Whether 32 bits hold every product, every sum before and after ``ov``, and every unbounded sum: (34), (35).

    Parameters
    ----------
    weights : int32 array, shape (n, k)
        Operands.
    columns : int32 array, shape (k, p)
        Operands.
    start : int64 array, shape (n,)
        What the sums of a channel start with.
    register : tuple
        ``(low, high, saturate)`` of what the sums are kept in.
    with_range : bool
        Unbounded sums are kept, too.
    """
    greatest = np.int64(0)
    for k in range(columns.shape[0]):
        for value in columns[k]:
            greatest = max(greatest, abs(np.int64(value)))
    product = np.int64(0)
    total = np.int64(0)
    for n in range(weights.shape[0]):
        size = np.int64(0)
        for value in weights[n]:
            size += abs(np.int64(value))
            product = max(product, abs(np.int64(value)) * greatest)
        total = max(total, abs(start[n]) + size * greatest)
    high: Int = register[1]
    never_outside = total <= min(high, INT32_MOST)
    return bool((never_outside or high < INT32_MOST - product) and (not with_range or total <= INT32_MOST))


@optimised_callee
def lane_limits(lanes: Lanes, register: Register) -> tuple[Any, Any]:
    """Return the register's low and high as values of the lanes' type; beyond it, the type's own."""
    low, high, _ = register
    if lanes.itemsize == 4:
        low, high = max(low, -INT32_MOST - 1), min(high, INT32_MOST)
    return lanes.dtype.type(low), lanes.dtype.type(high)


@optimised_callee
def skewed_stride(most_cycles: Int) -> Int:
    """Return how many cells to keep for the stream of a row; neighbouring rows lie in different sets of a cache."""
    return (most_cycles + 63) // 64 * 64 + 16


@optimised_callee
def skew_right(
    operands: npt.NDArray[np.int32], by_rows: bool | np.bool_, first: Int, used_rows: Int, stride: Int,
    entering: OperandLanes,
) -> None:  # fmt: skip
    """Lay operands out as they enter the left edge, skewed by a cycle with each row.

    Parameters
    ----------
    operands : int32 array, shape (r, m) or (m, r)
        Row ``first + i`` enters row i of the grid, element by element; with (m, r) the column.
    by_rows : bool
        Which of the two shapes.
    first, used_rows : int64
        Rows beyond those in use get zeros.
    stride : int64
        Cells of a row's stream.
    entering : lanes, length rows * stride
        Written; cell ``i * stride + t`` enters row i in cycle t: element ``t - i``, 0 where there is none.
    """
    entering[:] = 0
    if by_rows:
        for i in range(used_rows):
            copy(operands[first + i], entering[i * (stride + 1) :])
    else:
        for i in range(used_rows):
            for m in range(operands.shape[0]):
                entering[i * (stride + 1) + m] = operands[m, first + i]


@optimised_callee
def skew_down(
    weights: npt.NDArray[np.int32], n0: Int, used_columns: Int, columns: Int, top: Int, descending: OperandLanes
) -> None:
    """Lay the weights of a channel tile out as they pass the grid, skewed by a cycle with each column.

    Parameters
    ----------
    weights : int32 array, shape (n, k)
        Operands.
    n0, used_columns, columns : int64
        First channel of the tile, its channels, the columns that are stepped.
    top : int64
        What row 0 of the buffer stands for.
    descending : lanes
        Written as rows of ``columns`` cells; row ``top - d`` is what enters the columns in cycle d of a fold, term
        ``d - j`` in column j. So the window of ``rows`` rows from there is the whole plane in cycle d, and begins one
        row earlier in the next cycle: every weight has moved one PE down.
    """
    num_terms = weights.shape[1]
    descending[:] = 0
    for j in range(used_columns):
        for k in range(num_terms):
            descending[(top - j - k) * columns + j] = weights[n0 + j, k]


@optimised_callee
def feed_rows(cells: OperandLanes, num_columns: Int, entering: OperandLanes, stride: Int, rows: Int, t: Int) -> None:
    """Write what enters column 0 of each row of a window that moves right; see `skew_right`."""
    for i in range(rows):
        cells[i * num_columns] = entering[i * stride + t]


@optimised_callee
def multiply_accumulate(held: Lanes, left: OperandLanes, right: OperandLanes, low: Any, high: Any) -> bool:
    """Do ``held += left * right`` in all PEs and return whether a value lies outside ``low .. high``.

    Notes
    -----
    In one pass: least and greatest value are kept in vectors, too. They begin with a register as it was before, which
    is always inside.
    """
    lane = held.dtype.type
    least = most = held[0]
    for i in range(held.size):
        value = lane(held[i] + np.int64(left[i]) * np.int64(right[i]))
        held[i] = value
        least = min(least, value)
        most = max(most, value)
    return bool(least < low or most > high)


@optimised_callee
def accumulate(held: Lanes, terms: Lanes, low: Any, high: Any) -> bool:
    """Do ``held += terms`` in all PEs and return whether a value lies outside ``low .. high``."""
    lane = held.dtype.type
    least = most = held[0]
    for i in range(held.size):
        value = lane(held[i] + terms[i])
        held[i] = value
        least = min(least, value)
        most = max(most, value)
    return bool(least < low or most > high)
