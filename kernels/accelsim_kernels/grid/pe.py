"""What the dataflows share: products, registers with their counters."""

from __future__ import annotations

from typing import Any

import numpy as np

from accelsim_kernels._jit import Int, optimised_callee
from accelsim_kernels.grid.lanes import Lanes, OperandLanes, Register, lane_limits
from accelsim_kernels.integers import bring_in
from accelsim_kernels.rounding import round_shift

ProductRounding = tuple[Any, Any]
"""``(shift, rule)`` of the products."""

Tracked = tuple[Any, Any, Any, Any, Any, Any]
"""Arrays of one value per output: accumulators, events, first, unbounded sum, least, greatest."""


@optimised_callee
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


@optimised_callee
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


@optimised_callee
def copy_output(outputs: Tracked, n: Int, p: Int, planes: Tracked, i: Int, j: Int) -> None:
    """Copy what the planes hold at (i, j) to output (n, p)."""
    outputs[0][n, p] = planes[0][i, j]
    outputs[1][n, p] = planes[1][i, j]
    outputs[2][n, p] = planes[2][i, j]
    outputs[3][n, p] = planes[3][i, j]
    outputs[4][n, p] = planes[4][i, j]
    outputs[5][n, p] = planes[5][i, j]


@optimised_callee
def multiply(left: OperandLanes, right: OperandLanes, rounding: ProductRounding, products: Lanes) -> None:
    """Multiply the operands of every PE, numerics.md (13a).

    Parameters
    ----------
    left, right : int32 arrays
        Operands.
    rounding : tuple
        ``(shift, rule)`` of `accelsim_kernels.rounding`; shift 0 keeps the product.
    products : lanes
        Output.
    """
    shift, rule = rounding
    lane = products.dtype.type
    for i in range(products.size):
        products[i] = lane(np.int64(left[i]) * np.int64(right[i]))
    if shift > 0:
        for i in range(products.size):
            products[i] = lane(round_shift(np.int64(products[i]), shift, 0, rule))


@optimised_callee
def settle(held: Lanes, register: Register, events: Lanes, overflowed: Lanes) -> None:
    """Bring the values that do not fit their registers into them, and count them.

    Parameters
    ----------
    held : lanes
        What was just added up; updated.
    register : tuple
        ``(low, high, saturate)``.
    events : lanes
        Events of each register; updated.
    overflowed : lanes
        `ACCUMULATOR_MARK` where a value did not fit, else 0; written.

    Notes
    -----
    Cycles in which nothing overflows are the rule, so this is called only where one test of the whole plane has found
    something. Every register is written, with (10) or (11) in lanes: what `bring_in` leaves as it is would become a
    masked store, which takes some processors as long as all the rest.
    """
    saturate, lane = register[2], held.dtype.type
    low, high = lane_limits(held, register)
    half = np.int64(high) + 1  # the registers have at most 63 bits, or nothing had left them
    for i in range(held.size):
        value = held[i]
        if saturate:
            held[i] = min(max(value, low), high)
        else:
            held[i] = lane(((value & (half + high)) ^ half) - half)
        overflowed[i] = value != held[i]
        events[i] += overflowed[i]


@optimised_callee
def number_first_events(overflowed: Lanes, number: Int, steps: Lanes, first: Lanes) -> None:
    """Note the number of the addition in the PEs whose accumulators overflowed for the first time.

    Parameters
    ----------
    overflowed : lanes
        1 where an accumulator overflowed in this cycle, else 0.
    number : int64
        Number of the addition in PE (0, 0).
    steps : lanes
        By how much it is less in each PE.
    first : lanes
        Updated where it is -1.

    Notes
    -----
    -1 and what is 1 more than a number make that number: all are written, as in `settle`.
    """
    lane = first.dtype.type
    for i in range(first.size):
        missing = lane(overflowed[i] if first[i] < 0 else 0)
        first[i] += missing * lane(number - steps[i] + 1)


@optimised_callee
def widen_range(unbounded: Lanes, least: Lanes, greatest: Lanes) -> None:
    """Take the unbounded sums of a plane into their ranges."""
    for i in range(unbounded.size):
        least[i] = min(least[i], unbounded[i])
        greatest[i] = max(greatest[i], unbounded[i])
