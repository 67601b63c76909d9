"""One GEMM on the grid, with everything that can be seen of it."""

from __future__ import annotations

from functools import cache
from typing import get_args

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccumulatorOverflowError, OperandError
from accelsim.machine import Machine
from accelsim.simulator.engine.activity import Sampling, ToggleCounter
from accelsim.simulator.engine.exact import ColumnSurvey
from accelsim.simulator.engine.gemm import EngineName, Track, fast_gemm, run_gemm, step_gemm
from accelsim.simulator.engine.gemm_operands import GemmOperands, GemmValues
from accelsim.simulator.engine.nonzero_weights import NonzeroWeights
from accelsim.simulator.engine.trace import DEFAULT_LIMIT_BYTES, Range, Trace, TraceWindow
from accelsim.simulator.engine.zeros import ZeroCounter
from accelsim.simulator.gemm_result import GemmAccount, GemmResult
from accelsim.simulator.operands import is_zero, matmul_operands
from accelsim.simulator.plain_products import plain_product

_KNOWN = {"engine": get_args(EngineName), "track": get_args(Track)}


def matmul(
    weights: npt.ArrayLike,
    activations: npt.ArrayLike,
    machine: Machine | None = None,
    *,
    bias: npt.ArrayLike | None = None,
    weight_zero_point: npt.ArrayLike = 0,
    activation_zero_point: int = 0,
    engine: EngineName = "fast",
    track: Track = "overflow",
    trace: bool = False,
    trace_cycles: Range | None = None,
    trace_rows: Range | None = None,
    trace_columns: Range | None = None,
    trace_limit_bytes: int = DEFAULT_LIMIT_BYTES,
    activity: bool = False,
) -> GemmResult:
    """Compute ``Y[n, p] = b[n] + Σ_k (W[n, k] - z_w) (X[k, p] - z_x)`` on the machine's grid.

    Parameters
    ----------
    weights : integer array, shape (n, k)
        Stored weights of at most 16 bits.
    activations : integer array, shape (k, p)
        Stored activations of at most 16 bits.
    machine : Machine, optional
        Grid, dataflow, widths; ``edge_16x16`` when left out.
    bias : integer array, shape (n,), optional
        In accumulator units.
    weight_zero_point : int or integer array, shape (n,)
        z_w.
    activation_zero_point : int
        z_x.
    engine : {"fast", "stepped"}
        ``stepped`` moves every register in every cycle; both return the same.
    track : {"overflow", "none", "range"}
        What is recorded per output.
    trace : bool
        Record all registers; needs the stepped engine.
    trace_cycles, trace_rows, trace_columns : pair of int, optional
        Record these alone: the first and the one after the last. Cycles count from 0, the first one of multiplication.
    trace_limit_bytes : int
        Memory that the trace may take, checked before the run.
    activity : bool
        Count the bit toggles of the PEs' registers, docs/energy.md section 4.

    Returns
    -------
    GemmResult
        Arrays of shape (n, p).

    Raises
    ------
    OperandError
        When an array has the wrong type, shape or values, an option is unknown, or a trace would take too much memory.
    AccumulatorOverflowError
        When a register overflowed and the machine's mode is ``error``.

    Examples
    --------
    >>> machine = Machine(rows=2, columns=2, accumulator_bits=8, overflow="saturate")
    >>> matmul([[100, 100, -100]], [[1], [1], [1]], machine).accumulators
    array([[27]])
    """
    machine = checked_machine(machine, engine, track)
    if trace and engine != "stepped":
        raise OperandError(f"trace=True needs engine='stepped', got {engine!r}")
    if not trace and not trace_cycles is trace_rows is trace_columns is None:
        ranges = {"trace_cycles": trace_cycles, "trace_rows": trace_rows, "trace_columns": trace_columns}
        raise OperandError(f"{next(name for name, given in ranges.items() if given is not None)} needs trace=True")
    zeros = bias is None and is_zero(weight_zero_point) and is_zero(activation_zero_point)
    if zeros and engine == "fast" and track != "range" and not activity:
        plain = plain_product(weights, activations, machine, track == "overflow")
        if plain is not None:
            return plain
    operands = matmul_operands(weights, activations, machine, bias, weight_zero_point, activation_zero_point)
    window = None
    if trace:
        shape = (*operands.weights.shape, operands.columns.shape[1])
        window = TraceWindow.of(shape, machine, trace_cycles, trace_rows, trace_columns, trace_limit_bytes)
    return run_operands(operands, machine, engine, track, window, "matmul", activity)


