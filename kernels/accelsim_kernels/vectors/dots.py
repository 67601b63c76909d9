"""Dot products: four operands of 8 bits or two of 16 in one instruction, docs/numerics.md (100)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.vectors.code import (
    GROUP_BYTES,
    INT32,
    INT64,
    LANES,
    VECTOR,
    Arrays,
    Bytes,
    cgutils,
    index,
    spread,
    vectorised,
)
from accelsim_kernels.vectors.products import blocks_of, plus_bytes, plus_words


def _dot_tile(operands: str, num_rows: int, num_vectors: int) -> Any:
    """Make the step that multiplies some rows with some vectors of channels, over the whole reduction.

    Parameters
    ----------
    operands : str
        ``"u8s8"``: rows of unsigned, vectors of signed 8 bits; ``"s16s16"``.
    num_rows, num_vectors : int
        Size of the tile, whose sums stay in registers.

    Returns
    -------
    callable
        ``(rows, bases, first, segments, num_groups, channels, begin, sums, column)``, see `scalar` below.
    """
    row_kind, channel_kind = {
        "u8s8": (np.uint8, np.int8),
        "s16s16": (np.int16, np.int16),
    }[operands]
    channels_of_tile = num_vectors * LANES

    def scalar(
        rows: Bytes,
        bases: npt.NDArray[np.int64],
        first: Int,
        segments: npt.NDArray[np.int64],
        num_groups: Int,
        channels: Bytes,
        begin: Int,
        sums: npt.NDArray[np.int32],
        column: Int,
    ) -> None:
        """Set ``sums[first + r, column + n]`` to a dot product modulo 2**32.

        Parameters
        ----------
        rows : uint8 array
            Bytes of the rows' operands.
        bases : int64 array
            Where in ``rows`` each row begins.
        first : int64
            The first of the tile's rows.
        segments : int64 array
            Pieces of the reduction: where each begins after a row's base.
        num_groups : int64
            Groups of `GROUP_BYTES` bytes in each piece.
        channels : uint8 array
            Bytes of the channels' operands: by piece, group and channel.
        begin : int64
            Where in ``channels`` those of this tile begin.
        sums : int32 array, shape (rows, channels)
            Output.
        column : int64
            The first of the tile's channels.
        """
        length = num_groups * GROUP_BYTES
        packed = channels[begin : begin + segments.size * length * channels_of_tile]
        shape = (segments.size * num_groups, channels_of_tile, -1)
        right = packed.view(channel_kind).reshape(shape).astype(np.int64)
        for r in range(num_rows):
            base = bases[first + r]
            row = np.concatenate([rows[base + piece : base + piece + length] for piece in segments])
            left = row.view(row_kind).reshape(shape[0], -1).astype(np.int64)
            for n in range(channels_of_tile):
                total = int((left * right[:, n]).sum())
                sums[first + r, column + n] = (total + (1 << 31)) % (1 << 32) - (1 << 31)

    def generate(builder: Any, arrays: Arrays) -> None:
        for rows, vectors in blocks_of(num_rows, num_vectors):
            multiply(builder, arrays, rows, vectors)

    def multiply(builder: Any, arrays: Arrays, rows: range, vectors: range) -> None:
        _, _, first, _, num_groups, _, begin, _, column = arrays.values
        plus, size = plus_words if operands == "s16s16" else plus_bytes, GROUP_BYTES * LANES
        totals = {(r, v): cgutils.alloca_once_value(builder, ir.Constant(VECTOR, None)) for r in rows for v in vectors}
        bases = {r: arrays.load(1, builder.add(first, index(r)), INT64, 8) for r in rows}
        place = cgutils.alloca_once_value(builder, begin)
        with cgutils.for_range(builder, arrays.array(3).nitems, intp=INT64) as piece:
            offset = arrays.load(3, piece.index, INT64, 8)
            starts = {r: builder.add(base, offset) for r, base in bases.items()}
            with cgutils.for_range(builder, num_groups, intp=INT64) as group:
                distance = builder.mul(group.index, index(GROUP_BYTES))
                here = builder.load(place)
                weights = {v: arrays.load(5, builder.add(here, index(v * size)), VECTOR) for v in vectors}
                builder.store(builder.add(here, index(num_vectors * size)), place)
                for r in rows:
                    operand = spread(builder, arrays.load(0, builder.add(starts[r], distance), INT32))
                    for v in vectors:
                        total = plus(builder, builder.load(totals[r, v]), operand, weights[v])
                        builder.store(total, totals[r, v])
        width = builder.extract_value(arrays.array(7).shape, 1)
        for r in rows:
            line = builder.add(builder.mul(builder.add(first, index(r)), width), column)
            for v in vectors:
                arrays.store(builder.load(totals[r, v]), 7, builder.add(line, index(v * LANES)), 4)

    return vectorised(scalar, generate)


ROWS_OF_WIDE_TILE, ROWS_OF_NARROW_TILE = 6, 12
"""Rows of a tile of four vectors, and of one or two: 24 or 12 sums in registers."""

dot_u8s8_4 = _dot_tile("u8s8", ROWS_OF_WIDE_TILE, 4)
dot_u8s8_2 = _dot_tile("u8s8", ROWS_OF_NARROW_TILE, 2)
dot_u8s8_1 = _dot_tile("u8s8", ROWS_OF_NARROW_TILE, 1)
dot_s16s16_4 = _dot_tile("s16s16", ROWS_OF_WIDE_TILE, 4)
dot_s16s16_1 = _dot_tile("s16s16", ROWS_OF_NARROW_TILE, 1)
