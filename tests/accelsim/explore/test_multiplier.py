"""The width of a requantization multiplier: by trying every accumulator with the oracle."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.explore.bounds import Bounds
from accelsim.explore.multiplier import needed_multiplier_bits, proven_multiplier_bits
from accelsim.formats import IntegerFormat
from accelsim.program.layers import MacLayer
from accelsim.program.rescale import Rescale
from tests.naive.quantizer import clamp
from tests.naive.requantize import integer_multiplier, one_rounding, two_roundings


def layer(scale, requantizer, clamp_to, zero_point):
    """A layer of one channel whose multiplier is ``scale``."""
    return MacLayer(
        name="m", op="MatMul", inputs=("x",), output="y", output_shape=(1,), weights=np.ones((1, 1), dtype=np.int32),
        start=np.zeros(1, dtype=np.int64), weight_zero_points=np.zeros(1, dtype=np.int64), input_offset=0, pad_value=0,
        geometry=None, weight_format=IntegerFormat(8, True), input_format=IntegerFormat(8, True),
        rescale=Rescale.of(requantizer, [np.float64(scale)], np.float64(1), "m"), zero_point=zero_point, clamp=clamp_to,
        output_format=IntegerFormat(8, True),
    )  # fmt: skip


def code(a, scale, bits, rules, zero_point, clamp_to):
    m, e = integer_multiplier(scale, bits)
    value = one_rounding(a, m, e, bits, rules[0], 0) if len(rules) == 1 else two_roundings(a, m, e, bits, rules, 0)
    return clamp(value + zero_point, *clamp_to)


def narrowest_by_trying(values, scale, rules, zero_point, clamp_to):
    wanted = [code(a, scale, 32, rules, zero_point, clamp_to) for a in values]
    bits = 32
    while bits > 8 and [code(a, scale, bits - 1, rules, zero_point, clamp_to) for a in values] == wanted:
        bits -= 1
    return bits


RULES = st.sampled_from([("half_up", "half_away"), ("half_up",), ("half_even",), ("floor",), ("half_up", "half_up")])


@given(st.floats(0.004, 0.9), RULES, st.integers(-60, 300), st.integers(0, 80), st.integers(-3, 3), st.integers(1, 5))
def test_the_proven_width_is_that_of_trying_every_accumulator(scale, rules, low, length, zero_point, bits):
    scale = float(np.float32(scale))
    clamp_to = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    made = layer(scale, ax.Requantizer(rounding=rules), clamp_to, zero_point)
    bounds = Bounds(np.array([low]), np.array([low + length]), tight=True)
    expected = narrowest_by_trying(range(low, low + length + 1), scale, rules, zero_point, clamp_to)
    assert proven_multiplier_bits(made, bounds) == expected


@given(st.floats(0.0005, 0.9), RULES, st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=8))
def test_the_needed_width_looks_at_the_values_alone(scale, rules, values):
    scale, clamp_to = float(np.float32(scale)), (-(2**15), 2**15 - 1)
    made = layer(scale, ax.Requantizer(rounding=rules), clamp_to, 0)
    expected = narrowest_by_trying(values, scale, rules, 0, clamp_to)
    array = np.array([values], dtype=np.int64)
    assert needed_multiplier_bits(made, array, slice(None), 8) == expected
    assert needed_multiplier_bits(made, array, slice(None), 20) == max(20, expected)


def test_nothing_is_proven_where_the_first_shift_may_wrap():
    made = layer(5.0, ax.Requantizer(), (-128, 127), 0)
    wide = Bounds(np.array([-(2**30)]), np.array([2**30]), tight=True)
    assert proven_multiplier_bits(made, wide) is None
    assert proven_multiplier_bits(made, replace(wide, low=np.array([-9]), high=np.array([9]))) is not None


@pytest.mark.parametrize("rules", [("half_up", "half_away"), ("half_up",)])
def test_many_channels_take_the_widest_of_their_answers(rules):
    scales = [0.011, 0.2347, 0.5]
    requantizer = ax.Requantizer(rounding=rules)
    one = layer(0.5, requantizer, (-16, 15), 0)
    many = replace(
        one, weights=np.ones((3, 1), dtype=np.int32), start=np.zeros(3, dtype=np.int64),
        rescale=Rescale.of(requantizer, [np.array(scales)], np.float64(1), "m"),
    )  # fmt: skip
    bounds = Bounds(np.full(3, -200), np.full(3, 300), tight=True)
    expected = max(narrowest_by_trying(range(-200, 301), scale, rules, 0, (-16, 15)) for scale in scales)
    assert proven_multiplier_bits(many, bounds) == expected
