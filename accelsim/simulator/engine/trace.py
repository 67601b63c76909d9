"""The trace of a stepped GEMM: which part of it is recorded, the memory it takes, its arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import OperandError
from accelsim.machine import Machine
from accelsim.simulator.timing import gemm_cycles
from accelsim_kernels.grid.recording import ACCUMULATOR_MARK, TREE_MARK

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Range = tuple[int, int]
"""Half-open: the first and the one after the last."""

DEFAULT_LIMIT_BYTES = 1 << 30
"""Memory of a trace unless another limit is asked for."""


@dataclass(frozen=True, eq=False)
class Trace:
    """Registers of the stepped grid after each multiply cycle; index 0 is the first cycle in which a PE multiplies.

    Where a window was asked for, the arrays hold the window alone, and ``first_cycle``, ``first_row`` and
    ``first_column`` say where it lies: ``accumulators[t, i, j]`` is the register of the PE in row ``first_row + i`` and
    column ``first_column + j`` after the cycle with index ``first_cycle + t``. ``fold`` counts from the run's first.

    Parameters
    ----------
    accumulators : int64 array, shape (cycles, rows, columns)
        output_stationary: each PE's accumulator; weight_ and input_stationary: its partial sum; broadcast: its product.
    weights, activations : int64 array, shape (cycles, rows, columns)
        Operands in use, 0 in a bubble.
    overflow : bool array, shape (cycles, rows, columns)
        Whether a value that did not fit was brought into the PE's register in this cycle; docs/trace.md (1).
        All False with broadcast, whose products always fit.
    fold : int64 array, shape (cycles,)
        Which fold the cycle belongs to.
    row_accumulators : int64 array, shape (cycles, rows), or None
        broadcast: the accumulator of each row.
    row_overflow, tree_overflow : bool array, shape (cycles, rows), or None
        broadcast: whether the row's accumulator and its adder tree overflowed in this cycle.
    column_accumulators : int64 array, shape (cycles, columns), or None
        weight_ and input_stationary: the accumulator below each column that the sum leaving it was added to in this
        cycle, after the addition; 0 where none leaves.
    column_overflow : bool array, shape (cycles, columns), or None
        weight_ and input_stationary: whether that accumulator overflowed.
    first_cycle, first_row, first_column : int
        Where the window begins.
    """

    accumulators: Int64
    weights: Int64
    activations: Int64
    overflow: Bool
    fold: Int64
    row_accumulators: Int64 | None = None
    row_overflow: Bool | None = None
    tree_overflow: Bool | None = None
    column_accumulators: Int64 | None = None
    column_overflow: Bool | None = None
    first_cycle: int = 0
    first_row: int = 0
    first_column: int = 0

    @property
    def num_overflows(self) -> int:
        """Overflows that are marked in the window, in all registers."""
        marks = (self.overflow, self.row_overflow, self.tree_overflow, self.column_overflow)
        return sum(int(np.count_nonzero(plane)) for plane in marks if plane is not None)

    def overflowed(self) -> Bool:
        """Return in which cycles of the window a register overflowed.

        Returns
        -------
        bool array, shape (cycles,)
            One per cycle.
        """
        found = self.overflow.any(axis=(1, 2))
        for plane in (self.row_overflow, self.tree_overflow, self.column_overflow):
            if plane is not None:
                found = found | plane.any(axis=1)
        return np.asarray(found)


@dataclass(frozen=True)
class TraceWindow:
    """The cycles, rows and columns that a trace records, each half-open."""

    cycles: Range
    rows: Range
    columns: Range

    @classmethod
    def of(
        cls,
        shape: tuple[int, int, int],
        machine: Machine,
        cycles: Range | None = None,
        rows: Range | None = None,
        columns: Range | None = None,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
    ) -> TraceWindow:
        """Return a window that lies in the run and fits the memory.

        Parameters
        ----------
        shape : tuple of int
            N, K and P of the GEMM.
        machine : Machine
            What it will run on.
        cycles, rows, columns : pair of int or None
            First and the one after the last; None for all.
        limit_bytes : int
            Memory that the trace may take.

        Raises
        ------
        OperandError
            When a range is empty or outside the run, or the memory would be exceeded: it names the bytes, the limit and
            a smaller window that fits.
        """
        if isinstance(limit_bytes, bool) or not isinstance(limit_bytes, int) or limit_bytes < 1:
            raise OperandError(f"trace_limit_bytes must be a whole number of at least 1, got {limit_bytes!r}")
        num_outputs, reduction, num_positions = shape
        length = gemm_cycles(
            num_outputs=num_outputs, reduction=reduction, num_positions=num_positions, machine=machine
        ).multiply
        window = cls(
            _checked("trace_cycles", cycles, length, "multiply cycles of the run"),
            _checked("trace_rows", rows, machine.rows, "rows of the grid"),
            _checked("trace_columns", columns, machine.columns, "columns of the grid"),
        )
        if window.num_bytes(machine) > limit_bytes:
            remedy = window.that_fits(machine, limit_bytes)
            raise OperandError(
                f"the trace of {_spelled(window)} takes {window.num_bytes(machine):,} bytes, more than the limit of "
                f"{limit_bytes:,}; "
                + (
                    "raise the limit"
                    if remedy is None
                    else f"{_spelled(remedy)} fit: trace_cycles={remedy.cycles}, trace_rows={remedy.rows}, "
                    f"trace_columns={remedy.columns}; or raise the limit"
                )
            )
        return window

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of cycles, rows and columns."""
        return _length(self.cycles), _length(self.rows), _length(self.columns)

    def num_bytes(self, machine: Machine) -> int:
        """Return the bytes that the trace's arrays take, docs/trace.md (5)."""
        cycles, rows, columns = self.shape
        edge = {"output_stationary": 0, "broadcast": rows}.get(machine.dataflow, columns)
        return cycles * (25 * rows * columns + 10 * edge + 8)

    def that_fits(self, machine: Machine, limit_bytes: int) -> TraceWindow | None:
        """Return the part of the window with as many cycles, then rows, then columns as fit; None where nothing does.

        Parameters
        ----------
        machine : Machine
            What the GEMM runs on.
        limit_bytes : int
            Memory that the trace may take.
        """
        _, rows, columns = self.shape
        begin = self.cycles[0]
        for tried_rows, tried_columns in ((rows, columns), *((1 << s, columns) for s in _shifts(rows)),
                                          *((1, 1 << s) for s in _shifts(columns))):  # fmt: skip
            narrower = TraceWindow(
                (begin, begin + 1),
                (self.rows[0], self.rows[0] + tried_rows),
                (self.columns[0], self.columns[0] + tried_columns),
            )
            fitting = limit_bytes // narrower.num_bytes(machine)
            if fitting:
                cycles = (begin, min(self.cycles[1], begin + fitting))
                return TraceWindow(cycles, narrower.rows, narrower.columns)
        return None


