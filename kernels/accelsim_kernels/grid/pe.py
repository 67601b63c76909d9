"""What the dataflows share: products, registers with their counters."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, callee
from accelsim_kernels.grid.lanes import Lanes, Register
from accelsim_kernels.integers import bring_in
from accelsim_kernels.rounding import round_shift

ProductRounding = tuple[Any, Any]
"""``(shift, rule)`` of the products."""

Tracked = tuple[Any, Any, Any, Any, Any, Any]
"""Arrays of one value per output: accumulators, events, first, unbounded sum, least, greatest."""


@callee
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


@callee
def tracked_planes(rows: Int, columns: Int) -> Tracked:
    """Return int64 arrays (rows, columns) of Tracked for registers that are not loaded: zeros, no events."""
    return (
        np.zeros((rows, columns), dtype=np.int64),
        np.zeros((rows, columns), dtype=np.int64),
        np.full((rows, columns), -1, dtype=np.int64),
        np.zeros((rows, columns), dtype=np.int64),
        np.zeros((rows, columns), dtype=np.int64),
        np.zeros((rows, columns), dtype=np.int64),
    )


@callee
def copy_output(outputs: Tracked, n: Int, p: Int, planes: Tracked, i: Int, j: Int) -> None:
    """Copy what the planes hold at (i, j) to output (n, p)."""
    outputs[0][n, p] = planes[0][i, j]
    outputs[1][n, p] = planes[1][i, j]
    outputs[2][n, p] = planes[2][i, j]
    outputs[3][n, p] = planes[3][i, j]
    outputs[4][n, p] = planes[4][i, j]
    outputs[5][n, p] = planes[5][i, j]


@callee
def multiply(left: Lanes, right: Lanes, rounding: ProductRounding, products: Lanes) -> None:
    """Multiply the operands of every PE, numerics.md (13a).

    Parameters
    ----------
    left, right : lanes
        Operands.
    rounding : tuple
        ``(shift, rule)`` of `accelsim_kernels.rounding`; shift 0 keeps the product.
    products : lanes
        Output.
    """
    shift, rule = rounding
    lane = products.dtype.type
    for i in range(products.size):
        products[i] = lane(left[i] * right[i])
    if shift > 0:
        for i in range(products.size):
            products[i] = lane(round_shift(np.int64(products[i]), shift, 0, rule))


@callee
def settle(held: Lanes, register: Register, events: Lanes, overflowed: npt.NDArray[np.uint8]) -> None:
    """Bring the values that do not fit their registers into them, and count them.

    Parameters
    ----------
    held : lanes
        What was just added up; updated.
    register : tuple
        ``(low, high, saturate)``.
    events : lanes
        Events of each register; updated.
    overflowed : uint8 array
        `ACCUMULATOR_MARK` where a value did not fit, else 0; written.

    Notes
    -----
    Cycles in which nothing overflows are the rule, so this is called only where one test of the whole plane has found
    something.
    """
    low, high, saturate = register
    for i in range(held.size):
        value = np.int64(held[i])
        outside = np.int64(value < low) + np.int64(value > high)
        held[i] = bring_in(value, low, high, saturate)
        events[i] += outside
        overflowed[i] = outside


@callee
def number_first_events(
    overflowed: npt.NDArray[np.uint8], number: Int, steps: npt.NDArray[np.int64], first: npt.NDArray[np.int64]
) -> None:
    """Note the number of the addition in the PEs whose accumulators overflowed for the first time.

    Parameters
    ----------
    overflowed : uint8 array, length rows * columns
        Where an accumulator overflowed in this cycle.
    number : int64
        Number of the addition in PE (0, 0).
    steps : int64 array, length rows * columns
        By how much it is less in each PE.
    first : int64 array, length rows * columns
        Updated where it is -1.
    """
    for i in range(first.size):
        if overflowed[i] != 0 and first[i] < 0:
            first[i] = number - steps[i]


@callee
def widen_range(unbounded: Lanes, terms: Lanes, least: Lanes, greatest: Lanes) -> None:
    """Add a term to every unbounded sum of a plane and take the sum into its range."""
    lane = unbounded.dtype.type
    for i in range(unbounded.size):
        total = lane(unbounded[i] + terms[i])
        unbounded[i] = total
        least[i] = min(least[i], total)
        greatest[i] = max(greatest[i], total)
