"""GEMMs on the grid: chooses the path, fixes types, calls the kernels.

Two engines, one result. `stepped` moves every register of the grid every cycle. `fast` proves outputs safe by
docs/numerics.md (17) and (18) and computes those in any order, and runs the ordered kernels for the rest.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine
from accelsim.simulator.engine.bounds import ChannelBounds, register, safe_by_type, widest
from accelsim.simulator.engine.column_risk import ColumnsAtRisk
from accelsim.simulator.engine.events import EventArrays, Events
from accelsim.simulator.engine.exact import ColumnSurvey, exact_product, exact_sums, in_large_pages
from accelsim.simulator.engine.gemm_operands import GemmOperands, GemmValues
from accelsim.simulator.engine.trace import Recorder, Trace, TraceWindow
from accelsim.simulator.engine.tracked import inner_bits, step_at_risk, step_ranges
from accelsim_kernels.accumulate import (
    accumulate_products,
    accumulate_tiles,
    add_last,
    running_range,
    to_accumulator_units,
)
from accelsim_kernels.grid.broadcast import greatest_magnitude, step_broadcast
from accelsim_kernels.grid.lanes import INT32_MOST, int32_suffices
from accelsim_kernels.grid.output_stationary import step_output_stationary
from accelsim_kernels.grid.stationary_operand import step_stationary_operand
from accelsim_kernels.rounding import RULES

EngineName = Literal["stepped", "fast"]
Track = Literal["none", "overflow", "range"]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


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
    return fast_gemm(operands, machine, track)[0]


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
    operands = operands.wide()
    weights, columns, start = operands.weights, operands.wide_columns, _start(operands, machine)
    shape = (weights.shape[0], columns.shape[1])
    accumulators, events, first, unbounded, least, most = (np.empty(shape, dtype=np.int64) for _ in range(6))
    outputs = (accumulators, events, first, unbounded, least, most)
    partial_events = np.zeros(shape, dtype=np.int64)
    recorder = Recorder(window, machine)
    recorded: Any = recorder.arrays
    grid = (np.int64(machine.rows), np.int64(machine.columns))
    accumulator = register(machine.accumulator_bits, machine.overflow)
    pe = (np.int64(machine.pe_latency_cycles), product_rounding(machine), accumulator)
    full, with_range = machine.ragged_folds == "full", track == "range"
    match machine.dataflow:
        case "output_stationary":
            lanes = _lanes(int32_suffices(weights, columns, start, accumulator, with_range))
            positions = np.ascontiguousarray(columns.T)  # what enters a row is read many times, and lies together
            cycles = step_output_stationary(
                lanes, weights, positions, start, (*grid, full), with_range, pe, outputs, recorded
            )
        case "broadcast":
            tree = register(machine.adder_tree_bits, machine.overflow)
            widest_sum = greatest_magnitude(weights) * greatest_magnitude(columns) * machine.columns
            cycles = step_broadcast(
                _lanes(bool(widest_sum <= INT32_MOST)), weights, columns, start, grid, with_range, (*pe, tree), outputs,
                partial_events, recorded,
            )  # fmt: skip
        case dataflow:
            partial = register(machine.partial_sum_bits, machine.overflow)
            lanes = _lanes(int32_suffices(weights, columns, np.zeros_like(start), partial, with_range))
            weights_stationary = dataflow == "weight_stationary"
            kept_and_moving = (weights, columns) if weights_stationary else (np.ascontiguousarray(columns.T), weights)
            cycles = step_stationary_operand(
                lanes, (*kept_and_moving, start), (*grid, full, weights_stationary), with_range,
                (*pe, partial), outputs, partial_events, recorded,
            )  # fmt: skip
    _finish(operands, machine, accumulators, events, first)
    _finish_range(operands, machine, unbounded, least, most)
    values = _tracked(track, accumulators, EventArrays(events, first, partial_events), least, most)
    return values, int(cycles), None if window is None else recorder.trace()


def _lanes(narrow: bool) -> npt.NDArray[Any]:
    """Return an array without elements, of the type of the grid's lanes."""
    return np.empty(0, dtype=np.int32 if narrow else np.int64)


def fast_gemm(operands: GemmOperands, machine: Machine, track: Track) -> tuple[GemmValues, ColumnSurvey | None]:
    """Compute what `step_gemm` does without stepping.

    Parameters
    ----------
    operands, machine, track
        As in `run_gemm`.

    Returns
    -------
    tuple
        The values, and what was seen of the activations where the way that was taken saw something.
    """
    weights, columns, start = operands.weights, operands.columns, _start(operands, machine)
    ends, shape = operands.quick_column_ends, (weights.shape[0], columns.shape[1])
    symmetric = operands.plain or not np.count_nonzero(operands.weight_zero_points)
    most = 0 if operands.plain else widest(start)
    safe = track != "range" and symmetric and safe_by_type(weights, most, machine, *ends)
    product = exact_product(weights, columns, start) if safe else None
    if product is not None:
        return _tracked(track, product[0], EventArrays.none(shape)), product[1]
    bounds = ChannelBounds(weights, start, operands.weight_zero_points)
    if track != "range":
        single = None
        if not safe:
            single = ColumnsAtRisk.of(bounds, columns, ends, machine, terms_per_addition(machine))
            safe = symmetric and (bool(bounds.safe(machine, *ends).all()) if single is None else single.safe)
        if safe:
            accumulators = in_large_pages(shape)
            survey = exact_sums(bounds, columns, *ends, np.arange(shape[0]), accumulators)
            return _tracked(track, accumulators, EventArrays.none(shape)), survey
        found = None if single is None else _single_outputs(operands, single, machine, track)
        if found is not None:
            return found
    bounds = bounds.wide()
    return _gemm_at_risk(operands._replace(weights=bounds.weights), bounds, operands.column_ends, machine, track)


