"""When no register can overflow: docs/numerics.md (17) and (18)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine
from accelsim_kernels.exact import ends_of, sums_by_sign

Int64 = npt.NDArray[np.int64]


def register(bits: int | None, overflow: str) -> tuple[np.int64, np.int64, bool]:
    """Return ``(low, high, saturate)`` of a register; None bits is as wide as int64."""
    half = 1 << ((64 if bits is None else bits) - 1)
    return np.int64(-half), np.int64(half - 1), overflow == "saturate"


def for_kernels(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array in the layout of which kernels are compiled; a read-only or strided one would be another."""
    return array if array.flags.carray else np.require(array, requirements=("C", "W"))


def signed_sums(weights: npt.NDArray[Any]) -> tuple[Int64, Int64]:
    """Return the sums of the positive and of the negative weights of every channel, int64 arrays of shape (n,).

    Parameters
    ----------
    weights : int8, int16 or int32 array, shape (n, k)
        Operands as the PEs multiply them.
    """
    positive, negative = np.empty(len(weights), dtype=np.int64), np.empty(len(weights), dtype=np.int64)
    sums_by_sign(for_kernels(weights), positive, negative)
    return positive, negative


def widest(values: Int64) -> int:
    """Return the greatest magnitude in an int64 array of shape (n,)."""
    least, greatest = ends_of(for_kernels(values))
    return max(-int(least), int(greatest))


@dataclass(frozen=True, eq=False)
class ChannelBounds:
    """Bounds of the partial sums of output channels, in any order.

    Parameters
    ----------
    weights : signed integer array, shape (n, k)
        Operands as the PEs multiply them, of 8 to 32 bits.
    start, weight_zero_points : int64 arrays, shape (n,)
        What the accumulators are loaded with, and z_w of (8).

    Notes
    -----
    A product ``w * x`` with ``least <= x <= greatest`` lies between the products with the two ends, and a product that
    has not been added yet counts as 0; so a term with w > 0 contributes between ``w * min(0, least)`` and
    ``w * max(0, greatest)`` at any time, one with w < 0 between ``w * max(0, greatest)`` and ``w * min(0, least)``. So
    the sums of a channel's positive and of its negative weights are all that the bounds need.
    """

    weights: npt.NDArray[Any]
    start: Int64
    weight_zero_points: Int64

    def wide(self) -> ChannelBounds:
        """Return the same of weights in 32 bits, with what is known."""
        if self.weights.itemsize > 2:
            return self
        wider = replace(self, weights=self.weights.astype(np.int32))
        wider.__dict__.update(narrow=self.weights, signs=self.signs)
        return wider

    @cached_property
    def narrow(self) -> npt.NDArray[Any] | None:
        """The weights in 8 or 16 bits; None where they do not fit."""
        if self.weights.itemsize <= 2:
            return self.weights
        low, high = int(self.weights.min()), int(self.weights.max())
        for kind in (np.int8, np.int16):
            limits = np.iinfo(kind)
            if limits.min <= low and high <= limits.max:
                narrowed: npt.NDArray[Any] = self.weights.astype(kind)
                return narrowed
        return None

    @cached_property
    def signs(self) -> tuple[Int64, Int64]:
        """`signed_sums` of the weights."""
        return signed_sums(self.weights)

    @property
    def positive(self) -> Int64:
        """Sum of the positive weights of every channel."""
        return self.signs[0]

    @property
    def negative(self) -> Int64:
        """Sum of the negative weights of every channel."""
        return self.signs[1]

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
        partial_bits = _partial_bits(machine)
        if partial_bits is not None:
            safe &= _inside(partial_bits, *self.of_products(least, greatest))
        return safe


def safe_by_type(weights: npt.NDArray[Any], widest_start: int, machine: Machine, least: int, greatest: int) -> bool:
    """Whether no register of a machine can overflow whatever the weights are, as their type bounds them.

    Parameters
    ----------
    weights : signed integer array, shape (n, k)
        Operands as the PEs multiply them.
    widest_start : int
        Greatest magnitude of what the accumulators are loaded with; nothing is added by (8).
    machine : Machine
        Widths, dataflow.
    least, greatest : int
        Bounds of the activations.

    Notes
    -----
    (17) and (18) hold of any bound of ``|w|`` in the place of w. No operand is read.
    """
    if machine.product_shift_bits > 0:
        return False
    reach = weights.shape[1] * max(-least, greatest) << (8 * weights.itemsize - 1)
    return _holds(machine.accumulator_bits, reach + widest_start) and _holds(_partial_bits(machine), reach)


def _partial_bits(machine: Machine) -> int | None:
    """Return the width of partial sums or adder trees; None where there are none, or they hold everything."""
    if machine.dataflow == "output_stationary":
        return None
    return machine.adder_tree_bits if machine.dataflow == "broadcast" else machine.partial_sum_bits


def _holds(bits: int | None, most: int) -> bool:
    """Whether a register holds everything up to a magnitude."""
    return most < 1 << ((64 if bits is None else bits) - 1)


def _inside(bits: int | None, low: Int64, high: Int64) -> npt.NDArray[np.bool_]:
    """Whether a register holds everything from low to high."""
    least, greatest, _ = register(bits, "wrap")
    inside: npt.NDArray[np.bool_] = (least <= low) & (high <= greatest)
    return inside
