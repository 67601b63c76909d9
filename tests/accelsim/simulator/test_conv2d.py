"""`conv2d` against the convolution by its definition: docs/numerics.md section 2."""

from dataclasses import dataclass
from math import prod

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import accelsim as ax
from tests.accelsim.simulator.gemm_cases import (
    DATAFLOWS,
    assert_equal,
    biases,
    codes,
    flatten,
    formats,
    lists,
    machines,
    weight_zeros,
)
from tests.naive import conv as naive
from tests.naive import timing


@dataclass(frozen=True)
class Convolution:
    """Operands as nested lists of Python integers."""

    activations: list
    weights: list
    bias: list
    weight_zero_points: list
    activation_zero_point: int
    strides: tuple
    pads: tuple
    dilations: tuple
    groups: int

    def run(self, machine, engine, track="overflow"):
        return ax.conv2d(
            np.array(self.activations),
            np.array(self.weights),
            machine,
            bias=np.array(self.bias),
            weight_zero_point=np.array(self.weight_zero_points),
            activation_zero_point=self.activation_zero_point,
            strides=self.strides,
            pads=self.pads,
            dilations=self.dilations,
            groups=self.groups,
            engine=engine,
            track=track,
        )

    def expected(self, machine):
        return naive.conv2d(
            self.activations,
            self.weights,
            machine,
            self.bias,
            self.weight_zero_points,
            self.activation_zero_point,
            self.strides,
            self.pads,
            self.dilations,
            self.groups,
        )


@st.composite
def convolutions(draw):
    groups, group_channels, group_outputs = (draw(st.integers(1, most)) for most in (3, 2, 2))
    kernel, strides, dilations = (tuple(draw(lists(st.integers(1, most), 2))) for most in (3, 3, 2))
    pads = tuple(draw(lists(st.integers(0, 2), 4)))
    images = []
    for axis in range(2):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        least = max(1, reach - pads[axis] - pads[axis + 2])
        images.append(draw(st.integers(least, least + 3)))
    weight, activation = codes(*draw(formats())), codes(*draw(formats()))
    num_outputs = groups * group_outputs
    return Convolution(
        draw(lists(activation, draw(st.integers(1, 2)), groups * group_channels, *images)),
        draw(lists(weight, num_outputs, group_channels, *kernel)),
        draw(lists(biases() if draw(st.booleans()) else st.just(0), num_outputs)),
        draw(weight_zeros(weight, num_outputs)),
        draw(activation | st.just(0)),
        strides,
        pads,
        dilations,
        groups,
    )


SINGLE = Convolution([[[[-32768]]]], [[[[-32768]]]], [2**60], [0], 0, (1, 1), (0, 0, 0, 0), (1, 1), 1)
PADDED = Convolution([[[[65535]]]], [[[[1] * 3] * 3]], [0], [3], 65535, (1, 1), (2, 2, 2, 2), (1, 1), 1)
DEPTHWISE = Convolution(
    [[[[1, 2, 3]] * 3, [[-4, 5, -6]] * 3]], [[[[1, -1], [2, 3]]], [[[7, 0], [-8, 5]]]], [9, -9], [0, 2], -3, (2, 1),
    (0, 1, 2, 0), (1, 2), 2,
)  # fmt: skip


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("reduction_order", ["channel_first", "spatial_first"])
@given(data=st.data(), convolution=convolutions())
@example(data=None, convolution=SINGLE)
@example(data=None, convolution=PADDED)
@example(data=None, convolution=DEPTHWISE)
def test_stepped_and_fast_equal_the_definition(dataflow, reduction_order, data, convolution):
    if data is not None:
        chosen = [data.draw(machines(dataflow, reduction_order=reduction_order))]
    else:
        chosen = [
            ax.Machine(
                rows=2, columns=2, dataflow=dataflow, reduction_order=reduction_order, accumulator_bits=bits,
                partial_sum_bits=5, adder_tree_bits=5, overflow="saturate", zero_point=zero_point,
            )
            for bits in (6, 64)
            for zero_point in ("folded", "at_input")
        ]  # fmt: skip
    for machine in chosen:
        expected = convolution.expected(machine)
        shape = len(expected), len(expected[0]), len(expected[0][0]), len(expected[0][0][0])
        for engine in ("stepped", "fast"):
            for track in ("none", "range"):
                result = convolution.run(machine, engine, track)
                assert result.accumulators.shape == shape
                assert_equal(result, expected, track)


