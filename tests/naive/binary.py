"""IEEE 754 rounding to nearest, ties to even, on exact fractions."""

from fractions import Fraction

from tests.naive.rounding import rnd_quotient


def _nearest(value, precision, least_exponent, greatest_exponent):
    """Return the nearest number ``i * 2**e`` of a binary format with ``|i| < 2**precision``."""
    numerator, denominator = value.as_integer_ratio()
    if numerator == 0:
        return Fraction(0)
    # A first guess from below; the loop makes it the exponent for which the magnitude has `precision` bits at most.
    magnitude = numerator.bit_length() - denominator.bit_length()
    exponent = max(least_exponent, magnitude - precision - 1)
    while not _is_below(numerator, denominator, exponent + precision):
        exponent += 1
    up, down = 2 ** max(exponent, 0), 2 ** max(-exponent, 0)  # the unit is up / down
    rounded = rnd_quotient(numerator * down, denominator * up, "half_even") * up
    # The rounding may carry into 2**precision units, which is a number of the format too.
    if not _is_below(rounded, down, greatest_exponent):
        raise OverflowError(f"{float(value)} is beyond the format")
    return Fraction(rounded, down)


def _is_below(numerator, denominator, exponent):
    """Whether ``|numerator / denominator| < 2**exponent``."""
    return abs(numerator) * 2 ** max(-exponent, 0) < denominator * 2 ** max(exponent, 0)


def f32(value):
    return _nearest(value, precision=24, least_exponent=-149, greatest_exponent=128)


def f64(value):
    return Fraction(float(Fraction(value)))  # Python's float is binary64, and its conversion rounds to nearest even
