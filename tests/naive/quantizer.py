"""Uniform quantizers: docs/numerics.md (1) to (5). Real numbers come in and go out as exact fractions."""

from fractions import Fraction
from functools import cache

from tests.naive.binary import f32
from tests.naive.rounding import rnd


def code_limits(bits, signed):
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


class Fused(tuple):
    """A quantizer (scale, zero point, limits) whose limits a fused function narrowed; ``ends`` are its format's."""

    def __new__(cls, scale, zero_point, limits, ends):
        self = super().__new__(cls, (scale, zero_point, tuple(limits)))
        self.ends = tuple(ends)
        return self


def clamp(value, low, high):
    return min(max(value, low), high)


@cache  # networks run on the same inputs, and have few codes
def quantize(x, scale, zero_point, low, high):
    """(1); ``x`` and ``scale`` are numbers of float32."""
    try:
        steps = rnd(f32(Fraction(x) / Fraction(scale)), "half_even")
    except OverflowError:  # the quotient is an infinity, which clamps
        return high if x > 0 else low
    return clamp(steps + zero_point, low, high)


@cache
def dequantize(q, scale, zero_point):
    """(2), in float32."""
    return f32(Fraction(scale) * (q - zero_point))


def finest_scale(lo, hi, low, high, scheme):
    """(3) and (4) before any rounding; None where the range has no width on a side with codes."""
    lo, hi = min(Fraction(lo), 0), max(Fraction(hi), 0)
    if scheme == "affine":
        scale = (hi - lo) / (high - low)
    elif high == 0:  # 1 bit, signed
        scale = -lo
    else:
        scale = (max(-lo, hi) if low < 0 else hi) / high
    return scale if scale > 0 else Fraction(1)


def next_power_of_two(scale):
    """(5)."""
    power = Fraction(1)
    while power < scale:
        power *= 2
    while power / 2 >= scale:
        power /= 2
    return power
