"""Products of channels with a panel of positions, and which of them their running sums leave at risk.

docs/numerics.md (100) and (121). The panels are those of `accelsim_kernels.vectors.columns`.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

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
from accelsim_kernels.vectors.columns import POSITIONS, add_group, store_tile, zero
from accelsim_kernels.vectors.products import Block, blocks_of, plus_words

Narrow = npt.NDArray[np.int32]
Wide = npt.NDArray[np.int64]

CHANNELS_OF_RUNNING_TILE = 2
"""Channels of a tile: their sums and the ends of these are 24 of 32 registers."""

LONG, SHORT = 4, 2
"""Groups of a part."""

_VECTORS = POSITIONS // LANES


def _running_tile(words: bool, part_groups: int) -> Any:
    """Make the step for a tile of channels and a panel.

    Parameters
    ----------
    words : bool
        Two operands of 16 bits in a group, both signed; else four of 8 bits, the weights signed, the activations not.
    part_groups : int
        Groups of a part; each group of what is left in the end is one.

    Returns
    -------
    callable
        See `scalar` below.
    """

    def scalar(
        weights: Bytes, first: Int, packed: Bytes, place: Int, start: Wide, rows: Wide, position: Int,
        accumulators: Wide, reach: Narrow, low: Narrow, high: Narrow, ends: Narrow, panel: Int,
        masks: Narrow,
    ) -> None:  # fmt: skip
        """Set ``accumulators[n, position + i] = start[n] + Σ_k w·x`` for some rows n, and their marks.

        Parameters
        ----------
        weights, first, packed, place, start, rows, position, accumulators
            As in `accelsim_kernels.vectors.columns`.
        reach : int32 array, shape (2, n)
            The greatest sum of the positive weights of a part, and the least of the negative ones; of 16 bits where
            operands have 8.
        low, high, ends, panel, masks
            As in `accelsim_kernels.vectors.part_tiles`.
        """
        kinds: Any = (np.int16, np.int16) if words else (np.int8, np.uint8)
        num_groups, size = weights.shape[1] // GROUP_BYTES, GROUP_BYTES // (2 if words else 1)
        whole = num_groups // part_groups * part_groups
        begins = [size * group for group in range(num_groups) if group % part_groups == 0 or group >= whole]
        for r in range(CHANNELS_OF_RUNNING_TILE):
            n = rows[first + r]
            left, up, down = weights[n].view(kinds[0]).astype(np.int64), int(reach[0, n]), int(reach[1, n])
            for i in range(POSITIONS):
                places = place + GROUP_BYTES * (np.arange(num_groups)[:, None] * POSITIONS + i) + np.arange(GROUP_BYTES)
                products = left * packed[places].view(kinds[1]).astype(np.int64).reshape(-1)
                sums = [int(products[:begin].sum()) for begin in begins]
                least, greatest = int(ends[panel, 0, i]), int(ends[panel, 1, i])
                over = max(sums) + greatest * up + least * down
                under = min(sums) + greatest * down + least * up
                if position + i < accumulators.shape[1]:
                    accumulators[n, position + i] = start[n] + int(products.sum())
                bit = 1 << (i % LANES)
                where = n, position // LANES + i // LANES
                outside = under < low[n] or over > high[n]
                masks[where] = (masks[where] & ~bit if i % LANES else 0) | (bit if outside else 0)

    def generate(builder: Any, arrays: Arrays) -> None:
        _, first, _, _, _, _, position, *_ = arrays.values
        channels = range(CHANNELS_OF_RUNNING_TILE)
        totals, lows, highs = ([[zero(builder) for _ in range(_VECTORS)] for _ in channels] for _ in range(3))
        rows = [arrays.load(5, builder.add(first, index(r)), INT64, 8) for r in range(CHANNELS_OF_RUNNING_TILE)]
        length = builder.extract_value(arrays.array(0).shape, 1)
        bases = [builder.mul(row, length) for row in rows]
        num_groups = builder.udiv(length, index(GROUP_BYTES))

        def add(block: Block, group: Any) -> None:
            add_group(builder, arrays, words, bases, totals, block, group)

        def meet(block: Block) -> None:
            for registers, comparison in ((lows, "<"), (highs, ">")):
                for r, v in product(*block):
                    before, now = builder.load(registers[r][v]), builder.load(totals[r][v])
                    kept = builder.select(builder.icmp_signed(comparison, before, now), before, now)
                    builder.store(kept, registers[r][v])

        whole = builder.udiv(num_groups, index(part_groups))
        done = builder.mul(whole, index(part_groups))
        for block in blocks_of(CHANNELS_OF_RUNNING_TILE, _VECTORS, registers=3):
            with cgutils.for_range(builder, whole, intp=INT64) as part:
                meet(block)
                for some in range(part_groups):
                    add(block, builder.add(builder.mul(part.index, index(part_groups)), index(some)))
            with cgutils.for_range(builder, builder.sub(num_groups, done), intp=INT64) as rest:
                meet(block)
                add(block, builder.add(done, rest.index))
        _mark(builder, arrays, words, rows, (lows, highs))
        left = builder.sub(builder.extract_value(arrays.array(7).shape, 1), position)
        with builder.if_else(builder.icmp_signed(">=", left, index(POSITIONS))) as (then, otherwise):
            with then:
                store_tile(builder, arrays, rows, totals, None)
            with otherwise:
                store_tile(builder, arrays, rows, totals, left)

    return vectorised(scalar, generate)


def _mark(builder: Any, arrays: Arrays, words: bool, rows: Any, met: Any) -> None:
    """Store the marks of the outputs of which a part may leave the limits."""
    *_, position, _, _, _, _, _, panel, _ = arrays.values
    own = builder.mul(panel, index(2 * POSITIONS))
    blocks = builder.extract_value(arrays.array(13).shape, 1)
    channels = builder.extract_value(arrays.array(8).shape, 1)
    for r, row in enumerate(rows):
        up, down, low, high = (
            spread(builder, arrays.load(argument, place, INT32, 4))
            for argument, place in ((8, row), (8, builder.add(channels, row)), (9, row), (10, row))
        )
        marks = builder.add(builder.mul(row, blocks), builder.udiv(position, index(LANES)))
        for v in range(_VECTORS):
            least, greatest = (
                arrays.load(11, builder.add(own, index(half * POSITIONS + v * LANES)), VECTOR, 4) for half in (0, 1)
            )
            under, over = builder.load(met[0][r][v]), builder.load(met[1][r][v])
            if words:
                for end, others in ((greatest, (down, up)), (least, (up, down))):
                    under = builder.add(under, builder.mul(end, others[0]))
                    over = builder.add(over, builder.mul(end, others[1]))
            else:  # both fit 16 bits, and no activation is negative
                under, over = (
                    plus_words(builder, *operands) for operands in ((under, greatest, down), (over, greatest, up))
                )
            outside = builder.or_(builder.icmp_signed("<", under, low), builder.icmp_signed(">", over, high))
            mark = builder.zext(builder.bitcast(outside, INT16), INT32)
            arrays.store(mark, 13, builder.add(marks, index(v)), 4)


running_tile_u8_long, running_tile_u8_short = _running_tile(False, LONG), _running_tile(False, SHORT)
running_tile_s16_long, running_tile_s16_short = _running_tile(True, LONG), _running_tile(True, SHORT)
