"""Integers alone: what a register holds, docs/numerics.md (9) to (11), bits that are set, and copies."""

from __future__ import annotations

from typing import Any

import numpy as np

from accelsim_kernels._jit import Int, callee


@callee
def bring_in(value: Int, low: Int, high: Int, saturate: bool) -> Int:
    """Return what a register of range ``low .. high`` holds after it is given a value.

    Parameters
    ----------
    value : int64
        Any value, unless the register has 64 bits: then it must fit, which numerics.md section 2 guarantees.
    low, high : int64
        ``-2**(bits-1)`` and ``2**(bits-1) - 1``.
    saturate : bool
        Clamp to the range; else keep the low bits in two's complement.

    Returns
    -------
    int64
        The value where it fits, else (10) or (11).

    Notes
    -----
    Wrapping is written ``((value & mask) ^ half) - half``: no intermediate leaves 64 bits.
    """
    if low <= value <= high:
        return value
    if saturate:
        return low if value < low else high
    half = high + 1  # not reached for 64 bits
    return ((value & (half + high)) ^ half) - half


@callee
def wrap32(value: Int) -> Int:
    """Return the low 32 bits of a value in two's complement, (10) with b = 32."""
    return bring_in(value, np.int64(-(1 << 31)), np.int64((1 << 31) - 1), False)


@callee
def num_bits(mask: Int) -> Int:
    """Count the bits of a mask of sixteen."""
    mask -= (mask >> 1) & 0x5555
    mask = (mask & 0x3333) + ((mask >> 2) & 0x3333)
    mask = (mask + (mask >> 4)) & 0x0F0F
    return (mask + (mask >> 8)) & 0x1F


@callee
def num_set(plane: Any) -> Int:
    """Count the elements of an array (n, m) that are not 0.

    Notes
    -----
    numba compiles `numpy.any` and `numpy.count_nonzero` for two seconds: with them come axes and copies of any layout.
    """
    count = np.int64(0)
    for i in range(plane.shape[0]):
        for j in range(plane.shape[1]):
            count += plane[i, j] != 0
    return count


@callee
def copy(values: Any, target: Any) -> None:
    """Copy an array (n,) to the beginning of another of at least as many elements.

    Notes
    -----
    numba compiles the assignment to a slice for seconds: with it comes what says that shapes do not fit.
    """
    for i in range(values.size):
        target[i] = values[i]
