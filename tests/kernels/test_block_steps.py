"""Blocks of channels stepped at windows that are read in place: generated code, scalar loops, Python's integers."""

import numpy as np
import pytest

import accelsim as ax
from accelsim.simulator.engine import tracked
from accelsim.simulator.engine.gemm import terms_per_addition
from accelsim.simulator.engine.layer_blocks import LayerBlocks
from accelsim.simulator.engine.tracked import Layout, layout_in_place
from accelsim_kernels import marks
from accelsim_kernels.block_steps import range_blocks, step_blocks
from accelsim_kernels.ordered_tiles import CHAINS, PRODUCTS, TILES
from accelsim_kernels.processor import has_dot_instructions, settings
from accelsim_kernels.vectors import block_rows, chains, running_ranges, steps
from accelsim_kernels.vectors.code import LANES
from accelsim_kernels.vectors.registers import at_top
from accelsim_kernels.vectors.tile import ROWS
from tests.kernels.test_ordered_steps import MACHINES, SIZE, STEPS, drawn, form
from tests.kernels.test_vectors import compiled, jit_only
from tests.naive.gemm import accumulate

__all__ = ["form"]

ENDS = [
    ((-128, 127), (0, 255)),
    ((-127, 127), (-128, 255)),
    ((-1000, 1000), (-(1 << 15), (1 << 15) - 1)),
    ((-8, 7), (-8, 7)),
]


class Windows:
    """Some windows of an image, whose terms follow each other in memory or lie anywhere."""

    def __init__(self, rng, ends, reduction, count, apart):
        self.terms = rng.permutation(3 * reduction)[:reduction] if apart else np.arange(reduction)
        self.operands = drawn(rng, ends, 3 * reduction + 2 * count + 1)
        self.bases = rng.permutation(2 * count)[:count]

    def __getitem__(self, window):
        return self.operands[self.bases[window] + self.terms]


def cases(reduction, apart, name, overflow, ends):
    """A machine, the layout, weights of a block, windows and all of it laid out."""
    machine = ax.Machine(accumulator_bits=17, overflow=overflow, **MACHINES[name])
    # The narrowest registers that hold a product.
    bits = (max(map(abs, ends[0])) * max(map(abs, ends[1]))).bit_length() + 1
    if name == "chains":
        machine = machine.replace(partial_sum_bits=bits)
    elif name == "one by one":
        # At seven bits 64 is more than the register holds, and 2^31 once it is scaled.
        machine = machine.replace(accumulator_bits=7 if bits == 8 else bits)
    rng = np.random.default_rng([reduction, apart])
    made = layout_in_place(machine, reduction, terms_per_addition(machine), *ends)
    weights, windows = drawn(rng, ends[0], (LANES, reduction)), Windows(rng, ends[1], reduction, ROWS, apart)
    return machine, made, weights, windows, LayerBlocks.of(made, weights, windows.terms)


