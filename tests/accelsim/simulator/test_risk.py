"""Single outputs that cannot overflow are not stepped, and nobody can tell: docs/numerics.md (103) to (105)."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.simulator.engine import gemm as engine
from accelsim.simulator.engine.bounds import ChannelBounds
from accelsim.simulator.engine.risk import OutputBounds, _group_bounds, groups_at_risk
from tests.accelsim.simulator.gemm_cases import DATAFLOWS, assert_equal
from tests.naive import gemm as naive

FIELDS = ("accumulators", "overflow_events", "first_overflow", "partial_overflow_events")
operands = st.integers(-(2**16), 2**16) | st.sampled_from([-(2**16), 2**16, -128, 127, 255, 0, 1, -1])


def bounds_of(weights, starts, activations, machine):
    start = np.array(starts, dtype=np.int64)
    bounds = ChannelBounds(np.array(weights, dtype=np.int32), start, np.zeros_like(start))
    columns = np.array(activations, dtype=np.int32)
    return OutputBounds.of(bounds, np.arange(start.size), (int(columns.min()), int(columns.max())), machine), columns


@given(
    row=st.lists(operands, min_size=1, max_size=40),
    data=st.data(),
    slack=st.integers(-2, 2),
    bits=st.integers(4, 40),
    inner=st.none() | st.integers(4, 40),
    side=st.sampled_from([1, -1]),
    dataflow=st.sampled_from(DATAFLOWS),
)
@example(row=[-128, 127] * 9, data=None, slack=0, bits=24, inner=24, side=1, dataflow="broadcast")
@example(row=[2**16] * 3, data=None, slack=0, bits=34, inner=35, side=-1, dataflow="weight_stationary")
@example(row=[2**16] * 3, data=None, slack=-1, bits=34, inner=34, side=1, dataflow="input_stationary")
def test_an_output_is_taken_for_safe_exactly_when_the_worst_order_fits(row, data, slack, bits, inner, side, dataflow):
    column = [-(2**16)] * len(row)
    if data is not None:
        column = data.draw(st.lists(operands, min_size=len(row), max_size=len(row)))
    products = [w * x for w, x in zip(row, column, strict=True)]
    over, under = sum(m for m in products if m > 0), sum(m for m in products if m < 0)
    # The worst orders add all of one sign first; the start is put beside the value at which that just fits.
    start = 2 ** (bits - 1) - 1 - over + slack if side > 0 else -(2 ** (bits - 1)) - under + slack
    machine = ax.Machine(
        dataflow=dataflow, accumulator_bits=bits, partial_sum_bits=inner, adder_tree_bits=inner
    )  # fmt: skip
    single, columns = bounds_of([row], [start], [[x] for x in column], machine)
    fits = -(2 ** (bits - 1)) <= start + under and start + over < 2 ** (bits - 1)
    if inner is not None and dataflow != "output_stationary":
        fits = fits and -(2 ** (inner - 1)) <= under and over < 2 ** (inner - 1)
    found = single.outputs_at_risk(columns, np.arange(1), np.array([[start + sum(products)]]))
    assert found.marks.tolist() == [[not fits]]
    assert _group_bounds(single.bounds.weights, columns, single.ends)[0, 0] >= max(over, -under)
    if fits is False and single.positions_left(columns) is not None:
        assert single.positions_left(columns).tolist() == [0]


@given(marks=st.integers(1, 30).flatmap(lambda n: st.lists(st.lists(st.booleans(), min_size=9, max_size=9),
                                                             min_size=n, max_size=n)),
       reduction=st.sampled_from([1, 10**5, 10**9]))  # fmt: skip
def test_every_marked_output_is_in_one_group(marks, reduction):
    marks = np.array(marks)
    seen = np.zeros(marks.shape, dtype=int)
    for channels, positions in groups_at_risk(marks, reduction):
        assert positions.size > 0
        seen[np.ix_(channels, positions)] += 1
    assert seen.max() <= 1
    assert (seen[marks] == 1).all()


def few_at_risk(signed, positions):
    """Small activations, and some large ones at few positions."""
    rng = np.random.default_rng(positions)
    weights = rng.integers(-128, 128, (8, 37))
    weights[6:] //= 16
    activations = rng.integers(-8 if signed else 0, 8, (37, positions))
    large = rng.choice(positions, positions // 20, replace=False)
    activations[:, large] = rng.integers(-128 if signed else 0, 128 if signed else 256, (37, large.size))
    return weights, activations


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_few_outputs_at_risk_equal_the_oracle(dataflow, overflow, signed):
    weights, activations = few_at_risk(signed, 60)
    bits = 15 if signed else 17
    for inner in (None, bits - 1):
        machine = ax.Machine(
            rows=4, columns=4, dataflow=dataflow, accumulator_bits=bits, overflow=overflow, partial_sum_bits=inner,
            adder_tree_bits=inner,
        )  # fmt: skip
        bias, zeros = list(range(-4, 4)), [0, 1, 0, 0, 3, 0, -2, 0]
        expected = naive.gemm(
            weights.tolist(),
            activations.tolist(),
            machine,
            bias=bias,
            weight_zero_points=zeros,
            activation_zero_point=1,
        )
        result = ax.matmul(
            weights, activations, machine, bias=bias, weight_zero_point=zeros, activation_zero_point=1, track="overflow"
        )
        assert_equal(result, expected, "overflow")
        assert 0 < np.count_nonzero(result.overflow_events) < result.overflow_events.size // 4


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_stepping_only_what_is_at_risk_changes_nothing(dataflow, overflow, signed, monkeypatch):
    weights, activations = few_at_risk(signed, 700)
    bits = 16 if signed else 18
    machine = ax.Machine(
        rows=8, columns=8, dataflow=dataflow, accumulator_bits=bits, overflow=overflow, partial_sum_bits=bits - 2,
        adder_tree_bits=bits - 2,
    )  # fmt: skip
    stepped, step = [], engine._step_outputs

    def counted(*arguments):
        stepped.append(np.count_nonzero(arguments[3].marks))
        step(*arguments)

    monkeypatch.setattr(engine, "_step_outputs", counted)
    some = ax.matmul(weights, activations, machine, track="overflow")
    assert len(stepped) == 1
    assert 0 < stepped[0] < 8 * 700 / 10
    monkeypatch.setattr(OutputBounds, "positions_left", lambda *arguments: None)
    everything = ax.matmul(weights, activations, machine, track="overflow")
    assert len(stepped) == 1
    for field in FIELDS:
        assert np.array_equal(getattr(some, field), getattr(everything, field)), field
    assert some.overflow_events.any() or some.partial_overflow_events.any()


def test_where_most_outputs_are_at_risk_all_are_stepped():
    rng = np.random.default_rng(0)
    weights, activations = rng.integers(-127, 128, (4, 30)), rng.integers(0, 256, (30, 600))
    single, columns = bounds_of(weights, [0] * 4, activations, ax.Machine(accumulator_bits=12))
    assert single.positions_left(columns) is None


def test_truncated_products_and_wide_operands_are_left_alone():
    for machine, value in ((ax.Machine(product_shift_bits=1), 1), (ax.Machine(accumulator_bits=8), 2**16 + 1)):
        single, columns = bounds_of([[value]], [0], [[1]], machine)
        assert single.positions_left(columns) is None
