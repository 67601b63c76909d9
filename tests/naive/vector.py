"""Layers without weights: docs/numerics.md (25) to (33), element by element.

A ``quantizer`` is a triple (scale, zero point, (least code, greatest code)); the scale is a Python float that holds a
number of float32.
"""

import math
from fractions import Fraction

from tests.naive.binary import f32, f64
from tests.naive.quantizer import dequantize, quantize
from tests.naive.requantize import product, stored
from tests.naive.rounding import rnd


def inside(zero_point, requantizer):
    """What the last rounding sees of the output's zero point, and what is added after it."""
    return (zero_point, 0) if requantizer.zero_point == "inside" else (0, zero_point)


def add(a, b, quantizer_a, quantizer_b, quantizer_y, requantizer, sign=1, left_shift=20):
    """(25) to (27)."""
    (s_a, z_a, _), (s_b, z_b, _), (s_y, z_y, _) = quantizer_a, quantizer_b, quantizer_y
    rule = requantizer.rounding[-1]
    seen, after = inside(z_y, requantizer)
    match requantizer.multiplier:
        case "integer":
            twice = 2 * max(s_a, s_b)
            left = product((a - z_a) * 2**left_shift, (s_a,), twice, requantizer)
            right = product((b - z_b) * 2**left_shift, (s_b,), twice, requantizer)
            value = product(left + sign * right, (twice,), 2**left_shift * s_y, requantizer, seen)
        case "float32" | "float64":
            to = f32 if requantizer.multiplier == "float32" else f64
            r_a, r_b = to(Fraction(s_a) / Fraction(s_y)), to(Fraction(s_b) / Fraction(s_y))
            value = rnd(to(to(to((a - z_a) * r_a) + sign * to((b - z_b) * r_b)) + seen), rule)
        case "power_of_two":
            s_a, s_b, s_y = Fraction(s_a), Fraction(s_b), Fraction(s_y)
            s = min(s_a, s_b)
            value = rnd(((a - z_a) * s_a / s + sign * (b - z_b) * s_b / s) * s / s_y + seen, rule)
    return stored(value + after, quantizer_y, requantizer)


def multiply(a, b, quantizer_a, quantizer_b, quantizer_y, requantizer):
    """(28)."""
    (s_a, z_a, _), (s_b, z_b, _), (s_y, z_y, _) = quantizer_a, quantizer_b, quantizer_y
    seen, after = inside(z_y, requantizer)
    value = product((a - z_a) * (b - z_b), (s_a, s_b), s_y, requantizer, seen) + after
    return stored(value, quantizer_y, requantizer)


def rescale(q, quantizer_in, quantizer_y, requantizer):
    """(29) of an input with other parameters than the output."""
    (s_in, z_in, _), (s_y, z_y, _) = quantizer_in, quantizer_y
    seen, after = inside(z_y, requantizer)
    return stored(product(q - z_in, (s_in,), s_y, requantizer, seen) + after, quantizer_y, requantizer)


def windows(image, kernel, strides, pads, dilations, output):
    """Yield for each output pixel, row by row, the list of its taps; None for a padded one.

    A window that reaches beyond the padding, as ONNX's ceil_mode allows, has no taps there.
    """
    height, width = len(image), len(image[0])
    for i in range(output[0]):
        for j in range(output[1]):
            taps = []
            for u in range(kernel[0]):
                for v in range(kernel[1]):
                    row = i * strides[0] - pads[0] + u * dilations[0]
                    column = j * strides[1] - pads[1] + v * dilations[1]
                    if row < height + pads[2] and column < width + pads[3]:
                        inside = 0 <= row < height and 0 <= column < width
                        taps.append(image[row][column] if inside else None)
            yield taps


def max_pool(taps):
    """(30) of one window."""
    return max(q for q in taps if q is not None)


def average_pool(taps, zero_point, requantizer, count_include_pad=False):
    """(31) of one window."""
    values = [zero_point if q is None else q for q in taps if q is not None or count_include_pad]
    rule = requantizer.rounding[-1]
    if requantizer.multiplier == "float32":
        return rnd(Fraction(sum(q - zero_point for q in values), len(values)), rule) + zero_point
    return rnd(Fraction(sum(values), len(values)), rule)


def mean(taps, quantizer_x, quantizer_y, requantizer):
    """(36): the average of a whole image onto a quantizer of its own."""
    (s_x, z_x, _), (s_y, z_y, _) = quantizer_x, quantizer_y
    seen, after = inside(z_y, requantizer)
    value = product(sum(q - z_x for q in taps), (s_x,), len(taps) * s_y, requantizer, seen)
    return stored(value + after, quantizer_y, requantizer)


def table(function, quantizer_x, quantizer_y):
    """(32): T[q] for every code of the input, from the least one on; ``function`` maps a Python float to one."""
    (s_x, z_x, (low_x, high_x)), (s_y, z_y, (low_y, high_y)) = quantizer_x, quantizer_y
    return [
        quantize(f32(function(float(dequantize(q, s_x, z_x)))), s_y, z_y, low_y, high_y)
        for q in range(low_x, high_x + 1)
    ]


def softmax(codes, scale, bits):
    """(33) of one vector of codes."""
    exponentials = [rnd(Fraction(math.exp(-scale * (max(codes) - q))) * 2**23, "half_even") for q in codes]
    total = sum(exponentials)
    return [min(2**bits - 1, (2**bits * e + total // 2) // total) for e in exponentials]
