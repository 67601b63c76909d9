"""What the dataflows share: a register with its counters, and the memory of a trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel
from accelsim_kernels.integers import bring_in
from accelsim_kernels.rounding import round_shift

Register = tuple[Any, Any, Any]
"""``(low, high, saturate)`` of a register."""

ProductRounding = tuple[Any, Any]
"""``(shift, rule)`` of the products."""

Tracked = tuple[Any, Any, Any, Any, Any, Any]
"""Arrays of one value per output: accumulators, events, first, unbounded sum, least, greatest."""

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


@kernel
def load_accumulator(outputs: Tracked, n: Int, p: Int, start: Int, register: Register) -> None:
    """Load the accumulator of output (n, p) with its start value; one that does not fit is an event of number 0."""
    accumulators, events, first, unbounded, least, greatest = outputs
    low, high, saturate = register
    outside = start < low or start > high
    accumulators[n, p] = bring_in(start, low, high, saturate)
    events[n, p] = np.int64(outside)
    first[n, p] = np.int64(0) if outside else np.int64(-1)
    unbounded[n, p] = start
    least[n, p] = start
    greatest[n, p] = start


@kernel
def add_to_accumulators(
    outputs: Tracked,
    channels: npt.NDArray[np.int64],
    positions: npt.NDArray[np.int64],
    terms: npt.NDArray[np.int64],
    exact_terms: npt.NDArray[np.int64],
    count: Int,
    number: Int,
    register: Register,
    marks: npt.NDArray[np.uint8],
) -> None:
    """Do addition ``number`` of some outputs: ``A = ov(A + term)``, with their counters.

    Parameters
    ----------
    outputs : tuple of int64 arrays, shape (n, p)
        Updated.
    channels, positions : int64 arrays, shape (count or more,)
        Which outputs.
    terms : int64 array, shape (count or more,)
        What is added.
    exact_terms : int64 array, shape (count or more,)
        What would be added if partial sums were wide enough.
    count : int64
        How many outputs.
    number : int64
        Number of the addition.
    register : tuple
        The accumulators' ``(low, high, saturate)``.
    marks : uint8 array, shape (count or more,)
        Which of them overflowed; written.
    """
    accumulators, events, first, unbounded, least, greatest = outputs
    low, high, saturate = register
    for i in range(count):
        n, p = channels[i], positions[i]
        marks[i] = 0
        value = accumulators[n, p] + terms[i]
        if value < low or value > high:
            events[n, p] += 1
            if first[n, p] < 0:
                first[n, p] = number
            value = bring_in(value, low, high, saturate)
            marks[i] = ACCUMULATOR_MARK
        accumulators[n, p] = value
        unbounded[n, p] += exact_terms[i]
        least[n, p] = min(least[n, p], unbounded[n, p])
        greatest[n, p] = max(greatest[n, p], unbounded[n, p])


@kernel
def multiply(
    weights: npt.NDArray[np.int64],
    activations: npt.NDArray[np.int64],
    rounding: ProductRounding,
    products: npt.NDArray[np.int64],
) -> None:
    """Multiply the operands of every PE, numerics.md (13a); int64 arrays, shape (rows, columns).

    Parameters
    ----------
    weights, activations : int64 arrays
        Operands.
    rounding : tuple
        ``(shift, rule)`` of `accelsim_kernels.rounding`; shift 0 keeps the product.
    products : int64 array
        Output.
    """
    shift, rule = rounding
    left, right, made = weights.reshape(-1), activations.reshape(-1), products.reshape(-1)
    for i in range(made.size):
        made[i] = left[i] * right[i]
    if shift > 0:
        for i in range(made.size):
            made[i] = round_shift(made[i], shift, 0, rule)


@kernel
def add(registers: npt.NDArray[np.int64], terms: npt.NDArray[np.int64]) -> None:
    """Add a term to every register, exactly; int64 arrays, shape (rows, columns)."""
    flat, addends = registers.reshape(-1), terms.reshape(-1)
    for i in range(flat.size):
        flat[i] += addends[i]


@kernel
def any_outside(registers: npt.NDArray[np.int64], register: Register) -> bool:
    """Whether a value of a plane does not fit its register."""
    low, high, _ = register
    outside = np.int64(0)
    for value in registers.reshape(-1):
        outside += np.int64(value < low) + np.int64(value > high)
    return bool(outside > 0)


@kernel
def add_plane(
    registers: npt.NDArray[np.int64],
    terms: npt.NDArray[np.int64],
    register: Register,
    number_of_corner: Int,
    events: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    trace: Trace,
    cycle: Int,
) -> None:
    """Do one addition in every PE: ``A = ov(A + term)``, all PEs at once.

    Parameters
    ----------
    registers, terms : int64 arrays, shape (rows, columns)
        Registers, updated, and what is added to them.
    register : tuple
        ``(low, high, saturate)``.
    number_of_corner : int64
        Number of the addition in PE (0, 0); it is one less with every row and column.
    events, first : int64 arrays, shape (rows, columns)
        Updated.
    trace, cycle : tuple, int64
        Where registers that overflow are marked.

    Notes
    -----
    Cycles in which nothing overflows are the rule: one loop adds, one looks for values that do not fit, and only where
    it finds one are the PEs visited one by one. The loops touch few arrays each, or the compiler would not vectorise
    them.
    """
    low, high, saturate = register
    add(registers, terms)
    if not any_outside(registers, register):
        return
    for i in range(registers.shape[0]):
        for j in range(registers.shape[1]):
            value = registers[i, j]
            if value < low or value > high:
                events[i, j] += 1
                if first[i, j] < 0:
                    first[i, j] = number_of_corner - i - j
                registers[i, j] = bring_in(value, low, high, saturate)
                mark_register(trace, cycle, i, j)


@kernel
def widen_range(
    unbounded: npt.NDArray[np.int64],
    terms: npt.NDArray[np.int64],
    least: npt.NDArray[np.int64],
    greatest: npt.NDArray[np.int64],
) -> None:
    """Add a term to every PE's unbounded sum and take the sum into its range; int64 arrays, shape (rows, columns)."""
    add(unbounded, terms)
    flat, low, high = unbounded.reshape(-1), least.reshape(-1), greatest.reshape(-1)
    for i in range(flat.size):
        low[i] = min(low[i], flat[i])
    for i in range(flat.size):
        high[i] = max(high[i], flat[i])


