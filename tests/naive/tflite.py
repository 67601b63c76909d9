"""TFLite's operators: docs/numerics.md section 7, on Python integers.

A tensor is a `Codes`; a ``quantizer`` a triple (scale, zero point, (least code, greatest code)), the scale a Python
float that holds a number of float32. ``requantizer`` is None for the arithmetic of TFLite's own kernels, else the one
that takes its place.
"""

from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache
from itertools import product as indices_of
from math import ceil, floor, frexp, log2
from types import SimpleNamespace

from tests.naive import vector
from tests.naive.binary import f32
from tests.naive.network import indices
from tests.naive.quantizer import Fused, clamp
from tests.naive.requantize import integer_multiplier, product, stored, two_roundings
from tests.naive.rounding import rnd


def composition(multiplier, bits, mantissa, *rounding):
    return SimpleNamespace(
        multiplier=multiplier, multiplier_bits=bits, mantissa=mantissa, rounding=rounding, pre_shift_bits=0,
        zero_point="outside", overflow="saturate",
    )  # fmt: skip


DOUBLE = composition("integer", 32, "nearest", "half_up", "half_away")
INT16 = composition("integer", 16, "shortened", "half_up")
FLOAT64 = composition("float64", 32, "nearest", "half_away")


def bring(value, factors, divisor, target, requantizer):
    """Multiply a value, add the target's zero point, clamp."""
    zero_point = target[1]
    seen, after = vector.inside(zero_point, requantizer)
    return stored(product(value, factors, divisor, requantizer, seen) + after, target, requantizer)


def single(value):
    """Round to float32."""
    return float(f32(value))


def fused(quantizer, kind):
    """(43): the quantizer with its limits narrowed by a fused activation function."""
    scale, zero_point, (low, high) = quantizer
    bounds = {"NONE": (None, None), "RELU": (0, None), "RELU_N1_TO_1": (-1, 1), "RELU6": (0, 6)}[kind]
    codes = [
        None if bound is None else zero_point + rnd(f32(Fraction(bound) / Fraction(scale)), "half_away")
        for bound in bounds
    ]
    limits = [clamp(limit if code is None else code, low, high) for code, limit in zip(codes, (low, high), strict=True)]
    return Fused(scale, zero_point, limits, (low, high))


def padding(length, kernel, stride, dilation, same):
    """(44): outputs, and padding before."""
    reach = (kernel - 1) * dilation + 1
    if not same:
        return ceil(Fraction(length - reach + 1, stride)), 0
    outputs = ceil(Fraction(length, stride))
    return outputs, max((outputs - 1) * stride + reach - length, 0) // 2


def window(x, kernel, strides, dilations, same):
    """Yield for each (image, row, column) of the output its taps: (kernel row, kernel column, row, column) inside x."""
    batch, height, width, _ = x.shape
    (rows, top), (columns, left) = (
        padding(length, kernel[axis], strides[axis], dilations[axis], same)
        for axis, length in ((0, height), (1, width))
    )
    for image, i, j in indices_of(range(batch), range(rows), range(columns)):
        taps = []
        for u, v in indices_of(range(kernel[0]), range(kernel[1])):
            row, column = i * strides[0] - top + u * dilations[0], j * strides[1] - left + v * dilations[1]
            if 0 <= row < height and 0 <= column < width:
                taps.append((u, v, row, column))
        yield image, taps


def multiplied(accumulator, source, weight_scale, target, row, requantizer, product_of_scales=False):
    """(42): from an accumulator to a code; ``row`` is the arithmetic of the table's cell."""
    if requantizer is not None:
        return bring(accumulator, (source[0], weight_scale), target[0], target, requantizer)
    if product_of_scales:
        return bring(accumulator, (single(Fraction(source[0]) * Fraction(weight_scale)),), target[0], target, row)
    return bring(accumulator, (source[0], weight_scale), target[0], target, row)


def conv_2d(x, source, weights, scales, bias, target, strides, dilations, same, wide, requantizer):
    """CONV_2D with as many groups as the channels say; ``wide`` is int16 with a 64-bit bias or none."""
    channels, (num_outputs, *kernel, depth) = x.shape[3], weights.shape
    per_group = num_outputs // (channels // depth)
    codes = []
    for image, taps in window(x, kernel, strides, dilations, same):
        for n in range(num_outputs):
            first = n // per_group * depth
            total = bias[n]
            for u, v, row, column in taps:
                for c in range(depth):
                    total += (x.at((image, row, column, first + c)) - source[1]) * weights.at((n, u, v, c))
            codes.append(multiplied(total, source, scales[n], target, INT16 if wide else DOUBLE, requantizer))
    return codes


