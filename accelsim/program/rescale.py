"""Requantization multipliers in the form that a machine holds them: docs/numerics.md (19) to (24), (40), (41)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import LoweringError
from accelsim.formats import IntegerFormat, QuantizationParameters
from accelsim.machine import Requantizer

Int64 = npt.NDArray[np.int64]

_LEAST_SHIFT, _GREATEST_SHIFT = -16, 62


@dataclass(frozen=True)
class Rescale:
    """One multiplier per output channel.

    Parameters
    ----------
    requantizer : Requantizer
        Whose arithmetic it is.
    mantissas, exponents : int64 arrays, shape (channels,)
        m and e of (19) or (40) with two roundings; m and t of (20) with one; ``2**max(-j, 0)`` and ``max(j, 0)`` of
        (24).
    reals : float64 array, shape (channels,)
        M32 or M64 of (22), (23); for the other kinds the real multiplier that the integers approximate.
    bits : int64 array, shape (channels,)
        With two roundings the multiplier's width w, else the widest magnitude that the product takes: wider
        accumulators are clamped first.
    """

    requantizer: Requantizer
    mantissas: Int64
    exponents: Int64
    reals: npt.NDArray[np.float64]
    bits: Int64

    @classmethod
    def of(
        cls, requantizer: Requantizer, numerators: Sequence[npt.ArrayLike], denominator: npt.ArrayLike, where: str
    ) -> Rescale:
        """Make the multipliers ``product of numerators / denominator``.

        Parameters
        ----------
        requantizer : Requantizer
            Kind and width of the multiplier.
        numerators : sequence of float32 scalar or array of shape (channels,)
            Scales; multiplied from left to right, in float32 for a float32 multiplier, else in float64.
        denominator : float32
            Output scale.
        where : str
            Named in errors.

        Raises
        ------
        LoweringError
            When a multiplier is out of the kind's range, or not a power of two where it must be.
        """
        dtype: Any = np.float32 if requantizer.multiplier == "float32" else np.float64
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            product = np.asarray(1, dtype=dtype)
            for factor in numerators:
                product = (product * np.asarray(factor, dtype=dtype)).astype(dtype)
            quotient = np.asarray(product / np.asarray(denominator, dtype=dtype), dtype=dtype)
        reals = np.atleast_1d(quotient.astype(np.float64))
        if not np.isfinite(reals).all() or (reals < 0).any():
            raise LoweringError(f"{where}: the requantization multiplier {reals.max()} is not a finite number")
        if requantizer.multiplier == "integer":
            parts = [_integer_multiplier(real, requantizer, where) for real in reals.tolist()]
        elif requantizer.multiplier == "power_of_two":
            parts = [_shift(real, where) for real in reals.tolist()]
        else:
            parts = [(0, 0, 0)] * reals.size
        mantissas, exponents, bits = (np.array(column, dtype=np.int64) for column in zip(*parts, strict=True))
        return cls(requantizer, mantissas, exponents, reals, bits)

    @classmethod
    def of_parts(
        cls, requantizer: Requantizer, mantissas: npt.ArrayLike, exponents: npt.ArrayLike, where: str
    ) -> Rescale:
        """Take multipliers that are integers already: ``mantissa * 2**(exponent - 31)``.

        Parameters
        ----------
        requantizer : Requantizer
            With an integer multiplier it takes 32-bit mantissas as they are and shortens them where it is narrower, by
            (40); any other kind is given the real number.
        mantissas : int or integer array, shape (channels,)
            0..2^31 - 1.
        exponents : int or integer array, shape (channels,)
            Left shift where positive, -31..30.
        where : str
            Named in errors.

        Raises
        ------
        LoweringError
            When a part is out of its range.
        """
        pairs = np.broadcast_arrays(np.atleast_1d(mantissas), np.atleast_1d(exponents))
        mantissa, exponent = (np.array(part, dtype=np.int64) for part in pairs)
        if (mantissa < 0).any() or (mantissa >= 1 << 31).any() or (exponent < -31).any() or (exponent > 30).any():
            raise LoweringError(
                f"{where}: a multiplier's mantissa must be 0..2^31-1 and its exponent -31..30, got "
                f"{mantissa.min()}..{mantissa.max()} and {exponent.min()}..{exponent.max()}"
            )
        reals = np.ldexp(mantissa.astype(np.float64), exponent - 31)
        if requantizer.multiplier != "integer":
            return cls.of(requantizer, [reals], np.float64(1), where)
        parts = [
            _as_held(_shortened(m, requantizer.multiplier_bits), e, requantizer)
            for m, e in zip(mantissa.tolist(), exponent.tolist(), strict=True)
        ]
        held, shifts, bits = (np.array(column, dtype=np.int64) for column in zip(*parts, strict=True))
        return cls(requantizer, held, shifts, reals, bits)

    def channels(self, which: slice) -> Rescale:
        """Return the multipliers of some channels."""
        return Rescale(
            self.requantizer, self.mantissas[which], self.exponents[which], self.reals[which], self.bits[which]
        )


def bound_within(requantizer: Requantizer, bound: npt.ArrayLike, stored: IntegerFormat) -> Int64:
    """Return a clamp bound as a requantizer has it, (24a): symmetric saturation leaves out the least signed code."""
    bounds = np.asarray(bound, dtype=np.int64)
    if requantizer.overflow == "saturate_symmetric" and stored.signed:
        return np.clip(bounds, -stored.maximum, stored.maximum)
    return bounds


@dataclass(frozen=True)
class Addition:
    """The multipliers of an addition of two grids, docs/numerics.md (25) to (27); fields as in `AddLayer`."""

    rescales: tuple[Rescale, Rescale]
    left_shift: int
    rescale: Rescale | None

    @classmethod
    def of(
        cls,
        requantizer: Requantizer,
        a: QuantizationParameters,
        b: QuantizationParameters,
        output_scale: Any,
        where: str,
    ) -> Addition:
        """Return what a requantizer adds two tensors with; errors as in `Rescale.of`."""
        with np.errstate(over="ignore", under="ignore"):  # what leaves float32 is refused by Rescale.of, or is 0
            return cls._of(requantizer, a, b, output_scale, where)

    @classmethod
    def _of(
        cls,
        requantizer: Requantizer,
        a: QuantizationParameters,
        b: QuantizationParameters,
        output_scale: Any,
        where: str,
    ) -> Addition:
        rescale: Rescale | None
        common_scale: Any
        match requantizer.multiplier:
            case "integer":  # (25)
                left_shift = 20 if max(a.format.bits, b.format.bits) <= 8 else 15
                common_scale = np.float32(2) * np.maximum(a.scale, b.scale)
                rescale = Rescale.of(requantizer, [common_scale], np.float32(2.0**left_shift * output_scale), where)
            case "power_of_two":  # (27)
                left_shift, common_scale = 0, np.minimum(a.scale, b.scale)
                rescale = Rescale.of(requantizer, [common_scale], output_scale, where)
            case _:  # (26)
                left_shift, common_scale, rescale = 0, output_scale, None
        both = (
            Rescale.of(requantizer, [a.scale], common_scale, where),
            Rescale.of(requantizer, [b.scale], common_scale, where),
        )
        return cls(both, left_shift, rescale)


def _integer_multiplier(real: float, requantizer: Requantizer, where: str) -> tuple[int, int, int]:
    """Return (mantissa, exponent or shift, bits) of docs/numerics.md (19), or of (40) from 32 bits."""
    bits = requantizer.multiplier_bits
    made = 32 if requantizer.mantissa == "shortened" else bits
    fraction, exponent = math.frexp(real)
    mantissa = math.floor(fraction * 2.0 ** (made - 1) + 0.5)
    if mantissa == 1 << (made - 1):
        mantissa, exponent = mantissa >> 1, exponent + 1
    two = len(requantizer.rounding) == 2
    if real == 0 or exponent < (-31 if two else made - 63):  # what the shifts reach
        mantissa, exponent = 0, 0
    if two and exponent > 30:
        raise LoweringError(f"{where}: the requantization multiplier {real} is beyond 2^30; check the scales")
    return _as_held(_shortened(mantissa, bits) if made > bits else mantissa, exponent, requantizer)


def _shortened(mantissa: int, bits: int) -> int:
    """Return a 32-bit mantissa in fewer bits, docs/numerics.md (40); what would round up to 1 saturates."""
    dropped = 32 - bits
    if dropped == 0:
        return mantissa
    most = (1 << (bits - 1)) - 1
    return (mantissa + (1 << (dropped - 1))) >> dropped if mantissa < most << dropped else most


def _as_held(mantissa: int, exponent: int, requantizer: Requantizer) -> tuple[int, int, int]:
    """Return (mantissa, exponent or shift, bits) in the form of (20) or (21)."""
    bits = requantizer.multiplier_bits
    if len(requantizer.rounding) == 2:
        return mantissa, exponent, bits
    if exponent > bits - 2:  # what does not fit saturates, as the single-rounding builds do
        mantissa, exponent = (1 << (bits - 1)) - 1, bits - 2
    return mantissa, bits - 1 - exponent, 64 - bits


def _shift(real: float, where: str) -> tuple[int, int, int]:
    """Return (mantissa, shift, bits) of docs/numerics.md (24)."""
    fraction, exponent = math.frexp(real)
    j = 1 - exponent
    if fraction != 0.5:
        raise LoweringError(
            f"{where}: the power_of_two requantizer needs a multiplier of 2^-j, got {real}; "
            f"quantize with PTQConfig(power_of_two=True) or choose another requantizer"
        )
    if not _LEAST_SHIFT <= j <= _GREATEST_SHIFT:
        raise LoweringError(
            f"{where}: the power_of_two requantizer shifts right by {_LEAST_SHIFT} to {_GREATEST_SHIFT} bits, got {j}"
        )
    return (1, j, 62) if j >= 0 else (1 << -j, 0, 46)