@pytest.mark.parametrize("engine", ["stepped", "fast"])
@given(convolution=convolutions(), machine=machines(overflow="error"))
@example(convolution=SINGLE, machine=ax.Machine(accumulator_bits=62, overflow="error"))
@example(convolution=SINGLE, machine=ax.Machine(accumulator_bits=61, overflow="error"))
def test_mode_error_refuses_the_run_exactly_when_an_event_was_counted(engine, convolution, machine):
    expected = convolution.expected(machine)
    if any(output.events or output.partial_events for output in flatten(expected)):
        with pytest.raises(ax.AccumulatorOverflowError, match="conv2d"):
            convolution.run(machine, engine)
    else:
        assert_equal(convolution.run(machine, engine), expected, "overflow")


@given(convolution=convolutions(), machine=machines())
def test_groups_cost_one_gemm_each(convolution, machine):
    batch, rows, columns = (
        len(convolution.activations),
        *ax.conv2d(
            np.array(convolution.activations),
            np.array(convolution.weights),
            strides=convolution.strides,
            pads=convolution.pads,
            dilations=convolution.dilations,
            groups=convolution.groups,
        ).accumulators.shape[2:],
    )
    weights = np.array(convolution.weights)
    sizes = weights.shape[0] // convolution.groups, prod(weights.shape[1:]), batch * rows * columns
    expected = timing.count(*sizes, machine, convolution.groups)
    for engine in ("stepped", "fast"):
        result = convolution.run(machine, engine, "none")
        cycles = result.cycles
        assert (cycles.load, cycles.multiply, cycles.drain) == (expected.load, expected.multiply, expected.drain)
        assert result.operations.multiplications == prod(sizes) * convolution.groups


@pytest.mark.parametrize("engine", ["stepped", "fast"])
@given(convolution=convolutions(), machine=machines(product_shift_bits=0))
def test_both_zero_point_modes_agree_where_nothing_overflows(engine, convolution, machine):
    wide = machine.replace(accumulator_bits=64, partial_sum_bits=None, adder_tree_bits=None)
    folded = convolution.run(wide.replace(zero_point="folded"), engine)
    at_input = convolution.run(wide.replace(zero_point="at_input"), engine)
    assert np.array_equal(folded.accumulators, at_input.accumulators)


@given(convolution=convolutions())
def test_the_order_of_the_reduction_changes_no_exact_sum(convolution):
    first, second = (
        convolution.run(ax.Machine(accumulator_bits=64, reduction_order=order), "fast")
        for order in ("channel_first", "spatial_first")
    )
    assert np.array_equal(first.accumulators, second.accumulators)


def test_the_order_of_the_reduction_decides_what_saturates():
    # Channel 0 adds 100 and -100 (two taps), channel 1 adds 100 and -100 too; with the taps outside the first two
    # additions are 100 and 100, which an 8-bit accumulator cannot hold.
    activations = np.array([[[[1, 1]], [[1, 1]]]])
    weights = np.array([[[[100, -100]], [[100, -100]]]])
    for order, value, events in (("channel_first", 0, 0), ("spatial_first", -73, 1)):
        machine = ax.Machine(accumulator_bits=8, overflow="saturate", reduction_order=order)
        for engine in ("stepped", "fast"):
            result = ax.conv2d(activations, weights, machine, engine=engine)
            assert result.accumulators.tolist() == [[[[value]]]]
            assert result.overflow_events.tolist() == [[[[events]]]]


