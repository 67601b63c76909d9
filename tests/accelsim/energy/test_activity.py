"""Zero operands and bit toggles against the oracle that walks the registers: docs/energy.md sections 3 and 4."""

import itertools

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.simulator.engine.activity import Sampling, ToggleCounter
from accelsim.simulator.widths import GridWidths
from tests.accelsim.simulator.gemm_cases import DATAFLOWS, Gemm, gemms, machines
from tests.naive import operations as naive


def as_multiplied(case, machine):
    """Return the operands as the PEs multiply them and the start values, as lists."""
    W, X, z_x = case.weights, case.activations, case.activation_zero_point
    zeros = case.weight_zero_points
    if machine.zero_point == "at_input":
        shifted = [[w - z for w in row] for row, z in zip(W, zeros, strict=True)]
        return shifted, [[x - z_x for x in row] for row in X], case.bias
    starts = [
        b - z_x * sum(row) + len(row) * z * z_x for b, row, z in zip(case.bias, W, zeros, strict=True)
    ]  # fmt: skip
    return W, X, starts


def narrowest(rows):
    values = [value for row in rows for value in row]
    return next(
        bits
        for bits in range(1, 33)
        if (min(values) >= 0 and max(values) < 2**bits)
        or (-(2 ** (bits - 1)) <= min(values) and max(values) < 2 ** (bits - 1))
    )


def naive_widths(W, X, machine):
    wider = machine.zero_point == "at_input"
    return naive.Widths(machine, max(1, narrowest(W) - wider), max(1, narrowest(X) - wider))


ALTERNATING = Gemm(
    [[1, -1, 0, -128], [0, 0, 127, 5]], [[255, 0, 3], [0, 255, 0], [1, 1, 1], [9, 8, 0]], [7, -7], [0, 0], 0
)


@pytest.mark.parametrize("engine", ["fast", "stepped"])
@pytest.mark.parametrize("dataflow", DATAFLOWS)
@given(data=st.data())
@example(data=None)
def test_zeros_and_toggles_of_a_gemm_equal_the_walk(dataflow, engine, data):
    if data is None:
        case, machine = ALTERNATING, ax.Machine(rows=2, columns=3, dataflow=dataflow, accumulator_bits=9)
    else:
        case, machine = data.draw(gemms()), data.draw(machines(dataflow))
    arguments, named = case.arguments()
    result = ax.matmul(*arguments, machine, **named, activity=True, engine=engine)
    W, X, starts = as_multiplied(case, machine)
    zeros = result.zero_operands
    assert (zeros.weight, zeros.activation, zeros.either) == naive.zero_operands(W, X)
    counted = result.toggles
    walked = naive.toggles(W, X, starts, machine, naive_widths(W, X, machine))
    assert (counted.weight, counted.activation, counted.product, counted.sum) == walked
    assert not counted.sampled
    assert counted.folds == counted.folds_counted


@pytest.mark.parametrize("dataflow", ["output_stationary", "weight_stationary", "input_stationary"])
@given(case=gemms(), data=st.data())
def test_toggles_equal_those_of_the_trace(dataflow, case, data):
    """What the stepped grid recorded, register by register, has as many toggles as are counted without stepping."""
    machine = data.draw(machines(dataflow, ragged_folds="used", zero_point="folded", product_shift_bits=0))
    arguments, named = case.arguments()
    result = ax.matmul(*arguments, machine, **named, engine="stepped", trace=True, activity=True)
    trace, toggles = result.trace, result.toggles
    W, X, _ = as_multiplied(case, machine)
    widths = naive_widths(W, X, machine)
    moving = {"weights": widths.weight, "activations": widths.activation}
    moving.pop({"weight_stationary": "weights", "input_stationary": "activations"}.get(dataflow), None)
    folds = [slice(begin, end) for begin, end in _runs(trace.fold)]
    for name, bits in moving.items():
        plane = getattr(trace, name)
        assert getattr(toggles, name[:-1]) == sum(_changes(plane[fold], bits) for fold in folds), name
    products = trace.weights * trace.activations
    assert toggles.product == sum(_changes(products[fold], widths.product) for fold in folds)
    if dataflow != "output_stationary":
        assert toggles.sum == sum(_changes(trace.accumulators[fold], widths.inner) for fold in folds)


def _runs(folds):
    edges = [0, *(np.flatnonzero(np.diff(folds)) + 1).tolist(), len(folds)]
    return list(itertools.pairwise(edges))


