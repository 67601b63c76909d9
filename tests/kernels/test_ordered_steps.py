"""Steps of ordered sums, six rows by sixteen lanes: the generated code, its scalar loop, and Python's integers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.simulator.engine.gemm import terms_per_addition
from accelsim.simulator.engine.tracked import layout
from accelsim_kernels import processor
from accelsim_kernels.ordered_columns import lay_columns
from accelsim_kernels.ordered_tiles import CHAINS, PRODUCTS, TILES, TREES
from accelsim_kernels.processor import Instructions, has_dot_instructions
from accelsim_kernels.vectors import chains, moves, running_ranges, steps
from accelsim_kernels.vectors.code import LANES
from accelsim_kernels.vectors.registers import at_top
from accelsim_kernels.vectors.tile import ROWS
from tests.kernels.test_vectors import compiled, jit_only
from tests.naive.gemm import accumulate

SIZE = ROWS * LANES
STEPS = {PRODUCTS: "products", TILES: "tiles", TREES: "trees", CHAINS: "chains"}


@pytest.fixture(params=["pairs", "portable"])
def form(request, monkeypatch):
    """Operands by pairs of 16 bits, or of 32 bits, as on any processor."""
    if request.param == "portable":
        monkeypatch.setattr(processor, "instructions", lambda: Instructions.NONE)
    if request.param == "pairs" and not has_dot_instructions():
        pytest.skip("this processor has no dot-product instructions")
    return request.param


def laid_out(machine, tile, lanes, rows, ends):
    """The layout of some terms, lanes (k, 16) and rows (6, k), with both brought into it and a step's arguments."""
    made = layout(machine, len(lanes), tile, *ends)
    room = made.room(LANES)
    lay_columns(made.fitting(lanes), np.int64(0), np.int64(made.terms), np.int64(made.lane_shift), room)
    numbers = made.numbers(rows)
    return made, (room.reshape(-1), 0, numbers.reshape(-1), 0, numbers.shape[1])


def drawn(rng, ends, shape):
    return rng.choice([*ends, 0, *rng.integers(ends[0], ends[1] + 1, 3)], shape)


MACHINES = {
    "one by one": {"dataflow": "output_stationary"},
    "tiles": {"dataflow": "weight_stationary", "rows": 5},
    "trees": {"dataflow": "broadcast", "columns": 5, "adder_tree_bits": 9},
    "chains": {"dataflow": "input_stationary", "rows": 33, "partial_sum_bits": 17},
}


CASES = [
    (name, bits, ends)
    for bits, ends in (
        (16, ((0, 255), (-127, 127))), (17, ((0, 255), (-128, 127))), (18, ((-128, 255), (-128, 127))),
        (10, ((-7, 7), (-8, 7))), (31, ((0, 3), (-128, 127))), (29, ((-(1 << 14), 1 << 14), (-(1 << 14), 1))),
        (20, ((-128, 127), (-128, 127))), (26, ((0, 40000), (-300, 300))), (32, ((0, 255), (-128, 127))),
    )
    for name in MACHINES
    if name != "chains" or ends[1][0] > -(1 << 14)  # chains of such products take 64 bits
]  # fmt: skip


