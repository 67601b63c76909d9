"""Element-wise layers on stored integers: docs/numerics.md section 6."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Float, Int, callee, kernel
from accelsim_kernels.requantize import FLOAT_LIMIT, SATURATE, TWO_ROUNDINGS, Limits, Multiplier, fit, scale
from accelsim_kernels.rounding import HALF_AWAY, HALF_UP, round_float
from accelsim_kernels.vectors.code import prefer_wide_vectors

Codes = npt.NDArray[np.int32]


@kernel
def rescale_codes(
    codes: Codes, zero_point: Int, multiplier: Multiplier, output_zero_point: Int, inside: bool,
    limits: Limits, output: Codes,
) -> None:  # fmt: skip
    """Bring codes onto another grid: ``clamp(R(q - z) + z_y)``, (29).

    Parameters
    ----------
    codes, output : int32 arrays, shape (n,)
        Input and output.
    zero_point, output_zero_point : int64
        Of the two grids.
    multiplier : tuple
        Of ``s / s_y``; see `accelsim_kernels.requantize`.
    inside : bool
        Whether the rounding sees the output zero point.
    limits : tuple
        See `accelsim_kernels.requantize`.
    """
    offset = output_zero_point if inside else np.int64(0)
    for i in range(codes.size):
        scaled = scale(np.int64(codes[i]) - zero_point, multiplier, offset)
        output[i] = fit(scaled + output_zero_point - offset, limits)


@kernel
def add_codes(
    a: Codes, zero_a: Int, multiplier_a: Multiplier, b: Codes, zero_b: Int, multiplier_b: Multiplier,
    sign: Int, left_shift: Int, multiplier: Multiplier, zero_point: Int, inside: bool,
    limits: Limits, output: Codes,
) -> None:  # fmt: skip
    """Add or subtract with integer multipliers or shifts, (25) and (27).

    Parameters
    ----------
    a, b, output : int32 arrays, shape (n,)
        Inputs and output.
    zero_a, zero_b, zero_point : int64
        Of the three grids.
    multiplier_a, multiplier_b, multiplier : tuple
        From each input to the common grid, and from there to the output.
    sign : int64
        1 adds, -1 subtracts.
    left_shift : int64
        L of (25), 0 for (27).
    inside, limits
        As in `rescale_codes`.
    """
    offset = zero_point if inside else np.int64(0)
    after = zero_point - offset
    low, high, overflow, minimum, maximum, zero = limits
    right = shifts_right(multiplier_a) and shifts_right(multiplier_b) and shifts_right(multiplier)
    if right and overflow == SATURATE:
        multipliers = (folded(multiplier_a), folded(multiplier_b), folded(multiplier))
        saturating = (low, high, SATURATE, minimum, maximum, zero)
        sum_codes(a, zero_a, b, zero_b, multipliers, sign, left_shift, offset, after, saturating, output)
    else:
        multipliers = (multiplier_a, multiplier_b, multiplier)
        sum_codes(a, zero_a, b, zero_b, multipliers, sign, left_shift, offset, after, limits, output)


@callee
def shifts_right(multiplier: Multiplier) -> bool:
    """Whether a multiplier has TFLite's two roundings, and nothing is shifted to the left."""
    kind, _, exponent, _, _, pre_shift, rule1, rule2 = multiplier
    right: bool = kind == TWO_ROUNDINGS and exponent <= 0 and pre_shift == 0 and rule1 == HALF_UP and rule2 == HALF_AWAY
    return right


@callee
def folded(multiplier: Multiplier) -> Multiplier:
    """Return a multiplier that `shifts_right` with literals, so that `scale` folds to a few straight operations."""
    _, mantissa, exponent, real, bits, _, _, _ = multiplier
    nothing = np.int64(0)
    return TWO_ROUNDINGS, mantissa, min(exponent, nothing), real, bits, nothing, HALF_UP, HALF_AWAY


