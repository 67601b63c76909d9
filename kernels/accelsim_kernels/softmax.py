"""Softmax on stored integers: docs/numerics.md (33) and (50) to (58)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, callee, kernel
from accelsim_kernels.rounding import HALF_AWAY, HALF_UP, round_shift

Codes = npt.NDArray[np.int32]


@kernel
def softmax(codes: Codes, exponentials: npt.NDArray[np.int64], bits: Int, output: Codes) -> None:
    """Softmax over the last axis with an exponential table and one division, (33).

    Parameters
    ----------
    codes, output : int32 arrays, shape (rows, classes)
        Input; output in units of ``2**-bits``.
    exponentials : int64 array, shape (entries,)
        ``E[d]``, the exponential of minus d input steps, in units of ``2**-23``.
    bits : int64
        Width of the output.
    """
    for row in range(codes.shape[0]):
        peak = np.int64(codes[row].max())
        total = np.int64(0)
        for i in range(codes.shape[1]):
            total += exponentials[peak - np.int64(codes[row, i])]
        for i in range(codes.shape[1]):
            numerator = (exponentials[peak - np.int64(codes[row, i])] << bits) + (total >> 1)
            output[row, i] = min(numerator // total, (np.int64(1) << bits) - 1)


@callee
def high_product(a: Int, b: Int) -> Int:
    """Return ``half_up(a * b / 2**31)``, the product of fixed-point numbers of 32 bits, not both -2**31."""
    return round_shift(a * b, np.int64(31), np.int64(0), HALF_UP)


@callee
def saturated32(value: Int) -> Int:
    """Clamp to 32 bits."""
    return min(max(value, np.int64(-(1 << 31))), np.int64((1 << 31) - 1))


@callee
def negative_exponential(value: Int) -> Int:
    """Return ``exp(value / 2**26)`` in units of ``2**-31`` for ``-2**31 <= value <= 0``, (51).

    Notes
    -----
    gemmlowp, fixedpoint/fixedpoint.h: a polynomial on [-1/4, 0), times the factor of each remaining bit.
    """
    if value == 0:
        return np.int64((1 << 31) - 1)
    quarter = np.int64(1 << 24)
    fraction = (value & (quarter - 1)) - quarter  # in [-1/4, 0), units of 2^-26
    x = (fraction << 5) + (1 << 28)  # + 1/8, units of 2^-31
    x2 = high_product(x, x)
    x3 = high_product(x2, x)
    x4_over_4 = round_shift(high_product(x2, x2), np.int64(2), np.int64(0), HALF_AWAY)
    tail = high_product(x4_over_4 + x3, np.int64(715827883)) + x2
    polynomial = x + round_shift(tail, np.int64(1), np.int64(0), HALF_AWAY)
    result: Int = np.int64(1895147668) + high_product(np.int64(1895147668), polynomial)
    remainder = fraction - value
    for bit, factor in (
        (24, 1672461947), (25, 1302514674), (26, 790015084), (27, 290630308), (28, 39332535), (29, 720401), (30, 242),
    ):  # fmt: skip
        if remainder & (np.int64(1) << bit):
            result = high_product(result, np.int64(factor))
    return result


@callee
def reciprocal(value: Int) -> tuple[Int, Int]:
    """Return (1 / (1 + x) in units of ``2**-31``, leading zeros of the value in 32 bits), (53).

    Parameters
    ----------
    value : int64
        ``(1 + x) * 2**(31 - leading zeros)`` with ``0 <= x < 1``: 1..2**32 - 1.

    Notes
    -----
    gemmlowp's one_over_one_plus_x_for_x_in_0_1: three Newton-Raphson steps on a denominator in [1/2, 1), in Q2.29.
    """
    zeros = np.int64(0)
    while (value << zeros) < (1 << 31):
        zeros += 1
    total = (value << zeros) - (1 << 31) + ((1 << 31) - 1)
    half_denominator = (total + 1) >> 1
    x: Int = np.int64(1515870810) + high_product(half_denominator, np.int64(-1010580540))  # 48/17 - 32/17 d
    for _ in range(3):
        error = np.int64(1 << 29) - high_product(half_denominator, x)
        x += saturated32(high_product(x, error) << 2)
    return saturated32(x << 1), zeros


@kernel
def fixed_point_softmax(
    codes: Codes, mantissa: Int, left_shift: Int, least_difference: Int, bits: Int, output: Codes
) -> None:
    """Softmax over the last axis in fixed point, (50) to (54).

    Parameters
    ----------
    codes, output : int32 arrays, shape (rows, classes)
        Input; output signed, in units of ``2**-bits`` above its least code.
    mantissa, left_shift : int64
        Multiplier from differences of codes to Q5.26: ``mantissa * 2**(left_shift - 31)``.
    least_difference : int64
        Differences below this one give 0.
    bits : int64
        Width of the output.
    """
    lowest = np.int64(-(1 << 31)) >> (32 - bits)
    highest = -lowest - 1
    exponentials = np.empty(codes.shape[1], dtype=np.int64)
    for row in range(codes.shape[0]):
        peak = np.int64(codes[row].max())
        total = np.int64(0)
        for i in range(codes.shape[1]):
            difference = np.int64(codes[row, i]) - peak
            exponentials[i] = -1
            if difference >= least_difference:
                exponentials[i] = negative_exponential(high_product(difference << left_shift, mantissa))
                total += round_shift(exponentials[i], np.int64(12), np.int64(0), HALF_AWAY)
        scale, zeros = reciprocal(total)
        for i in range(codes.shape[1]):
            value = lowest
            if exponentials[i] >= 0:
                product = high_product(scale, exponentials[i])
                value += round_shift(product, 12 - zeros + 31 - bits, np.int64(0), HALF_AWAY)
            output[row, i] = min(max(value, lowest), highest)


@kernel
def table_softmax(
    codes: Codes, exponentials: npt.NDArray[np.int64], reciprocals: npt.NDArray[np.int64], output: Codes
) -> None:
    """Softmax of int16 codes over the last axis by two tables, (57) and (58).

    Parameters
    ----------
    codes, output : int32 arrays, shape (rows, classes)
        Input; output in units of ``2**-15``.
    exponentials, reciprocals : int64 arrays, shape (2**16,)
        Of a difference to the greatest code; of a number from 1 to 2: both in units of ``2**-15``.
    """
    for row in range(codes.shape[0]):
        peak = np.int64(codes[row].max())
        total = np.int64(0)
        for i in range(codes.shape[1]):
            total += exponentials[peak - np.int64(codes[row, i])]
        zeros = np.int64(0)
        while (total << (zeros + 1)) < (np.int64(1) << 32):
            zeros += 1
        place = (((total << (zeros - 1)) + (1 << 13)) >> 14) - (1 << 16)
        factor = reciprocals[place if place < reciprocals.size else reciprocals.size - 1]
        shift = 31 - zeros
        for i in range(codes.shape[1]):
            product = exponentials[peak - np.int64(codes[row, i])] * factor
            value = round_shift(product, shift, np.int64(0), HALF_UP)
            output[row, i] = min(value, np.int64((1 << 15) - 1))