@jit_only
@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("reduction", [1, 31, 64])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("ends", ENDS)
def test_steps_of_windows_are_their_scalar_loop_and_the_contract(form, overflow, name, reduction, apart, ends):
    machine, made, weights, windows, own = cases(reduction, apart, name, overflow, ends)
    (kind, _, low, high, *inner), saturate = made.stepping(machine)
    module = chains if kind == CHAINS else steps
    step = getattr(module, f"{'saturating' if saturate else 'wrapping'}_{STEPS[int(kind)]}")
    limits = (low, high) if kind == PRODUCTS else (own.tile, low, high, *inner)
    sums = drawn(np.random.default_rng(1), (int(low), int(high)), SIZE)
    states = []
    for run in (compiled(step), step.scalar):
        state = [values.astype(np.int32) for values in (sums, np.zeros(SIZE), np.full(SIZE, -1), np.zeros(SIZE))]
        run(
            own.vectors.reshape(-1), 0, own.image(windows.operands), own.bases(windows.bases), own.places, *limits,
            *(state[:3] if kind == PRODUCTS else state), ROWS,
        )  # fmt: skip
        states.append(np.array(state))
    assert np.array_equal(*states)
    for i in range(0, SIZE, 7):  # of all rows and lanes
        products = [int(w) * int(x) for w, x in zip(weights[i % LANES], windows[i // LANES], strict=True)]
        expected = accumulate(products, int(sums[i]), None, machine)
        assert tuple(states[0][:, i]) == (
            expected.accumulator, expected.events, expected.first_overflow, expected.partial_events
        )  # fmt: skip


@pytest.mark.parametrize("dataflow", ["output_stationary", "weight_stationary"])
def test_registers_as_narrow_as_a_product_take_pairs_of_one_term(form, dataflow):
    """8 x 8 bits with a wrapping register of 15 bits, which needs a scale of 16: seven, eight, and one for twice.

    A saturating one of 16 bits does, too, where it is at the top of the lane.
    """
    cases = [("wrap", 16, 15, False)]
    if dataflow == "output_stationary":  # registers inside tiles hold a product
        cases.append(("wrap", 15, 15, True))
    if at_top(True):
        cases += [("saturate", 17, 15, False), ("saturate", 16, 15, True)]
    for overflow, bits, scale, doubled in cases:
        registers = {"accumulator_bits": bits} if dataflow == "output_stationary" else {"partial_sum_bits": bits}
        machine = ax.Machine(dataflow=dataflow, overflow=overflow, **{"accumulator_bits": 20, **registers})
        made = layout_in_place(machine, 200, terms_per_addition(machine), (-128, 127), (0, 255))
        assert made.doubled == (doubled and form == "pairs")
        if form == "pairs":
            assert made.lane_shift + made.row_shift == scale
            assert made.kind == (PRODUCTS if dataflow == "output_stationary" else CHAINS)


def test_terms_that_lie_side_by_side_make_pairs(form):
    made = layout_in_place(ax.Machine(dataflow="weight_stationary", accumulator_bits=20), 32, 4, (-128, 127), (0, 255))
    weights, terms = np.ones((LANES, 32), dtype=int), np.arange(32)
    pairs = 2 if form == "pairs" else 1
    assert LayerBlocks.of(made, weights, terms).places.size == 32 // pairs
    assert LayerBlocks.of(made, weights, 2 * terms).places.size == 32
    assert LayerBlocks.of(made, weights, terms + terms // 8).places.size == 32 // pairs  # between tiles


@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
@pytest.mark.parametrize("name", MACHINES)
@pytest.mark.parametrize("count", [1, 5, 6, 13])
def test_blocks_with_a_mark_hold_what_the_contract_says(overflow, name, count, monkeypatch):
    if settings.DISABLE_JIT:  # pairs of 16 bits by the loops that the instructions equal
        monkeypatch.setattr(tracked, "has_dot_instructions", lambda: True)
    rng, ends, reduction = np.random.default_rng(count), ((-128, 127), (0, 255)), 20
    machine = ax.Machine(accumulator_bits=16, overflow=overflow, **MACHINES[name])
    made = layout_in_place(machine, reduction, terms_per_addition(machine), *ends)
    windows, weights = Windows(rng, ends[1], reduction, count, True), drawn(rng, ends[0], (2 * LANES, reduction))
    start = rng.choice([-40000, -7, 0, 32767], 2 * LANES)
    own, ((kind, _, low, high, *inner), saturate) = LayerBlocks.of(made, weights, windows.terms), made.stepping(machine)
    outside = (start < low) | (start > high)
    held = np.clip(start, low, high) if saturate else (start - low) % (high - low + 1) + low
    offsets = rng.integers(-100, 100, 2 * LANES)
    lanes = (own.vectors, *(values.astype(np.int32) for values in (held, outside, offsets)))
    masks = rng.integers(0, 3, (count, 2)).astype(np.int32)
    sums = np.full((count, 3 * LANES), 12345, dtype=np.int32)
    counts = step_blocks(
        own.image(windows.operands), own.bases(windows.bases), own.places, lanes,
        (kind, np.int64(own.tile), low, high, *inner), saturate, masks, np.arange(count), np.array([0, 2]), sums,
    )  # fmt: skip
    expected, met = sums.copy(), [0, 0, 0]
    for p in range(count):
        for b, n in [(b, b * LANES + i) for b in range(2) if masks[p, b] for i in range(LANES)]:
            products = [int(w) * int(x) for w, x in zip(weights[n], windows[p], strict=True)]
            output = accumulate(products, int(start[n]), None, machine)
            expected[p, 2 * b * LANES + n % LANES] = output.accumulator - offsets[n]
            met = [met[0] + output.events, met[1] + (output.events > 0), met[2] + output.partial_events]
    assert np.array_equal(sums, expected)
    assert [int(value) for value in counts] == met
    assert (sums == 12345)[:, LANES : 2 * LANES].all()


@pytest.mark.parametrize("tile", [1, 4, 5])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("count", [1, 6, 8])
def test_ranges_of_blocks_are_those_of_their_outputs(form, tile, apart, count):
    rng, ends, reduction = np.random.default_rng(count), ((-128, 127), (-100, 255)), 23
    dataflow = {"dataflow": "output_stationary"} if tile == 1 else {"dataflow": "weight_stationary", "rows": tile}
    paired = has_dot_instructions()
    made = Layout(PRODUCTS if tile == 1 else TILES, reduction, tile, paired)
    windows, weights = Windows(rng, ends[1], reduction, count, apart), drawn(rng, ends[0], (2 * LANES, reduction))
    start, own = rng.integers(-5000, 5000, (2, LANES)), LayerBlocks.of(made, weights, windows.terms)
    loaded, least, most = (np.tile(start, (1, ROWS)).astype(np.int32) for _ in range(3))
    number = np.int64(0 if tile == 1 else own.tile)
    range_blocks(
        own.image(windows.operands), windows.bases, own.places, own.vectors, loaded, number, least, most
    )  # fmt: skip
    for n in range(2 * LANES):
        outputs = [
            accumulate(
                [int(w) * int(x) for w, x in zip(weights[n], windows[p], strict=True)], int(start.reshape(-1)[n]),
                None, ax.Machine(accumulator_bits=60, **dataflow),
            )
            for p in range(count)
        ]  # fmt: skip
        own_lanes = n // LANES, slice(n % LANES, None, LANES)
        assert least[own_lanes].min() == min(output.range_min for output in outputs)
        assert most[own_lanes].max() == max(output.range_max for output in outputs)


@jit_only
def test_ranges_of_windows_are_their_scalar_loop():
    rng = np.random.default_rng(3)
    for step, kind in ((running_ranges.range_of_products, PRODUCTS), (running_ranges.range_of_tiles, TILES)):
        windows = Windows(rng, (0, 255), 21, ROWS, True)
        made = Layout(kind, 21, 1 if kind == PRODUCTS else 4, has_dot_instructions())
        own, results = LayerBlocks.of(made, drawn(rng, (-128, 127), (LANES, 21)), windows.terms), []
        for run in (compiled(step), step.scalar):
            state = [np.full(SIZE, 17, dtype=np.int32) for _ in range(3)]
            image = own.image(windows.operands)
            run(own.vectors.reshape(-1), 0, image, windows.bases, own.places, own.tile, *state)
            results.append(np.array(state))
        assert np.array_equal(*results)


@jit_only
def test_loading_and_storing_a_block_are_their_scalar_loops():
    rng, results = np.random.default_rng(4), []
    held, outside, offsets = (rng.integers(0, most, 3 * LANES).astype(np.int32) for most in (9, 2, 99))
    met = [rng.integers(-(2**31), 2**31, SIZE).astype(np.int32), *rng.integers(0, 2, (2, SIZE)).astype(np.int32)]
    for one, other in ((compiled(block_rows.loaded), compiled(block_rows.stored)), _scalars()):
        state = np.full((4, SIZE), 5, dtype=np.int32)
        one(held, outside, 7, *state)
        sums, counts = np.full(99, 6, dtype=np.int32), np.arange(3 * LANES, dtype=np.int32)
        with np.errstate(over="ignore"):
            other(*met, 4, offsets, 9, sums, 30, counts)
        results.append([state, sums, counts])
    for vector, scalar in zip(*results, strict=True):
        assert np.array_equal(vector, scalar)


def _scalars():
    return block_rows.loaded.scalar, block_rows.stored.scalar


def test_blocks_with_a_mark_are_counted():
    assert marks.count_marked(np.array([[0, 1], [1 << 15, 0], [3, 7]], dtype=np.int32)) == 4
    assert marks.count_marked(np.zeros((3, 0), dtype=np.int32)) == 0