def depthwise_conv_2d(x, source, weights, scales, bias, target, strides, dilations, same, wide, requantizer):
    """DEPTHWISE_CONV_2D."""
    channels, (_, *kernel, num_outputs) = x.shape[3], weights.shape
    codes = []
    for image, taps in window(x, kernel, strides, dilations, same):
        for n in range(num_outputs):
            total = bias[n]
            for u, v, row, column in taps:
                value = x.at((image, row, column, n // (num_outputs // channels)))
                total += (value - source[1]) * weights.at((0, u, v, n))
            codes.append(multiplied(total, source, scales[n], target, INT16 if wide else DOUBLE, requantizer))
    return codes


def fully_connected(x, source, weights, scales, weight_zero, bias, target, wide, micro, requantizer):
    """FULLY_CONNECTED; ``scales`` has one or one for each output."""
    num_outputs, reduction = weights.shape
    row = (INT16 if wide else DOUBLE) if micro else FLOAT64
    one = len(scales) == 1
    codes = []
    for begin in range(0, len(x.flat), reduction):
        for n in range(num_outputs):
            total = bias[n]
            for k in range(reduction):
                total += (x.flat[begin + k] - source[1]) * (weights.at((n, k)) - (weight_zero if one else 0))
            scale = scales[0] if one else scales[n]
            codes.append(multiplied(total, source, scale, target, row, requantizer, one and micro))
    return codes


def pool(x, target, kernel, strides, same, greatest, requantizer):
    """(45): MAX_POOL_2D or AVERAGE_POOL_2D."""
    codes = []
    for image, taps in window(x, kernel, strides, (1, 1), same):
        for c in range(x.shape[3]):
            values = [x.at((image, row, column, c)) for _, _, row, column in taps]
            if greatest:
                value = max(values)
            else:
                value = vector.average_pool(values, target[1], DOUBLE if requantizer is None else requantizer)
            codes.append(clamp(value, *target[2]))
    return codes


def mean(x, source, target, axes, requantizer):
    """(45): MEAN."""
    kept = [range(1) if axis in axes else range(length) for axis, length in enumerate(x.shape)]
    codes = []
    for place in indices_of(*kept):
        values = [
            x.at(index)
            for index in indices(x.shape)
            if all(axis in axes or index[axis] == place[axis] for axis in range(len(x.shape)))
        ]
        n, total = len(values), sum(values) - len(values) * source[1]
        if requantizer is not None:
            codes.append(bring(total, (source[0],), n * target[0], target, requantizer))
            continue
        m, e = integer_multiplier(source[0] / target[0], 32)
        k = min(floor(log2(n)), 32, 31 + e)
        value = two_roundings(total, m * 2**k // n, e - k, 32, DOUBLE.rounding, 0)
        codes.append(clamp(value + target[1], *target[2]))
    return codes


def element(codes, other_shape, index):
    """The element of a tensor at an index of the output, with its axes of length 1 repeated."""
    own = index[len(other_shape) - len(codes.shape) :]
    return codes.at(tuple(0 if length == 1 else i for i, length in zip(own, codes.shape, strict=True)))


def add(a, b, quantizers, sign, left_shift, shape, requantizer):
    """(46): ADD and SUB."""
    return [
        vector.add(
            element(a, shape, index), element(b, shape, index), *quantizers,
            DOUBLE if requantizer is None else requantizer, sign, left_shift,
        )
        for index in indices(shape)
    ]  # fmt: skip


def add_shifted(a, b, quantizers, sign, shape):
    """(49)."""
    scale_a, scale_b, target = (Fraction(quantizer[0]) for quantizer in quantizers)
    return [
        clamp(
            rnd(element(a, shape, index) * scale_a / target, "half_away")
            + sign * rnd(element(b, shape, index) * scale_b / target, "half_away"),
            *quantizers[2][2],
        )
        for index in indices(shape)
    ]


def mul(a, b, quantizers, shape, requantizer):
    """(46): MUL."""
    (s_a, z_a, _), (s_b, z_b, _), target = quantizers
    factors, divisor = (s_a, s_b), target[0]
    if requantizer is None:
        factors, divisor = (single(f32(Fraction(s_a) * Fraction(s_b)) / Fraction(target[0])),), 1.0
    return [
        bring(
            (element(a, shape, index) - z_a) * (element(b, shape, index) - z_b), factors, divisor, target,
            DOUBLE if requantizer is None else requantizer,
        )
        for index in indices(shape)
    ]  # fmt: skip


def leaky_relu(x, source, target, alpha, micro, requantizer):
    """(46): LEAKY_RELU."""
    scale, zero_point, _ = source
    if requantizer is None and not micro:
        above = (single(Fraction(scale) / Fraction(target[0])),), 1.0
        below = (single(f32(Fraction(scale) * Fraction(alpha)) / Fraction(target[0])),), 1.0
    else:
        above, below = ((scale, 1.0), target[0]), ((scale, alpha), target[0])
    chosen = DOUBLE if requantizer is None else requantizer
    return [bring(q - zero_point, *(above if q >= zero_point else below), target, chosen) for q in x.flat]


def rescaled(x, source, target, in_float32, requantizer):
    """(47): QUANTIZE of stored integers; ``in_float32`` for RELU and its kin."""
    factors, divisor = (source[0],), target[0]
    if in_float32 and requantizer is None:
        factors, divisor = (single(Fraction(source[0]) / Fraction(target[0])),), 1.0
    return [bring(q - source[1], factors, divisor, target, requantizer or DOUBLE) for q in x.flat]


def quantize(values, target):
    """(48): float32 numbers, as Fractions, onto a grid."""
    scale, zero_point, limits = target
    return [clamp(rnd(f32(Fraction(x) / Fraction(scale)), "half_away") + zero_point, *limits) for x in values]


def high(a, b):
    """H of (50)."""
    return rnd(Fraction(a * b, 2**31), "half_up")


def shift(v, k):
    """RS of (50)."""
    return rnd(Fraction(v, 2**k), "half_away")


def exponential(v):
    """(51)."""
    if v == 0:
        return 2**31 - 1
    f = v % 2**24 - 2**24
    x = 32 * f + 2**28
    x2 = high(x, x)
    x3, x4 = high(x2, x), high(x2, x2)
    tail = shift(high(shift(x4, 2) + x3, 715827883) + x2, 1)
    result = 1895147668 + high(1895147668, x + tail)
    remaining = Fraction(f - v, 2**24)
    assert remaining.denominator == 1
    for i, c in enumerate((1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)):
        if int(remaining) >> i & 1:
            result = high(result, c)
    return result


def softmax(row, scale, beta, bits):
    """(50) to (54) of one vector of codes."""
    real = min(beta * scale * 2.0**26, 2.0**31 - 1)
    f, e = frexp(real)
    m = floor(Fraction(f) * 2**31 + Fraction(1, 2))
    if m == 2**31:
        m, e = 2**30, e + 1
    least = -floor(Fraction(31 * 2**26) / Fraction(2) ** e)
    terms = [
        None if q - max(row) < least else exponential(high((q - max(row)) * 2**e, m)) for q in row
    ]  # fmt: skip
    total = sum(shift(term, 12) for term in terms if term is not None)
    zeros = 32 - total.bit_length()
    x = total * 2**zeros - 2**31
    half = floor(Fraction(x + 2**31, 2))
    r = 1515870810 + high(half, -1010580540)
    for _ in range(3):
        r += clamp(4 * high(r, 2**29 - high(half, r)), -(2**31), 2**31 - 1)
    r = clamp(2 * r, -(2**31), 2**31 - 1)
    low = -(2 ** (bits - 1))
    return [
        low if term is None else clamp(shift(high(r, term), 12 - zeros + 31 - bits) + low, low, -low - 1)
        for term in terms
    ]


def interpolated(function, first, unit):
    """(55): a function of the 2^16 arguments ``first + unit * k``; both are fractions, the function exact enough."""
    step = 65535 * unit / 512

    def nearest(value):
        return rnd(value, "half_away")

    values = [2**15 * function(first + step * i) for i in range(513)]
    points = []
    for i in range(512):
        sample, middle = nearest(values[i]), nearest(2**15 * function(first + step * i + step / 2))
        chord = nearest((values[i + 1] + sample) / 2)
        points.append(sample - nearest(Fraction(chord - middle, 2)))
    points = [clamp(point, -(2**15), 2**15 - 1) for point in [*points, nearest(values[512])]]
    return [
        points[k // 128] + rnd(Fraction((points[k // 128 + 1] - points[k // 128]) * (k % 128), 128), "half_up")
        for k in range(2**16)
    ]


def exact_exponential(value):
    """The exponential of a fraction to 50 digits."""
    with localcontext() as context:
        context.prec = 50
        return Fraction((Decimal(value.numerator) / Decimal(value.denominator)).exp())


@cache
def wide_tables():
    """The tables of (56) and (57)."""
    exponentials = interpolated(exact_exponential, Fraction(-10), Fraction(10, 65535))
    return exponentials, interpolated(lambda x: 1 / (1 + x), Fraction(0), Fraction(1, 65535))


def wide_softmax(row, scale, beta):
    """(55) to (58) of one vector of int16 codes."""
    exponentials, reciprocals = wide_tables()
    m, e = integer_multiplier(scale * beta / (10.0 / 65535.0), 32)
    terms = []
    for q in row:
        scaled = two_roundings(q - max(row), m, e, 32, DOUBLE.rounding, 0)
        terms.append(exponentials[max(scaled, -65535) + 65535])
    zeros = 32 - sum(terms).bit_length()
    one_to_two = rnd(Fraction(sum(terms) * 2 ** (zeros - 1), 2**14), "half_up")
    factor = reciprocals[min(one_to_two - 2**16, 2**16 - 1)]
    return [min(rnd(Fraction(term * factor, 2 ** (31 - zeros)), "half_up"), 2**15 - 1) for term in terms]


def rows(codes):
    """A tensor's vectors along its last axis."""
    length = codes.shape[-1]
    return [codes.flat[begin : begin + length] for begin in range(0, len(codes.flat), length)]
