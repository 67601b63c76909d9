"""Bringing a value into a register: docs/numerics.md (9) to (11)."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from accelsim_kernels.integers import bring_in, wrap32
from tests.naive import integers as naive

int64 = np.int64


@given(value=st.integers(-(2**63), 2**63 - 1), bits=st.integers(4, 63), saturate=st.booleans())
@example(value=-(2**63), bits=63, saturate=False)
@example(value=2**63 - 1, bits=63, saturate=False)
@example(value=-(2**63), bits=4, saturate=True)
@example(value=2**62, bits=63, saturate=False)
@example(value=-(2**62) - 1, bits=63, saturate=False)
@example(value=8, bits=4, saturate=False)
@example(value=-9, bits=4, saturate=False)
def test_a_register_holds_what_the_oracle_says(value, bits, saturate):
    low, high = naive.limits(bits)
    expected = naive.saturate(value, bits) if saturate else naive.wrap(value, bits)
    assert bring_in(int64(value), int64(low), int64(high), saturate) == expected


@given(value=st.integers(-(2**63), 2**63 - 1))
@example(value=-(2**63))
@example(value=2**63 - 1)
def test_64_bits_hold_every_value(value):
    low, high = naive.limits(64)
    for saturate in (False, True):
        assert bring_in(int64(value), int64(low), int64(high), saturate) == value


@given(value=st.integers(-(2**63), 2**63 - 1) | st.integers(-(2**33), 2**33))
@example(value=2**31)
@example(value=-(2**31) - 1)
def test_wrap32(value):
    assert wrap32(int64(value)) == naive.wrap(value, 32)
