"""Requantize sums that lie channels last: `requantize` for the fast engine, in the vector registers.

The arithmetic is `scale`'s alone. Here stand the loops that the compiler brings to vectors: for the combinations of
parts that real stacks use, the kind, the rules and what is 0 are literals, so that `scale` folds to a few straight
operations; all other combinations take the last loop, with its branches. Channels repeat along the sums, so that a
loop is long even where the channels are few.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, callee, kernel
from accelsim_kernels.requantize import FLOAT32, FLOAT64, ONE_ROUNDING, TWO_ROUNDINGS, clamp, scale
from accelsim_kernels.rounding import HALF_AWAY, HALF_EVEN, HALF_UP
from accelsim_kernels.vectors.code import prefer_wide_vectors

Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

Sums = npt.NDArray[np.int32] | npt.NDArray[np.int64]

Channels = tuple[Any, Any, Any, Any, Any, Any, Any]
"""Arrays of one value per channel, repeated: start (int64), mantissa and exponent (int32), real (float64), bits, low
and high clamp bound (int32)."""

Shared = tuple[Any, Any, Any, Any, Any, Any]
"""What the channels share: kind, pre_shift, rule1, rule2, the zero point inside the rounding, the one after it."""


@callee
def requantize_repeat(sums: Sums, channels: Channels, shared: Shared, codes: Codes) -> None:
    """Requantize as many sums as the arrays of the channels are long, or fewer; see `requantize_rows`."""
    prefer_wide_vectors()
    start, mantissas, exponents, reals, bits, low, high = channels
    kind, pre_shift, rule1, rule2, offset, after = shared
    mask = np.int64((1 << (8 * codes.itemsize)) - 1)
    for i in range(sums.size):
        multiplier = (
            kind, np.int64(mantissas[i]), np.int64(exponents[i]), reals[i], np.int64(bits[i]), pre_shift, rule1, rule2
        )  # fmt: skip
        scaled = scale(start[i] + np.int64(sums[i]), multiplier, offset)
        codes[i] = clamp(scaled + after, np.int64(low[i]), np.int64(high[i])) & mask


@callee
def requantize_right(sums: Sums, channels: Channels, rule2: Int, offset: Int, after: Int, codes: Codes) -> None:
    """Requantize by `TWO_ROUNDINGS`, the first one half up, where no exponent shifts to the left.

    Notes
    -----
    ``min(exponent, 0)`` changes nothing, and tells the compiler that `scale` neither shifts left nor wraps.
    """
    prefer_wide_vectors()
    start, mantissas, exponents, reals, bits, low, high = channels
    mask, nothing = np.int64((1 << (8 * codes.itemsize)) - 1), np.int64(0)
    for i in range(sums.size):
        exponent = min(np.int64(exponents[i]), nothing)
        multiplier = (
            TWO_ROUNDINGS, np.int64(mantissas[i]), exponent, reals[i], np.int64(bits[i]), nothing, HALF_UP, rule2
        )  # fmt: skip
        scaled = scale(start[i] + np.int64(sums[i]), multiplier, offset)
        codes[i] = clamp(scaled + after, np.int64(low[i]), np.int64(high[i])) & mask


@kernel
def requantize_rows(sums: Sums, channels: Channels, shared: Shared, shifts_left: bool, codes: Codes) -> None:
    """Bring sums to codes, as `accelsim_kernels.requantize.requantize` does.

    Parameters
    ----------
    sums : int32 or int64 array, shape (p * n,)
        Dot products without their starts, channels last.
    channels : tuple of arrays, shape (repeats * n,)
        See `Channels`; a start plus its sum is what requantization gets.
    shared : tuple
        See `Shared`.
    shifts_left : bool
        False when no exponent of `TWO_ROUNDINGS` is above 0 and ``pre_shift`` is 0.
    codes : uint8 or uint16 array, shape (p * n,)
        Output: the low bits of the codes.
    """
    kind, _, rule1, rule2, offset, after = shared
    nothing, size = np.int64(0), channels[0].size
    right = kind == TWO_ROUNDINGS and rule1 == HALF_UP and not shifts_left
    for begin in range(0, sums.size, size):
        terms, stored = sums[begin : begin + size], codes[begin : begin + size]
        if right and rule2 == HALF_AWAY:
            requantize_right(terms, channels, HALF_AWAY, offset, after, stored)
        elif right and rule2 == HALF_UP:
            requantize_right(terms, channels, HALF_UP, offset, after, stored)
        elif kind == ONE_ROUNDING and rule1 == HALF_UP:
            some = (ONE_ROUNDING, nothing, HALF_UP, HALF_UP, offset, after)
            requantize_repeat(terms, channels, some, stored)
        elif kind == FLOAT32 and rule1 == HALF_EVEN:
            some = (FLOAT32, nothing, HALF_EVEN, HALF_EVEN, offset, after)
            requantize_repeat(terms, channels, some, stored)
        elif kind == FLOAT64 and rule1 == HALF_AWAY:
            some = (FLOAT64, nothing, HALF_AWAY, HALF_AWAY, offset, after)
            requantize_repeat(terms, channels, some, stored)
        else:
            requantize_repeat(terms, channels, shared, stored)
