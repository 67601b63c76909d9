"""Generators of machines and operands, and the comparison of a result with the oracle's outputs."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

import accelsim as ax
from tests.naive.rounding import ROUNDS_UP

DATAFLOWS = ("output_stationary", "broadcast", "weight_stationary", "input_stationary")


@dataclass(frozen=True)
class Gemm:
    """Operands as lists of Python integers, the form in which the oracles take them."""

    weights: list
    activations: list
    bias: list
    weight_zero_points: list
    activation_zero_point: int

    def arguments(self):
        """Arguments of `accelsim.matmul` without the machine."""
        return (np.array(self.weights), np.array(self.activations)), {
            "bias": np.array(self.bias),
            "weight_zero_point": np.array(self.weight_zero_points),
            "activation_zero_point": self.activation_zero_point,
        }

    def in_few_bits(self):
        """The operands in the narrowest types of numpy that hold them."""
        return tuple(
            np.array(operand, dtype=np.result_type(*(np.min_scalar_type(x) for line in operand for x in line)))
            for operand in (self.weights, self.activations)
        )

    def oracle_arguments(self):
        return {
            "bias": self.bias,
            "weight_zero_points": self.weight_zero_points,
            "activation_zero_point": self.activation_zero_point,
        }


def codes(bits, signed):
    """Codes of a format; the ends of its range come often, as they overflow first."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.integers(low, high) | st.sampled_from([low, high])


@st.composite
def formats(draw):
    return draw(st.integers(1, 4) | st.integers(1, 16)), draw(st.booleans())


def lists(element, *shape):
    """Nested lists of a shape."""
    if not shape:
        return element
    return st.lists(lists(element, *shape[1:]), min_size=shape[0], max_size=shape[0])


def biases():
    return st.integers(-100, 100) | st.integers(-(2**60), 2**60) | st.sampled_from([-(2**60), 0, 2**60])


def weight_zeros(code, num_outputs):
    """Zero points of symmetric weights (the usual case), of one code for all, of one code for each channel."""
    return st.just([0] * num_outputs) | code.map(lambda z: [z] * num_outputs) | lists(code, num_outputs)


@st.composite
def gemms(draw):
    num_outputs, reduction, num_positions = (draw(st.integers(1, most)) for most in (6, 9, 6))
    weight, activation = codes(*draw(formats())), codes(*draw(formats()))
    return Gemm(
        draw(lists(weight, num_outputs, reduction)),
        draw(lists(activation, reduction, num_positions)),
        draw(lists(biases() if draw(st.booleans()) else st.just(0), num_outputs)),
        draw(weight_zeros(weight, num_outputs)),
        draw(activation | st.just(0)),
    )


def machines(dataflow=None, **fixed):
    """Machines of all widths and modes with small grids."""
    narrow = st.integers(4, 20)
    free = {
        "rows": st.integers(1, 5),
        "columns": st.integers(1, 5),
        "dataflow": st.sampled_from(DATAFLOWS) if dataflow is None else st.just(dataflow),
        "accumulator_bits": narrow | st.integers(4, 64),
        "overflow": st.sampled_from(["wrap", "saturate"]),
        "partial_sum_bits": st.none() | narrow | st.integers(4, 64),
        "adder_tree_bits": st.none() | narrow | st.integers(4, 64),
        "zero_point": st.sampled_from(["folded", "at_input"]),
        "reduction_order": st.sampled_from(["channel_first", "spatial_first"]),
        "double_buffered": st.booleans(),
        "ragged_folds": st.sampled_from(["used", "full"]),
        "product_shift_bits": st.just(0) | st.integers(0, 24),
        "product_rounding": st.sampled_from(sorted(ROUNDS_UP)),
        "pe_latency_cycles": st.integers(1, 4),
    }
    return st.fixed_dictionaries({**free, **{name: st.just(value) for name, value in fixed.items()}}).map(
        lambda fields: ax.Machine(**fields)
    )


def flatten(outputs):
    """All Outputs of nested lists, the last index fastest."""
    return [outputs] if not isinstance(outputs, list) else [leaf for part in outputs for leaf in flatten(part)]


def assert_equal(result, outputs, track):
    """Hold a GemmResult to the oracle's outputs, bit for bit, and to what the tracking level promises."""
    wanted = flatten(outputs)
    fields = {"accumulators": "accumulator"}
    tracked = {
        "overflow_events": "events",
        "first_overflow": "first_overflow",
        "partial_overflow_events": "partial_events",
    }
    ranges = {"range_min": "range_min", "range_max": "range_max"}
    absent = {}
    (fields if track != "none" else absent).update(tracked)
    (fields if track == "range" else absent).update(ranges)
    for name, field in fields.items():
        array = getattr(result, name)
        assert array.dtype == np.int64
        assert array.reshape(-1).tolist() == [getattr(output, field) for output in wanted], name
    for name in absent:
        assert getattr(result, name) is None
