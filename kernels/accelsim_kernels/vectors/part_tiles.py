"""Products of channels with a panel of positions, and which of them bounds by parts of the reduction leave at risk.

docs/numerics.md (100) and (108). The panels are those of `accelsim_kernels.vectors.columns`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.vectors.code import (
    GROUP_BYTES,
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
from accelsim_kernels.vectors.columns import CHANNELS_OF_TILE, POSITIONS, add_group, store_tile, zero
from accelsim_kernels.vectors.products import blocks_of, plus_words

Narrow = npt.NDArray[np.int32]
Wide = npt.NDArray[np.int64]

_VECTORS = POSITIONS // LANES


def _part_tile(words: bool) -> Any:
    """Make the step for a tile of channels and a panel.

    Parameters
    ----------
    words : bool
        Two operands of 16 bits in a group, both signed; else four of 8 bits, the weights signed, the activations not.

    Returns
    -------
    callable
        See `scalar` below.
    """

    def scalar(
        weights: Bytes, first: Int, packed: Bytes, place: Int, start: Wide, rows: Wide, position: Int,
        accumulators: Wide, part_groups: Int, positive: Narrow, negative: Narrow, low: Narrow, high: Narrow,
        ends: Narrow, panel: Int, masks: Narrow,
    ) -> None:  # fmt: skip
        """Set ``accumulators[n, position + i] = start[n] + Σ_k w·x`` for some rows n, and their marks.

        Parameters
        ----------
        weights, first, packed, place, start, rows, position, accumulators
            As in `accelsim_kernels.vectors.columns`.
        part_groups : int64
            Groups of a part; the last one may have fewer.
        positive, negative : int32 arrays, shape (n, parts)
            Sums of the positive and of the negative weights of every part; of 16 bits where operands have 8.
        low, high : int32 arrays, shape (n,)
            What a sum of products must not pass.
        ends : int32 array, shape (panels, 2, 64)
            Of every position what no activation is less than and what none is greater than; 0 lies between them.
        panel : int64
            The panel among the ends.
        masks : int32 array, shape (n, blocks of sixteen positions)
            Output: a bit per position where a sum may pass its limits on the way.
        """
        kinds: Any = (np.int16, np.int16) if words else (np.int8, np.uint8)
        num_groups, per_group = weights.shape[1] // GROUP_BYTES, GROUP_BYTES // (2 if words else 1)
        for r in range(CHANNELS_OF_TILE):
            n = rows[first + r]
            left = weights[n].view(kinds[0]).astype(np.int64)
            for i in range(POSITIONS):
                places = place + GROUP_BYTES * (np.arange(num_groups)[:, None] * POSITIONS + i) + np.arange(GROUP_BYTES)
                products = left * packed[places].view(kinds[1]).astype(np.int64).reshape(-1)
                total, outside = 0, False
                for part, begin in enumerate(range(0, products.size, part_groups * per_group)):
                    least, greatest = int(ends[panel, 0, i]), int(ends[panel, 1, i])
                    over = total + greatest * int(positive[n, part]) + least * int(negative[n, part])
                    under = total + greatest * int(negative[n, part]) + least * int(positive[n, part])
                    outside = outside or under < low[n] or over > high[n]
                    total += int(products[begin : begin + part_groups * per_group].sum())
                if position + i < accumulators.shape[1]:
                    accumulators[n, position + i] = start[n] + total
                bit = 1 << (i % LANES)
                where = n, position // LANES + i // LANES
                masks[where] = (masks[where] & ~bit if i % LANES else 0) | (bit if outside else 0)

    def generate(builder: Any, arrays: Arrays) -> None:
        _, first, _, _, _, _, position, _, part_groups, *_, panel, _ = arrays.values
        tile = [(r, v) for r in range(CHANNELS_OF_TILE) for v in range(_VECTORS)]
        totals = [[zero(builder) for _ in range(_VECTORS)] for _ in range(CHANNELS_OF_TILE)]
        rows = [arrays.load(5, builder.add(first, index(r)), INT64, 8) for r in range(CHANNELS_OF_TILE)]
        length, num_parts = (builder.extract_value(arrays.array(argument).shape, 1) for argument in (0, 9))
        bases = [builder.mul(row, length) for row in rows]
        blocks, block = builder.extract_value(arrays.array(15).shape, 1), builder.udiv(position, index(LANES))
        marks = {(r, v): builder.add(builder.add(builder.mul(rows[r], blocks), block), index(v)) for r, v in tile}
        for where in marks.values():
            arrays.store(ir.Constant(INT32, 0), 15, where, 4)
        num_groups = builder.udiv(length, index(GROUP_BYTES))
        own = builder.mul(panel, index(2 * POSITIONS))
        lower, upper = (
            [arrays.load(13, builder.add(own, index(half * POSITIONS + v * LANES)), VECTOR, 4) for v in range(_VECTORS)]
            for half in (0, 1)
        )

        def narrow(argument: int, element: Any) -> Any:
            return spread(builder, arrays.load(argument, element, INT32, 4))

        def check(part: Any) -> None:
            for r, row in enumerate(rows):
                here = builder.add(builder.mul(row, num_parts), part)
                up, down = narrow(9, here), narrow(10, here)
                limits = narrow(11, row), narrow(12, row)
                for v in range(_VECTORS):
                    over = under = builder.load(totals[r][v])
                    if words:
                        over = builder.add(over, builder.mul(upper[v], up))
                        under = builder.add(under, builder.mul(upper[v], down))
                        over = builder.add(over, builder.mul(lower[v], down))
                        under = builder.add(under, builder.mul(lower[v], up))
                    else:
                        over = plus_words(builder, over, upper[v], up)
                        under = plus_words(builder, under, upper[v], down)
                    outside = builder.or_(
                        builder.icmp_signed("<", under, limits[0]), builder.icmp_signed(">", over, limits[1])
                    )
                    mark = builder.zext(builder.bitcast(outside, INT16), INT32)
                    mark = builder.or_(mark, arrays.load(15, marks[r, v], INT32, 4))
                    arrays.store(mark, 15, marks[r, v], 4)

        with cgutils.for_range(builder, num_parts, intp=INT64) as part:
            check(part.index)
            begin = builder.mul(part.index, part_groups)
            left = builder.sub(num_groups, begin)
            count = builder.select(builder.icmp_signed("<", left, part_groups), left, part_groups)
            for block in blocks_of(CHANNELS_OF_TILE, _VECTORS):
                with cgutils.for_range(builder, count, intp=INT64) as some:
                    add_group(builder, arrays, words, bases, totals, block, builder.add(begin, some.index))
        num_positions = builder.extract_value(arrays.array(7).shape, 1)
        left = builder.sub(num_positions, position)
        whole = builder.icmp_signed(">=", left, index(POSITIONS))
        with builder.if_else(whole) as (then, otherwise):
            with then:
                store_tile(builder, arrays, rows, totals, None)
            with otherwise:
                store_tile(builder, arrays, rows, totals, left)

    return vectorised(scalar, generate)


part_tile_u8, part_tile_s16 = _part_tile(False), _part_tile(True)