def _changes(plane, bits):
    """Count changing bits from 0 through (cycles, rows, columns) back to 0."""
    around = np.concatenate([np.zeros_like(plane[:1]), plane, np.zeros_like(plane[:1])])
    values = np.array([int(value) % 2**bits for value in around.flat], dtype=object).reshape(around.shape)
    return sum(int(value).bit_count() for value in (values[1:] ^ values[:-1]).flat)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@given(data=st.data(), groups=st.integers(1, 3), pieces=st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_pieces_and_folds_add_up(dataflow, data, groups, pieces):
    """Operands may come in pieces; a sample of all folds but one, scaled, and that one fold are what they should be."""
    machine = data.draw(machines(dataflow))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n, k, positions = (int(rng.integers(1, 7)) for _ in range(2)), int(rng.integers(1, 9)), sum(pieces)
    n = next(n)
    weights = rng.integers(-128, 128, (groups * n, k), dtype=np.int32)
    columns = rng.integers(0, 256, (groups, k, positions), dtype=np.int32)
    start = rng.integers(-999, 999, groups * n)
    widths = GridWidths.of(machine, 8, 8)

    def counted(cuts, sampling):
        counter = ToggleCounter(weights, start, groups, positions, machine, widths, sampling)
        for group in range(groups):
            begin = 0
            for length in cuts:
                counter.add(group, np.ascontiguousarray(columns[group, :, begin : begin + length]))
                begin += length
        return counter

    whole = counted([positions], Sampling()).toggles()
    assert counted(pieces, Sampling()).toggles() == whole
    alone = [counted([positions], Sampling(1, seed)) for seed in range(3)]
    if whole.folds == 1:
        assert [counter.toggles() for counter in alone] == [whole] * 3
        return
    for counter in alone:
        result = counter.toggles()
        assert (result.sampled, result.folds_counted, result.folds) == (True, 1, whole.folds)
        assert (result.weight, result.activation) == (whole.weight, whole.activation)
        assert result.product == counter.product * weights.size * positions // counter.counted_macs
        # The fold on its own, as all that is counted of its kind.
        assert counted(pieces, Sampling(1, result.seed)).toggles() == result
    folds = [_one_fold(counted, index) for index in range(whole.folds)]
    assert sum(product for product, _ in folds) == whole.product
    assert sum(total for _, total in folds) == whole.sum


def _one_fold(counted, index):
    """Count in one chosen fold alone, without scaling."""
    original = np.random.default_rng

    class Chooser:
        def __init__(self, seed):
            self.seed = seed

        def choice(self, *_, **__):
            return np.array([index])

    np.random.default_rng = Chooser
    try:
        counter = counted([counted([0], Sampling()).num_positions], Sampling(1))
    finally:
        np.random.default_rng = original
    return counter.product, counter.sum


@given(data=st.data())
def test_zeros_of_a_convolution_equal_the_loops(data):
    machine = data.draw(machines())
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    groups, per_group, outputs = (int(rng.integers(1, 3)) for _ in range(3))
    kernel, strides, dilations, image = (rng.integers(1, most, 2) for most in (4, 4, 3, 8))
    pads = rng.integers(0, 3, 4)
    image = np.maximum(image, dilations * (kernel - 1) + 1)
    X = rng.integers(-1, 2, (2, groups * per_group, *image))
    W = rng.integers(-1, 2, (groups * outputs, per_group, *kernel))
    z_x, z_w = int(rng.integers(-1, 2)), int(rng.integers(-1, 2))
    options = {
        "strides": tuple(strides.tolist()), "pads": tuple(pads.tolist()), "dilations": tuple(dilations.tolist()),
        "groups": groups, "activation_zero_point": z_x, "weight_zero_point": z_w,
    }  # fmt: skip
    result = ax.conv2d(X, W, machine, **options, activity=True)
    shift = machine.zero_point == "at_input"
    padded = np.pad(X, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])), constant_values=z_x) - shift * z_x
    fed = W - shift * z_w
    wanted = np.zeros(3, dtype=int)
    for n in range(len(fed)):
        first = n // outputs * per_group
        for b, r, s in np.ndindex(2, *result.accumulators.shape[2:]):
            top, left = r * strides[0], s * strides[1]
            rows = slice(top, top + dilations[0] * (kernel[0] - 1) + 1, dilations[0])
            cols = slice(left, left + dilations[1] * (kernel[1] - 1) + 1, dilations[1])
            no_x, no_w = padded[b, first : first + per_group, rows, cols] == 0, fed[n] == 0
            wanted += [no_w.sum(), no_x.sum(), (no_w | no_x).sum()]
    zeros = result.zero_operands
    assert [zeros.weight, zeros.activation, zeros.either] == wanted.tolist()
    assert result.toggles.folds_counted == result.toggles.folds > 0
