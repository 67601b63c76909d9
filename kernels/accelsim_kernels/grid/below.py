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

from accelsim_kernels._jit import Int, callee
from accelsim_kernels.grid.lanes import Lanes, Register, accumulate
from accelsim_kernels.grid.pe import Tracked, copy_output, load_accumulator, widen_range
from accelsim_kernels.grid.recording import ACCUMULATOR_MARK, Trace, record_edge
from accelsim_kernels.integers import bring_in

Tile = tuple[Any, Any, Any, Any]
"""First index of the stationary operand, how many there are, vectors that stream through, and whether channels belong
to columns (weights are stationary) or to vectors."""


@callee
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


@callee
def store_below(below: Tracked, outputs: Tracked, tile: Tile) -> None:
    """Copy the accumulators of a tile to the outputs (n, p)."""
    s0, used_columns, num_vectors, weights_stationary = tile
    last = below[0].shape[0] - 1
    for j in range(used_columns):
        for vector in range(num_vectors):
            n, p = (s0 + j, vector) if weights_stationary else (vector, s0 + j)
            copy_output(outputs, n, p, below, last - vector - j, j)


@callee
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
    accumulators, events, first = below[0], below[1], below[2]
    low, high, saturate = register
    outside = accumulate(accumulators.reshape(-1), sums, low, high)
    last = accumulators.shape[0] - 1
    recorded = trace[6].size > 0 and leaves < trace[7][0] + trace[6].size and leaves + last >= trace[7][0]
    if not (outside or recorded):
        return
    _, used_columns, num_vectors, _ = tile
    for j in range(used_columns):
        for vector in range(num_vectors):
            row = last - vector - j
            value = accumulators[row, j]
            mark = 0
            if value < low or value > high:
                events[row, j] += 1
                if first[row, j] < 0:
                    first[row, j] = number
                accumulators[row, j] = bring_in(value, low, high, saturate)
                mark = ACCUMULATOR_MARK
            record_edge(trace, leaves + vector + j, j - trace[7][2], accumulators[row, j], mark)


@callee
def widen_range_below(below: Tracked, exact_sums: Lanes) -> None:
    """Add what would have left the columns, were partial sums wide enough, to the unbounded sums and their range."""
    widen_range(below[3].reshape(-1), exact_sums, below[4].reshape(-1), below[5].reshape(-1))


@callee
def count_partial_events(fallen: Lanes, num_columns: Int, partial_events: npt.NDArray[np.int64], tile: Tile) -> None:
    """Add the events that the partial sums of a fold have taken with them to those of the outputs (n, p).

    Parameters
    ----------
    fallen : lanes, length (vectors + columns - 1) * columns
        Events of each sum, in the sum's place.
    num_columns : int64
        Columns.
    partial_events : int64 array, shape (n, p)
        Updated.
    tile : tuple
        What belongs to the columns.
    """
    s0, used_columns, num_vectors, weights_stationary = tile
    last = fallen.size // num_columns - 1
    for j in range(used_columns):
        for vector in range(num_vectors):
            n, p = (s0 + j, vector) if weights_stationary else (vector, s0 + j)
            partial_events[n, p] += fallen[(last - vector - j) * num_columns + j]
