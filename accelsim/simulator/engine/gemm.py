"""GEMMs on the grid: chooses the path, fixes types, calls the kernels.

Two engines, one result. `stepped` moves every register of the grid every cycle. `fast` proves outputs safe by
docs/numerics.md (17) and (18) and computes those in any order, and runs the ordered kernels for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine
from accelsim.simulator.engine.bounds import ChannelBounds, register
from accelsim.simulator.engine.trace import Recorder, Trace, TraceWindow
from accelsim_kernels.accumulate import (
    accumulate_products,
    accumulate_tiles,
    add_last,
    running_range,
    to_accumulator_units,
)
from accelsim_kernels.exact import exact_products
from accelsim_kernels.grid.broadcast import step_broadcast
from accelsim_kernels.grid.output_stationary import step_output_stationary
from accelsim_kernels.grid.stationary_operand import step_stationary_operand
from accelsim_kernels.rounding import RULES

EngineName = Literal["stepped", "fast"]
Track = Literal["none", "overflow", "range"]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

WIDEST_START = 1 << 61
"""Greatest magnitude of a start value, docs/numerics.md section 2."""

MAX_REDUCTION = 1 << 26
"""Greatest length of a reduction, docs/numerics.md section 2."""


@dataclass(frozen=True)
class GemmOperands:
    """A GEMM as the grid sees it, docs/numerics.md section 2.

    Parameters
    ----------
    weights : int32 array, shape (n, k)
        Operands as the PEs multiply them.
    columns : int32 array, shape (k, p)
        Likewise.
    start : int64 array, shape (n,)
        What the accumulators are loaded with, (7).
    weight_zero_points : int64 array, shape (n,)
        z_w of (8); zeros where nothing is added at the end.
    """

    weights: Int32
    columns: Int32
    start: Int64
    weight_zero_points: Int64


@dataclass(frozen=True)
class GemmValues:
    """What a GEMM leaves in the accumulators; arrays of shape (n, p), None where not tracked."""

    accumulators: Int64
    overflow_events: Int64 | None
    first_overflow: Int64 | None
    partial_overflow_events: Int64 | None
    range_min: Int64 | None
    range_max: Int64 | None


def product_rounding(machine: Machine) -> tuple[np.int64, np.int64]:
    """Return ``(shift, rule)`` of a PE's products, docs/numerics.md (13a)."""
    return np.int64(machine.product_shift_bits), np.int64(RULES[machine.product_rounding])


def _start(operands: GemmOperands, machine: Machine) -> Int64:
    """Return the start values in units of the accumulator."""
    return in_accumulator_units(operands.start, machine)


def in_accumulator_units(values: Int64, machine: Machine) -> Int64:
    """Round values in units of a product as the products are rounded, (13a)."""
    if machine.product_shift_bits == 0:
        return values
    rounded = np.empty(values.size, dtype=np.int64)
    to_accumulator_units(np.ascontiguousarray(values).reshape(-1), product_rounding(machine), rounded)
    return rounded.reshape(values.shape)


def terms_per_addition(machine: Machine) -> int:
    """Return how many products reach the accumulator in one addition."""
    match machine.dataflow:
        case "output_stationary":
            return 1
        case "broadcast":
            return machine.columns
        case _:
            return machine.rows


def run_gemm(operands: GemmOperands, machine: Machine, engine: EngineName, track: Track) -> GemmValues:
    """Run a GEMM on the grid.

    Parameters
    ----------
    operands : GemmOperands
        Checked operands.
    machine : Machine
        Grid, dataflow, widths, overflow mode.
    engine : {"stepped", "fast"}
        See the module.
    track : {"none", "overflow", "range"}
        What is recorded per output.

    Returns
    -------
    GemmValues
        Accumulators after the last addition and what was tracked.
    """
    if engine == "stepped":
        return step_gemm(operands, machine, track)[0]
    return _fast_gemm(operands, machine, track)


