"""From accumulators to codes: docs/numerics.md section 5.

A multiplier is a tuple ``(kind, mantissa, exponent, real, bits, pre_shift, rule1, rule2)``, ``pre_shift`` being s of
(41) and 0 for all kinds but `TWO_ROUNDINGS`:

=================  ==============  =========================  ===========================  ====
kind               mantissa        exponent                   real                         bits
=================  ==============  =========================  ===========================  ====
`TWO_ROUNDINGS`    m of (19)       e of (19)                                               w
`ONE_ROUNDING`     m of (19)       t of (20), 0..62                                        most magnitude bits of A
`FLOAT32`                                                     M32 of (22)
`FLOAT64`                                                     M64 of (23)
=================  ==============  =========================  ===========================  ====

A power of two (24) is `ONE_ROUNDING` with mantissa ``2**max(-j, 0)`` and exponent ``max(j, 0)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Float, Int, callee, kernel
from accelsim_kernels.integers import wrap32
from accelsim_kernels.rounding import round_float, round_shift

TWO_ROUNDINGS, ONE_ROUNDING, FLOAT32, FLOAT64 = range(4)

SATURATE, WRAP, TO_ZERO = range(3)
"""What is stored where a result leaves the format; symmetric saturation is `SATURATE` with narrower bounds."""

Multiplier = tuple[Any, Any, Any, Any, Any, Any, Any, Any]
Limits = tuple[Any, Any, Any, Any, Any, Any]
"""Low and high clamp bound, one of the above, least and greatest code of the format, code of real zero: int64."""

FLOAT_LIMIT = float(1 << 50)
"""Products beyond this are clamped before rounding; every code's clamp is far inside."""


@callee
def clamp(value: Int, low: Int, high: Int) -> Int:
    """Return the value, or the bound that it is beyond."""
    return low if value < low else (high if value > high else value)


@callee
def into_format(value: Int, overflow: Int, minimum: Int, maximum: Int, zero: Int) -> Int:
    """Bring a result into a format of ``maximum - minimum + 1 = 2**b`` codes, (24a); `clamp` saturates it."""
    if overflow == WRAP:
        return ((value - minimum) & (maximum - minimum)) + minimum
    if overflow == TO_ZERO and (value < minimum or value > maximum):
        return zero
    return value


@callee
def fit(value: Int, limits: Limits) -> Int:
    """Return the code of a result: into the format, then between the bounds of a fused function."""
    low, high, overflow, minimum, maximum, zero = limits
    return clamp(into_format(value, overflow, minimum, maximum, zero), low, high)


@callee
def scale(value: Int, multiplier: Multiplier, offset: Int) -> Int:
    """Return ``rnd(value * M + offset)``, the product and the rounding(s) of (20) to (24), (41).

    Parameters
    ----------
    value : int64
        Accumulator; clamped to what the multiplier takes.
    multiplier : tuple
        See the module.
    offset : int64
        Zero point that the last rounding sees: 0 where it is added outside.

    Returns
    -------
    int64
        Unclamped result, magnitude below 2**62.
    """
    kind, mantissa, exponent, real, bits, pre_shift, rule1, rule2 = multiplier
    if kind == TWO_ROUNDINGS:
        entry = clamp(value, np.int64(-(1 << 31)), np.int64((1 << 31) - 1))
        shifted = wrap32(entry << (max(exponent, 0) + pre_shift))
        high_product = round_shift(shifted * mantissa, bits - 1, np.int64(0), rule1)  # (21), (41), h
        return round_shift(high_product, max(-exponent, 0) + pre_shift, offset, rule2)
    if kind == ONE_ROUNDING:
        limit = (np.int64(1) << bits) - 1
        return round_shift(clamp(value, -limit, limit) * mantissa, exponent, offset, rule1)
    return scale_float(value, kind == FLOAT32, real, rule1, offset)


@callee
def scale_float(value: Int, single: bool, real: Float, rule: Int, offset: Int) -> Int:
    """Return (22) or (23) without clamp: the modelled hardware multiplies and adds in a floating-point format."""
    if single:
        product = np.float64(np.float32(np.float32(value) * np.float32(real)) + np.float32(offset))
    else:
        product = np.float64(value) * real + np.float64(offset)
    return round_float(np.float64(min(max(product, -FLOAT_LIMIT), FLOAT_LIMIT)), rule)


@kernel
def requantize(
    accumulators: npt.NDArray[np.int64],
    mantissas: npt.NDArray[np.int64],
    exponents: npt.NDArray[np.int64],
    reals: npt.NDArray[np.float64],
    bits: npt.NDArray[np.int64],
    kind: Int,
    pre_shift: Int,
    rule1: Int,
    rule2: Int,
    zero_point: Int,
    inside: bool,
    lows: npt.NDArray[np.int64],
    highs: npt.NDArray[np.int64],
    overflow: Int,
    minimum: Int,
    maximum: Int,
    codes: npt.NDArray[np.int32],
) -> None:
    """Requantize a GEMM's accumulators, one multiplier per output channel.

    Parameters
    ----------
    accumulators : int64 array, shape (n, p)
        Values after the last addition.
    mantissas, exponents : int64 arrays, shape (n,)
        Parts of the multipliers, see the module.
    reals : float64 array, shape (n,)
        Real multipliers of the float kinds.
    bits : int64 array, shape (n,)
        Parts of the multipliers, see the module.
    kind, pre_shift, rule1, rule2 : int64
        What the channels share.
    zero_point : int64
        Output zero point.
    inside : bool
        Whether the rounding sees the zero point.
    lows, highs : int64 arrays, shape (n,)
        Clamp bounds of each channel.
    overflow, minimum, maximum : int64
        What is stored where a result leaves the format, and the format's ends; see `into_format`.
    codes : int32 array, shape (n, p)
        Output.
    """
    offset = zero_point if inside else np.int64(0)
    after = np.int64(0) if inside else zero_point
    for n in range(accumulators.shape[0]):
        multiplier = (kind, mantissas[n], exponents[n], reals[n], bits[n], pre_shift, rule1, rule2)
        low, high = lows[n], highs[n]
        for p in range(accumulators.shape[1]):
            scaled = scale(accumulators[n, p], multiplier, offset) + after
            codes[n, p] = clamp(into_format(scaled, overflow, minimum, maximum, zero_point), low, high)
