"""Single outputs that cannot overflow are not stepped, and nobody can tell: docs/numerics.md (108) to (120)."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.simulator.engine import column_risk
from accelsim.simulator.engine.bounds import ChannelBounds
from accelsim.simulator.engine.column_risk import ColumnsAtRisk
from accelsim.simulator.engine.gemm import terms_per_addition
from accelsim.simulator.engine.gemm_operands import GemmValues
from accelsim_kernels.marked_outputs import ALONE, choose_ways
from accelsim_kernels.processor import has_dot_instructions, settings, takes_bytes
from tests.accelsim.simulator.gemm_cases import DATAFLOWS, assert_equal
from tests.naive import gemm as naive

FIELDS = ("accumulators", "overflow_events", "first_overflow", "partial_overflow_events")
with_instructions = pytest.mark.skipif(
    not has_dot_instructions(), reason="where there are no dot-product instructions, every output at risk is stepped"
)
operands = st.integers(-128, 127) | st.sampled_from([-128, 127, 0, 1])


def proven(machine, row, column, start, words):
    """Whether (120) and (109) prove an output safe, in Python's integers; (120) proves what (108) does."""
    low, high = -(2 ** (machine.accumulator_bits - 1)), 2 ** (machine.accumulator_bits - 1) - 1
    ends, met = (min(0, *column, 0), max(0, *column, 0)), [start]
    products, size = [w * x for w, x in zip(row, column, strict=True)], 1 if words else 4
    for begin in range(0, len(products), size):
        some, before = products[begin : begin + size], met[-1]
        met += [before + sum(p for p in some if p < 0), before + sum(p for p in some if p > 0), before + sum(some)]
    fits = low <= min(met) and max(met) <= high
    inner = machine.adder_tree_bits if machine.dataflow == "broadcast" else machine.partial_sum_bits
    if inner is not None and machine.dataflow != "output_stationary":
        tile = terms_per_addition(machine)
        tiles = [row[begin : begin + tile] for begin in range(0, len(row), tile)]
        ups, downs = [sum(w for w in t if w > 0) for t in tiles], [sum(w for w in t if w < 0) for t in tiles]
        fits &= -(2 ** (inner - 1)) <= ends[1] * min(downs) + ends[0] * max(ups)
        fits &= ends[1] * max(ups) + ends[0] * min(downs) < 2 ** (inner - 1)
    return fits


@with_instructions
@given(
    row=st.lists(operands, min_size=1, max_size=40), data=st.data(), unsigned=st.booleans(), slack=st.integers(-2, 2),
    bits=st.integers(6, 29), inner=st.none() | st.integers(4, 20), side=st.sampled_from([1, -1]),
    dataflow=st.sampled_from(DATAFLOWS),
)  # fmt: skip
@example(
    row=[-128, 127] * 9, data=None, unsigned=True, slack=0, bits=24, inner=20, side=1, dataflow="broadcast"
)  # fmt: skip
@example(row=[127] * 9, data=None, unsigned=True, slack=1, bits=24, inner=None, side=1, dataflow="input_stationary")
@example(row=[127] * 9, data=None, unsigned=False, slack=1, bits=24, inner=14, side=-1, dataflow="weight_stationary")
def test_an_output_is_stepped_exactly_when_no_proof_holds(row, data, unsigned, slack, bits, inner, side, dataflow):
    column = [255 if unsigned else -128] * len(row)
    if data is not None:
        values = st.integers(0, 255) | st.sampled_from([0, 255]) if unsigned else operands
        column = data.draw(st.lists(values, min_size=len(row), max_size=len(row)))
    sums = np.cumsum([w * x for w, x in zip(row, column, strict=True)])
    # The start is put beside the value at which the greatest, or the least, sum on the way just fits.
    start = 2 ** (bits - 1) - 1 - int(max(0, *sums, 0)) if side > 0 else -(2 ** (bits - 1)) - int(min(0, *sums, 0))
    start += slack
    machine = ax.Machine(
        rows=4, columns=4, dataflow=dataflow, accumulator_bits=bits, partial_sum_bits=inner, adder_tree_bits=inner
    )  # fmt: skip
    starts = np.array([start])
    bounds = ChannelBounds(np.array([row], dtype=np.int8), starts, np.zeros(1, dtype=np.int64))
    columns = np.array(column, dtype=np.uint8 if unsigned else np.int8)[:, None]
    ends = (0, 255) if unsigned else (-128, 127)
    single = ColumnsAtRisk.of(bounds, columns, ends, machine, terms_per_addition(machine))
    accumulators = np.empty((1, 1), dtype=np.int64)
    found = looking_at_all(single).run(accumulators)
    safe = proven(machine, row, column, start, words=not (unsigned and takes_bytes()))
    assert (found is not None and not found[0].any()) == safe
    if safe:
        assert accumulators[0, 0] == start + sums[-1]
    if found is not None:
        expected = naive.gemm([row], [[x] for x in column], machine, bias=[start])
        assert_equal(GemmValues(accumulators, found[1]), expected, "overflow")


