"""What the cycle viewer is told: where every PE is in every cycle, and a trace that survives its packing."""

import base64
import itertools
import json
import re
import zlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.data import digits_model_path, load_digits
from accelsim.report.folds import ADDING, IDLE, MULTIPLYING, OVERFLOWED, UNUSED, folds, states
from accelsim.report.html.cycles import (
    EDGE_ADDED,
    EDGE_OVERFLOWED,
    EMBEDDED_TRACE_BYTES,
    MOST_PES,
    TREE_OVERFLOWED,
    CycleView,
    packed,
    page_window,
)
from accelsim.simulator.tracing import trace_layer
from tests.accelsim.simulator.gemm_cases import DATAFLOWS, machines


def traced(machine, shape, seed=0, **window):
    """Run a GEMM without a single zero operand: a PE multiplies where the trace has two operands."""
    n, k, p = shape
    random = np.random.default_rng(seed)
    weights = random.integers(1, 128, (n, k)) * random.choice([-1, 1], (n, k))
    return ax.matmul(weights, random.integers(1, 256, (k, p)), machine, engine="stepped", trace=True, **window)


def unpacked(plane):
    return np.frombuffer(
        zlib.decompress(base64.b64decode(plane["data"])), dtype=np.dtype(plane["type"]).newbyteorder("<")
    )


shapes = st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(1, 9))


@given(machines(zero_point="folded"), shapes)
@example(ax.Machine(rows=4, columns=4, ragged_folds="full", pe_latency_cycles=3), (6, 10, 6))
def test_pes_multiply_where_the_trace_has_operands(machine, shape):
    trace = traced(machine, shape).trace
    found = states(trace, shape, machine)
    working = (found & MULTIPLYING) == MULTIPLYING
    assert np.array_equal(working, (trace.weights != 0) & (trace.activations != 0))
    assert np.count_nonzero(working) == shape[0] * shape[1] * shape[2]
    assert np.array_equal((found & OVERFLOWED) != 0, trace.overflow)


@given(machines(zero_point="folded"), shapes)
def test_folds_are_those_of_the_trace(machine, shape):
    trace = traced(machine, shape).trace
    planned = list(folds(shape, machine))
    assert [fold.index for fold in planned] == list(range(len(planned)))
    assert np.array_equal(np.repeat([f.index for f in planned], [f.num_cycles for f in planned]), trace.fold)
    assert all(a.first_cycle + a.num_cycles == b.first_cycle for a, b in itertools.pairwise(planned))
    view = CycleView.of(traced(machine, shape), machine)
    assert view.shape == shape
    assert view.payload()["num_folds"] == len(planned)
    assert view.num_cycles == len(trace.fold)


@given(machines(zero_point="folded"), shapes)
def test_a_pipelined_pe_adds_what_it_made(machine, shape):
    trace = traced(machine, shape).trace
    found = states(trace, shape, machine) & MULTIPLYING
    delay = machine.pe_latency_cycles - 1
    for fold in folds(shape, machine):
        part = found[fold.first_cycle : fold.first_cycle + fold.num_cycles]
        made = part == MULTIPLYING
        added = np.zeros_like(made)
        added[delay:] = made[: len(made) - delay]
        assert np.array_equal(part >= ADDING, made | added)
        # Whoever works in a fold is in use throughout, and whoever does not is unused throughout.
        assert np.array_equal((part != UNUSED).any(axis=0), (part != UNUSED).all(axis=0))
        assert np.array_equal((part != UNUSED).all(axis=0), made.any(axis=0))
        assert set(np.unique(part)) <= {UNUSED, IDLE, ADDING, MULTIPLYING}


