"""Products of channels with a panel of positions, and which of them bounds by parts of the reduction leave at risk.

docs/numerics.md (100) and (108). The panels are those of `accelsim_kernels.vectors.columns`.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.vectors.code import (
    GROUP_BYTES,
    INT1,
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
from accelsim_kernels.vectors.columns import CHANNELS_OF_TILE, POSITIONS, add_group, store_tile
from accelsim_kernels.vectors.products import Block, blocks_of, plus_words

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
        accumulators: Wide, part_groups: Int, own: Narrow, others: Narrow, panel: Int, shift: Int, origin: Narrow,
        most: Narrow, masks: Narrow,
    ) -> None:  # fmt: skip
        """Set ``accumulators[n, position + i] = start[n] + origin[n] + Σ_k w·x`` for some rows n, and their marks.

        Parameters
        ----------
        weights, first, packed, place, start, rows, position, accumulators
            As in `accelsim_kernels.vectors.columns`.
        part_groups : int64
            Groups of a part; the last one may have fewer.
        own : int32 array, shape (n, at least parts)
            Norms of the weights of every part, less than 2**14.
        others : int32 array, shape (panels, at least parts, 64)
            Norms of the activations of every part, likewise.
        panel : int64
            The panel among those.
        shift : int64
            What the product of both norms is to be shifted to the left.
        origin : int32 array, shape (n,)
            What the sums are counted from.
        most : int32 array, shape (n,)
            What a sum's magnitude, shifted to the right, must not pass on the way.
        masks : int32 array, shape (n, blocks of sixteen positions)
            Output: a bit per position where it may.
        """
        kinds: Any = (np.int16, np.int16) if words else (np.int8, np.uint8)
        num_groups, per_group = weights.shape[1] // GROUP_BYTES, GROUP_BYTES // (2 if words else 1)
        for r in range(CHANNELS_OF_TILE):
            n = rows[first + r]
            left = weights[n].view(kinds[0]).astype(np.int64)
            for i in range(POSITIONS):
                places = place + GROUP_BYTES * (np.arange(num_groups)[:, None] * POSITIONS + i) + np.arange(GROUP_BYTES)
                products = left * packed[places].view(kinds[1]).astype(np.int64).reshape(-1)
                total, worst = int(origin[n]), 0
                for part, begin in enumerate(range(0, products.size, part_groups * per_group)):
                    worst = max(worst, (abs(total) >> int(shift)) + int(own[n, part]) * int(others[panel, part, i]))
                    total += int(products[begin : begin + part_groups * per_group].sum())
                if position + i < accumulators.shape[1]:
                    accumulators[n, position + i] = start[n] + total
                bit = 1 << (i % LANES)
                where = n, position // LANES + i // LANES
                masks[where] = (masks[where] & ~bit if i % LANES else 0) | (bit if worst > most[n] else 0)

    def generate(builder: Any, arrays: Arrays) -> None:
        _, first, _, _, _, _, position, _, part_groups, _, _, panel, shift, *_ = arrays.values
        rows = [arrays.load(5, builder.add(first, index(r)), INT64, 8) for r in range(CHANNELS_OF_TILE)]
        length, num_own, num_others = (
            builder.extract_value(arrays.array(argument).shape, 1) for argument in (0, 9, 10)
        )
        bases = [builder.mul(row, length) for row in rows]
        num_groups = builder.udiv(length, index(GROUP_BYTES))
        origins = [spread(builder, arrays.load(13, row, INT32, 4)) for row in rows]
        totals = [[cgutils.alloca_once_value(builder, origin) for _ in range(_VECTORS)] for origin in origins]
        worst, shifts = _Worst(builder), spread(builder, builder.trunc(shift, INT32))

        def check(block: Block, part: Any) -> None:
            norms = builder.mul(builder.add(builder.mul(panel, num_others), part), index(POSITIONS))
            reach = {v: arrays.load(10, builder.add(norms, index(v * LANES)), VECTOR, 4) for v in block[1]}
            for r in block[0]:
                norm = spread(builder, arrays.load(9, builder.add(builder.mul(rows[r], num_own), part), INT32, 4))
                for v in block[1]:
                    magnitude = _magnitude(builder, builder.load(totals[r][v]))
                    if words:  # of 8 bits nothing is shifted
                        magnitude = builder.lshr(magnitude, shifts)
                    worst.meet(r, v, plus_words(builder, magnitude, reach[v], norm))

        for block in blocks_of(CHANNELS_OF_TILE, _VECTORS):
            worst.clear(block)
            with cgutils.for_range_slice(builder, index(0), num_groups, part_groups, intp=INT64, inc=True) as (
                begin,
                part,
            ):
                worst.keep_in_memory()
                check(block, part)
                left = builder.sub(num_groups, begin)
                count = builder.select(builder.icmp_signed("<", left, part_groups), left, part_groups)
                with cgutils.for_range(builder, count, intp=INT64) as some:
                    add_group(builder, arrays, words, bases, totals, block, builder.add(begin, some.index))
        blocks, column = builder.extract_value(arrays.array(15).shape, 1), builder.udiv(position, index(LANES))
        for r, row in enumerate(rows):
            place, most = builder.add(builder.mul(row, blocks), column), spread(builder, arrays.load(14, row, INT32, 4))
            for v in range(_VECTORS):
                outside = builder.icmp_signed(">", worst.load(r, v), most)
                mark = builder.zext(builder.bitcast(outside, INT16), INT32)
                arrays.store(mark, 15, builder.add(place, index(v)), 4)
        left = builder.sub(builder.extract_value(arrays.array(7).shape, 1), position)
        with builder.if_else(builder.icmp_signed(">=", left, index(POSITIONS))) as (then, otherwise):
            with then:
                store_tile(builder, arrays, rows, totals, None)
            with otherwise:
                store_tile(builder, arrays, rows, totals, left)

    return vectorised(scalar, generate)


class _Worst:
    """The greatest magnitudes that a tile's sums may reach, in memory: registers hold the sums."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder
        self._memory = cgutils.alloca_once(builder, ir.ArrayType(VECTOR, CHANNELS_OF_TILE * _VECTORS))

    def _place(self, row: int, vector: int) -> Any:
        return self.builder.gep(self._memory, [index(0), index(row * _VECTORS + vector)])

    def load(self, row: int, vector: int) -> Any:
        """Return a vector of them."""
        return self.builder.load(self._place(row, vector))

    def clear(self, block: Block) -> None:
        """Begin with 0."""
        for r, v in product(*block):
            self.builder.store(ir.Constant(VECTOR, None), self._place(r, v))

    def meet(self, row: int, vector: int, reached: Any) -> None:
        """Take what sums reach into account."""
        before = self.load(row, vector)
        greater = self.builder.select(self.builder.icmp_signed(">", reached, before), reached, before)
        self.builder.store(greater, self._place(row, vector))

    def keep_in_memory(self) -> None:
        """Say, by an instruction that is none, that anything may be there: LLVM would take registers from the sums."""
        kind = ir.FunctionType(ir.VoidType(), [self._memory.type])
        self.builder.asm(kind, "", "r,~{memory}", [self._memory], True)


def _magnitude(builder: Any, value: Any) -> Any:
    """Return the absolute values of a vector's lanes."""
    signature = ir.FunctionType(VECTOR, [VECTOR, INT1])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.abs.v{LANES}i32")
    return builder.call(function, [value, ir.Constant(INT1, 0)])


part_tile_u8, part_tile_s16 = _part_tile(False), _part_tile(True)