def _single_outputs(
    operands: GemmOperands, single: ColumnsAtRisk, machine: Machine, track: Track
) -> tuple[GemmValues, ColumnSurvey | None] | None:
    """Do what `fast_gemm` does where bounds of single outputs leave few to be stepped; None where they leave many."""
    shape = (operands.weights.shape[0], operands.columns.shape[1])
    accumulators = in_large_pages(shape)
    found = single.run(accumulators)
    if found is None:
        return None
    _, listed, survey = found
    events: Events = listed
    if not operands.plain and operands.weight_zero_points.any():
        events = EventArrays(listed.counts, listed.first, listed.partial)
        _finish(operands, machine, accumulators, events.counts, events.first)
    return _tracked(track, accumulators, events), survey


def _gemm_at_risk(
    operands: GemmOperands, bounds: ChannelBounds, ends: tuple[int, int], machine: Machine, track: Track
) -> tuple[GemmValues, ColumnSurvey | None]:
    """Do what `fast_gemm` does where the types alone do not prove that there are no events, or ranges are tracked."""
    weights, columns, start = operands.weights, operands.columns, bounds.start
    shape, safe = (weights.shape[0], columns.shape[1]), bounds.safe(machine, *ends)
    rows, exact = np.flatnonzero(~safe), np.flatnonzero(safe)
    asymmetric, survey, ranges = bool(operands.weight_zero_points.any()), None, None
    if track == "range":
        ranges = _running_range(operands, bounds, ends, machine)
        accumulators = ranges[2].copy() if asymmetric or rows.size else ranges[2]
    else:
        accumulators = in_large_pages(shape)
        if exact.size:
            survey = exact_sums(bounds, columns, *ends, exact, accumulators)
    none = EventArrays.none(shape)
    events, first, partial_events = none.counts, none.first, none.partial
    if asymmetric or rows.size:
        events, first = in_large_pages(shape, exact.size > 0), in_large_pages(shape)
        if exact.size:
            first.fill(-1)
        if inner_bits(machine) is not None:
            partial_events = in_large_pages(shape, True)
    if rows.size:
        _add_in_order(operands, ends, start, rows, machine, (accumulators, events, first, partial_events))
    _finish(operands, machine, accumulators, events, first)
    range_min = range_max = None
    if ranges is not None:
        range_min, range_max, unbounded = ranges
        _finish_range(operands, machine, unbounded, range_min, range_max)
    return _tracked(track, accumulators, EventArrays(events, first, partial_events), range_min, range_max), survey


def _add_in_order(
    operands: GemmOperands, ends: tuple[int, int], start: Int64, rows: Int64, machine: Machine,
    outputs: tuple[Int64, Int64, Int64, Int64],
) -> None:  # fmt: skip
    """Add in the order of the dataflow, in vectors where every value fits a lane: (13) to (16).

    Parameters
    ----------
    operands : GemmOperands
        All channels.
    ends : tuple of int
        Range of the activations.
    start : int64 array, shape (n,)
        In units of the accumulator.
    rows : int64 array
        The channels to compute.
    machine : Machine
        Dataflow, widths, overflow mode.
    outputs : tuple of int64 arrays, shape (n, p)
        Accumulators, events, numbers of the first event, events of partial registers.
    """
    tile = terms_per_addition(machine)
    inner = np.empty((0, 0), dtype=np.int64) if inner_bits(machine) is None else outputs[3]
    if machine.product_shift_bits == 0 and step_at_risk(
        operands.weights, operands.columns, ends, start, rows, machine, tile, (*outputs[:3], inner)
    ):
        return
    accumulators, events, first, partial_events = outputs
    limits = register(machine.accumulator_bits, machine.overflow)
    ordered = (operands.weights, operands.wide_columns, start, rows, product_rounding(machine), limits)
    if machine.dataflow == "output_stationary":
        accumulate_products(*ordered, accumulators, events, first)
    else:
        chained = machine.dataflow != "broadcast"
        bits = inner_bits(machine)
        partial, counted = register(bits, machine.overflow), partial_events
        if bits is None:  # nothing to count, but the kernel writes it
            counted = np.empty_like(accumulators)
        accumulate_tiles(*ordered, np.int64(tile), partial, chained, accumulators, events, first, counted)


def _running_range(
    operands: GemmOperands, bounds: ChannelBounds, ends: tuple[int, int], machine: Machine
) -> tuple[Int64, Int64, Int64]:
    """Return the least and greatest value of the unbounded running sums, and the sums; int64 arrays, shape (n, p)."""
    tile, num_positions = terms_per_addition(machine), operands.columns.shape[1]
    rest = np.arange(len(operands.weights))
    least, most, total = (in_large_pages((rest.size, num_positions)) for _ in range(3))
    if machine.product_shift_bits == 0:
        rest = step_ranges(bounds, operands.columns, ends, tile, (least, most, total))
    if rest.size:
        some = tuple(np.empty((rest.size, num_positions), dtype=np.int64) for _ in range(3))
        weights, start = np.ascontiguousarray(operands.weights[rest]), bounds.start[rest]
        running_range(weights, operands.wide_columns, start, product_rounding(machine), np.int64(tile), *some)
        for array, values in zip((least, most, total), some, strict=True):
            array[rest] = values
    return least, most, total


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
    track: Track, accumulators: Int64, events: Events, least: Int64 | None = None, most: Int64 | None = None
) -> GemmValues:
    """Keep what the tracking level asks for."""
    if track == "none":
        return GemmValues(accumulators, None)
    if track == "overflow":
        return GemmValues(accumulators, events)
    return GemmValues(accumulators, events, least, most)
