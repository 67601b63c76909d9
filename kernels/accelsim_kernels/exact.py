"""Dot products of outputs that cannot overflow, in any order: docs/numerics.md (17), (18), (100)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel
from accelsim_kernels.vectors import (
    GROUP_BYTES,
    LANES,
    ROWS_OF_NARROW_TILE,
    ROWS_OF_WIDE_TILE,
    dot_s16s16_1,
    dot_s16s16_4,
    dot_u8s8_1,
    dot_u8s8_2,
    dot_u8s8_4,
)

_BLOCK = 512
"""Positions worked on at a time, so that their sums stay in the first-level cache."""

_FOUR, _TWO = 4 * LANES, 2 * LANES


@kernel
def exact_products(
    weights: npt.NDArray[np.int32],
    columns: npt.NDArray[np.int32],
    start: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    accumulators: npt.NDArray[np.int64],
) -> None:
    """Compute ``start[n] + Σ_k weights[n, k] * columns[k, p]`` for some output channels, in 64 bits.

    Parameters
    ----------
    weights : int32 array, shape (n, k)
        Operands as the PEs multiply them.
    columns : int32 array, shape (k, p)
        Activations.
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    rows : int64 array
        The channels to compute.
    accumulators : int64 array, shape (n, p)
        Output; other rows are left alone.
    """
    num_positions = columns.shape[1]
    for first in range(0, num_positions, _BLOCK):
        last = min(first + _BLOCK, num_positions)
        for n in rows:
            sums = accumulators[n, first:last]
            sums[:] = start[n]
            for k in range(columns.shape[0]):
                weight = np.int64(weights[n, k])
                terms = columns[k, first:last]
                for p in range(last - first):
                    sums[p] += weight * np.int64(terms[p])


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
