"""Every tie rule on shifts, divisions and float values: docs/numerics.md section 4."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from accelsim_kernels.rounding import RULES, round_division, round_float, round_shift
from tests.naive.rounding import ROUNDS_UP, rnd

int64 = np.int64
offsets = st.integers(-(2**16), 2**16)
LOWEST, HIGHEST = -(2**62), 2**62 - 1


def test_the_kernels_have_the_documents_rules():
    assert set(RULES) == set(ROUNDS_UP)
    assert len(set(RULES.values())) == len(RULES)


@pytest.mark.parametrize("rule", RULES)
@given(value=st.integers(LOWEST, HIGHEST) | st.integers(-20, 20), shift=st.integers(0, 62), offset=offsets)
@example(value=LOWEST, shift=62, offset=0)
@example(value=HIGHEST, shift=62, offset=-1)
@example(value=HIGHEST, shift=0, offset=2**16)
@example(value=-1, shift=62, offset=0)
@example(value=2**61, shift=62, offset=1)
@example(value=-(2**61), shift=62, offset=1)
def test_shifts(rule, value, shift, offset):
    rounded = round_shift(int64(value), int64(shift), int64(offset), int64(RULES[rule]))
    assert rounded == rnd(Fraction(value, 2**shift) + offset, rule)


@pytest.mark.parametrize("rule", RULES)
@given(odd=st.integers(-(2**20), 2**20), shift=st.integers(1, 40), offset=offsets)
def test_shifts_of_exact_ties(rule, odd, shift, offset):
    value = (2 * odd + 1) << (shift - 1)
    rounded = round_shift(int64(value), int64(shift), int64(offset), int64(RULES[rule]))
    assert rounded == rnd(Fraction(2 * odd + 1, 2) + offset, rule)


@pytest.mark.parametrize("rule", RULES)
@given(
    value=st.integers(-(2**60), 2**60) | st.integers(-20, 20),
    divisor=st.integers(1, 2**61) | st.integers(1, 8),
    offset=offsets,
)
@example(value=-(2**60), divisor=2**61, offset=0)
@example(value=2**60, divisor=2**61, offset=1)
@example(value=-1, divisor=2**62 - 1, offset=0)
@example(value=2**62 - 2, divisor=2**62 - 1, offset=0)
@example(value=-7, divisor=1, offset=0)
def test_divisions(rule, value, divisor, offset):
    rounded = round_division(int64(value), int64(divisor), int64(offset), int64(RULES[rule]))
    assert rounded == rnd(Fraction(value, divisor) + offset, rule)


@pytest.mark.parametrize("rule", RULES)
@given(value=st.floats(-(2.0**52), 2.0**52) | st.integers(-(2**30), 2**30).map(lambda half: half / 2))
@example(value=2.0**52)
@example(value=-(2.0**52))
@example(value=2.0**51 + 0.5)
@example(value=-(2.0**51) - 0.5)
@example(value=-0.0)
@example(value=5e-324)
@example(value=-5e-324)
@example(value=float(np.nextafter(0.5, 0)))
@example(value=float(np.nextafter(0.5, 1)))
@example(value=float(np.nextafter(-0.5, 0)))
def test_float_values(rule, value):
    assert round_float(np.float64(value), int64(RULES[rule])) == rnd(Fraction(value), rule)
