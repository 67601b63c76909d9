"""What the cycle viewer shows: a trace with the place of everything in it, packed for a page."""

from __future__ import annotations

import base64
import sys
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import OperandError
from accelsim.machine import Machine
from accelsim.report.folds import Fold, folds, states, traced_folds
from accelsim.simulator.engine.gemm import in_accumulator_units
from accelsim.simulator.engine.trace import Range, Trace, TraceWindow
from accelsim.simulator.gemm_result import GemmResult
from accelsim.simulator.timing import gemm_cycles
from accelsim.simulator.tracing import TracedLayer

EMBEDDED_TRACE_BYTES = 32 << 20
"""Memory of the traces that a page takes: about 5,000 cycles of a 16x16 grid, some megabytes of file."""
MOST_PES = 4096
"""Processing elements that a page shows at once."""
_DEFAULT_SIDE = 32
"""Rows and columns that are shown unless others are asked for."""
EDGE_ADDED, EDGE_OVERFLOWED, TREE_OVERFLOWED = 1, 4, 8
"""Bits of an accumulator at the edge: something was added in this cycle, it overflowed, the tree in front of it did."""

_INTEGERS = (np.int8, np.int16, np.int32, np.int64)


@dataclass(frozen=True, eq=False)
class CycleView:
    """A traced GEMM for the cycle viewer.

    Parameters
    ----------
    name : str
        What was traced.
    trace : Trace
        Registers of a window.
    machine : Machine
        What it was recorded on.
    shape : tuple of int
        N, K and P.

    Raises
    ------
    OperandError
        When the trace is larger than a page takes; it names a window that fits.
    """

    name: str
    trace: Trace
    machine: Machine
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        remedy = _smaller(self.window, self.machine)
        if remedy is not None:
            raise OperandError(
                f"the trace of {self.name} is larger than a page shows: {_limits(self.window, self.machine)}; trace a "
                f"smaller window: trace_cycles={remedy.cycles}, trace_rows={remedy.rows}, "
                f"trace_columns={remedy.columns}"
            )

    @classmethod
    def of(cls, traced: GemmResult | TracedLayer, machine: Machine, name: str | None = None) -> CycleView:
        """Return the view of a traced GEMM or layer.

        Parameters
        ----------
        traced : GemmResult or TracedLayer
            Something with a trace.
        machine : Machine
            What it ran on.
        name : str, optional
            What to call it.

        Raises
        ------
        OperandError
            When nothing was traced, or more than a page takes.
        """
        if isinstance(traced, TracedLayer):
            num_outputs, reduction = traced.operands.weights.shape
            groups = traced.layer.groups
            called = f"{traced.layer.name}, group {traced.group} of {groups}" if groups > 1 else traced.layer.name
            result, shape = traced.result, (num_outputs, reduction, traced.operands.columns.shape[1])
        else:
            result, called = traced, "matrix product"
            if traced.trace is None or traced.accumulators.ndim != 2:
                raise OperandError(
                    "the cycle viewer needs a trace: run matmul with engine='stepped', trace=True, "
                    "or trace a layer of a network"
                )
            num_outputs, num_positions = traced.accumulators.shape
            reduction = traced.operations.multiplications // (num_outputs * num_positions)
            shape = (num_outputs, reduction, num_positions)
        if result.trace is None:
            raise AssertionError("a traced layer has a trace")
        return cls(called if name is None else name, result.trace, machine, shape)

    @property
    def window(self) -> TraceWindow:
        """What of the run the trace holds."""
        begins = (self.trace.first_cycle, self.trace.first_row, self.trace.first_column)
        sizes = self.trace.accumulators.shape
        cycles, rows, columns = ((b, b + size) for b, size in zip(begins, sizes, strict=True))
        return TraceWindow(cycles, rows, columns)

    @property
    def num_cycles(self) -> int:
        """Multiply cycles of the whole GEMM."""
        return gemm_cycles(
            num_outputs=self.shape[0], reduction=self.shape[1], num_positions=self.shape[2], machine=self.machine
        ).multiply

    def payload(self) -> dict[str, Any]:
        """Return what the page's script reads: JSON of names and numbers, planes packed by `packed`."""
        trace, machine, window = self.trace, self.machine, self.window
        shown = traced_folds(trace, self.shape, machine)
        inner, edge = _registers(machine)
        planes = {
            "weights": packed(trace.weights),
            "activations": packed(trace.activations),
            "registers": packed(trace.accumulators),
            "states": packed(states(trace, self.shape, machine)),
        }
        if machine.product_shift_bits:
            planes["products"] = packed(in_accumulator_units(trace.weights * trace.activations, machine))
        values = trace.row_accumulators if trace.column_accumulators is None else trace.column_accumulators
        if values is not None:
            planes["edge"] = packed(values)
            planes["edge_states"] = packed(_edge_states(trace, shown, self.shape, machine))
        return {
            "name": self.name,
            "dataflow": machine.dataflow,
            "grid": [machine.rows, machine.columns],
            "shape": dict(zip("nkp", self.shape, strict=True)),
            "latency": machine.pe_latency_cycles,
            "overflow": machine.overflow,
            "register": inner,
            "edge": edge,
            "window": {"cycles": window.cycles, "rows": window.rows, "columns": window.columns},
            "num_cycles": self.num_cycles,
            "num_folds": _num_folds(self.shape, machine),
            "folds": [
                [
                    fold.index, fold.first_cycle, fold.num_cycles, fold.rows.start, len(fold.rows),
                    fold.columns.start, len(fold.columns), fold.last_row,
                ]
                for fold in shown
            ],
            "planes": planes,
        }  # fmt: skip


