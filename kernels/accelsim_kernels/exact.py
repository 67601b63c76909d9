"""Dot products of outputs that cannot overflow, in any order: docs/numerics.md (17), (18), (100)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES
from accelsim_kernels.vectors.dots import (
    ROWS_OF_NARROW_TILE,
    ROWS_OF_WIDE_TILE,
    dot_s8u8_4,
    dot_s16s16_1,
    dot_s16s16_4,
    dot_u8s8_1,
    dot_u8s8_2,
    dot_u8s8_4,
    interleave_positions,
)

_FOUR, _TWO = 4 * LANES, 2 * LANES


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
def interleave(columns: npt.NDArray[np.uint8] | npt.NDArray[np.int16], begin: Int, packed: Any) -> None:
    """Pack 64 positions from ``begin`` on, group by group of the reduction; what is beyond the columns is 0."""
    num_terms, num_positions = columns.shape
    per_group = GROUP_BYTES // columns.itemsize
    for k in range(0, num_terms, per_group):
        if begin + _FOUR <= num_positions and k + per_group <= num_terms:
            interleave_positions(columns, k, begin, packed, k * _FOUR)
            continue
        for i in range(min(_FOUR, num_positions - begin)):
            for term in range(per_group):
                beyond = k + term >= num_terms
                packed[k * _FOUR + i * per_group + term] = 0 if beyond else columns[k + term, begin + i]


@kernel
def dot_columns(
    weights: npt.NDArray[np.uint8],
    columns: npt.NDArray[np.uint8] | npt.NDArray[np.int16],
    start: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    accumulators: npt.NDArray[np.int64],
) -> None:
    """Compute ``start[n] + Σ_k weights[n, k] * columns[k, p]`` with dot-product instructions, (100).

    Parameters
    ----------
    weights : uint8 array
        Bytes of the signed weights of the chosen channels, each filled up with zeros to whole groups, and up to whole
        tiles of `ROWS_OF_WIDE_TILE` channels.
    columns : uint8 or int16 array, shape (k, p)
        Activations; weights have the same width.
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    rows : int64 array
        The channels.
    accumulators : int64 array, shape (n, p)
        Output; other rows are left alone.
    """
    num_terms, num_positions = columns.shape
    num_groups = (num_terms * columns.itemsize + GROUP_BYTES - 1) // GROUP_BYTES
    num_rows = weights.size // (num_groups * GROUP_BYTES)
    bases = np.arange(num_rows) * (num_groups * GROUP_BYTES)
    segments = np.zeros(1, dtype=np.int64)
    packed = np.zeros(num_groups * GROUP_BYTES // columns.itemsize * _FOUR, dtype=columns.dtype)
    packed_bytes = packed.view(np.uint8)
    sums = np.empty((num_rows, _FOUR), dtype=np.int32)
    for begin in range(0, num_positions, _FOUR):
        interleave(columns, begin, packed)
        for first in range(0, num_rows, ROWS_OF_WIDE_TILE):
            if columns.itemsize == 1:
                dot_s8u8_4(weights, bases, first, segments, num_groups, packed_bytes, 0, sums, 0)
            else:
                dot_s16s16_4(weights, bases, first, segments, num_groups, packed_bytes, 0, sums, 0)
        end = min(begin + _FOUR, num_positions)
        for r in range(rows.size):
            target, line, loaded = accumulators[rows[r], begin:end], sums[r], start[rows[r]]
            for i in range(end - begin):
                target[i] = loaded + np.int64(line[i])


@kernel
def mark_at_risk(
    sums: npt.NDArray[np.int64],
    magnitudes: npt.NDArray[np.int64],
    start: npt.NDArray[np.int64],
    accumulator: tuple[Any, Any],
    partial: tuple[Any, Any],
    marks: npt.NDArray[np.bool_],
) -> None:
    """Mark the outputs of which a register may leave its range in some order of additions, (103) to (105).

    Parameters
    ----------
    sums, magnitudes : int64 arrays, shape (n, p)
        ``start[n] + Σ_k w·x`` and ``Σ_k |w·x|``.
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    accumulator, partial : tuple
        ``(low, high)`` of the accumulators and of the partial sums or adder trees.
    marks : bool array, shape (n, p)
        Output.
    """
    for n in range(start.size):
        loaded = start[n]
        line, magnitude, marked = sums[n], magnitudes[n], marks[n]
        for p in range(line.size):
            total = line[p] - loaded
            over, under = (total + magnitude[p]) >> 1, (total - magnitude[p]) >> 1
            fits = accumulator[0] <= loaded + under and loaded + over <= accumulator[1]
            marked[p] = not (fits and partial[0] <= under and over <= partial[1])