@jit_only
@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
@pytest.mark.parametrize("reduction", [1, 30, 61])
@pytest.mark.parametrize(("name", "bits", "ends"), CASES)
def test_steps_are_their_scalar_loop_and_the_contract(form, name, overflow, reduction, bits, ends):
    machine = ax.Machine(accumulator_bits=bits, overflow=overflow, **MACHINES[name])
    tile = terms_per_addition(machine)
    rng = np.random.default_rng([reduction, bits])
    lanes, rows = drawn(rng, ends[0], (reduction, LANES)), drawn(rng, ends[1], (ROWS, reduction))
    while layout(machine, reduction, tile, *ends) is None:  # the widest that fit a lane are of interest
        if name == "chains" and machine.partial_sum_bits < 31:  # and the narrowest that hold a product
            machine = machine.replace(partial_sum_bits=machine.partial_sum_bits + 1)
        else:
            machine = machine.replace(accumulator_bits=machine.accumulator_bits - 1)
    made, operands = laid_out(machine, tile, lanes, rows, ends)
    (kind, numbers_of_tile, low, high, *inner), saturate = made.stepping(machine)
    module = chains if kind == CHAINS else steps
    step = getattr(module, f"{'saturating' if saturate else 'wrapping'}_{STEPS[int(kind)]}")
    extra = () if kind == PRODUCTS else (numbers_of_tile,)
    limits = (low, high) if kind == PRODUCTS else (low, high, *inner)
    sums = drawn(rng, (int(low), int(high)), SIZE)
    sums = np.where(np.arange(SIZE) % 3 == 0, sums // 1000, sums)
    loaded = np.arange(SIZE) % 7 == 0  # a start that did not fit
    states = []
    for run in (compiled(step), step.scalar):
        state = [values.astype(np.int32) for values in (sums, loaded, np.where(loaded, 0, -1), np.zeros(SIZE))]
        fewer = [values.copy() for values in state]
        for num_rows, own in ((ROWS, state), (3, fewer)):
            run(*operands, *extra, *limits, *(own[:3] if kind == PRODUCTS else own), num_rows)
        states.append(np.array(state))
        assert np.array_equal(states[-1][:, : 3 * LANES], np.array(fewer)[:, : 3 * LANES])
    assert np.array_equal(*states)
    events = 0
    for i in range(0, SIZE, 7):  # of all rows and lanes
        products = [int(w) * int(x) for w, x in zip(rows[i // LANES], lanes[:, i % LANES], strict=True)]
        expected = accumulate(products, int(sums[i]), None, machine)
        value, counted, first, partial = states[0][:, i]
        assert (value, counted - loaded[i]) == (expected.accumulator, expected.events)
        assert first == (0 if loaded[i] else expected.first_overflow)
        assert partial == expected.partial_events
        events += expected.events
    assert events > 0 or reduction < 60 or bits > 24


def test_products_of_16_bits_are_stepped_at_the_top_of_the_lane_where_they_fit(form):
    """8 x 8 bits from 16 bits of a wrapping accumulator on and 17 of a saturating one; else they are not scaled.

    Nor are saturating accumulators at the top of the lane where no instruction clamps; then 31 bits are the most.
    """
    ends = (0, 255), (-128, 127)
    for overflow, least in (("wrap", 16), ("saturate", 17)):
        top = at_top(overflow == "saturate")
        for bits in range(4, 33):
            machine = ax.Machine(dataflow="output_stationary", accumulator_bits=bits, overflow=overflow)
            made = layout(machine, 100, 1, *ends)
            if bits == 32 and (overflow == "wrap" or not top):
                assert made is None
                continue
            scaled = top and bits >= (least if form == "pairs" else 16)
            assert made is not None
            assert (made.kind == PRODUCTS) == (scaled or not top)
            shift = (32 if overflow == "saturate" else 31) - bits
            assert made.lane_shift + made.row_shift == (shift if scaled else 0)
            assert made.lane_shift <= 7 or not scaled


@jit_only
@pytest.mark.parametrize("reduction", [1, 2, 31, 60, 97])
@pytest.mark.parametrize("tile", [1, 5, 8, 200])
@pytest.mark.parametrize("ends", [((0, 255), (-128, 127)), ((-(1 << 15), (1 << 15) - 1), (-20, 20))])
def test_running_ranges_are_their_scalar_loop_and_the_contract(form, reduction, tile, ends):
    dataflow = {"dataflow": "output_stationary"} if tile == 1 else {"dataflow": "weight_stationary", "rows": tile}
    machine = ax.Machine(accumulator_bits=30, **dataflow)
    rng = np.random.default_rng(reduction)
    lanes, rows = drawn(rng, ends[0], (reduction, LANES)), drawn(rng, ends[1], (ROWS, reduction))
    start = rng.integers(-5000, 5000, SIZE)
    made = layout(machine, reduction, tile, *ends)
    if made.kind == PRODUCTS:  # ranges are not scaled
        made = type(made)(PRODUCTS, reduction, 1, made.paired)
    room = made.room(LANES)
    lay_columns(made.fitting(lanes), np.int64(0), np.int64(made.terms), np.int64(0), room)
    numbers = made.numbers(rows)
    step = running_ranges.range_of_products if made.kind == PRODUCTS else running_ranges.range_of_tiles
    results = []
    for run in (compiled(step), step.scalar):
        state = [start.astype(np.int32) for _ in range(3)]
        run(room.reshape(-1), 0, numbers.reshape(-1), 0, made.length, made.numbers_of_tile, *state)
        results.append(np.array(state))
    assert np.array_equal(*results)
    for i in range(0, SIZE, 7):  # of all rows and lanes
        products = [int(w) * int(x) for w, x in zip(rows[i // LANES], lanes[:, i % LANES], strict=True)]
        expected = accumulate(products, int(start[i]), None, machine.replace(accumulator_bits=60))
        assert tuple(results[0][:, i]) == (expected.range_min, expected.range_max, expected.accumulator)


@jit_only
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_moves_are_their_scalar_loop(dtype):
    rng, ends = np.random.default_rng(5), np.iinfo(dtype)
    shift, mask = (0, -1) if dtype == np.int32 else (0 if dtype == np.int16 else 7, 0xFFFF)
    columns = rng.choice([ends.min, ends.max, 1], 80).astype(dtype)
    words = [np.full(64, -7, np.int32) for _ in range(2)]
    for run, target in ((compiled(moves.laid), words[0]), (moves.laid.scalar, words[1])):
        run(columns, 3, shift, mask, target, 9)
    assert np.array_equal(*words)
    if dtype != np.int32:
        step = moves.laid_in_pairs
        for run, target in ((compiled(step), words[0]), (step.scalar, words[1])):
            run(columns, 3, 41, shift, target, 11)
        assert np.array_equal(*words)
    assert (words[0][:9] == -7).all()
    assert (words[0][27:] == -7).all()
    wide = [np.full(40, -7, np.int64) for _ in range(2)]
    for run, target in ((compiled(moves.widened), wide[0]), (moves.widened.scalar, wide[1])):
        run(words[0], 9, target, 5)
    assert np.array_equal(*wide)
    for run, target in ((compiled(moves.filled), words[0]), (moves.filled.scalar, words[1])):
        run(-123456, target, 30)
    assert np.array_equal(*words)


@pytest.mark.slow
@given(
    st.data(), st.sampled_from(["wrap", "saturate"]), st.sampled_from(sorted(MACHINES)), st.integers(4, 34),
    st.booleans(),
)  # fmt: skip
def test_every_width_agrees_with_the_stepped_grid(data, overflow, name, bits, signed):
    """All outputs at risk, few or none: `ax.matmul` by both engines, at the operands' extremes."""
    machine = ax.Machine(accumulator_bits=bits, overflow=overflow, **{"rows": 4, "columns": 4, **MACHINES[name]})
    n, k, p = (data.draw(st.integers(1, most), label=label) for label, most in (("n", 8), ("k", 70), ("p", 40)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))
    weights = drawn(rng, (-128, 127), (n, k)).astype(np.int8)
    activations = drawn(rng, (-128, 127) if signed else (0, 255), (k, p)).astype(np.int8 if signed else np.uint8)
    bias = drawn(rng, (-(2 ** (bits - 1)) - 1, 2 ** (bits - 1)), n)
    for track in ("overflow", "range"):
        fast, stepped = (
            ax.matmul(weights, activations, machine, bias=bias, engine=engine, track=track)
            for engine in ("fast", "stepped")
        )
        for field in ("accumulators", "overflow_events", "first_overflow", "partial_overflow_events"):
            assert np.array_equal(getattr(fast, field), getattr(stepped, field)), field
        if track == "range":
            assert np.array_equal(fast.range_min, stepped.range_min)
            assert np.array_equal(fast.range_max, stepped.range_max)
