"""Dot products of windows, with proofs by parts of the reduction on the way: docs/numerics.md (100) and (114)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.vectors.code import (
    GROUP_BYTES,
    INT8,
    INT16,
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
from accelsim_kernels.vectors.products import plus_bytes, plus_pairs

Narrow = npt.NDArray[np.int32]
Wide = npt.NDArray[np.int64]

UP, DOWN, LOW, HIGH = range(4)
"""Rows of the channels' constants: what the extremes are multiplied with, and limits."""


def _extreme_tile(num_rows: int, num_vectors: int) -> Any:
    """Make the step that multiplies some rows with some vectors of channels and looks at their sums before each part.

    Parameters
    ----------
    num_rows, num_vectors : int
        Size of the tile, whose sums stay in registers.

    Returns
    -------
    callable
        See `scalar` below.
    """

    def scalar(
        rows: Bytes, bases: Wide, first: Int, places: Wide, channels: Bytes, begin: Int, reach: Narrow, corners: Wide,
        parts: Wide, constants: Narrow, sums: Narrow, column: Int, found: Bytes,
    ) -> None:  # fmt: skip
        """Set ``sums[first + r, column + n]`` to dot products modulo 2**32; find rows with one that may leave limits.

        Parameters
        ----------
        rows : uint8 array
            Bytes of the activations, unsigned.
        bases : int64 array
            Where in ``rows`` each row begins.
        first : int64
            The first of the tile's rows.
        places : int64 array, shape (parts * groups,)
            Where each group of `GROUP_BYTES` bytes begins, after a row's base.
        channels : uint8 array
            Bytes of the signed weights: by group and channel.
        begin : int64
            Where in ``channels`` those of this tile begin.
        reach : int32 array
            Two numbers of 16 bits: the low one no activation of a part is greater than, the high one none is less than.
        corners : int64 array
            Where in ``reach`` those of each row begin.
        parts : int64 array
            Where those of each part are, after a row's corner.
        constants : int32 array, shape (4, parts, channels)
            `UP`, two numbers of 16 bits, the sums of the positive and of the negative weights of a part; `DOWN`, the
            other way round; `LOW` and `HIGH`, what the sum before a part must not pass with the part's products.
        sums : int32 array, shape (rows, channels)
            Output.
        column : int64
            The first of the tile's channels.
        found : uint8 array
            Output: 1 for each row of which a channel may pass its limits; others are left alone.
        """
        groups = len(places) // len(parts)
        end = begin + len(places) * GROUP_BYTES * num_vectors * LANES
        weights = channels[begin:end].view(np.int8).reshape(len(places), num_vectors * LANES, GROUP_BYTES)
        for r in range(num_rows):
            for n in range(num_vectors * LANES):
                total = 0
                for part in range(len(parts)):
                    pair = int(reach[corners[first + r] + parts[part]])
                    ends = (pair + (1 << 15)) % (1 << 16) - (1 << 15), pair >> 16
                    up, down, low, high = (int(constants[kind, part, column + n]) for kind in range(4))
                    for limited, sign in ((up, 1), (down, -1)):
                        halves = (limited + (1 << 15)) % (1 << 16) - (1 << 15), limited >> 16
                        value = total + ends[0] * halves[0] + ends[1] * halves[1]
                        if (value > high) if sign > 0 else (value < low):
                            found[first + r] = 1
                    for group in range(part * groups, (part + 1) * groups):
                        place = bases[first + r] + places[group]
                        for i in range(GROUP_BYTES):
                            total += int(rows[place + i]) * int(weights[group, n, i])
                sums[first + r, column + n] = (total + (1 << 31)) % (1 << 32) - (1 << 31)

    def generate(builder: Any, arrays: Arrays) -> None:
        _, _, first, _, _, begin, _, _, _, _, _, column, _ = arrays.values
        narrow = ir.FunctionType(VECTOR, [VECTOR, VECTOR])
        greater, lesser = (
            cgutils.get_or_insert_function(builder.module, narrow, f"llvm.{name}.v{LANES}i32")
            for name in ("smax", "smin")
        )  # fmt: skip
        tile_rows, vectors, nothing = range(num_rows), range(num_vectors), ir.Constant(INT16, 0)
        tile = [(r, v) for r in tile_rows for v in vectors]
        totals = {where: cgutils.alloca_once_value(builder, ir.Constant(VECTOR, None)) for where in tile}
        row_numbers = [builder.add(first, index(r)) for r in tile_rows]
        bases = [arrays.load(1, row, INT64, 8) for row in row_numbers]
        num_parts, width = arrays.array(8).nitems, builder.extract_value(arrays.array(9).shape, 2)
        num_groups = builder.udiv(arrays.array(3).nitems, num_parts)
        size = GROUP_BYTES * LANES

        def added(r: int, v: int, pair: Any, constant: Any) -> Any:
            return plus_pairs(builder, builder.load(totals[r, v]), pair, constant)

        def outside(value: Any, limit: Any, sign: str) -> Any:
            return builder.bitcast(builder.icmp_signed(sign, value, limit), INT16)

        def check(part: Any) -> None:
            where = arrays.load(8, part, INT64, 8)

            def reached(r: int) -> Any:
                corner = arrays.load(7, row_numbers[r], INT64, 8)
                return spread(builder, arrays.load(6, builder.add(corner, where), INT32, 4))

            def constant(kind: int, v: int) -> Any:
                line = builder.add(builder.mul(index(kind), num_parts), part)
                place = builder.add(builder.add(builder.mul(line, width), column), index(v * LANES))
                return arrays.load(9, place, VECTOR, 4)

            pairs, marks = [reached(r) for r in tile_rows], nothing
            for v in vectors:
                up, down = constant(UP, v), constant(DOWN, v)
                most = least = None
                for r in tile_rows:
                    over, under = added(r, v, pairs[r], up), added(r, v, pairs[r], down)
                    most = over if most is None else builder.call(greater, [most, over])
                    least = under if least is None else builder.call(lesser, [least, under])
                marks = builder.or_(marks, outside(most, constant(HIGH, v), ">"))
                marks = builder.or_(marks, outside(least, constant(LOW, v), "<"))
            with builder.if_then(builder.icmp_signed("!=", marks, nothing), likely=False):
                for r in tile_rows:  # which rows they are is seldom asked
                    pair, marks = reached(r), nothing
                    for v in vectors:
                        over, under = (added(r, v, pair, constant(kind, v)) for kind in (UP, DOWN))
                        marks = builder.or_(marks, outside(over, constant(HIGH, v), ">"))
                        marks = builder.or_(marks, outside(under, constant(LOW, v), "<"))
                    some = builder.zext(builder.icmp_signed("!=", marks, nothing), INT8)
                    held = arrays.load(12, row_numbers[r], INT8, 1)
                    arrays.store(builder.or_(held, some), 12, row_numbers[r], 1)

        with cgutils.for_range(builder, num_parts, intp=INT64) as part:
            check(part.index)
            begun = builder.mul(part.index, num_groups)
            with cgutils.for_range(builder, num_groups, intp=INT64) as some:
                group = builder.add(begun, some.index)
                distance = arrays.load(3, group, INT64, 8)
                here = builder.add(begin, builder.mul(group, index(num_vectors * size)))
                weights = [arrays.load(4, builder.add(here, index(v * size)), VECTOR) for v in vectors]
                for r in tile_rows:
                    operand = spread(builder, arrays.load(0, builder.add(bases[r], distance), INT32))
                    for v in vectors:
                        total = plus_bytes(builder, builder.load(totals[r, v]), operand, weights[v])
                        builder.store(total, totals[r, v])
        line_width = builder.extract_value(arrays.array(10).shape, 1)
        for r, v in tile:
            line = builder.add(builder.mul(row_numbers[r], line_width), column)
            arrays.store(builder.load(totals[r, v]), 10, builder.add(line, index(v * LANES)), 4)

    return vectorised(scalar, generate)


ROWS_OF_TILE = {4: 4, 2: 6, 1: 12}
"""Rows of a tile by its vectors: 12 or 16 sums, so that registers are left for looking at them."""

extreme_4, extreme_2, extreme_1 = (_extreme_tile(ROWS_OF_TILE[vectors], vectors) for vectors in (4, 2, 1))