def looking_at_all(single):
    """The same product, whose marks are looked at once more however few they are."""
    return replace(single, limits=(np.int64(0), *single.limits[1:]))


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
    stepped, run = [], ColumnsAtRisk.run

    def counted(single, accumulators):
        found = run(single, accumulators)
        stepped.append(sum(int(mask).bit_count() for mask in found[0].flat))
        return found

    monkeypatch.setattr(ColumnsAtRisk, "run", counted)
    some = ax.matmul(weights, activations, machine, track="overflow")
    if has_dot_instructions():
        assert len(stepped) == 1
        assert 0 < stepped[0] < 8 * 700 / 5
    monkeypatch.setattr(ColumnsAtRisk, "of", lambda *arguments: None)
    everything = ax.matmul(weights, activations, machine, track="overflow")
    for field in FIELDS:
        assert np.array_equal(getattr(some, field), getattr(everything, field)), field
    assert some.overflow_events.any() or some.partial_overflow_events.any()


def marked(pattern, rng, words):
    """A product of 37 channels, 41 terms and 150 positions, and its bias: whose outputs overflow is the pattern's."""
    weights = rng.integers(-60, 61, (37, 41))
    activations = rng.integers(-9 if words else 0, 10, (41, 150))
    bias = np.zeros(37, dtype=np.int64)
    if pattern in ("positions", "both"):
        activations[:, [0, 17, 63, 64, 149]] *= 20
    if pattern in ("channels", "both"):
        weights[[0, 15, 16, 36]] *= 2
        bias[[0, 15, 16, 36]] = 2**15 - 1
    if pattern == "alone":
        activations = np.clip(activations, -2, 2)
        activations[:, [5, 70, 149]] = 10
        weights[[3, 20, 33]], bias[[3, 20, 33]] = 10, 2**15 - 1 - 41 * 20
    return weights, activations, bias


@with_instructions
@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
@pytest.mark.parametrize(("pattern", "ways"), [("positions", [0]), ("channels", [1]), ("both", [0, 1]), ("alone", [2])])
@pytest.mark.parametrize(("dataflow", "grid"), [*((flow, 8) for flow in DATAFLOWS), ("input_stationary", 5)])
def test_marks_that_lie_in_rows_or_alone_are_stepped_to_the_same(
    dataflow, grid, pattern, ways, overflow, words, monkeypatch
):
    weights, activations, bias = marked(pattern, np.random.default_rng(11), words)
    machine = ax.Machine(
        rows=grid, columns=grid, dataflow=dataflow, accumulator_bits=16, overflow=overflow, partial_sum_bits=15,
        adder_tree_bits=15,
    )  # fmt: skip
    chosen, thin, run = set(), [], ColumnsAtRisk.run

    def watched(single, accumulators):
        found = run(single, accumulators)
        squares = np.empty((3, 3, found[0].shape[1]), dtype=np.int32)
        thin.append(single.limits[1])
        choose_ways(found[0], np.int64(0), thin[0], squares)
        chosen.update(np.flatnonzero(squares.any(axis=(1, 2))).tolist())
        return found

    monkeypatch.setattr(ColumnsAtRisk, "run", watched)
    kinds = (np.int16, np.int16) if words else (np.int8, np.uint8)
    operands = [array.astype(kind) for array, kind in zip((weights, activations), kinds, strict=True)]
    fast, stepped = (ax.matmul(*operands, machine, bias=bias, engine=engine) for engine in ("fast", "stepped"))
    assert chosen >= set(ways) or (chosen == {2} and thin == [ALONE])
    for field in FIELDS:
        assert np.array_equal(getattr(fast, field), getattr(stepped, field)), field
    assert fast.overflow_events.any()


