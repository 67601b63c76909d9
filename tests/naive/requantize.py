"""Requantization: docs/numerics.md (19) to (24a), (40), (41). Scales are Python floats that hold numbers of float32."""

from fractions import Fraction
from functools import cache
from math import floor, frexp, inf

from tests.naive.binary import f32, f64
from tests.naive.integers import saturate, wrap
from tests.naive.quantizer import Fused, clamp
from tests.naive.rounding import rnd, rnd_quotient


@cache  # a layer has few multipliers and many outputs
def integer_multiplier(d, bits, two=False):
    """(19): return (m, e) of the float64 number ``d``; ``two`` roundings reach less far than one."""
    f, e = frexp(d)
    m = floor(Fraction(f) * 2 ** (bits - 1) + Fraction(1, 2))
    if m == 2 ** (bits - 1):
        m, e = 2 ** (bits - 2), e + 1
    if e < (-31 if two else bits - 63):
        m, e = 0, 0
    return m, e


def shortened_multiplier(d, bits):
    """(40): return (m, e) of the float64 number ``d``."""
    m, e = integer_multiplier(d, 32)
    return shortened(m, bits), e


def shortened(m, bits):
    """(40): return m' of a 32-bit mantissa."""
    most = 2 ** (bits - 1) - 1
    if bits == 32:
        return m
    return (m + 2 ** (31 - bits)) // 2 ** (32 - bits) if m < most * 2 ** (32 - bits) else most


def one_rounding(a, m, e, bits, rule, inside):
    """(20) without clamp and outer zero point."""
    if e > bits - 2:
        m, e = 2 ** (bits - 1) - 1, bits - 2
    t = bits - 1 - e
    most = 2 ** (64 - bits) - 1
    return rnd_quotient(clamp(a, -most, most) * m + inside * 2**t, 2**t, rule)


def two_roundings(a, m, e, bits, rules, inside, pre_shift=0):
    """(21) and (41) without clamp and outer zero point."""
    shifted = wrap(saturate(a, 32) * 2 ** (max(e, 0) + pre_shift), 32)
    h = rnd_quotient(shifted * m, 2 ** (bits - 1), rules[0])
    assert -(2**31) <= h < 2**31
    shift = max(-e, 0) + pre_shift
    return rnd_quotient(h + inside * 2**shift, 2**shift, rules[1])


def float_product(to_format, a, multiplier, rule, inside):
    """(22) and (23) without clamp and outer zero point; an infinity stays one, and clamps."""
    try:
        return rnd(to_format(to_format(to_format(a) * multiplier) + inside), rule)
    except OverflowError:
        return inf if a > 0 else -inf


@cache
def exponent(multiplier):
    """j of (24): the multiplier is 2**-j."""
    return next(j for j in range(-16, 63) if multiplier == Fraction(2) ** -j)


def power_of_two(a, multiplier, rule, inside):
    """(24) without clamp and outer zero point."""
    if exponent(multiplier) < 0:
        a = clamp(a, -(2**46 - 1), 2**46 - 1)
    return rnd(a * multiplier + inside, rule)


def product(a, factors, divisor, requantizer, inside=0):
    """R(a; M), M the product of ``factors`` over ``divisor``; ``inside`` is added to what the last rounding sees."""
    rules = requantizer.rounding
    match requantizer.multiplier:
        case "integer":
            d = real_multiplier64(factors, divisor)
            if requantizer.mantissa == "shortened":
                m, e = shortened_multiplier(d, requantizer.multiplier_bits)
            else:
                m, e = integer_multiplier(d, requantizer.multiplier_bits, len(rules) == 2)
            if len(rules) == 2:
                return two_roundings(
                    a, m, e, requantizer.multiplier_bits, rules, inside, requantizer.pre_shift_bits
                )  # fmt: skip
            return one_rounding(a, m, e, requantizer.multiplier_bits, rules[0], inside)
        case "float32":
            return float_product(f32, a, real_multiplier32(factors, divisor), rules[0], inside)
        case "float64":
            return float_product(f64, a, Fraction(real_multiplier64(factors, divisor)), rules[0], inside)
        case "power_of_two":
            return power_of_two(a, exact_multiplier(factors, divisor), rules[0], inside)


@cache
def exact_multiplier(factors, divisor):
    """M of (24)."""
    exact = Fraction(1, 1) / Fraction(divisor)
    for factor in factors:
        exact *= Fraction(factor)
    return exact


def real_multiplier64(factors, divisor):
    """M64 of (23) and d of (19)."""
    value = factors[0]
    for factor in factors[1:]:
        value = value * factor
    return value / divisor


@cache
def real_multiplier32(factors, divisor):
    """M32 of (22)."""
    value = Fraction(factors[0])
    for factor in factors[1:]:
        value = f32(value * Fraction(factor))
    return f32(value / Fraction(divisor))


def stored(value, quantizer, requantizer):
    """(24a): bring a result into the quantizer's format, then clamp it to its limits."""
    _, z, limits = quantizer
    low, high = getattr(quantizer, "ends", limits)
    match requantizer.overflow:
        case "wrap":
            value = low + (value - low) % (high - low + 1)
        case "saturate_to_zero":
            value = value if low <= value <= high else z
        case "saturate_symmetric":
            return clamp(clamp(value, *limits), -high if low < 0 else 0, high)  # of a fused function's bound, too
        case "saturate":
            value = clamp(value, low, high)
    return clamp(value, *limits)


def requantize(a, s_x, s_w, s_y, z, low, high, requantizer, ends=None):
    """From an accumulator to a code."""
    if requantizer.zero_point == "inside":
        value = product(a, (s_x, s_w), s_y, requantizer, inside=z)
    else:
        value = product(a, (s_x, s_w), s_y, requantizer) + z
    return stored(value, Fused(s_y, z, (low, high), (low, high) if ends is None else ends), requantizer)
