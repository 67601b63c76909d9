"""Cycles: docs/timing.md, in closed form, walked and stepped."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import accelsim as ax
from tests.accelsim.simulator.gemm_cases import DATAFLOWS, machines
from tests.accelsim.simulator.stepping import counted_steps
from tests.naive import timing

sizes = st.integers(1, 70)


@pytest.mark.parametrize("double_buffered", [False, True])
@pytest.mark.parametrize("ragged_folds", ["used", "full"])
@pytest.mark.parametrize("dataflow", DATAFLOWS)
@given(
    num_outputs=sizes, reduction=sizes, num_positions=sizes, groups=st.integers(1, 3),
    rows=st.integers(1, 20), columns=st.integers(1, 20), latency=st.just(1) | st.integers(1, 64),
)  # fmt: skip
@example(num_outputs=1, reduction=1, num_positions=1, groups=1, rows=1, columns=1, latency=1)
@example(num_outputs=1, reduction=1, num_positions=1, groups=3, rows=20, columns=20, latency=64)
@example(num_outputs=70, reduction=1, num_positions=70, groups=2, rows=20, columns=1, latency=2)
@example(num_outputs=1, reduction=70, num_positions=1, groups=1, rows=20, columns=20, latency=64)
def test_the_closed_form_equals_the_walk_over_the_folds(
    double_buffered, ragged_folds, dataflow, num_outputs, reduction, num_positions, groups, rows, columns, latency
):
    machine = ax.Machine(
        rows=rows, columns=columns, dataflow=dataflow, double_buffered=double_buffered, ragged_folds=ragged_folds,
        pe_latency_cycles=latency,
    )  # fmt: skip
    expected = timing.count(num_outputs, reduction, num_positions, machine, groups)
    counted = ax.gemm_cycles(
        num_outputs=num_outputs, reduction=reduction, num_positions=num_positions, machine=machine, groups=groups
    )
    assert (counted.load, counted.multiply, counted.drain) == (expected.load, expected.multiply, expected.drain)
    assert counted.stall == 0
    assert counted.total == expected.total


def test_a_4x4x4_gemm_on_a_4x4_output_stationary_grid_multiplies_for_10_cycles():
    machine = ax.Machine(rows=4, columns=4, dataflow="output_stationary")
    assert ax.gemm_cycles(num_outputs=4, reduction=4, num_positions=4, machine=machine).multiply == 10
    ones = [[1] * 4] * 4
    for engine in ("stepped", "fast"):
        assert ax.matmul(ones, ones, machine, engine=engine).cycles.multiply == 10
    assert len(ax.matmul(ones, ones, machine, engine="stepped", trace=True).trace.fold) == 10


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("latency", [1, 2, 3, 4])
@pytest.mark.parametrize("double_buffered", [False, True])
@pytest.mark.parametrize("ragged_folds", ["used", "full"])
@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_closed_form_walk_and_stepped_grid_count_the_same_cycles(
    dataflow, ragged_folds, double_buffered, latency, groups
):
    machine = ax.Machine(
        rows=3, columns=2, dataflow=dataflow, ragged_folds=ragged_folds, double_buffered=double_buffered,
        pe_latency_cycles=latency,
    )  # fmt: skip
    for num_outputs, reduction, image in ((5, 7, (2, 4)), (4, 6, (3, 2)), (1, 1, (1, 1)), (2, 1, (7, 1))):
        weights = np.ones((groups * num_outputs, reduction, 1, 1), dtype=np.int8)
        activations = np.ones((1, groups * reduction, *image), dtype=np.int8)
        with counted_steps() as steps:
            result = ax.conv2d(activations, weights, machine, groups=groups, engine="stepped")
        assert len(steps) == groups
        assert sum(steps) == result.cycles.multiply
        expected = timing.count(num_outputs, reduction, image[0] * image[1], machine, groups)
        assert result.cycles == ax.CycleCount(expected.multiply, expected.load, expected.drain)
        assert result.cycles == ax.conv2d(activations, weights, machine, groups=groups).cycles
        assert result.cycles == ax.gemm_cycles(
            num_outputs=num_outputs, reduction=reduction, num_positions=image[0] * image[1], machine=machine,
            groups=groups,
        )  # fmt: skip


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@given(
    data=st.data(), num_outputs=st.integers(1, 12), reduction=st.integers(1, 12), num_positions=st.integers(1, 12),
)  # fmt: skip
def test_the_stepped_grid_goes_through_the_cycles_of_the_closed_form(
    dataflow, data, num_outputs, reduction, num_positions
):
    machine = data.draw(machines(dataflow))
    with counted_steps() as steps:
        result = ax.matmul(
            np.ones((num_outputs, reduction), dtype=np.int8), np.ones((reduction, num_positions), dtype=np.int8),
            machine, engine="stepped",
        )  # fmt: skip
    expected = timing.count(num_outputs, reduction, num_positions, machine)
    assert steps == [result.cycles.multiply] == [expected.multiply]


@given(
    rows=st.integers(1, 40), columns=st.integers(1, 40), num_outputs=st.integers(1, 200),
    reduction=st.integers(1, 200), num_positions=st.integers(1, 200),
)  # fmt: skip
def test_full_folds_give_the_formulas_of_scale_sim(rows, columns, num_outputs, reduction, num_positions):
    # (13a), with R, C, N, K, P. The totals that the peer itself reports are compared in benchmarks/scalesim.py.
    R, C, N, K, P = rows, columns, num_outputs, reduction, num_positions

    def tiles(length, size):
        return (length + size - 1) // size

    totals = {
        "output_stationary": tiles(P, R) * tiles(N, C) * (R + C + K - 2),
        "weight_stationary": tiles(K, R) * tiles(N, C) * (2 * R + C + P - 2),
        "input_stationary": tiles(K, R) * tiles(P, C) * (2 * R + C + N - 2),
    }
    for dataflow, total in totals.items():
        machine = ax.Machine(rows=R, columns=C, dataflow=dataflow, ragged_folds="full")
        counted = ax.gemm_cycles(num_outputs=N, reduction=K, num_positions=P, machine=machine)
        assert counted.load + counted.multiply == total


@pytest.mark.parametrize(
    ("dataflow", "folds", "cycles"),
    [
        ("output_stationary", 3 * 5, 33 + 8 + 4 - 2),
        ("weight_stationary", 5 * 5, 2 * 8 + 4 + 18 - 2),
        ("input_stationary", 5 * 5, 2 * 8 + 4 + 18 - 2),
    ],
)
def test_full_folds_give_the_table_of_scale_sim_plus_its_missing_cycle(dataflow, folds, cycles):
    # K + R + C - 2 per fold without drain, 2R + C + P - 2 and 2R + C + N - 2 with load: docs/timing.md section 3.
    machine = ax.Machine(rows=8, columns=4, dataflow=dataflow, ragged_folds="full")
    counted = ax.gemm_cycles(num_outputs=18, reduction=33, num_positions=18, machine=machine)
    assert counted.load + counted.multiply == folds * cycles


def test_cycles_of_sizes_beyond_any_memory_are_counted_at_once():
    machine = ax.Machine(rows=128, columns=128, dataflow="weight_stationary", double_buffered=True)
    counted = ax.gemm_cycles(num_outputs=10**9, reduction=10**9, num_positions=10**9, machine=machine)
    folds = (10**9 // 128) ** 2
    assert counted.multiply == folds * (10**9 + 128 + 128 - 2)
    assert counted.load == 128


@pytest.mark.parametrize("name", ["num_outputs", "reduction", "num_positions", "groups"])
def test_a_size_below_1_is_refused(name):
    arguments = {"num_outputs": 1, "reduction": 1, "num_positions": 1, "groups": 1, name: 0}
    with pytest.raises(ax.OperandError, match=f"{name} must be at least 1, got 0"):
        ax.gemm_cycles(**arguments, machine=ax.Machine())


@given(first=st.tuples(*[st.integers(0, 99)] * 5), second=st.tuples(*[st.integers(0, 99)] * 5))
def test_cycle_counts_add_up(first, second):
    total = ax.CycleCount(*first) + ax.CycleCount(*second)
    assert total == ax.CycleCount(*(a + b for a, b in zip(first, second, strict=True)))
    assert total.total == sum(first) + sum(second)
    assert total.to_dict()["total"] == total.total
