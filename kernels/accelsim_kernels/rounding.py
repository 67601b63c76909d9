"""The eight tie rules: docs/numerics.md section 4. Every rounding of every kernel ends here.

A rule takes a value as ``quotient + remainder / divisor``, where ``quotient`` is the floor, and returns the
quotient or the quotient + 1. It is given twice the remainder, so that a tie is ``twice == divisor``. The two may be
int64 (shifts and divisions) or float64 (fractions, with divisor 1.0); both are exact.
"""

from __future__ import annotations

import numpy as np

from accelsim_kernels._jit import Float, Int, callee

Number = Int | Float

FLOOR, TOWARD_ZERO, HALF_UP, HALF_DOWN, HALF_AWAY, HALF_TOWARD_ZERO, HALF_EVEN, TO_ODD = range(8)

RULES = {
    "floor": FLOOR,
    "toward_zero": TOWARD_ZERO,
    "half_up": HALF_UP,
    "half_down": HALF_DOWN,
    "half_away": HALF_AWAY,
    "half_toward_zero": HALF_TOWARD_ZERO,
    "half_even": HALF_EVEN,
    "to_odd": TO_ODD,
}


@callee
def round_quotient(quotient: Int, twice: Number, divisor: Number, rule: Int) -> Int:
    """Round ``quotient + twice / (2 * divisor)`` by the rule with this number.

    Parameters
    ----------
    quotient : int64
        Floor of the value.
    twice : int64 or float64
        Twice the remainder, ``0 <= twice < 2 * divisor``.
    divisor : int64 or float64
        What the remainder is a part of, above 0.
    rule : int64
        A value of `RULES`.

    Returns
    -------
    int64
        ``quotient`` or ``quotient + 1``.
    """
    if rule == HALF_UP:  # to nearest, ties toward plus infinity
        return quotient + np.int64(twice >= divisor)
    if rule == HALF_AWAY:  # to nearest, ties away from zero
        return quotient + np.int64(twice > divisor or (twice == divisor and quotient >= 0))
    if rule == HALF_EVEN:  # to nearest, ties to the even neighbour
        return quotient + np.int64(twice > divisor or (twice == divisor and quotient & 1 == 1))
    if rule == FLOOR:
        return quotient
    if rule == TOWARD_ZERO:  # drops the fraction of the magnitude
        return quotient + np.int64(twice > 0 and quotient < 0)
    if rule == HALF_DOWN:  # to nearest, ties toward minus infinity
        return quotient + np.int64(twice > divisor)
    if rule == HALF_TOWARD_ZERO:  # to nearest, ties toward zero
        return quotient + np.int64(twice > divisor or (twice == divisor and quotient < 0))
    return quotient + np.int64(twice > 0 and quotient & 1 == 0)  # to odd: keeps exact values, else the odd neighbour


@callee
def round_shift(value: Int, shift: Int, offset: Int, rule: Int) -> Int:
    """Round ``value / 2**shift + offset``.

    Parameters
    ----------
    value : int64
        Any value.
    shift : int64
        0..62.
    offset : int64
        Added to the value that is rounded; ties see it.
    rule : int64
        A value of `RULES`.

    Returns
    -------
    int64
        The rounded sum.
    """
    quotient = value >> shift
    divisor = np.int64(1) << shift
    return round_quotient(quotient + offset, (value - (quotient << shift)) << 1, divisor, rule)


@callee
def round_division(value: Int, divisor: Int, offset: Int, rule: Int) -> Int:
    """Round ``value / divisor + offset`` for ``0 < divisor < 2**62``; see `round_shift`."""
    quotient = value // divisor
    return round_quotient(quotient + offset, (value - quotient * divisor) << 1, divisor, rule)


@callee
def round_float(value: Float, rule: Int) -> Int:
    """Round a float64 of magnitude at most 2**52; see `round_shift`.

    Notes
    -----
    The fraction is taken from the truncated value, where the subtraction is exact; taken from the floor, a value just
    above -1/2 would become a tie. Below 0 the quotient is ``truncated - 1`` and the remainder ``1 + fraction``; twice
    that compares with 1 as 1 compares with ``-2 * fraction``.
    """
    truncated = np.trunc(value)
    fraction = value - truncated
    if fraction < 0.0:
        return round_quotient(np.int64(truncated) - 1, 1.0, -2.0 * fraction, rule)
    return round_quotient(np.int64(truncated), 2.0 * fraction, 1.0, rule)