def run_operands(
    operands: GemmOperands,
    machine: Machine,
    engine: EngineName,
    track: Track,
    window: TraceWindow | None,
    where: str,
    activity: bool = False,
) -> GemmResult:
    """Run a GEMM whose operands are in the grid's form.

    Parameters
    ----------
    operands : GemmOperands
        Checked operands.
    machine, engine, track
        As in `matmul`.
    window : TraceWindow or None
        What the stepped engine records.
    where : str
        Named in errors.
    activity : bool
        Count bit toggles.

    Returns
    -------
    GemmResult
        Arrays of shape (n, p).

    Raises
    ------
    AccumulatorOverflowError
        When a register overflowed and the machine's mode is ``error``.
    """
    recorded: Trace | None = None
    survey: ColumnSurvey | None = None
    level = tracking_level(track, machine)
    if window is not None:
        values, _, recorded = step_gemm(operands, machine, level, window)
    elif engine == "fast":
        values, survey = fast_gemm(operands, machine, level)
    else:
        values = run_gemm(operands, machine, engine, level)
    refuse_overflow(values, machine, where)
    num_positions = operands.columns.shape[1]
    if survey is None:
        zeros = ZeroCounter(NonzeroWeights.of(operands.weights, 1))
        zeros.add_columns(operands.columns)
        survey = ColumnSurvey(zeros.nonzero()[0], *operands.column_ends)
    account = GemmAccount(
        machine, operands.weights.copy(), operands.weight_zero_points, num_positions, (survey.least, survey.greatest),
        survey.nonzero[None],
    )  # fmt: skip
    toggles = None
    if activity:
        weights = operands.wide().weights
        counter = ToggleCounter(weights, operands.start, 1, num_positions, machine, account.widths, Sampling())
        counter.add(0, operands.wide_columns)
        toggles = counter.toggles()
    events = values.events if track != "none" else None
    return GemmResult(values.accumulators, events, values.range_min, values.range_max, account, recorded, toggles)


def refuse_overflow(values: GemmValues, machine: Machine, where: str) -> None:
    """Raise AccumulatorOverflowError where the machine's mode is ``error`` and an event was counted, (12)."""
    if machine.overflow != "error":
        return
    if values.events is None:
        return
    events, outputs, partial = values.events.totals()
    if events:
        n, p = (int(index) for index in np.argwhere(values.events.counts)[0])
        raise AccumulatorOverflowError(
            f"{where}: {events} accumulator overflow events in {outputs} outputs of {machine.accumulator_bits} bits, "
            f"the first at channel {n}, position {p}, addition {values.events.first[n, p]}; "
            f"use more accumulator_bits, or overflow='wrap' or 'saturate'"
        )
    if not partial:
        return
    register = "adder_tree_bits" if machine.dataflow == "broadcast" else "partial_sum_bits"
    raise AccumulatorOverflowError(
        f"{where}: {partial} overflow events at {register} = {getattr(machine, register)}; "
        f"use more bits, or overflow='wrap' or 'saturate'"
    )


def checked_machine(machine: Machine | None, engine: str, track: str) -> Machine:
    """Return the machine, the default where there is none, after checking the names of engine and tracking level."""
    for name, value in (("engine", engine), ("track", track)):
        if value not in _KNOWN[name]:
            raise OperandError(f"{name} must be one of {', '.join(_KNOWN[name])}, got {value!r}")
    if machine is None:
        return _default_machine()
    if not isinstance(machine, Machine):
        raise OperandError(f"machine must be a Machine, got {machine!r}; Machine.preset and Machine.load make one")
    return machine


@cache
def _default_machine() -> Machine:
    """Read the default machine once."""
    return Machine.preset("edge_16x16")


def tracking_level(track: Track, machine: Machine) -> Track:
    """Return the level to track at: ``error`` must count events."""
    return "overflow" if machine.overflow == "error" and track == "none" else track