@callee
def sum_codes(
    a: Codes, zero_a: Int, b: Codes, zero_b: Int, multipliers: tuple[Multiplier, Multiplier, Multiplier],
    sign: Int, left_shift: Int, offset: Int, after: Int, limits: Limits, output: Codes,
) -> None:  # fmt: skip
    """Do the loop of `add_codes`; the zero point is inside the rounding (``offset``) or outside (``after``)."""
    prefer_wide_vectors()
    multiplier_a, multiplier_b, multiplier = multipliers
    nothing = np.int64(0)
    for i in range(a.size):
        left = scale((np.int64(a[i]) - zero_a) << left_shift, multiplier_a, nothing)
        right = scale((np.int64(b[i]) - zero_b) << left_shift, multiplier_b, nothing)
        scaled = scale(left + sign * right, multiplier, offset)
        output[i] = fit(scaled + after, limits)


@kernel
def add_codes_float(
    a: Codes, zero_a: Int, ratio_a: Float, b: Codes, zero_b: Int, ratio_b: Float,
    sign: Int, single: bool, rule: Int, zero_point: Int, inside: bool, limits: Limits, output: Codes,
) -> None:  # fmt: skip
    """Add or subtract on hardware that multiplies by float32 or float64 numbers, (26).

    Parameters
    ----------
    a, b, output : int32 arrays, shape (n,)
        Inputs and output.
    zero_a, zero_b, zero_point : int64
        Of the three grids.
    ratio_a, ratio_b : float64
        ``s_a / s_y`` and ``s_b / s_y``, exactly representable in float32 where ``single``.
    sign : int64
        1 adds, -1 subtracts.
    single : bool
        Every operation in float32.
    rule : int64
        Tie rule.
    inside, limits
        As in `rescale_codes`.
    """
    offset = zero_point if inside else np.int64(0)
    for i in range(a.size):
        real_a = np.float64(np.int64(a[i]) - zero_a)
        real_b = np.float64((np.int64(b[i]) - zero_b) * sign)
        if single:
            left = np.float32(real_a) * np.float32(ratio_a)
            right = np.float32(real_b) * np.float32(ratio_b)
            total = np.float64(np.float32(np.float32(left + right) + np.float32(offset)))
        else:
            total = real_a * ratio_a + real_b * ratio_b + np.float64(offset)
        limited = np.float64(min(max(total, -FLOAT_LIMIT), FLOAT_LIMIT))
        output[i] = fit(round_float(limited, rule) + zero_point - offset, limits)


@kernel
def look_pairs_up(
    a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], table: npt.NDArray[np.uint16], output: npt.NDArray[np.uint16]
) -> None:
    """Replace every pair of codes of 8 bits by its entry in a table, (25) to (27) for all pairs there are.

    Parameters
    ----------
    a, b : uint8 arrays, shape (n,)
        The codes' bits.
    table : uint8 or uint16 array, shape (65536,)
        Entries of the pairs, by ``256 * a + b``.
    output : array of the same type, shape (n,)
        Output.
    """
    for i in range(a.size):
        output[i] = table[(np.int64(a[i]) << 8) | np.int64(b[i])]


@kernel
def multiply_codes(
    a: Codes, zero_a: Int, b: Codes, zero_b: Int, multiplier: Multiplier, zero_point: Int, inside: bool,
    limits: Limits, output: Codes,
) -> None:  # fmt: skip
    """Multiply element by element: ``clamp(R((a - z_a)(b - z_b)) + z_y)``, (28); parameters as in `add_codes`."""
    offset = zero_point if inside else np.int64(0)
    for i in range(a.size):
        product = (np.int64(a[i]) - zero_a) * (np.int64(b[i]) - zero_b)
        output[i] = fit(scale(product, multiplier, offset) + zero_point - offset, limits)


@kernel
def look_up(codes: npt.NDArray[np.int32], tables: Codes, lowest: Int, output: npt.NDArray[np.int32]) -> None:
    """Replace every code by its table's entry, (32).

    Parameters
    ----------
    codes, output : int32 arrays, shape (outer, channels, inner)
        Input and output.
    tables : int32 array, shape (1 or channels, entries)
        One table for all channels, or one for each.
    lowest : int64
        The code of the first entry.
    """
    for outer in range(codes.shape[0]):
        for channel in range(codes.shape[1]):
            table = tables[channel if tables.shape[0] > 1 else 0]
            for inner in range(codes.shape[2]):
                output[outer, channel, inner] = table[np.int64(codes[outer, channel, inner]) - lowest]