class Recorder:
    """The memory that the kernels write a trace into.

    Parameters
    ----------
    window : TraceWindow or None
        What is recorded; None records nothing, in arrays without cycles.
    machine : Machine
        Its dataflow says which accumulators are at the edge of the grid.
    """

    def __init__(self, window: TraceWindow | None, machine: Machine) -> None:
        self.machine = machine
        self.window = TraceWindow((0, 0), (0, machine.rows), (0, machine.columns)) if window is None else window
        cycles, rows, columns = self.window.shape
        edge = {"output_stationary": 0, "broadcast": rows}.get(machine.dataflow, columns)
        self.planes = tuple(np.zeros((cycles, rows, columns), dtype=np.int64) for _ in range(3))
        self.marks = np.zeros((cycles, rows, columns), dtype=np.uint8)
        self.edge = np.zeros((cycles, edge), dtype=np.int64)
        self.edge_marks = np.zeros((cycles, edge), dtype=np.uint8)
        self.fold = np.zeros(cycles, dtype=np.int64)

    @property
    def arrays(self) -> tuple[Any, ...]:
        """What the kernels take."""
        first = tuple(np.int64(begin) for begin, _ in (self.window.cycles, self.window.rows, self.window.columns))
        return (*self.planes, self.marks, self.edge, self.edge_marks, self.fold, first)

    def trace(self) -> Trace:
        """Return what was recorded under the names of `Trace`."""
        registers, weights, activations = self.planes
        if self.machine.dataflow == "input_stationary":  # its stationary plane holds activations
            weights, activations = activations, weights
        edges: dict[str, Any] = {}
        overflowed = (self.edge_marks & ACCUMULATOR_MARK) != 0
        if self.machine.dataflow == "broadcast":
            tree = (self.edge_marks & TREE_MARK) != 0
            edges = {"row_accumulators": self.edge, "row_overflow": overflowed, "tree_overflow": tree}
        elif self.machine.dataflow != "output_stationary":
            edges = {"column_accumulators": self.edge, "column_overflow": overflowed}
        return Trace(
            registers,
            weights,
            activations,
            self.marks.view(np.bool_),  # the only mark of a PE's register is 1
            self.fold,
            **edges,
            first_cycle=self.window.cycles[0],
            first_row=self.window.rows[0],
            first_column=self.window.columns[0],
        )


def _checked(name: str, given: Range | None, size: int, what: str) -> Range:
    """Return a range inside ``0..size``; raise OperandError where it is none."""
    if given is None:
        return 0, size
    try:
        begin, end = (int(value) for value in given if value == int(value))
    except (TypeError, ValueError):
        raise OperandError(f"{name} must be (first, one after the last), got {given!r}") from None
    if not 0 <= begin < end <= size:
        raise OperandError(f"{name} must lie in the {size} {what}, 0 <= first < end <= {size}, got {begin}..{end}")
    return begin, end


def _length(given: Range) -> int:
    return given[1] - given[0]


def _shifts(size: int) -> range:
    """Return the exponents of the powers of two under a size, the greatest first."""
    return range((size - 1).bit_length() - 1, -1, -1)


def _spelled(window: TraceWindow) -> str:
    """Say a window in words, in the notation of the command line."""
    parts = (("cycles", window.cycles), ("rows", window.rows), ("columns", window.columns))
    return ", ".join(f"{name} {begin}:{end}" for name, (begin, end) in parts)
