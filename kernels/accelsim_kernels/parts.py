"""Outputs at risk proven safe by parts of the reduction, in their order of additions: docs/numerics.md (107)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel
from accelsim_kernels.integers import num_set
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES, Bytes
from accelsim_kernels.vectors.dots import ROWS_OF_NARROW_TILE, dot_s16s16_1, dot_u8s8_1
from accelsim_kernels.vectors.marks import Narrow, mark_sixteen


@kernel
def unmark_by_parts(
    operands: Bytes,
    magnitudes: Bytes,
    bases: npt.NDArray[np.int64],
    segments: npt.NDArray[np.int64],
    num_groups: Int,
    weights: Bytes,
    weight_magnitudes: Bytes,
    words: bool,
    sign: Int,
    low: npt.NDArray[np.int32],
    high: npt.NDArray[np.int32],
    masks: Narrow,
) -> None:
    """Take the marks off outputs whose running sum stays inside its register in every part of the reduction.

    Parameters
    ----------
    operands, magnitudes : uint8 arrays
        Bytes of x' and of the magnitudes of x.
    bases : int64 array, shape (positions,)
        Where each window begins, in bytes; a multiple of `ROWS_OF_NARROW_TILE` positions.
    segments : int64 array, shape (parts, pieces)
        Where each piece of a part begins, after the base.
    num_groups : int64
        Groups of `GROUP_BYTES` in a piece.
    weights, weight_magnitudes : uint8 arrays
        Bytes by block, part, piece, group and channel.
    words : bool
        Operands of 16 bits.
    sign : int64
        What sums of magnitudes are multiplied with.
    low, high : int32 arrays, shape (blocks * parts, LANES)
        Limits of twice the sum before a part, plus the part's sum, less or plus its magnitudes.
    masks : int32 array, shape (positions, blocks)
        A bit per channel; updated.
    """
    rows, (num_parts, num_pieces) = ROWS_OF_NARROW_TILE, segments.shape
    length = num_pieces * num_groups * GROUP_BYTES * LANES
    sums, reached = np.empty((rows, LANES), dtype=np.int32), np.empty((rows, LANES), dtype=np.int32)
    before, values = np.empty((rows, LANES), dtype=np.int32), np.empty((rows, LANES), dtype=np.int32)
    flat_sums, flat_before, flat_values = sums.reshape(-1), before.reshape(-1), values.reshape(-1)
    found, now = np.empty(rows, dtype=np.int32), np.empty((rows, 1), dtype=np.int32)
    for first in range(0, bases.size, rows):
        for block in range(masks.shape[1]):
            if num_set(masks[first : first + rows, block : block + 1]) == 0:
                continue
            some = bases[first : first + rows]
            before[:] = 0
            found[:] = 0
            for part in range(num_parts):
                place, begin = block * num_parts + part, (block * num_parts + part) * length
                if words:
                    dot_s16s16_1(operands, some, 0, segments[part], num_groups, weights, begin, sums, 0)
                    dot_s16s16_1(
                        magnitudes, some, 0, segments[part], num_groups, weight_magnitudes, begin, reached, 0
                    )  # fmt: skip
                else:
                    dot_u8s8_1(operands, some, 0, segments[part], num_groups, weights, begin, sums, 0)
                    dot_u8s8_1(
                        magnitudes, some, 0, segments[part], num_groups, weight_magnitudes, begin, reached, 0
                    )  # fmt: skip
                for i in range(rows * LANES):
                    flat_values[i] = flat_before[i] + flat_before[i] + flat_sums[i]
                    flat_before[i] += flat_sums[i]
                mark_sixteen(values, 0, reached, 0, sign, low[place], high[place], now, 0)
                for r in range(rows):
                    found[r] |= now[r, 0]
            for r in range(rows):
                masks[first + r, block] &= found[r]