@with_instructions
@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("overflowing", [False, True])
def test_single_outputs_are_proven_safe_or_stepped_to_the_same(overflowing, words, monkeypatch):
    # More than sixty-four channels, three panels. Without (120) outputs would be marked in either case.
    rng = np.random.default_rng(12)
    weights = rng.integers(-90, 91, (70, 57)).astype(np.int16 if words else np.int8)
    activations = rng.integers(-40 if words else 0, 120, (57, 190)).astype(np.int16 if words else np.uint8)
    running = np.cumsum(weights[:, :, None].astype(np.int64) * activations, axis=1)
    reach = np.maximum(running.max(axis=1), -running.min(axis=1))
    greatest = int(np.quantile(reach, 0.995) if overflowing else reach.max() + 4 * 90 * 120)
    bias = np.full(70, 2**17 - 1 - greatest)  # what an accumulator has left is as much as this
    machine = ax.Machine(dataflow="output_stationary", accumulator_bits=18)
    marks, run = [], ColumnsAtRisk.run

    def watched(single, accumulators):
        found = run(looking_at_all(single), accumulators)
        marks.append(found[0])
        return found

    monkeypatch.setattr(ColumnsAtRisk, "run", watched)
    some = ax.matmul(weights, activations, machine, bias=bias)
    monkeypatch.setattr(ColumnsAtRisk, "of", lambda *arguments: None)
    everything = ax.matmul(weights, activations, machine, bias=bias)
    for field in FIELDS:
        assert np.array_equal(getattr(some, field), getattr(everything, field)), field
    assert some.overflow_events.any() == overflowing
    assert marks[0].any() == overflowing


@with_instructions
@pytest.mark.parametrize("words", [False, True])
def test_whatever_the_length_of_parts_the_events_are_the_same(words, monkeypatch):
    # Data as in a network: with ever fewer bits quarters of the reduction suffice, long parts, short ones, none.
    rng = np.random.default_rng(13)
    weights = np.clip(rng.normal(0, 30, (18, 203)), -127, 127).astype(np.int16 if words else np.int8)
    activations = np.clip(rng.normal(0, 60, (203, 330)), 0, 255).astype(np.int16 if words else np.uint8)
    of, counted = ColumnsAtRisk.of, []
    for bits in np.arange(14, 22):
        results = []
        for take in (of, lambda *arguments: None):
            monkeypatch.setattr(ColumnsAtRisk, "of", staticmethod(take))
            machine = ax.Machine(dataflow="output_stationary", accumulator_bits=int(bits), overflow="saturate")
            results.append(ax.matmul(weights, activations, machine))
        for field in FIELDS:
            assert np.array_equal(*(getattr(result, field) for result in results)), (bits, field)
        counted.append(np.count_nonzero(results[0].overflow_events))
    assert counted[0] > counted[1] > counted[2] > counted[-1] == 0


@with_instructions
def test_where_most_outputs_are_at_risk_all_are_stepped():
    rng = np.random.default_rng(0)
    weights, activations = rng.integers(-127, 128, (4, 30), np.int8), rng.integers(0, 256, (30, 600), np.uint8)
    bounds = ChannelBounds(weights, np.zeros(4, dtype=np.int64), np.zeros(4, dtype=np.int64))
    accumulators = np.empty((4, 600), dtype=np.int64)
    for bits, many in ((9, True), (19, False)):
        single = ColumnsAtRisk.of(bounds, activations, (0, 255), ax.Machine(accumulator_bits=bits), 1)
        assert (single.run(accumulators) is None) == many


