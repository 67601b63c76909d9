"""What weights lost to fit 8 bits, added to the sums of a position: docs/numerics.md (116)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.vectors.code import INT32, INT64, LANES, VECTOR, Arrays, Bytes, cgutils, index, spread, vectorised
from accelsim_kernels.vectors.products import plus_bytes

ONES = 4 * LANES
"""Activations that are summed at a time."""


def _scalar(
    rows: Bytes,
    base: Int,
    segments: npt.NDArray[np.int64],
    ones: Bytes,
    lost: npt.NDArray[np.int32],
    sums: npt.NDArray[np.int32],
    position: Int,
) -> None:
    """Add ``lost[n] * Σ_k x[k]`` of a window to ``sums[position, n]``, modulo 2**32.

    Parameters
    ----------
    rows : uint8 array
        Activations.
    base : int64
        Where the window begins.
    segments : int64 array
        Where each of its pieces begins, after the base.
    ones : uint8 array
        1 for each operand of a piece, then 0 up to a multiple of `ONES`; so far may be read.
    lost : int32 array, shape (channels,)
        What each channel's weights lost; a multiple of `LANES` channels.
    sums : int32 array, shape (positions, channels)
        Updated.
    position : int64
        Whose sums.
    """
    total = 0
    for piece in segments:
        for i in range(ones.size):
            total += int(ones[i]) * int(rows[base + piece + i])
    for n in range(lost.size):
        value = int(sums[position, n]) + int(lost[n]) * total
        sums[position, n] = (value + (1 << 31)) % (1 << 32) - (1 << 31)


def _generate(builder: Any, arrays: Arrays) -> None:
    _, base, _, _, _, _, position = arrays.values
    reduce = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(INT32, [VECTOR]), f"llvm.vector.reduce.add.v{LANES}i32"
    )
    totals = cgutils.alloca_once_value(builder, ir.Constant(VECTOR, None))
    vectors = builder.sdiv(arrays.array(3).nitems, index(ONES))
    with cgutils.for_range(builder, arrays.array(2).nitems, intp=INT64) as piece:
        begin = builder.add(base, arrays.load(2, piece.index, INT64, 8))
        with cgutils.for_range(builder, vectors, intp=INT64) as some:
            step = builder.mul(some.index, index(ONES))
            operands = arrays.load(0, builder.add(begin, step), VECTOR)
            ones = arrays.load(3, step, VECTOR)
            builder.store(plus_bytes(builder, builder.load(totals), operands, ones), totals)
    total = spread(builder, builder.call(reduce, [builder.load(totals)]))
    channels = arrays.array(4).nitems
    line = builder.mul(position, channels)
    with cgutils.for_range(builder, builder.sdiv(channels, index(LANES)), intp=INT64) as block:
        channel = builder.mul(block.index, index(LANES))
        place = builder.add(line, channel)
        product = builder.mul(arrays.load(4, channel, VECTOR), total)
        arrays.store(builder.add(arrays.load(5, place, VECTOR, 4), product), 5, place, 4)


add_row_sum = vectorised(_scalar, _generate)
