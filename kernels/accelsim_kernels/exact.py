"""Dot products of outputs that cannot overflow, in any order: docs/numerics.md (17), (18), (100)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, callee, kernel
from accelsim_kernels.integers import copy
from accelsim_kernels.processor import takes_bytes
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES, prefer_wide_vectors
from accelsim_kernels.vectors.columns import (
    CHANNELS_OF_TILE,
    POSITIONS,
    pack_positions,
    panel_s16_1,
    panel_s16_4,
    panel_u8_1,
    panel_u8_4,
)
from accelsim_kernels.vectors.dots import (
    ROWS_OF_NARROW_TILE,
    ROWS_OF_WIDE_TILE,
    dot_s16s16_1,
    dot_s16s16_4,
    dot_u8s8_1,
    dot_u8s8_2,
    dot_u8s8_4,
)

_FOUR, _TWO = 4 * LANES, 2 * LANES

PANELS, PACKED_BYTES = 16, 1 << 20 if takes_bytes() else 1 << 18
"""Most panels that are packed at a time, and most bytes: half of a second-level cache of the processors concerned."""

_LINE_BYTES = 64
"""A line of the cache."""


@kernel
def to_next_line(array: npt.NDArray[np.int64]) -> Int:
    """Return how many elements of an int64 array lie before the first line of the cache that begins in it."""
    return -array.ctypes.data % _LINE_BYTES // 8


@kernel
def dot_rows(
    rows: npt.NDArray[np.uint8],
    bases: npt.NDArray[np.int64],
    segments: npt.NDArray[np.int64],
    num_groups: Int,
    channels: npt.NDArray[np.uint8],
    words: bool,
    sums: npt.NDArray[np.int32],
) -> None:
    """Multiply positions with channels on a processor with dot-product instructions, modulo 2**32: (100).

    Parameters
    ----------
    rows : uint8 array
        Bytes of the activations, channels last: unsigned 8 bits or signed 16 bits.
    bases : int64 array, shape (positions,)
        Where the window of each position begins; a multiple of `ROWS_OF_NARROW_TILE` positions.
    segments : int64 array
        Where each contiguous piece of a window begins, after its base.
    num_groups : int64
        Groups of four bytes in a piece; the last one may reach beyond the piece, where the weights are 0.
    channels : uint8 array
        Bytes of the weights, signed: by tile of channels as `tiles_of` cuts them, then by piece, group and channel.
    words : bool
        Operands of 16 bits.
    sums : int32 array, shape (positions, channels)
        Output; a multiple of `LANES` channels.
    """
    num_positions, num_channels = sums.shape
    length = segments.size * num_groups * GROUP_BYTES
    column = 0
    while column < num_channels:
        left = num_channels - column
        begin = column * length
        if left >= _FOUR:
            for first in range(0, num_positions, ROWS_OF_WIDE_TILE):
                if words:
                    dot_s16s16_4(rows, bases, first, segments, num_groups, channels, begin, sums, column)
                else:
                    dot_u8s8_4(rows, bases, first, segments, num_groups, channels, begin, sums, column)
            column += _FOUR
        elif left >= _TWO and not words:
            for first in range(0, num_positions, ROWS_OF_NARROW_TILE):
                dot_u8s8_2(rows, bases, first, segments, num_groups, channels, begin, sums, column)
            column += _TWO
        else:
            for first in range(0, num_positions, ROWS_OF_NARROW_TILE):
                if words:
                    dot_s16s16_1(rows, bases, first, segments, num_groups, channels, begin, sums, column)
                else:
                    dot_u8s8_1(rows, bases, first, segments, num_groups, channels, begin, sums, column)
            column += LANES


@kernel
def dot_columns(
    weights: npt.NDArray[np.int8] | npt.NDArray[np.int16],
    columns: npt.NDArray[np.uint8] | npt.NDArray[np.uint16],
    flipped: Int,
    start: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    nonzero: npt.NDArray[np.int64],
    accumulators: npt.NDArray[np.int64],
) -> tuple[Int, Int]:
    """Compute ``start[n] + Σ_k weights[n, k] * x[k, p]`` with dot-product instructions, (100), and survey x.

    Parameters
    ----------
    weights : int8 or int16 array, shape (n, length)
        In whole groups; what is beyond the reduction meets zeros.
    columns : uint8 or uint16 array, shape (k, p)
        Bits of the activations, of which none has more than a weight: they become as wide, see `takes_bytes`.
    flipped : int64
        Bits of every activation that are flipped, so that x is unsigned with 8 bits, signed with 16.
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    rows : int64 array
        The channels, at least one.
    nonzero : int64 array, shape (k in whole groups,)
        Activations of every term that are not 0, before bits are flipped; added to.
    accumulators : int64 array, shape (n, p)
        Output; other rows are left alone.

    Returns
    -------
    tuple of int64
        Least and greatest x.

    Notes
    -----
    Several panels are packed at a time, which reads some lines of the cache one after the other and writes a channel's
    outputs likewise. The last tile's channels that do not exist are the last one again.
    """
    num_terms, num_positions = columns.shape
    flat, size = weights.view(np.uint8), weights.itemsize
    panel, per_group = flat.shape[1] * POSITIONS, GROUP_BYTES // size
    num_panels = min(PANELS, PACKED_BYTES // panel, (num_positions + POSITIONS - 1) // POSITIONS)
    num_panels = max(num_panels, 1)
    memory = np.empty(num_panels * panel + _LINE_BYTES, dtype=np.uint8)
    packed = memory[-memory.ctypes.data % _LINE_BYTES :][: num_panels * panel]
    terms = packed.view(weights.dtype)
    tiles = np.full(rows.size + CHANNELS_OF_TILE - 1, rows[-1])
    copy(rows, tiles)
    ends = no_ends(columns.itemsize)
    for begin in range(0, num_positions, num_panels * POSITIONS):
        end = min(begin + num_panels * POSITIONS, num_positions)
        for k in range(0, num_terms, per_group):
            for position in range(begin, end, POSITIONS):
                place = (position - begin) * weights.shape[1] + k * POSITIONS
                pack_positions(columns, k, position, flipped, terms, place, nonzero, ends)
        for first in range(0, rows.size, CHANNELS_OF_TILE):
            for position in range(begin, end, POSITIONS):
                place = (position - begin) * flat.shape[1]
                if size == 1:
                    if end - position <= LANES:
                        panel_u8_1(flat, first, packed, place, start, tiles, position, accumulators)
                    else:
                        panel_u8_4(flat, first, packed, place, start, tiles, position, accumulators)
                elif end - position <= LANES:
                    panel_s16_1(flat, first, packed, place, start, tiles, position, accumulators)
                else:
                    panel_s16_4(flat, first, packed, place, start, tiles, position, accumulators)
    return outermost(ends) if columns.itemsize == 1 else outermost(ends.view(np.int16))


@callee
def no_ends(size: Int) -> npt.NDArray[np.uint8]:
    """Return the ends of a panel of which nothing was seen: what is greater and what is less than any x."""
    ends = np.zeros(2 * POSITIONS * size, dtype=np.uint8)
    values = ends.view(np.int16)
    for i in range(POSITIONS):
        if size == 1:
            ends[i] = 255
        else:
            values[i], values[POSITIONS + i] = 32767, -32768
    return ends


@callee
def outermost(ends: npt.NDArray[np.uint8] | npt.NDArray[np.int16]) -> tuple[Int, Int]:
    """Return the least of a panel's ends (128,) and the greatest."""
    least, greatest = np.int64(ends[0]), np.int64(ends[POSITIONS])
    for i in range(POSITIONS):
        least, greatest = min(least, np.int64(ends[i])), max(greatest, np.int64(ends[POSITIONS + i]))
    return least, greatest


@kernel
def sums_by_sign(weights: Any, positive: npt.NDArray[np.int64], negative: npt.NDArray[np.int64]) -> None:
    """Set positive and negative (n,) to the sums of the weights of either sign; signed integer weights (n, k)."""
    prefer_wide_vectors()
    for n in range(weights.shape[0]):
        over, under = np.int64(0), np.int64(0)
        line = weights[n]
        for k in range(line.size):
            weight = np.int64(line[k])
            over += max(weight, np.int64(0))
            under += min(weight, np.int64(0))
        positive[n], negative[n] = over, under


@kernel
def ends_of(values: npt.NDArray[np.int64]) -> tuple[Int, Int]:
    """Return the least and the greatest of an int64 array of shape (n,), which is not empty."""
    least = greatest = values[0]
    for value in values:
        least, greatest = min(least, value), max(greatest, value)
    return least, greatest