def step_gemm(
    operands: GemmOperands, machine: Machine, track: Track, window: TraceWindow | None = None
) -> tuple[GemmValues, int, Trace | None]:
    """Step a GEMM through all cycles of all its folds.

    Parameters
    ----------
    operands, machine, track
        As in `run_gemm`.
    window : TraceWindow, optional
        Record the registers of these cycles, rows and columns.

    Returns
    -------
    tuple
        The values, the number of multiply cycles that the grid went through, and the trace.
    """
    weights, columns, start = operands.weights, operands.columns, _start(operands, machine)
    shape = (weights.shape[0], columns.shape[1])
    accumulators, events, first, unbounded, least, most = (np.empty(shape, dtype=np.int64) for _ in range(6))
    outputs = (accumulators, events, first, unbounded, least, most)
    partial_events = np.zeros(shape, dtype=np.int64)
    recorder = Recorder(window, machine)
    recorded: Any = recorder.arrays
    grid = (np.int64(machine.rows), np.int64(machine.columns))
    pe = (np.int64(machine.pe_latency_cycles), product_rounding(machine))
    accumulator = register(machine.accumulator_bits, machine.overflow)
    full = machine.ragged_folds == "full"
    match machine.dataflow:
        case "output_stationary":
            cycles = step_output_stationary(
                weights, columns, start, *grid, full, track == "range", *pe, accumulator, outputs, recorded
            )
        case "broadcast":
            tree = register(machine.adder_tree_bits, machine.overflow)
            cycles = step_broadcast(
                weights, columns, start, *grid, *pe, accumulator, tree, outputs, partial_events, recorded
            )
        case dataflow:
            keeps_weights = dataflow == "weight_stationary"
            partial = register(machine.partial_sum_bits, machine.overflow)
            cycles = step_stationary_operand(
                weights, columns, start, keeps_weights, *grid, full, track == "range", *pe, accumulator, partial,
                outputs, partial_events, recorded,
            )  # fmt: skip
    _finish(operands, machine, accumulators, events, first)
    _finish_range(operands, machine, unbounded, least, most)
    values = _tracked(track, accumulators, events, first, partial_events, least, most)
    return values, int(cycles), None if window is None else recorder.trace()


def _fast_gemm(operands: GemmOperands, machine: Machine, track: Track) -> GemmValues:
    """Compute what `step_gemm` does without stepping."""
    weights, columns, start = operands.weights, operands.columns, _start(operands, machine)
    shape = (weights.shape[0], columns.shape[1])
    least, greatest = int(columns.min()), int(columns.max())
    safe = ChannelBounds(weights, start, operands.weight_zero_points).safe(machine, least, greatest)
    limits = register(machine.accumulator_bits, machine.overflow)

    accumulators = np.empty(shape, dtype=np.int64)
    events, partial_events = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    first = np.full(shape, -1, dtype=np.int64)
    if safe.any():
        exact_products(weights, columns, start, np.flatnonzero(safe), accumulators)
    at_risk = np.flatnonzero(~safe)
    if at_risk.size:
        ordered = (weights, columns, start, at_risk, product_rounding(machine), limits)
        if machine.dataflow == "output_stationary":
            accumulate_products(*ordered, accumulators, events, first)
        else:
            chained = machine.dataflow != "broadcast"
            partial = register(machine.partial_sum_bits if chained else machine.adder_tree_bits, machine.overflow)
            accumulate_tiles(
                *ordered, np.int64(terms_per_addition(machine)), partial, chained, accumulators, events, first,
                partial_events,
            )  # fmt: skip
    _finish(operands, machine, accumulators, events, first)
    range_min = range_max = None
    if track == "range":
        range_min, range_max, unbounded = (np.empty(shape, dtype=np.int64) for _ in range(3))
        tile = np.int64(terms_per_addition(machine))
        running_range(weights, columns, start, product_rounding(machine), tile, range_min, range_max, unbounded)
        _finish_range(operands, machine, unbounded, range_min, range_max)
    return _tracked(track, accumulators, events, first, partial_events, range_min, range_max)


def _finish(operands: GemmOperands, machine: Machine, accumulators: Int64, events: Int64, first: Int64) -> None:
    """Do addition (8) where the weights are asymmetric."""
    if operands.weight_zero_points.any():
        row_sums = operands.columns.sum(axis=0, dtype=np.int64)
        number = np.int64(-(-operands.weights.shape[1] // terms_per_addition(machine)))
        limits = register(machine.accumulator_bits, machine.overflow)
        zero_points = operands.weight_zero_points
        add_last(row_sums, zero_points, product_rounding(machine), limits, number, accumulators, events, first)


def _finish_range(operands: GemmOperands, machine: Machine, unbounded: Int64, least: Int64, most: Int64) -> None:
    """Take addition (8) into the running range."""
    if operands.weight_zero_points.any():
        last = -np.outer(operands.weight_zero_points, operands.columns.sum(axis=0, dtype=np.int64))
        unbounded += in_accumulator_units(last, machine)
        np.minimum(least, unbounded, out=least)
        np.maximum(most, unbounded, out=most)


def _tracked(
    track: Track, accumulators: Int64, events: Int64, first: Int64, partial_events: Int64, least: Any, most: Any
) -> GemmValues:
    """Keep what the tracking level asks for."""
    if track == "none":
        return GemmValues(accumulators, None, None, None, None, None)
    if track == "overflow":
        return GemmValues(accumulators, events, first, partial_events, None, None)
    return GemmValues(accumulators, events, first, partial_events, least, most)