def page_window(
    shape: tuple[int, int, int],
    machine: Machine,
    cycles: Range | None = None,
    rows: Range | None = None,
    columns: Range | None = None,
) -> TraceWindow:
    """Return the window to trace for a page: what is asked for, and of the rest as much as a page shows.

    Parameters
    ----------
    shape : tuple of int
        N, K and P of the GEMM.
    machine : Machine
        What it will run on.
    cycles, rows, columns : pair of int or None
        First and the one after the last; None for what fits.

    Raises
    ------
    OperandError
        When a range is empty or outside the run, or more than a page shows; it names a smaller window.
    """
    sides = [(rows, machine.rows), (columns, machine.columns)]
    rows, columns = ((0, min(size, _DEFAULT_SIDE)) if given is None else given for given, size in sides)
    window = TraceWindow.of(shape, machine, cycles, rows, columns, sys.maxsize)
    remedy = _smaller(window, machine)
    if remedy is None:
        return window
    if cycles is None and remedy.rows == window.rows and remedy.columns == window.columns:
        return remedy
    spelled = (f"{name} {begin}:{end}" for name, (begin, end) in vars(remedy).items())
    raise OperandError(f"the window is larger than a page shows: {_limits(window, machine)}; {', '.join(spelled)} fit")


def _smaller(window: TraceWindow, machine: Machine) -> TraceWindow | None:
    """Return a part of a window that a page shows, None where it shows all of it."""
    _, rows, columns = window.shape
    found = window
    if rows * columns > MOST_PES:
        columns = min(columns, MOST_PES)
        rows = MOST_PES // columns
        begins = window.rows[0], window.columns[0]
        found = TraceWindow(window.cycles, (begins[0], begins[0] + rows), (begins[1], begins[1] + columns))
    if found.num_bytes(machine) > EMBEDDED_TRACE_BYTES:
        fitting = found.that_fits(machine, EMBEDDED_TRACE_BYTES)
        if fitting is None:
            raise AssertionError("one cycle of so many PEs fits")
        found = fitting
    return None if found == window else found


