"""Multipliers in the form that a machine holds them: docs/numerics.md (19) to (24)."""

from fractions import Fraction
from math import frexp

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

import accelsim as ax
from accelsim.program.rescale import Rescale
from tests.naive.requantize import integer_multiplier, real_multiplier32, real_multiplier64

SCALES = st.floats(2.0**-40, 2.0**20, width=32)


def integer(bits, *rounding):
    return ax.Requantizer(multiplier_bits=bits, rounding=rounding)


def of(requantizer, *scales):
    *factors, divisor = (np.float32(scale) for scale in scales)
    return Rescale.of(requantizer, factors, divisor, "layer 'x'")


@given(st.integers(8, 32), SCALES, SCALES, SCALES)
@example(32, 1.0, 1.0, 1.0)
@example(8, 0.998046875, 1.0, 1.0)  # f = 511/512 rounds up to 2^7 and is halved
@example(32, 2.0**-40, 2.0**-40, 2.0**20)  # below 2^-31: the multiplier is 0
def test_two_roundings_hold_mantissa_and_exponent(bits, s_x, s_w, s_y):
    real = real_multiplier64((s_x, s_w), s_y)
    mantissa, exponent = integer_multiplier(real, bits, two=True)
    assume(exponent <= 30)
    rescale = of(integer(bits, "half_up", "half_away"), s_x, s_w, s_y)
    assert (rescale.mantissas.tolist(), rescale.exponents.tolist()) == ([mantissa], [exponent])
    assert rescale.bits.tolist() == [bits]
    if mantissa:
        assert abs(Fraction(mantissa, 2 ** (bits - 1)) * Fraction(2) ** exponent / Fraction(real) - 1) <= Fraction(
            1, 2 ** (bits - 1)
        )


@given(st.integers(8, 32), SCALES, SCALES, SCALES)
@example(32, 2.0**20, 2.0**20, 2.0**-40)
@example(8, 2.0**20, 1.0, 1.0)
def test_one_rounding_holds_mantissa_and_shift(bits, s_x, s_w, s_y):
    mantissa, exponent = integer_multiplier(real_multiplier64((s_x, s_w), s_y), bits)
    if exponent > bits - 2:
        mantissa, exponent = 2 ** (bits - 1) - 1, bits - 2
    rescale = of(integer(bits, "half_up"), s_x, s_w, s_y)
    assert (rescale.mantissas.tolist(), rescale.exponents.tolist()) == ([mantissa], [bits - 1 - exponent])
    assert 1 <= rescale.exponents[0] <= 62


@given(SCALES, SCALES, SCALES)
def test_float_multipliers_are_rounded_in_their_own_format(s_x, s_w, s_y):
    rescale = of(ax.Requantizer.preset("onnxruntime"), s_x, s_w, s_y)
    assert Fraction(float(rescale.reals[0])) == real_multiplier32((s_x, s_w), s_y)
    rescale = of(ax.Requantizer.preset("float64_half_away"), s_x, s_w, s_y)
    assert float(rescale.reals[0]) == real_multiplier64((s_x, s_w), s_y)


@pytest.mark.parametrize("j", range(-16, 63))
def test_a_power_of_two_is_a_shift(j):
    rescale = of(ax.Requantizer.preset("power_of_two"), 2.0 ** -(j // 2), 2.0 ** -(j - j // 2), 1.0)
    assert (rescale.mantissas[0], rescale.exponents[0]) == ((1, j) if j >= 0 else (2**-j, 0))


@pytest.mark.parametrize("j", [-17, 63])
def test_a_shift_out_of_range_is_refused_with_the_range(j):
    with pytest.raises(ax.LoweringError, match=rf"layer 'x': .* -16 to 62 bits, got {j}$"):
        of(ax.Requantizer.preset("power_of_two"), 2.0 ** -(j // 2), 2.0 ** -(j - j // 2), 1.0)


@given(SCALES)
def test_power_of_two_takes_nothing_else_and_says_the_remedy(scale):
    assume(frexp(scale)[0] != 0.5)
    with pytest.raises(ax.LoweringError, match=r"layer 'x'.*2\^-j.*PTQConfig\(power_of_two=True\)"):
        of(ax.Requantizer.preset("power_of_two"), scale, 1.0, 1.0)


def test_two_roundings_refuse_a_multiplier_that_no_shift_makes():
    of(integer(32, "half_up", "half_away"), 2.0**29, 1.0, 1.0)
    with pytest.raises(ax.LoweringError, match=r"layer 'x'.*beyond 2\^30"):
        of(integer(32, "half_up", "half_away"), 2.0**30, 1.0, 1.0)


def test_a_multiplier_beyond_float32_is_refused():
    # Three numbers of float32 never leave float64; a multiplier of float32 can become an infinity.
    with pytest.raises(ax.LoweringError, match=r"layer 'x': .*inf is not a finite number"):
        of(ax.Requantizer.preset("onnxruntime"), 3e38, 3e38, 1e-38)
    assert of(ax.Requantizer.preset("float64_half_away"), 3e38, 3e38, 1e-38).reals[0] > 1e113


@pytest.mark.parametrize("name", ax.Requantizer.preset_names())
def test_each_channel_has_its_own(name):
    scales = np.array([0.5, 0.125, 4.0], dtype=np.float32)
    whole = Rescale.of(ax.Requantizer.preset(name), [np.float32(0.25), scales], np.float32(2), "layer 'x'")
    parts = [of(ax.Requantizer.preset(name), 0.25, scale, 2.0) for scale in scales]
    for field in ("mantissas", "exponents", "reals", "bits"):
        assert getattr(whole, field).tolist() == [getattr(part, field)[0] for part in parts]
        assert getattr(whole.channels(slice(1, 3)), field).tolist() == getattr(whole, field).tolist()[1:]
