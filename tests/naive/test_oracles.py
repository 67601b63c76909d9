"""The oracles against what is known without them: the tables of the documents, numpy's float32, one another."""

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.naive import gemm, timing
from tests.naive.binary import f32, f64
from tests.naive.integers import Register, fits, saturate, wrap
from tests.naive.requantize import integer_multiplier
from tests.naive.rounding import ROUNDS_UP, rnd

TIES = [Fraction(n, 2) for n in (-5, -3, -1, 1, 3, 5)]
# The table of docs/numerics.md section 4.
TIE_TABLE = {
    "floor": [-3, -2, -1, 0, 1, 2],
    "toward_zero": [-2, -1, 0, 0, 1, 2],
    "half_up": [-2, -1, 0, 1, 2, 3],
    "half_down": [-3, -2, -1, 0, 1, 2],
    "half_away": [-3, -2, -1, 1, 2, 3],
    "half_toward_zero": [-2, -1, 0, 0, 1, 2],
    "half_even": [-2, -2, 0, 0, 2, 2],
    "to_odd": [-3, -1, -1, 1, 1, 3],
}


@pytest.mark.parametrize("rule", ROUNDS_UP)
def test_ties_are_those_of_the_document(rule):
    assert [rnd(tie, rule) for tie in TIES] == TIE_TABLE[rule]


@pytest.mark.parametrize("rule", ROUNDS_UP)
@given(value=st.fractions())
@example(value=Fraction(-7))
@example(value=Fraction(1, 10**30))
def test_a_rounding_is_the_value_or_a_neighbour(rule, value):
    rounded = rnd(value, rule)
    assert abs(rounded - value) < 1
    if value.denominator == 1:
        assert rounded == value
    if rule.startswith("half"):
        assert abs(rounded - value) <= Fraction(1, 2)


@given(value=st.fractions() | st.floats(allow_nan=False, allow_infinity=False, width=64).map(Fraction))
@example(value=Fraction(2) ** -149 / 2)
@example(value=Fraction(2) ** -149 * Fraction(3, 2))
@example(value=Fraction(2**24 + 1))
@example(value=Fraction(2**24 + 3))
def test_single_precision_of_a_double_is_numpys(value):
    value = f64(value)
    with np.errstate(over="ignore"):
        expected = np.float32(float(value))
    if np.isinf(expected):
        with pytest.raises(OverflowError):
            f32(value)
    else:
        assert f32(value) == Fraction(float(expected))


@given(value=st.integers(-(2**62), 2**62))
@example(value=2**24 + 1)
@example(value=2**60 + 2**36 + 1)  # through float64 it would be rounded twice, to the tie's other side
def test_single_precision_of_an_integer_is_rounded_once(value):
    assert f32(value) == Fraction(float(np.int64(value).astype(np.float32)))


@given(value=st.integers(-(2**70), 2**70), bits=st.integers(4, 64))
def test_registers(value, bits):
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    assert low <= wrap(value, bits) <= high
    assert (wrap(value, bits) - value) % 2**bits == 0
    assert saturate(value, bits) == sorted((low, value, high))[1]
    for overflow in ("wrap", "saturate", "error"):
        register = Register(bits, overflow)
        stored = register.ov(value)
        assert (stored == value) == fits(value, bits)
        assert register.events == (not fits(value, bits))


@given(d=st.floats(2.0**-60, 2.0**30), bits=st.integers(8, 32))
@example(d=0.5, bits=32)
@example(d=float(np.nextafter(1.0, 0.0)), bits=8)  # the mantissa rounds up to the next power of two
def test_an_integer_multiplier_is_the_nearest(d, bits):
    m, e = integer_multiplier(d, bits)
    if m == 0:
        assert d < Fraction(2) ** -bits
    else:
        assert 2 ** (bits - 2) <= m < 2 ** (bits - 1)
        unit = Fraction(2) ** (e - bits + 1)
        assert abs(m * unit - Fraction(d)) <= unit / 2


@pytest.mark.parametrize("dataflow", ["output_stationary", "broadcast", "weight_stationary", "input_stationary"])
@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
@given(data=st.data())
def test_walking_the_registers_gives_the_order_of_additions(dataflow, overflow, data):
    size = st.integers(1, 5)
    N, K, P = data.draw(size), data.draw(size), data.draw(size)
    machine = SimpleNamespace(
        rows=data.draw(st.integers(1, 3)),
        columns=data.draw(st.integers(1, 3)),
        dataflow=dataflow,
        accumulator_bits=6,
        partial_sum_bits=data.draw(st.sampled_from([None, 5])),
        adder_tree_bits=data.draw(st.sampled_from([None, 5])),
        overflow=overflow,
        zero_point="folded",
        ragged_folds=data.draw(st.sampled_from(["used", "full"])),
        double_buffered=False,
        product_shift_bits=data.draw(st.integers(0, 3)),
        product_rounding=data.draw(st.sampled_from(sorted(ROUNDS_UP))),
        pe_latency_cycles=data.draw(st.integers(1, 3)),
    )
    code = st.integers(-5, 5)
    weights = data.draw(st.lists(st.lists(code, min_size=K, max_size=K), min_size=N, max_size=N))
    activations = data.draw(st.lists(st.lists(code, min_size=P, max_size=P), min_size=K, max_size=K))
    starts = data.draw(st.lists(st.integers(-40, 40), min_size=N, max_size=N))
    cycles, values = timing.trace(weights, activations, starts, machine)
    expected = gemm.gemm(weights, activations, machine, bias=starts)
    assert values == {(n, p): expected[n][p].accumulator for n in range(N) for p in range(P)}
    assert sum(len(cycle.weights) for cycle in cycles) == N * K * P  # every product is made, once
    assert len(cycles) == timing.count(N, K, P, machine).multiply
