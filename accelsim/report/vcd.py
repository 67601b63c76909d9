"""Traces as Value Change Dump files, which GTKWave, Surfer and every other waveform viewer open: docs/trace.md."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
from vcd import VCDWriter

from accelsim import __version__
from accelsim.files import whole_file
from accelsim.machine import Machine
from accelsim.simulator.engine.trace import Trace

Plane = npt.NDArray[Any]
Progress = Callable[[str, int, int], None]

_FOLD_BITS = 32


def write_vcd(path: str | PathLike[str], trace: Trace, machine: Machine, *, progress: Progress | None = None) -> None:
    """Write a trace as a VCD file.

    Parameters
    ----------
    path : path
        The file to make or replace.
    trace : Trace
        What was recorded; rows and columns keep the numbers that they have in the grid.
    machine : Machine
        What it was recorded on; it gives the registers their widths.
    progress : callable, optional
        Called with ("VCD", cycles done, all).

    Raises
    ------
    DataError
        When the file cannot be written.

    Notes
    -----
    One unit of time is one cycle. From time t to time t + 1 a signal shows what its register holds after the clock edge
    that ends the multiply cycle with index t.
    """
    rows, columns = trace.accumulators.shape[1:]
    comment = (
        f"{machine.dataflow} {machine.rows}x{machine.columns}, rows {trace.first_row} to {trace.first_row + rows - 1}, "
        f"columns {trace.first_column} to {trace.first_column + columns - 1}; "
        "time t: after the multiply cycle of index t"
    )
    length, first = len(trace.fold), trace.first_cycle
    with whole_file(path) as binary:
        text = io.TextIOWrapper(binary, encoding="ascii", newline="\n")
        writer = VCDWriter(
            text, timescale="1 ns", date="", comment=comment, version=f"accelsim {__version__}", init_timestamp=first
        )
        groups = [_registered(writer, names, plane, bits) for names, plane, bits in _signals(trace, machine)]
        for t in range(1, length):
            for variables, plane in groups:
                for index in np.flatnonzero(plane[t] != plane[t - 1]).tolist():
                    writer.change(variables[index], first + t, int(plane[t, index]))
            if progress is not None and t % 256 == 0:
                progress("VCD", t, length)
        writer.close(first + length)
        text.detach()  # flushes; the file is closed by the one who opened it
    if progress is not None:
        progress("VCD", length, length)


def signal_widths(trace: Trace, machine: Machine) -> dict[str, int]:
    """Return the widths of a trace's registers in two's complement.

    Parameters
    ----------
    trace : Trace
        What was recorded.
    machine : Machine
        What it was recorded on.

    Returns
    -------
    dict of str to int
        Bits of ``accumulator`` (in the PEs), ``weight``, ``activation``, and ``edge`` for the accumulators at the edge.

    Notes
    -----
    The machine's widths. Where it gives none, and where an unsigned operand needs its sign bit to be read in two's
    complement, the least width that holds every value of the trace.
    """
    wider = 1 if machine.zero_point == "at_input" else 0
    weight = (machine.weight_bits or 0) + wider
    activation = (machine.activation_bits or 0) + wider
    inner: int | None
    match machine.dataflow:
        case "output_stationary":
            inner = machine.accumulator_bits
        case "broadcast":
            inner = weight + activation - machine.product_shift_bits
        case _:
            inner = machine.partial_sum_bits
    return {
        "accumulator": max(inner or 0, _needed(trace.accumulators)),
        "weight": max(weight, _needed(trace.weights)),
        "activation": max(activation, _needed(trace.activations)),
        "edge": machine.accumulator_bits,
    }


def _needed(plane: Plane) -> int:
    """Return the bits that hold every value in two's complement."""
    low, high = int(plane.min()), int(plane.max())
    return max(high.bit_length(), (-low - 1).bit_length() if low < 0 else 0) + 1


def _signals(trace: Trace, machine: Machine) -> Iterator[tuple[list[tuple[str, str]], Plane, int]]:
    """Yield groups of signals: (scope, name) of each, their values (cycles, signals), their width."""
    bits = signal_widths(trace, machine)
    rows, columns = trace.accumulators.shape[1:]
    row_scopes = [f"grid.r{trace.first_row + i}" for i in range(rows)]
    column_names = [f"c{trace.first_column + j}" for j in range(columns)]
    pes = [f"{row}.{column}" for row in row_scopes for column in column_names]
    below = [f"grid.below.{column}" for column in column_names]
    yield [("grid", "fold")], trace.fold[:, None], _FOLD_BITS
    for scopes, name, plane, width in (
        (pes, "accumulator", trace.accumulators, bits["accumulator"]),
        (pes, "weight", trace.weights, bits["weight"]),
        (pes, "activation", trace.activations, bits["activation"]),
        (pes, "overflow", trace.overflow, 1),
        (row_scopes, "accumulator", trace.row_accumulators, bits["edge"]),
        (row_scopes, "overflow", trace.row_overflow, 1),
        (row_scopes, "tree_overflow", trace.tree_overflow, 1),
        (below, "accumulator", trace.column_accumulators, bits["edge"]),
        (below, "overflow", trace.column_overflow, 1),
    ):
        if plane is not None:
            yield [(scope, name) for scope in scopes], plane.reshape(len(plane), -1), width


def _registered(writer: Any, names: list[tuple[str, str]], plane: Plane, bits: int) -> tuple[list[Any], Plane]:
    """Announce a group of signals with the values that they have in the first cycle."""
    variables = [
        writer.register_var(scope, name, "wire", size=bits, init=int(value))
        for (scope, name), value in zip(names, plane[0].tolist(), strict=True)
    ]
    return variables, plane