@kernel
def shift_right(now: npt.NDArray[np.int64], shifted: npt.NDArray[np.int64]) -> None:
    """Move every register of a plane one PE to the right; column 0 is left for the edge to feed."""
    flat, moved = now.reshape(-1), shifted.reshape(-1)
    for i in range(flat.size - 1):
        moved[i + 1] = flat[i]


@kernel
def shift_down(now: npt.NDArray[np.int64], shifted: npt.NDArray[np.int64]) -> None:
    """Move every register of a plane one PE down; row 0 becomes 0, for the edge to feed."""
    columns = now.shape[1]
    flat, moved = now.reshape(-1), shifted.reshape(-1)
    for j in range(columns):
        moved[j] = 0
    for i in range(flat.size - columns):
        moved[i + columns] = flat[i]


@kernel
def recorded_cycle(trace: Trace, cycle: Int) -> Int:
    """Return where in the trace's arrays a cycle is recorded, -1 outside the window."""
    row = cycle - trace[7][0]
    return row if 0 <= row < trace[6].shape[0] else -1


@kernel
def record(trace: Trace, which: npt.NDArray[np.int64], cycle: Int, registers: npt.NDArray[np.int64]) -> None:
    """Copy the part of a plane of registers that is in the window into one of the trace's arrays.

    Parameters
    ----------
    trace : tuple
        Says which cycles, rows and columns are recorded.
    which : int64 array, shape (cycles, rows, columns)
        The array of the trace that is written.
    cycle : int64
        Index of the cycle whose clock edge has passed.
    registers : int64 array, shape (rows, columns)
        May be smaller than the grid; what lies outside stays 0.
    """
    at = recorded_cycle(trace, cycle)
    if at >= 0:
        row, column = trace[7][1], trace[7][2]
        rows = min(registers.shape[0] - row, which.shape[1])
        columns = min(registers.shape[1] - column, which.shape[2])
        if rows > 0 and columns > 0:
            which[at, :rows, :columns] = registers[row : row + rows, column : column + columns]


@kernel
def mark_register(trace: Trace, cycle: Int, row: Int, column: Int) -> None:
    """Mark the register of PE (row, column) as one that overflowed in a cycle, where the window shows it."""
    at = recorded_cycle(trace, cycle)
    i, j = row - trace[7][1], column - trace[7][2]
    if at >= 0 and 0 <= i < trace[3].shape[1] and 0 <= j < trace[3].shape[2]:
        trace[3][at, i, j] = ACCUMULATOR_MARK


@kernel
def record_edge(trace: Trace, cycle: Int, index: Int, value: Int, mark: Int) -> None:
    """Record an accumulator at the edge of the grid; ``index`` counts from the first one in the window."""
    at = recorded_cycle(trace, cycle)
    if at >= 0 and 0 <= index < trace[4].shape[1]:
        trace[4][at, index] = value
        trace[5][at, index] = mark


@kernel
def record_fold(trace: Trace, cycle: Int, fold: Int) -> None:
    """Record which fold a cycle belongs to."""
    at = recorded_cycle(trace, cycle)
    if at >= 0:
        trace[6][at] = fold
