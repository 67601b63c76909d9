"""What the dataflows share: a register with its counters, and the memory of a trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel
from accelsim_kernels.integers import bring_in

Register = tuple[Any, Any, Any]
"""``(low, high, saturate)`` of a register."""

Tracked = tuple[Any, Any, Any, Any, Any, Any]
"""Arrays of one value per output: accumulators, events, first, unbounded sum, least, greatest."""


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
def add_to_accumulator(
    outputs: Tracked,
    n: Int,
    p: Int,
    term: Int,
    exact_term: Int,
    number: Int,
    register: Register,
) -> None:
    """Do addition ``number`` of output (n, p): ``A = ov(A + term)``, with its counters.

    Parameters
    ----------
    outputs : tuple of int64 arrays, shape (n, p)
        Updated.
    n, p : int64
        The output.
    term : int64
        What is added.
    exact_term : int64
        What would be added if partial sums were wide enough.
    number : int64
        Number of the addition.
    register : tuple
        The accumulator's ``(low, high, saturate)``.
    """
    accumulators, events, first, unbounded, least, greatest = outputs
    low, high, saturate = register
    value = accumulators[n, p] + term
    if value < low or value > high:
        events[n, p] += 1
        if first[n, p] < 0:
            first[n, p] = number
    accumulators[n, p] = bring_in(value, low, high, saturate)
    unbounded[n, p] += exact_term
    least[n, p] = min(least[n, p], unbounded[n, p])
    greatest[n, p] = max(greatest[n, p], unbounded[n, p])


@kernel
def record(trace: npt.NDArray[np.int64], cycle: Int, registers: npt.NDArray[np.int64]) -> None:
    """Copy a plane of registers into the trace after a clock edge; an empty trace records nothing."""
    if trace.shape[0] > 0:
        trace[cycle, : registers.shape[0], : registers.shape[1]] = registers
