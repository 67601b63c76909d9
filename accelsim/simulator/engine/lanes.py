"""Requantization in 32-bit lanes, where bounds prove that it computes the same: docs/numerics.md (110) and (111)."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm

import numpy as np
import numpy.typing as npt

from accelsim.program.layers import MacLayer
from accelsim_kernels.vectors import requantization as rows
from accelsim_kernels.vectors.code import LANES

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_MOST = 1 << 30
"""Accumulators of the 32-bit form are less than this in magnitude."""


@dataclass(frozen=True, eq=False)
class LaneConstants:
    """What the kernels of whole layers know of the requantization of some channels.

    Parameters
    ----------
    constants : int32 array, shape (9, width)
        See `accelsim_kernels.vectors.requantization`.
    two : bool
        Two roundings.
    """

    constants: Int32
    two: bool

    @staticmethod
    def of(layer: MacLayer, start: Int64, ends: tuple[int, int]) -> LaneConstants | None:
        """Return the constants of all channels of a layer; None where its requantization has no 32-bit form.

        Parameters
        ----------
        layer : MacLayer
            Whose multipliers, zero point and clamp are taken.
        start : int64 array, shape (channels,)
            What is added to each sum.
        ends : pair of int
            Bounds of the accumulators.
        """
        rescale, requantizer = layer.multipliers, layer.multipliers.requantizer
        first, last, inside = requantizer.rounding[0], requantizer.rounding[-1], requantizer.zero_point == "inside"
        if requantizer.multiplier not in ("integer", "power_of_two") or first != "half_up":
            return None
        if ends[0] <= -_MOST or ends[1] >= _MOST or requantizer.pre_shift_bits:
            return None
        mantissas, exponents, two = rescale.mantissas, rescale.exponents, len(requantizer.rounding) == 2
        if two:
            away = last == "half_away" and not (inside and layer.zero_point)
            if not away and last != "half_up":
                return None
            if (exponents > 0).any() or (exponents < -31).any() or (rescale.bits > 32).any():
                return None
            mantissas, shifts = mantissas << (32 - rescale.bits), -exponents
            product_shifts = np.full_like(shifts, 31)
        else:
            left = np.minimum(31 - np.frexp(mantissas)[1], 62 - exponents)  # of both, which changes nothing
            away, shifts, product_shifts = False, np.zeros_like(exponents), exponents + left
            mantissas = mantissas << np.maximum(left, 0)
            if (left < 0).any() or (product_shifts < 31).any() or (rescale.bits < 30).any():
                return None
        if (mantissas < 0).any() or (mantissas >= 1 << 31).any():
            return None
        low, high = layer.bounds(slice(None))
        table = np.empty((9, start.size), dtype=np.int64)
        table[rows.START] = (start + (1 << 31)) % (1 << 32) - (1 << 31)
        table[rows.MANTISSA], table[rows.PRODUCT_SHIFT], table[rows.SHIFT] = mantissas, product_shifts, shifts
        table[rows.NUDGE] = (1 << shifts) >> 1
        table[rows.AWAY] = np.where(shifts > 0, -1, 0) if away else 0
        table[rows.ZERO_POINT], table[rows.LOW], table[rows.HIGH] = layer.zero_point, low, high
        return LaneConstants(table.astype(np.int32), two)

    def padded(self, part: slice, width: int) -> LaneConstants:
        """Return the constants of some channels, filled up to a width by channels that are not stored."""
        some = self.constants[:, part]
        filled = np.zeros((len(some), width), dtype=np.int32)
        filled[rows.PRODUCT_SHIFT] = 31
        filled[:, : some.shape[1]] = some
        return LaneConstants(filled, self.two)

    def repeated(self) -> LaneConstants:
        """Return the constants of all channels, repeated to a whole number of vectors."""
        channels = self.constants.shape[1]
        return LaneConstants(np.tile(self.constants, (1, lcm(channels, LANES) // channels)), self.two)
