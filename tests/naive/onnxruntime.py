"""ONNX models: docs/numerics.md (60) to (67), element by element; scales are Python floats with float32 numbers."""

from fractions import Fraction

from tests.naive.binary import f32
from tests.naive.quantizer import clamp
from tests.naive.rounding import rnd


def rint(value):
    return rnd(Fraction(value), "half_even")


def quantize_linear(x, scale, zero_point, low, high):
    """(60)."""
    return clamp(rint(f32(Fraction(x) / Fraction(scale))) + zero_point, low, high)


def dequantize_linear(q, scale, zero_point):
    """(61)."""
    return f32(f32(q - zero_point) * Fraction(scale))


def dynamic_quantize_linear(values):
    """(62): return codes, scale and zero point."""
    low, high = min(0, *map(Fraction, values)), max(0, *map(Fraction, values))
    span = f32(high - low)
    scale = f32(span / 255) if span else Fraction(1)
    zero_point = clamp(rint(f32(-low / scale)), 0, 255)
    return [quantize_linear(x, scale, zero_point, 0, 255) for x in values], scale, zero_point


def float_binary(function, a, b, quantizer_a, quantizer_b, scale, zero_point, low, high):
    """(63)."""
    left, right = dequantize_linear(a, *quantizer_a), dequantize_linear(b, *quantizer_b)
    value = {"Add": left + right, "Sub": left - right, "Mul": left * right}[function]
    return quantize_linear(f32(value), scale, zero_point, low, high)


def fma(a, b, c):
    return f32(Fraction(a) * Fraction(b) + Fraction(c))


def qlinear_add(a, b, quantizer_a, quantizer_b, scale, zero_point, low, high):
    """(64)."""
    (s_a, z_a), (s_b, z_b) = quantizer_a, quantizer_b
    r_a, r_b = f32(Fraction(s_a) / Fraction(scale)), f32(Fraction(s_b) / Fraction(scale))
    offset = f32(zero_point - fma(r_a, z_a, f32(z_b * r_b)))
    return clamp(rint(fma(a, r_a, fma(b, r_b, offset))), low, high)


def qlinear_mul(a, b, quantizer_a, quantizer_b, scale, zero_point, low, high):
    """(65)."""
    (s_a, z_a), (s_b, z_b) = quantizer_a, quantizer_b
    multiplier = f32(f32(Fraction(s_a) * Fraction(s_b)) / Fraction(scale))
    return clamp(rint(f32(f32(f32((a - z_a) * (b - z_b)) * multiplier) + zero_point)), low, high)


def average_pool(taps, window, quantizer_x, quantizer_y, count_include_pad, low, high):
    """(66) of one window of ``window`` elements; None is a padded tap."""
    (s_x, z_x), (s_y, z_y) = quantizer_x, quantizer_y
    total, count = Fraction(0), 0
    for tap in taps:
        if tap is not None:
            total, count = f32(total + dequantize_linear(tap, s_x, z_x)), count + 1
    mean = f32(total / (window if count_include_pad else count))
    return clamp(rint(f32(f32(mean / Fraction(s_y)) + z_y)), low, high)


def global_average_pool(codes, quantizer_x, quantizer_y, low, high):
    """(67) of one channel."""
    (s_x, z_x), (s_y, z_y) = quantizer_x, quantizer_y
    total = f32(sum(codes) - len(codes) * z_x)
    multiplier = f32(Fraction(s_x) / f32(Fraction(s_y) * len(codes)))
    return clamp(rint(f32(total * multiplier)) + z_y, low, high)
