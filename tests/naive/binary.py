"""IEEE 754 rounding to nearest, ties to even, on exact fractions."""

from fractions import Fraction

from tests.naive.rounding import rnd


def _nearest(value, precision, least_exponent, greatest_exponent):
    """Return the nearest number ``i * 2**e`` of a binary format with ``|i| < 2**precision``."""
    value = Fraction(value)
    if value == 0:
        return value
    # A first guess from below; the loop makes it the exponent for which the magnitude has `precision` bits at most.
    magnitude = value.numerator.bit_length() - value.denominator.bit_length()
    exponent = max(least_exponent, magnitude - precision - 1)
    while abs(value) >= Fraction(2) ** (exponent + precision):
        exponent += 1
    unit = Fraction(2) ** exponent
    rounded = rnd(value / unit, "half_even") * unit  # may carry into 2**precision, which is a number of the format too
    if abs(rounded) >= Fraction(2) ** greatest_exponent:
        raise OverflowError(f"{float(value)} is beyond the format")
    return rounded


def f32(value):
    return _nearest(value, precision=24, least_exponent=-149, greatest_exponent=128)


def f64(value):
    return Fraction(float(Fraction(value)))  # Python's float is binary64, and its conversion rounds to nearest even
