"""The trace of the stepped grid against a walk over every PE: docs/timing.md (5) to (8), docs/trace.md."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import accelsim as ax
from tests.accelsim.simulator.gemm_cases import DATAFLOWS, Gemm, gemms, machines
from tests.naive import gemm as naive
from tests.naive import timing
from tests.naive.integers import Register

SMALLEST = Gemm([[3]], [[-4]], [5], [0], 0)
RAGGED = Gemm([[1, -2, 3]] * 3, [[2, 5, -1]] * 3, [100, -100, 0], [0, 0, 0], 0)


def kept(fold, operand):
    """What the PEs of a fold keep, {(i, j): value}."""
    return {(i, j): operand(k, other) for i, k in enumerate(fold.rows) for j, other in enumerate(fold.columns)}


@pytest.mark.parametrize("ragged_folds", ["used", "full"])
@pytest.mark.parametrize("dataflow", DATAFLOWS)
@given(data=st.data(), gemm=gemms())
@example(data=None, gemm=SMALLEST)
@example(data=None, gemm=RAGGED)
def test_every_register_of_every_cycle_is_that_of_the_walk(dataflow, ragged_folds, data, gemm):
    if data is None:
        machine = ax.Machine(
            rows=2, columns=2, dataflow=dataflow, accumulator_bits=6, partial_sum_bits=5, adder_tree_bits=5,
            overflow="saturate", ragged_folds=ragged_folds,
        )  # fmt: skip
    else:
        machine = data.draw(machines(dataflow, ragged_folds=ragged_folds))
    positional, named = gemm.arguments()
    result = ax.matmul(*positional, machine, **named, engine="stepped", trace=True)

    weights, activations, starts = gemm.weights, gemm.activations, []
    for row, b, z_w in zip(weights, gemm.bias, gemm.weight_zero_points, strict=True):
        start = naive.terms(row, [0] * len(row), b, z_w, gemm.activation_zero_point, machine.zero_point)[1]
        starts.append(start)
    if machine.zero_point == "at_input":
        weights = [[w - z for w in row] for row, z in zip(weights, gemm.weight_zero_points, strict=True)]
        activations = [[x - gemm.activation_zero_point for x in row] for row in activations]
    cycles, _ = timing.trace(weights, activations, starts, machine)
    folds = timing.folds(len(weights), len(activations), len(activations[0]), machine)

    trace = result.trace
    assert len(cycles) == result.cycles.multiply
    assert trace.fold.tolist() == [cycle.fold for cycle in cycles]
    for recorded in (trace.accumulators, trace.weights, trace.activations):
        assert recorded.shape == (len(cycles), machine.rows, machine.columns)
        assert recorded.dtype == np.int64
    for t, cycle in enumerate(cycles):
        for (i, j), value in cycle.accumulators.items():
            assert trace.accumulators[t, i, j] == value, (t, i, j)
        used = {"weights": cycle.weights, "activations": cycle.activations}
        if dataflow == "weight_stationary":  # it stays in its PE through the whole fold, also in a bubble
            used["weights"] = kept(folds[cycle.fold], lambda k, n: weights[n][k])
        elif dataflow == "input_stationary":
            used["activations"] = kept(folds[cycle.fold], lambda k, p: activations[k][p])
        for name, places in used.items():
            operands = np.zeros((machine.rows, machine.columns), dtype=np.int64)
            for place, value in places.items():
                operands[place] = value
            assert np.array_equal(getattr(trace, name)[t], operands), (name, t)
    shape = (len(cycles), machine.rows, machine.columns)
    assert np.array_equal(trace.overflow, planes([cycle.overflow for cycle in cycles], shape))
    assert trace.overflow.dtype == np.bool_
    edges = {"row": machine.rows, "tree": machine.rows, "column": machine.columns}
    shown = {"broadcast": {"row", "tree"}, "output_stationary": set()}.get(dataflow, {"column"})
    for edge, size in edges.items():
        marks = getattr(trace, f"{edge}_overflow")
        if edge not in shown:
            assert marks is None
            assert edge == "tree" or getattr(trace, f"{edge}_accumulators") is None
            continue
        expected = [getattr(cycle, f"{edge}_overflow") for cycle in cycles]
        assert np.array_equal(marks, planes(expected, (len(cycles), size)))
        if edge != "tree":
            values = np.zeros((len(cycles), size), dtype=np.int64)
            for t, cycle in enumerate(cycles):
                for place, value in getattr(cycle, f"{edge}_accumulators").items():
                    values[t, place] = value
            assert np.array_equal(getattr(trace, f"{edge}_accumulators"), values)
    everything = [c.overflow | c.row_overflow | c.tree_overflow | c.column_overflow for c in cycles]
    assert trace.overflowed().tolist() == [bool(places) for places in everything]


def planes(places, shape):
    """True at the places of each cycle."""
    marks = np.zeros(shape, dtype=bool)
    for t, cycle in enumerate(places):
        for place in cycle:
            marks[(t, *np.atleast_1d(place))] = True
    return marks


@given(data=st.data(), gemm=gemms(), machine=machines())
def test_a_window_is_that_part_of_the_whole(data, gemm, machine):
    positional, named = gemm.arguments()
    whole = ax.matmul(*positional, machine, **named, engine="stepped", trace=True)
    windows = []
    for size in whole.trace.accumulators.shape:
        begin = data.draw(st.integers(0, size - 1))
        windows.append(data.draw(st.none() | st.tuples(st.just(begin), st.integers(begin + 1, size))))
    cycles, rows, columns = windows
    part = ax.matmul(
        *positional, machine, **named, engine="stepped", trace=True, trace_cycles=cycles, trace_rows=rows,
        trace_columns=columns,
    )  # fmt: skip
    first = [0 if window is None else window[0] for window in windows]
    assert [part.trace.first_cycle, part.trace.first_row, part.trace.first_column] == first
    t, i, j = (slice(None) if window is None else slice(*window) for window in windows)
    for name in ("accumulators", "weights", "activations", "overflow"):
        assert np.array_equal(getattr(part.trace, name), getattr(whole.trace, name)[t, i, j]), name
    assert np.array_equal(part.trace.fold, whole.trace.fold[t])
    edges = {
        "row_accumulators": i,
        "row_overflow": i,
        "tree_overflow": i,
        "column_accumulators": j,
        "column_overflow": j,
    }
    for name, place in edges.items():
        if getattr(whole.trace, name) is None:
            assert getattr(part.trace, name) is None
        else:
            assert np.array_equal(getattr(part.trace, name), getattr(whole.trace, name)[t, place]), name
    assert np.array_equal(part.accumulators, whole.accumulators)


def load_events(gemm, machine):
    """Events of the start values, one for each output of a channel whose start value does not fit."""
    register = Register(machine.accumulator_bits, machine.overflow)
    for row, b in zip(gemm.weights, gemm.bias, strict=True):
        start = naive.terms(row, [0] * len(row), b, 0, gemm.activation_zero_point, machine.zero_point)[1]
        register.ov(naive.truncated(start, machine))
    return register.events * len(gemm.activations[0])


@given(gemm=gemms(), machine=machines())
def test_the_marks_are_the_events(gemm, machine):
    """docs/trace.md (1) to (4), summed up; loads and row sums happen outside of the multiply cycles."""
    positional, named = gemm.arguments()
    named["weight_zero_point"] = 0
    result = ax.matmul(*positional, machine, **named, engine="stepped", trace=True)
    trace = result.trace
    loads = load_events(gemm, machine)
    match machine.dataflow:
        case "output_stationary":
            assert trace.overflow.sum() == result.overflow_events.sum() - loads
        case "broadcast":
            assert not trace.overflow.any()
            assert trace.tree_overflow.sum() == result.partial_overflow_events.sum()
            assert trace.row_overflow.sum() == result.overflow_events.sum() - loads
        case _:
            assert trace.overflow.sum() == result.partial_overflow_events.sum()
            assert trace.column_overflow.sum() == result.overflow_events.sum() - loads


@given(gemm=gemms(), machine=machines())
def test_a_trace_changes_nothing_else(gemm, machine):
    positional, named = gemm.arguments()
    plain = ax.matmul(*positional, machine, **named, engine="stepped", track="range")
    traced = ax.matmul(*positional, machine, **named, engine="stepped", track="range", trace=True)
    for name in (
        "accumulators",
        "overflow_events",
        "first_overflow",
        "partial_overflow_events",
        "range_min",
        "range_max",
    ):
        assert np.array_equal(getattr(plain, name), getattr(traced, name))
    assert plain.cycles == traced.cycles


def test_output_stationary_accumulators_follow_the_skew_over_two_folds():
    # (5) written out: PE (i, j) has added min(max(t - i - j + 1, 0), K) terms after the cycle with index t.
    weights, activations = np.array([[1, 2, 4]] * 2), np.array([[1, 10, 100]] * 3)
    machine = ax.Machine(rows=2, columns=2, dataflow="output_stationary")
    result = ax.matmul(weights, activations, machine, bias=np.array([1000, 2000]), engine="stepped", trace=True)
    sums = [0, 1, 3, 7]
    cycle = 0
    for positions, length in (((0, 1), 5), ((2,), 4)):  # the second fold uses one row only, and one cycle less
        for t in range(length):
            for i, p in enumerate(positions):
                for j, bias in enumerate((1000, 2000)):
                    added = min(max(t - i - j + 1, 0), 3)
                    assert result.trace.accumulators[cycle, i, j] == bias + sums[added] * 10**p
            cycle += 1
    assert cycle == result.cycles.multiply