@pytest.mark.parametrize("least", [0, -5])
@pytest.mark.parametrize("dataflow", ["output_stationary", "weight_stationary", "broadcast"])
def test_small_products_equal_the_oracle_also_by_the_scalar_loops(least, dataflow, monkeypatch):
    if settings.DISABLE_JIT:  # what the instructions do is then done by the loops that they equal
        monkeypatch.setattr(column_risk, "has_dot_instructions", lambda: True)
    rng = np.random.default_rng(3)
    weights, activations = rng.integers(-128, 128, (3, 9)), rng.integers(least, 6, (9, 66))
    activations[:, 65] = 100 * (weights[0] > 0)  # the sum only grows: an event in any order
    machine = ax.Machine(
        rows=4, columns=4, dataflow=dataflow, accumulator_bits=14, partial_sum_bits=14, adder_tree_bits=14
    )  # fmt: skip
    kind = np.int16 if least else np.uint8
    result = ax.matmul(weights.astype(np.int8), activations.astype(kind), machine)
    assert_equal(result, naive.gemm(weights.tolist(), activations.tolist(), machine), "overflow")
    assert result.overflow_events.any()


@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
@pytest.mark.parametrize("dataflow", ["output_stationary", "weight_stationary", "broadcast"])
def test_rows_of_small_products_equal_the_oracle_also_by_the_scalar_loops(dataflow, overflow, monkeypatch):
    if settings.DISABLE_JIT:
        monkeypatch.setattr(column_risk, "has_dot_instructions", lambda: True)
    rng = np.random.default_rng(4)
    weights, activations = rng.integers(-9, 10, (18, 7), np.int8), rng.integers(0, 3, (7, 66), np.uint8)
    bias = np.zeros(18, dtype=np.int64)
    activations[:, [0, 15, 65]], bias[[0, 17]] = 99, 2047  # positions of all channels, channels at all positions
    weights[17], bias[3] = 127, 2047 - 130
    weights[3] = 9  # and one that is marked where the activations are greater than 2
    activations[:, 40] = 3
    machine = ax.Machine(rows=4, columns=4, dataflow=dataflow, accumulator_bits=12, overflow=overflow)
    result = ax.matmul(weights, activations, machine, bias=bias)
    expected = naive.gemm(weights.tolist(), activations.tolist(), machine, bias=bias.tolist())
    assert_equal(result, expected, "overflow")
    assert result.overflow_events[[0, 3, 17], [65, 40, 9]].all()


def test_what_does_not_fit_lanes_is_left_alone():
    start = np.zeros(1, dtype=np.int64)
    for machine, weights, columns, ends in (
        (ax.Machine(product_shift_bits=1), [[1]], [[1]], (0, 1)),
        (ax.Machine(accumulator_bits=8), [[2**16 + 1]], [[1]], (0, 1)),
        (ax.Machine(accumulator_bits=8), [[1]], [[2**15]], (0, 2**15)),
        (ax.Machine(accumulator_bits=31), [[1]], [[1]], (0, 1)),
        (ax.Machine(accumulator_bits=8), [[2**14] * 3], [[2**15 - 1]] * 3, (0, 2**15 - 1)),
    ):
        bounds = ChannelBounds(np.array(weights, dtype=np.int32), start, start)
        assert ColumnsAtRisk.of(bounds, np.array(columns), ends, machine, 1) is None


def test_ragged_products_of_words_equal_the_stepped_grid(monkeypatch):
    # More channels than a tile and less than two, more positions than a panel, an odd reduction.
    rng = np.random.default_rng(1)
    weights, activations = rng.integers(-300, 301, (11, 41)), rng.integers(-60, 90, (41, 150))
    activations[:, ::9] *= 8
    steps, run = [], ColumnsAtRisk.run
    monkeypatch.setattr(ColumnsAtRisk, "run", lambda *arguments: steps.append(run(*arguments)) or steps[-1])
    for dataflow in DATAFLOWS:
        machine = ax.Machine(
            rows=5, columns=5, dataflow=dataflow, accumulator_bits=20, partial_sum_bits=20, adder_tree_bits=20
        )  # fmt: skip
        fast, stepped = (ax.matmul(weights, activations, machine, engine=engine) for engine in ("fast", "stepped"))
        for field in FIELDS:
            assert np.array_equal(getattr(fast, field), getattr(stepped, field)), field
        assert fast.overflow_events.any()
    assert len(steps) == (4 if has_dot_instructions() else 0)
    assert None not in steps