def test_a_convolution_in_pieces_is_the_whole(monkeypatch):
    from accelsim.simulator.engine import convolution as engine

    random = np.random.default_rng(4)
    activations, weights = random.integers(0, 256, (3, 4, 9, 7)), random.integers(-128, 128, (6, 2, 3, 3))
    arguments = {"pads": (1, 1, 1, 1), "groups": 2, "activation_zero_point": 100, "track": "range"}
    machine = ax.Machine(accumulator_bits=15, overflow="saturate")
    whole = ax.conv2d(activations, weights, machine, engine="stepped", **arguments)
    monkeypatch.setattr(engine, "_FAST_COLUMN_BYTES", 4 * 18 * 5)  # columns of five positions at a time
    pieces = ax.conv2d(activations, weights, machine, engine="fast", **arguments)
    assert whole.overflow_events.any()
    for name in (
        "accumulators",
        "overflow_events",
        "first_overflow",
        "partial_overflow_events",
        "range_min",
        "range_max",
    ):
        assert np.array_equal(getattr(whole, name), getattr(pieces, name)), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activations": np.zeros((1, 2, 3), int)}, "activations must have 4 non-empty axes"),
        ({"weights": np.zeros((1, 3, 2, 2), int)}, "do not fit 2 channels in 1 groups"),
        ({"groups": 2, "weights": np.zeros((3, 1, 2, 2), int)}, "do not fit 2 channels in 2 groups"),
        ({"strides": (0, 1)}, "strides must be 2 whole numbers of at least 1"),
        ({"dilations": (1,)}, "dilations must be 2 whole numbers of at least 1"),
        ({"pads": (0, 0, 0, -1)}, "pads must be 4 whole numbers of at least 0"),
        ({"groups": 0}, "groups must be at least 1, got 0"),
        ({"groups": 1.5}, "groups must be a whole number, got 1.5"),
        ({"strides": 2}, "strides must be 2 whole numbers of at least 1 and at most 65536, got 2"),
        ({"strides": (1.0, 1)}, "strides must be 2 whole numbers"),
        ({"pads": None}, "pads must be 4 whole numbers"),
        ({"pads": (10**9, 0, 0, 0)}, "pads must be 4 whole numbers"),
        ({"machine": "edge_16x16"}, "machine must be a Machine, got 'edge_16x16'"),
        ({"dilations": (3, 1)}, "does not fit 3x3"),
    ],
)
def test_wrong_operands_are_refused(arguments, message):
    valid = {"activations": np.zeros((1, 2, 3, 3), int), "weights": np.zeros((1, 2, 2, 2), int)}
    with pytest.raises(ax.OperandError, match=message):
        ax.conv2d(**{**valid, **arguments})


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
@pytest.mark.parametrize("zero_point", [0, 200, -32768, 65535])
@pytest.mark.parametrize("mode", ["folded", "at_input"])
@pytest.mark.parametrize(("kernel", "pads"), [((1, 1), (0, 0, 0, 0)), ((3, 2), (2, 1, 0, 1))])
def test_columns_of_any_type_hold_the_same_numbers(dtype, zero_point, mode, kernel, pads):
    """Narrow types are kept where operands and padding fit them, which nobody sees in the results."""
    limits, rng = np.iinfo(dtype), np.random.default_rng(2)
    images = rng.choice([limits.min, limits.max, 0, 1, 77], (1, 4, 5, 3)).astype(dtype)
    weights = rng.choice([-128, 127, 0, 3], (6, 2, *kernel)).astype(np.int8)
    machine = ax.Machine(rows=4, columns=4, zero_point=mode, accumulator_bits=48)
    options = {"groups": 2, "pads": pads, "activation_zero_point": zero_point}
    fast, wide = (ax.conv2d(x, weights, machine, **options) for x in (images, images.astype(np.int64)))
    stepped = ax.conv2d(images, weights, machine, engine="stepped", **options)
    padded = np.pad(images.astype(np.int64) - zero_point, ((0, 0), (0, 0), pads[::2], pads[1::2]))
    for n in range(6):
        for row, column in np.ndindex(fast.accumulators.shape[2:]):
            window = padded[0, n // 3 * 2 : n // 3 * 2 + 2, row : row + kernel[0], column : column + kernel[1]]
            assert fast.accumulators[0, n, row, column] == (window * weights[n].astype(np.int64)).sum()
    for other in (wide, stepped):
        assert np.array_equal(fast.accumulators, other.accumulators)
        assert fast.zero_operands == other.zero_operands
