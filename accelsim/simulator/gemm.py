"""One GEMM or convolution on the grid, with everything that can be seen of it."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from accelsim.arrays import whole_number
from accelsim.errors import AccumulatorOverflowError, OperandError
from accelsim.machine import Machine
from accelsim.program.geometry import Geometry
from accelsim.simulator.counts import Toggles
from accelsim.simulator.engine.activity import Sampling, ToggleCounter, ZeroCounter, count_convolution
from accelsim.simulator.engine.convolution import run_convolution
from accelsim.simulator.engine.events import EventArrays
from accelsim.simulator.engine.exact import ColumnSurvey
from accelsim.simulator.engine.gemm import (
    TYPE_ENDS,
    EngineName,
    GemmOperands,
    GemmValues,
    Int64,
    Track,
    fast_gemm,
    run_gemm,
    step_gemm,
)
from accelsim.simulator.engine.trace import DEFAULT_LIMIT_BYTES, Range, Trace, TraceWindow
from accelsim.simulator.gemm_result import GemmAccount, GemmResult
from accelsim.simulator.operands import (
    gemm_operands,
    integer_array,
    matmul_operands,
    operand,
    start_values,
    zero_points,
)

_LONGEST_STEP = 1 << 16
"""Greatest stride, dilation and padding of a convolution."""

_ARRAYS = (
    "accumulators", "overflow_events", "first_overflow", "partial_overflow_events", "range_min", "range_max",
)  # fmt: skip
"""Of `GemmValues`."""

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
    ranges = {"trace_cycles": trace_cycles, "trace_rows": trace_rows, "trace_columns": trace_columns}
    for name, given in ranges.items():
        if given is not None and not trace:
            raise OperandError(f"{name} needs trace=True")
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
        zeros = ZeroCounter(operands.weights, 1)
        zeros.add_columns(operands.columns)
        survey = ColumnSurvey(zeros.nonzero()[0], *operands.column_ends)
    account = GemmAccount(
        machine, operands.weights.copy(), operands.weight_zero_points, num_positions, (survey.least, survey.greatest),
        survey.nonzero.reshape(1, -1),
    )  # fmt: skip
    toggles = None
    if activity:
        weights = operands.wide().weights
        counter = ToggleCounter(weights, operands.start, 1, num_positions, machine, account.widths, Sampling())
        counter.add(0, operands.wide_columns)
        toggles = counter.toggles()
    return _result(values, None, None, track, account, recorded, toggles)


def conv2d(
    activations: npt.ArrayLike,
    weights: npt.ArrayLike,
    machine: Machine | None = None,
    *,
    bias: npt.ArrayLike | None = None,
    strides: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilations: tuple[int, int] = (1, 1),
    groups: int = 1,
    weight_zero_point: npt.ArrayLike = 0,
    activation_zero_point: int = 0,
    engine: EngineName = "fast",
    track: Track = "overflow",
    activity: bool = False,
) -> GemmResult:
    """Convolve stored integers on the machine's grid; padded taps hold the activations' zero point.

    Parameters
    ----------
    activations : integer array, shape (batch, channels, height, width)
        Stored activations of at most 16 bits.
    weights : integer array, shape (n, channels / groups, kernel rows, kernel columns)
        Stored weights of at most 16 bits.
    machine : Machine, optional
        Grid, dataflow, widths; ``edge_16x16`` when left out.
    bias : integer array, shape (n,), optional
        In accumulator units.
    strides, dilations : pair of int
        (rows, columns), at least 1.
    pads : four int
        Padding at the top, left, bottom and right, at least 0.
    groups : int
        Groups of channels, run one after the other.
    weight_zero_point, activation_zero_point, engine, track, activity
        As in `matmul`.

    Returns
    -------
    GemmResult
        Arrays of shape (batch, n, rows, columns).

    Raises
    ------
    OperandError
        When an array has the wrong type, shape or values, or an option is unknown.
    AccumulatorOverflowError
        When a register overflowed and the machine's mode is ``error``.
    """
    machine = checked_machine(machine, engine, track)
    images, kernels = integer_array("activations", activations, 4), integer_array("weights", weights, 4)
    groups = whole_number("groups", groups, 1)
    geometry = _conv_geometry(images.shape, kernels.shape, strides, pads, dilations, groups)
    num_outputs = kernels.shape[0]
    ordered = kernels.transpose(0, 2, 3, 1) if machine.reduction_order == "spatial_first" else kernels
    rows = operand("weights", np.ascontiguousarray(ordered).reshape(num_outputs, -1), machine.weight_bits, kept="bh")
    stored = operand("activations", images, machine.activation_bits, kept="BbhH")
    zero_point = _activation_zero_point(activation_zero_point)
    biases = start_values(bias, num_outputs)
    weight_zeros = zero_points("weight_zero_point", weight_zero_point, num_outputs)
    per_group = num_outputs // groups
    fed, pad_value = _fed(stored, zero_point, machine)
    empty = np.empty((geometry.reduction, 0), dtype=np.int32)
    operands = [
        gemm_operands(rows[part], empty, biases[part], weight_zeros[part], zero_point, machine)
        for part in (slice(g * per_group, (g + 1) * per_group) for g in range(groups))
    ]
    level = tracking_level(track, machine)
    total = images.shape[0] * geometry.num_positions
    arrays: dict[str, Int64] = {}
    for group, begin, end, values in run_convolution(
        fed, operands, geometry, pad_value, machine, engine, level, "conv2d"
    ):
        refuse_overflow(values, machine, "conv2d")
        for name in _ARRAYS:
            part = getattr(values, name)
            if part is not None:
                whole = arrays.setdefault(name, np.empty((num_outputs, total), dtype=np.int64))
                whole[group * per_group : (group + 1) * per_group, begin:end] = part
    tracked = [arrays[name] for name in _ARRAYS[1:4] if name in arrays]
    merged = GemmValues(
        arrays["accumulators"], EventArrays(*tracked) if tracked else None, arrays.get("range_min"),
        arrays.get("range_max"),
    )  # fmt: skip
    weights_fed, zero_points_left, start = (
        np.concatenate([getattr(part, name) for part in operands])
        for name in ("weights", "weight_zero_points", "start")
    )
    zeros = ZeroCounter(weights_fed, groups, machine.reduction_order == "spatial_first")
    zeros.add_images(fed, geometry, pad_value)
    account = GemmAccount(
        machine, weights_fed, zero_points_left, total, (int(fed.min()), int(fed.max())), zeros.nonzero(),
        images.size // groups,
    )  # fmt: skip
    toggles = None
    if activity:
        counter = ToggleCounter(weights_fed.astype(np.int32), start, groups, total, machine, account.widths, Sampling())
        count_convolution(counter, fed.astype(np.int32), geometry, pad_value, "conv2d")
        toggles = counter.toggles()
    shape = (num_outputs, images.shape[0], *geometry.output_shape)
    return _result(merged, shape, (1, 0, 2, 3), track, account, None, toggles)


def _fed(stored: npt.NDArray[Any], zero_point: int, machine: Machine) -> tuple[npt.NDArray[Any], int]:
    """Return activations as the PEs multiply them and what a padded tap holds, in a narrow type where both fit one."""
    low, high = TYPE_ENDS[stored.dtype.char]
    if machine.zero_point == "folded":
        return stored if low <= zero_point <= high else stored.astype(np.int32), zero_point
    if zero_point == 0:
        return stored, 0
    least, greatest = TYPE_ENDS["h"]
    fits = least <= low - zero_point and high - zero_point <= greatest
    return np.subtract(stored, zero_point, dtype=np.int32).astype(np.int16 if fits else np.int32, copy=False), 0


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


def _activation_zero_point(value: int) -> int:
    return int(zero_points("activation_zero_point", value, 1)[0])


def _window_part(name: str, values: Any, count: int, least: int) -> tuple[Any, ...]:
    """Return strides, dilations or pads as ints; raise OperandError for anything else."""
    try:
        if len(values) == count:
            return tuple(whole_number(name, value, least, _LONGEST_STEP) for value in values)
    except (TypeError, OperandError):
        pass
    raise OperandError(
        f"{name} must be {count} whole numbers of at least {least} and at most {_LONGEST_STEP}, got {values!r}"
    )


def _conv_geometry(
    images: tuple[int, ...],
    kernels: tuple[int, ...],
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilations: tuple[int, int],
    groups: int,
) -> Geometry:
    """Return the convolution's geometry; raise OperandError where it has none."""
    strides = _window_part("strides", strides, 2, 1)
    dilations = _window_part("dilations", dilations, 2, 1)
    pads = _window_part("pads", pads, 4, 0)
    channels, height, width = images[1:]
    num_outputs, group_channels, *kernel = kernels
    if channels != group_channels * groups or num_outputs % groups:
        raise OperandError(
            f"weights {kernels} do not fit {channels} channels in {groups} groups: need shape "
            f"(a multiple of {groups}, {channels / groups:g}, rows, columns)"
        )
    output = tuple(
        Geometry.convolved(length, kernel[axis], strides[axis], pads[axis], pads[axis + 2], dilations[axis])
        for axis, length in enumerate((height, width))
    )
    if min(output) < 1:
        raise OperandError(f"a kernel of {tuple(kernel)} does not fit {height}x{width} with pads {pads}")
    return Geometry.of((channels, height, width), tuple(kernel), strides, pads, dilations, output, groups)


def _result(
    values: GemmValues,
    shape: tuple[int, ...] | None,
    axes: tuple[int, ...] | None,
    track: Track,
    account: GemmAccount,
    trace: Trace | None,
    toggles: Toggles | None,
) -> GemmResult:
    """Shape the values, where a shape is given, and keep what was asked for."""

    def shaped(array: Int64 | None) -> Any:
        return array if array is None or shape is None else np.ascontiguousarray(array.reshape(shape).transpose(axes))

    events = values.events if track != "none" else None
    if events is not None and shape is not None:
        events = EventArrays(shaped(events.counts), shaped(events.first), shaped(events.partial))
    return GemmResult(
        shaped(values.accumulators), events, shaped(values.range_min), shaped(values.range_max), account, trace, toggles
    )