def _limits(window: TraceWindow, machine: Machine) -> str:
    """Say how large a window is, and how large it may be."""
    _, rows, columns = window.shape
    return (
        f"{rows * columns:,} PEs (at most {MOST_PES:,}), {window.num_bytes(machine):,} bytes "
        f"(at most {EMBEDDED_TRACE_BYTES:,})"
    )


def packed(plane: npt.NDArray[Any]) -> dict[str, str]:
    """Pack integers for a page: the narrowest type that holds them, little-endian, zlib, base64.

    Parameters
    ----------
    plane : integer array
        Row-major; the reader knows the shape.

    Returns
    -------
    dict of str to str
        ``type`` (int8 to int64 or uint8) and ``data``.
    """
    if plane.dtype == np.uint8:
        kind: Any = np.uint8
    else:
        low, high = (int(plane.min()), int(plane.max())) if plane.size else (0, 0)
        kind = next(t for t in _INTEGERS if np.iinfo(t).min <= low and high <= np.iinfo(t).max)
    narrow = np.ascontiguousarray(plane, dtype=np.dtype(kind).newbyteorder("<"))
    data = base64.b64encode(zlib.compress(narrow.tobytes(), 9)).decode("ascii")
    return {"type": np.dtype(kind).name, "data": data}


def _registers(machine: Machine) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Describe the register in a PE and the accumulator at the edge."""
    accumulator = _register("accumulator", machine.accumulator_bits)
    match machine.dataflow:
        case "output_stationary":
            return accumulator, None
        case "broadcast":
            return _register("product", None), accumulator
        case _:
            return _register("partial sum", machine.partial_sum_bits), accumulator


def _register(name: str, bits: int | None) -> dict[str, Any]:
    # Limits as text: JavaScript's numbers end at 2^53.
    limits = {} if bits is None else {"low": str(-(1 << (bits - 1))), "high": str((1 << (bits - 1)) - 1)}
    return {"name": name, "bits": bits, **limits}


def _num_folds(shape: tuple[int, int, int], machine: Machine) -> int:
    """Return the number of folds, docs/timing.md section 1."""
    first = next(folds(shape, machine))
    n, k, p = shape
    sizes = {"output_stationary": (n, p), "weight_stationary": (n, k), "input_stationary": (p, k)}
    if machine.dataflow == "broadcast":
        return -(-n // machine.rows) * p
    outer, inner = sizes[machine.dataflow]
    return -(-outer // len(first.columns)) * -(-inner // len(first.rows))


def _edge_states(
    trace: Trace, shown: list[Fold], shape: tuple[int, int, int], machine: Machine
) -> npt.NDArray[np.uint8]:
    """Say for the accumulators at the edge in which cycles something is added, and what overflowed."""
    if trace.row_overflow is not None and trace.tree_overflow is not None:
        marks = trace.row_overflow * EDGE_OVERFLOWED + trace.tree_overflow * TREE_OVERFLOWED
    elif trace.column_overflow is not None:
        marks = trace.column_overflow * EDGE_OVERFLOWED
    else:
        raise AssertionError("a grid with accumulators at its edge")
    found = marks.astype(np.uint8)
    cycle = trace.first_cycle + np.arange(len(trace.fold))
    delay = machine.pe_latency_cycles - 1
    for fold in shown:
        step = cycle - fold.first_cycle - delay
        inside = (cycle >= fold.first_cycle) & (cycle < fold.first_cycle + fold.num_cycles)
        if machine.dataflow == "broadcast":
            row = trace.first_row + np.arange(found.shape[1])
            added = (inside & (step >= 0))[:, None] & (row < len(fold.rows))[None, :]
        else:
            column = trace.first_column + np.arange(found.shape[1])
            vector = step[:, None] - fold.last_row - column[None, :]
            passing = shape[2] if machine.dataflow == "weight_stationary" else shape[0]
            added = inside[:, None] & (vector >= 0) & (vector < passing) & (column < len(fold.columns))[None, :]
        found |= added.astype(np.uint8) * EDGE_ADDED
    return found
