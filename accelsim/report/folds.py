"""Where the folds of a GEMM lie on the grid and in time, and which PEs work in which cycle: docs/timing.md 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine
from accelsim.simulator.engine.trace import Trace

UNUSED, IDLE, ADDING, MULTIPLYING = 0, 1, 2, 3
"""A PE that the fold has no work for; one with none in this cycle; one that only adds a product that it made before;
one that multiplies."""
OVERFLOWED = 4
"""Added to the number above where the PE's register overflowed in the cycle."""


@dataclass(frozen=True)
class Fold:
    """One fold.

    Parameters
    ----------
    index : int
        In the order of the run.
    first_cycle, num_cycles : int
        Its multiply cycles, counted from the run's first.
    rows, columns : range
        What its rows and columns hold: positions, channels or terms, by the dataflow; rows and columns beyond are
        unused. With broadcast ``columns`` is the one position that the fold computes.
    last_row : int
        The row that sums leave a weight- or input-stationary grid from.
    """

    index: int
    first_cycle: int
    num_cycles: int
    rows: range
    columns: range
    last_row: int


def folds(shape: tuple[int, int, int], machine: Machine) -> Iterator[Fold]:
    """Yield the folds of a GEMM in their order.

    Parameters
    ----------
    shape : tuple of int
        N, K and P.
    machine : Machine
        Grid and dataflow.

    Yields
    ------
    Fold
        docs/timing.md (1) to (4a).
    """
    num_outputs, reduction, num_positions = shape
    latency, full = machine.pe_latency_cycles - 1, machine.ragged_folds == "full"
    match machine.dataflow:
        case "output_stationary":
            outer, inner, in_time = num_outputs, num_positions, reduction
        case "weight_stationary":
            outer, inner, in_time = num_outputs, reduction, num_positions
        case "input_stationary":
            outer, inner, in_time = num_positions, reduction, num_outputs
        case _:
            yield from _broadcast_folds(shape, machine)
            return
    index = cycle = 0
    for columns in _tiles(outer, machine.columns):
        for rows in _tiles(inner, machine.rows):
            r, c = (machine.rows, machine.columns) if full else (len(rows), len(columns))
            length = in_time + r + c - 2 + latency
            yield Fold(index, cycle, length, rows, columns, r - 1)
            index, cycle = index + 1, cycle + length


def _broadcast_folds(shape: tuple[int, int, int], machine: Machine) -> Iterator[Fold]:
    num_outputs, reduction, num_positions = shape
    length = -(-reduction // machine.columns) + machine.pe_latency_cycles - 1
    index = 0
    for rows in _tiles(num_outputs, machine.rows):
        for position in range(num_positions):
            yield Fold(index, index * length, length, rows, range(position, position + 1), machine.rows - 1)
            index += 1


def _tiles(length: int, size: int) -> Iterator[range]:
    for begin in range(0, length, size):
        yield range(begin, min(begin + size, length))


def states(trace: Trace, shape: tuple[int, int, int], machine: Machine) -> npt.NDArray[np.uint8]:
    """Say what every PE of a trace does in every cycle.

    Parameters
    ----------
    trace : Trace
        What was recorded.
    shape : tuple of int
        N, K and P.
    machine : Machine
        What it was recorded on.

    Returns
    -------
    uint8 array, shape (cycles, rows, columns)
        `UNUSED`, `IDLE`, `ADDING` or `MULTIPLYING`, plus `OVERFLOWED` where the register overflowed. A PE that
        multiplies by a zero is multiplying: what counts is that it has a product of the GEMM.

    Notes
    -----
    docs/timing.md (5) to (8): PE (i, j) has the product with the index t - i - j of what passes in time, and with
    broadcast all PEs have one at once; its adder has it ``pe_latency_cycles`` - 1 cycles later.
    """
    num_rows, num_columns = trace.accumulators.shape[1:]
    row = np.arange(trace.first_row, trace.first_row + num_rows)[:, None]
    column = np.arange(trace.first_column, trace.first_column + num_columns)[None, :]
    found = np.zeros(trace.accumulators.shape, dtype=np.uint8)
    for fold in traced_folds(trace, shape, machine):
        begin = max(fold.first_cycle, trace.first_cycle)
        end = min(fold.first_cycle + fold.num_cycles, trace.first_cycle + len(trace.fold))
        step = np.arange(begin - fold.first_cycle, end - fold.first_cycle)[:, None, None]
        at_work = _has_product(step, row, column, fold, shape, machine)
        adding = _has_product(step - (machine.pe_latency_cycles - 1), row, column, fold, shape, machine)
        state = np.where(at_work, MULTIPLYING, np.where(adding, ADDING, IDLE))
        in_use = (row < len(fold.rows)) & _columns_in_use(column, fold, shape, machine)
        part = slice(begin - trace.first_cycle, end - trace.first_cycle)
        found[part] = np.where(in_use, state, UNUSED)
    return np.where(trace.overflow, found | OVERFLOWED, found).astype(np.uint8)


def traced_folds(trace: Trace, shape: tuple[int, int, int], machine: Machine) -> list[Fold]:
    """Return the folds that a trace has cycles of."""
    end = trace.first_cycle + len(trace.fold)
    found = []
    for fold in folds(shape, machine):
        if fold.first_cycle >= end:
            break
        if fold.first_cycle + fold.num_cycles > trace.first_cycle:
            found.append(fold)
    return found


def _has_product(
    step: Any, row: Any, column: Any, fold: Fold, shape: tuple[int, int, int], machine: Machine
) -> npt.NDArray[np.bool_]:
    """Whether PE (row, column) has a product of the GEMM in a step of the fold."""
    num_outputs, reduction, num_positions = shape
    if machine.dataflow == "broadcast":
        found = (step >= 0) & (step * machine.columns + column < reduction) & (row < len(fold.rows))
        return np.asarray(found)
    passing = {
        "output_stationary": reduction,
        "weight_stationary": num_positions,
        "input_stationary": num_outputs,
    }[machine.dataflow]
    index = step - row - column
    return np.asarray((index >= 0) & (index < passing) & (row < len(fold.rows)) & (column < len(fold.columns)))


def _columns_in_use(column: Any, fold: Fold, shape: tuple[int, int, int], machine: Machine) -> Any:
    """Whether the fold has any work for a column."""
    return column < (shape[1] if machine.dataflow == "broadcast" else len(fold.columns))
