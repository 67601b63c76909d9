"""When no register can overflow: docs/numerics.md (17) and (18)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


def register(bits: int | None, overflow: str) -> tuple[np.int64, np.int64, bool]:
    """Return ``(low, high, saturate)`` of a register; None bits is as wide as int64."""
    half = 1 << ((64 if bits is None else bits) - 1)
    return np.int64(-half), np.int64(half - 1), overflow == "saturate"


@dataclass(frozen=True, eq=False)
class ChannelBounds:
    """Bounds of the partial sums of output channels, in any order.

    Parameters
    ----------
    weights : int32 array, shape (n, k)
        Operands as the PEs multiply them.
    start, weight_zero_points : int64 arrays, shape (n,)
        What the accumulators are loaded with, and z_w of (8).

    Notes
    -----
    A product ``w * x`` with ``least <= x <= greatest`` lies between the products with the two ends, and a product that
    has not been added yet counts as 0; so a term with w > 0 contributes between ``w * min(0, least)`` and
    ``w * max(0, greatest)`` at any time, one with w < 0 between ``w * max(0, greatest)`` and ``w * min(0, least)``. So
    the sums of a channel's positive and of its negative weights are all that the bounds need.
    """

    weights: Int32
    start: Int64
    weight_zero_points: Int64

    @cached_property
    def positive(self) -> Int64:
        """Sum of the positive weights of every channel."""
        sums: Int64 = np.maximum(self.weights, 0).sum(axis=1, dtype=np.int64)
        return sums

    @cached_property
    def negative(self) -> Int64:
        """Sum of the negative weights of every channel."""
        sums: Int64 = np.minimum(self.weights, 0).sum(axis=1, dtype=np.int64)
        return sums

    def of_products(self, least: int, greatest: int) -> tuple[Int64, Int64]:
        """Return the least and greatest partial sum of the products alone, int64 arrays of shape (n,)."""
        under, over = min(0, least), max(0, greatest)
        return self.positive * under + self.negative * over, self.positive * over + self.negative * under

    def of_sums(self, least: int, greatest: int) -> tuple[Int64, Int64]:
        """Return (17) and (18) for activations of ``least .. greatest``, int64 arrays of shape (n,)."""
        low, high = self.of_products(least, greatest)
        last = np.abs(self.weight_zero_points) * (self.weights.shape[1] * max(abs(least), abs(greatest)))
        return self.start + low - last, self.start + high + last

    def safe(self, machine: Machine, least: int, greatest: int) -> npt.NDArray[np.bool_]:
        """Whether no register of a machine can overflow, for every channel.

        Parameters
        ----------
        machine : Machine
            Widths, dataflow; with truncated products nothing is taken for safe.
        least, greatest : int
            Bounds of the activations as the PEs multiply them.

        Returns
        -------
        bool array, shape (n,)
            The channels whose accumulators and partial sums never leave their range.
        """
        if machine.product_shift_bits > 0:
            return np.zeros(self.start.size, dtype=np.bool_)
        safe = _inside(machine.accumulator_bits, *self.of_sums(least, greatest))
        partial_bits = machine.adder_tree_bits if machine.dataflow == "broadcast" else machine.partial_sum_bits
        if partial_bits is not None and machine.dataflow != "output_stationary":
            safe &= _inside(partial_bits, *self.of_products(least, greatest))
        return safe


def _inside(bits: int | None, low: Int64, high: Int64) -> npt.NDArray[np.bool_]:
    """Whether a register holds everything from low to high."""
    least, greatest, _ = register(bits, "wrap")
    inside: npt.NDArray[np.bool_] = (least <= low) & (high <= greatest)
    return inside
