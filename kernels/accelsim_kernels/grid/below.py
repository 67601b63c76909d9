"""The accumulators below a grid whose partial sums flow down.

A sum leaves column j one cycle after the one of column j - 1, so the accumulators of a tile are kept along diagonals,
which are what leaves together: vector ``d - j`` in column j of diagonal d. Diagonals are numbered downwards, as the
sums lie in the buffer in which they fell: row r is diagonal ``diagonals - 1 - r``. Where a diagonal has no vector in a
column, zeros are added to a zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, optimised_callee
from accelsim_kernels.grid.lanes import Lanes, Register, accumulate
from accelsim_kernels.grid.pe import (
    Tracked,
    copy_output,
    load_accumulator,
    number_first_events,
    settle,
    widen_range,
)
from accelsim_kernels.grid.recording import Trace, record_edge

Tile = tuple[Any, Any, Any, Any]
"""First index of the stationary operand, how many there are, vectors that stream through, and whether channels belong
to columns (weights are stationary) or to vectors."""


@optimised_callee
def load_below(below: Tracked, start: npt.NDArray[np.int64], tile: Tile, register: Register) -> None:
    """Load the accumulators of a tile with the start values (n,) of their channels.

    Parameters
    ----------
    below : tuple of int64 arrays, shape (vectors + columns - 1, columns)
        Zeros, no events; written.
    start : int64 array, shape (n,)
        Start values.
    tile : tuple
        What belongs to the columns.
    register : tuple
        The accumulators' ``(low, high, saturate)``.
    """
    s0, used_columns, num_vectors, weights_stationary = tile
    last = below[0].shape[0] - 1
    for j in range(used_columns):
        for vector in range(num_vectors):
            channel = s0 + j if weights_stationary else vector
            load_accumulator(below, last - vector - j, j, start[channel], register)


@optimised_callee
def store_below(below: Tracked, outputs: Tracked, tile: Tile) -> None:
    """Copy the accumulators of a tile to the outputs (n, p)."""
    s0, used_columns, num_vectors, weights_stationary = tile
    last = below[0].shape[0] - 1
    for j in range(used_columns):
        for vector in range(num_vectors):
            n, p = (s0 + j, vector) if weights_stationary else (vector, s0 + j)
            copy_output(outputs, n, p, below, last - vector - j, j)


@optimised_callee
def add_below(
    below: Tracked, sums: Lanes, number: Int, register: Register, tile: Tile, trace: Trace, leaves: Int
) -> None:
    """Do addition ``number`` of all accumulators of a tile: ``A = ov(A + sum)``, with their counters.

    Parameters
    ----------
    below : tuple of int64 arrays, shape (vectors + columns - 1, columns)
        Updated.
    sums : lanes, length (vectors + columns - 1) * columns
        What has left the columns in a fold.
    number : int64
        Number of the addition.
    register : tuple
        The accumulators' ``(low, high, saturate)``.
    tile : tuple
        Says which columns a sum leaves.
    trace : tuple
        Where the accumulators are recorded.
    leaves : int64
        Cycle in which diagonal 0 left.
    """
    accumulators, last = below[0].reshape(-1), below[0].shape[0] - 1
    outside = accumulate(accumulators, sums, register[0], register[1])
    recorded = trace[6].size > 0 and leaves < trace[7][0] + trace[6].size and leaves + last >= trace[7][0]
    if not (outside or recorded):
        return
    marks = np.zeros(accumulators.size, dtype=np.int64)
    if outside:
        settle(accumulators, register, below[1].reshape(-1), marks)
        number_first_events(marks, number, np.zeros_like(marks), below[2].reshape(-1))
    if recorded:
        _, used_columns, num_vectors, _ = tile
        for j in range(used_columns):
            for vector in range(num_vectors):
                row = last - vector - j
                mark = marks[row * below[0].shape[1] + j]
                record_edge(trace, leaves + vector + j, j - trace[7][2], below[0][row, j], mark)


@optimised_callee
def widen_range_below(below: Tracked, exact_sums: Lanes) -> None:
    """Add what would have left the columns, were partial sums wide enough, to the unbounded sums and their range."""
    unbounded = below[3].reshape(-1)
    accumulate(unbounded, exact_sums, np.int64(0), np.int64(0))  # whether they fit is not asked
    widen_range(unbounded, below[4].reshape(-1), below[5].reshape(-1))


@optimised_callee
def add_events(fallen: Lanes, events: npt.NDArray[np.int64]) -> None:
    """Add the events that the partial sums of a fold have taken with them to those of a tile, in the sums' places."""
    for i in range(events.size):
        events[i] += fallen[i]


@optimised_callee
def count_partial_events(
    fallen: npt.NDArray[np.int64], num_columns: Int, partial_events: npt.NDArray[np.int64], tile: Tile
) -> None:
    """Copy the events that the partial sums of a tile have taken with them to those of the outputs (n, p).

    Parameters
    ----------
    fallen : int64 array, length (vectors + columns - 1) * columns
        Events of a tile's sums, in the sums' places.
    num_columns : int64
        Columns.
    partial_events : int64 array, shape (n, p)
        Written.
    tile : tuple
        What belongs to the columns.
    """
    s0, used_columns, num_vectors, weights_stationary = tile
    last = fallen.size // num_columns - 1
    for j in range(used_columns):
        for vector in range(num_vectors):
            n, p = (s0 + j, vector) if weights_stationary else (vector, s0 + j)
            partial_events[n, p] = fallen[(last - vector - j) * num_columns + j]