@given(machines(zero_point="folded"), shapes)
def test_additions_at_the_edge(machine, shape):
    result = traced(machine, shape)
    trace, (n, k, p) = result.trace, shape
    planes = CycleView.of(result, machine).payload()["planes"]
    if machine.dataflow == "output_stationary":
        assert "edge" not in planes
        return
    edge_states = unpacked(planes["edge_states"]).reshape(len(trace.fold), -1)
    added = (edge_states & EDGE_ADDED) != 0
    per_addition = machine.columns if machine.dataflow == "broadcast" else machine.rows
    assert np.count_nonzero(added) == n * p * -(-k // per_addition)
    values = trace.row_accumulators if machine.dataflow == "broadcast" else trace.column_accumulators
    over = trace.row_overflow if machine.dataflow == "broadcast" else trace.column_overflow
    assert np.array_equal(unpacked(planes["edge"]).reshape(values.shape), values)
    assert np.array_equal((edge_states & EDGE_OVERFLOWED) != 0, over)
    assert not (over & ~added).any()
    if machine.dataflow == "broadcast":
        assert np.array_equal((edge_states & TREE_OVERFLOWED) != 0, trace.tree_overflow)
    else:
        assert not values[~added].any()


@given(st.data(), machines(zero_point="folded"), shapes)
def test_a_window_shows_a_part_of_the_whole(data, machine, shape):
    whole = traced(machine, shape)
    length = len(whole.trace.fold)

    def part(size):
        begin = data.draw(st.integers(0, size - 1))
        return begin, data.draw(st.integers(begin + 1, size))

    cycles, rows, columns = part(length), part(machine.rows), part(machine.columns)
    window = {"trace_cycles": cycles, "trace_rows": rows, "trace_columns": columns}
    some = CycleView.of(traced(machine, shape, **window), machine)
    all_of_it = CycleView.of(whole, machine)
    cut = tuple(slice(*limits) for limits in (cycles, rows, columns))
    for name, plane in some.payload()["planes"].items():
        full = unpacked(all_of_it.payload()["planes"][name])
        edge = machine.rows if machine.dataflow == "broadcast" else machine.columns
        if name.startswith("edge"):
            wanted = full.reshape(length, edge)[cut[0], cut[1] if machine.dataflow == "broadcast" else cut[2]]
        else:
            wanted = full.reshape(length, machine.rows, machine.columns)[cut]
        assert np.array_equal(unpacked(plane), wanted.reshape(-1)), name


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-200, 200), max_size=20).map(
        lambda values: np.array(values, dtype=np.int64)
    )
)
@example(np.array([-128, 127]))
@example(np.array([128]))
@example(np.array([-(2**63), 2**63 - 1]))
def test_packing_keeps_every_value(values):
    plane = packed(values)
    assert unpacked(plane).tolist() == values.tolist()
    widths = {"int8": 7, "int16": 15, "int32": 31, "int64": 63}
    needed = max(((v if v >= 0 else -v - 1).bit_length() for v in values.tolist()), default=0)
    assert plane["type"] == next(name for name, bits in widths.items() if needed <= bits)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_too_much_for_a_page_names_a_window_that_fits(dataflow):
    machine = ax.Machine(rows=16, columns=16, dataflow=dataflow)
    shape = (16, 12000, 16) if dataflow in ("output_stationary", "broadcast") else (12000, 16, 12000)
    window = page_window(shape, machine)
    assert window.num_bytes(machine) <= EMBEDDED_TRACE_BYTES < window.num_bytes(machine) + 10_000
    with pytest.raises(ax.OperandError, match="larger than a page shows") as refused:
        page_window(shape, machine, cycles=(0, window.cycles[1] + 1))
    named = dict(re.findall(r"(\w+) (\d+:\d+)", str(refused.value)))
    asked = {name: tuple(map(int, text.split(":"))) for name, text in named.items()}
    assert page_window(shape, machine, **asked) == window
    page_window(shape, machine, cycles=(5, 9))


def test_a_wide_grid_is_shown_in_part():
    machine = ax.Machine(rows=128, columns=256)
    window = page_window((300, 10, 300), machine)
    assert (window.rows, window.columns) == ((0, 32), (0, 32))
    with pytest.raises(ax.OperandError, match=r"32,768 PEs \(at most 4,096\)"):
        page_window((300, 10, 300), machine, rows=(0, 128), columns=(0, 256))
    assert page_window((300, 10, 300), machine, rows=(0, 16), columns=(0, 256)).shape[1:] == (16, 256)
    assert MOST_PES == 16 * 256
    result = ax.matmul(
        np.ones((2, 3), int), np.ones((3, 2), int), machine, engine="stepped", trace=True, trace_cycles=(0, 1)
    )
    with pytest.raises(ax.OperandError, match=r"trace_cycles=\(0, 1\), trace_rows=\(0, 16\), trace_columns=\(0, 256\)"):
        CycleView.of(result, machine)


def test_what_has_no_trace_cannot_be_stepped_through():
    machine = ax.Machine(rows=2, columns=2)
    with pytest.raises(ax.OperandError, match="needs a trace: run matmul with engine='stepped', trace=True"):
        CycleView.of(ax.matmul([[1]], [[2]], machine), machine)
    convolved = ax.conv2d(np.ones((1, 1, 3, 3), int), np.ones((1, 1, 2, 2), int), machine)
    with pytest.raises(ax.OperandError, match="needs a trace"):
        CycleView.of(convolved, machine)


def test_products_that_are_rounded_come_with_the_trace():
    machine = ax.Machine(rows=2, columns=2, product_shift_bits=2, product_rounding="floor")
    result = ax.matmul([[3, -5]], [[7], [9]], machine, engine="stepped", trace=True)
    products = unpacked(CycleView.of(result, machine).payload()["planes"]["products"])
    assert products.tolist()[::4][:2] == [21 // 4, -45 // 4]
    assert "products" not in CycleView.of(result, machine.replace(product_shift_bits=0)).payload()["planes"]


@pytest.mark.slow
def test_a_group_of_a_layer_has_its_name():
    digits = ax.load_onnx(digits_model_path())
    images = load_digits().x_calibration[:16]
    machine = ax.Machine(rows=4, columns=4)
    quantized = ax.quantize(digits, calibration=images, config=ax.PTQConfig(per_channel=True))
    found = trace_layer(quantized, images, "separable1_depthwise_conv", machine, group=3, trace_cycles=(0, 50))
    view = CycleView.of(found, machine)
    assert view.name == "separable1_depthwise_conv, group 3 of 16"
    assert view.shape == (1, 9, 64)
    payload = json.loads(json.dumps(view.payload()))
    assert payload["window"] == {"cycles": [0, 50], "rows": [0, 4], "columns": [0, 4]}
    weights = unpacked(payload["planes"]["weights"]).reshape(50, 4, 4)
    assert np.array_equal(weights, found.result.trace.weights)
