"""Dot products of windows, with proofs by parts of the reduction on the way: docs/numerics.md (100), (114), (118)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial, reduce
from itertools import product
from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.processor import Instructions, instructions
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
from accelsim_kernels.vectors.products import Block, each_block, plus_bytes, plus_pairs

Narrow = npt.NDArray[np.int32]
Wide = npt.NDArray[np.int64]

UP, DOWN, NORM_UP, NORM_DOWN, LOW, HIGH = range(6)
"""The channels' constants: what extremes and norms are multiplied with, and limits."""

NUM_CONSTANTS = 6

_PAIR, _FOUR_BYTES, _FOUR = (ir.VectorType(kind, n) for kind, n in ((INT16, 2), (INT8, 4), (INT32, 4)))
_DOUBLE = ir.DoubleType()


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
        rows: Bytes, bases: Wide, first: Int, places: Wide, taken: Bytes, channels: Bytes, begin: Int, reach: Narrow,
        corners: Wide, parts: Wide, constants: Narrow, offset: Int, sums: Narrow, column: Int, found: Bytes,
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
        taken : uint8 array, shape (parts * groups, GROUP_BYTES)
            Bits that are 1 for the bytes that are terms, and 0 for those beyond them, whose weights are 0.
        channels : uint8 array
            Bytes of the signed weights: by group and channel.
        begin : int64
            Where in ``channels`` those of this tile begin.
        reach : int32 array
            Two numbers of 16 bits, neither below 0, for each part.
        corners : int64 array
            Where in ``reach`` those of each row begin.
        parts : int64 array
            Where those of each part are, after a row's corner.
        constants : int32 array, shape (parts, blocks, NUM_CONSTANTS, LANES)
            Of every block of channels. `UP`: two numbers of 16 bits, no less than 0, which times those of a part's
            reach are no less than what its products add to a sum on the way; `DOWN`: two no greater than 0, likewise
            what they take from it. `NORM_UP`, `NORM_DOWN`: the same for the norm of a part's activations. `LOW` and
            `HIGH`: what the sum before a part must not pass with these.
        offset : int64
            What ``rows`` are less than the activations, which are between -255 and 255.
        sums : int32 array, shape (rows, channels)
            Output.
        column : int64
            The first of the tile's channels.
        found : uint8 array
            Output: 1 for each row with a channel that before some part may pass its limits both by the reach and by the
            norm of the activations; others are left alone.
        """
        groups = len(places) // len(parts)
        end = begin + len(places) * GROUP_BYTES * num_vectors * LANES
        weights = channels[begin:end].view(np.int8).reshape(len(places), num_vectors * LANES, GROUP_BYTES)
        by_channel = constants.transpose(0, 2, 1, 3).reshape(len(parts), NUM_CONSTANTS, -1)
        own = by_channel[..., column : column + num_vectors * LANES].astype(np.int64)
        low_half, high_half = (own << 48) >> 48, own >> 16  # of each pair
        for r in range(num_rows):
            terms = rows[(bases[first + r] + places)[:, None] + np.arange(GROUP_BYTES)].astype(np.int64)
            totals = np.zeros(num_vectors * LANES, dtype=np.int64)
            for part in range(len(parts)):
                some = slice(part * groups, (part + 1) * groups)
                pair, low, high = int(reach[corners[first + r] + parts[part]]), own[part, LOW], own[part, HIGH]
                ends = (pair & 0xFFFF) * low_half[part] + (pair >> 16) * high_half[part]
                by_extremes = (totals + ends[UP] > high) | (totals + ends[DOWN] < low)
                norm = isqrt(int((((terms[some] + offset) * (taken[some] & 1)) ** 2).sum())) + 1
                over, under = totals + norm * own[part, NORM_UP], totals - norm * own[part, NORM_DOWN]
                found[first + r] |= (by_extremes & ((over > high) | (under < low))).any()
                totals += np.einsum("gi,gni->n", terms[some], weights[some].astype(np.int64))
            sums[first + r, column : column + totals.size] = totals.astype(np.int32)  # modulo 2**32

    def generate(builder: Any, arrays: Arrays) -> None:
        for row, vector, block in each_block(builder, num_rows, num_vectors):
            _Block(builder, arrays, row, vector, block, num_vectors).generate()

    return vectorised(scalar, generate)


class _Block:
    """The code of some rows and vectors of a tile; `_extreme_tile` says what its arguments are."""

    def __init__(self, builder: Any, arrays: Arrays, row: Any, vector: Any, block: Block, num_vectors: int) -> None:
        self.builder, self.arrays, self.num_vectors = builder, arrays, num_vectors
        self.rows, self.vectors = block
        _, _, first, _, _, _, begin, _, _, _, _, self.offset, _, column, _ = arrays.values
        self.first = builder.add(first, row)
        self.begin = builder.add(begin, builder.mul(vector, index(GROUP_BYTES * LANES)))
        self.column = builder.add(column, builder.mul(vector, index(LANES)))
        self.tile = list(product(*block))
        nothing = ir.Constant(VECTOR, None)
        self.totals = {place: cgutils.alloca_once_value(builder, nothing) for place in self.tile}
        self.held = cgutils.alloca_once(builder, ir.ArrayType(VECTOR, len(self.tile)))
        self.squares = cgutils.alloca_once(builder, _FOUR)
        self.num_parts = arrays.array(9).nitems
        self.num_groups = builder.udiv(arrays.array(3).nitems, self.num_parts)

    def generate(self) -> None:
        """Look at the sums and multiply, part by part, and store them."""
        builder, arrays = self.builder, self.arrays
        bases, size = {r: self.base(index(r)) for r in self.rows}, GROUP_BYTES * LANES
        with cgutils.for_range(builder, self.num_parts, intp=INT64) as part:
            self.check(part.index)
            begun = builder.mul(part.index, self.num_groups)
            with cgutils.for_range(builder, self.num_groups, intp=INT64) as some:
                group = builder.add(begun, some.index)
                here = builder.add(self.begin, builder.mul(group, index(self.num_vectors * size)))
                weights = {v: arrays.load(5, builder.add(here, index(v * size)), VECTOR) for v in self.vectors}
                for r in self.rows:
                    operand = spread(builder, self.operands(bases[r], group, INT32))
                    for v in self.vectors:
                        total = plus_bytes(builder, builder.load(self.totals[r, v]), operand, weights[v])
                        builder.store(total, self.totals[r, v])
        width = builder.extract_value(arrays.array(12).shape, 1)
        for r, v in self.tile:
            line = builder.add(builder.mul(builder.add(self.first, index(r)), width), self.column)
            arrays.store(builder.load(self.totals[r, v]), 12, builder.add(line, index(v * LANES)), 4)

    def check(self, part: Any) -> None:
        """Look at the sums before a part: all rows at once, then each where that does not suffice."""
        builder = self.builder
        greater, lesser = (partial(_outer, builder, name) for name in ("smax", "smin"))
        reached, marks = reduce(greater, (self.reach(index(r), part) for r in self.rows)), []
        for v in self.vectors:
            sums = [builder.load(self.totals[r, v]) for r in self.rows]
            marks.append(self.by_extremes(reduce(greater, sums), reduce(lesser, sums), reached, part, v))
        with builder.if_then(self.any_of(marks), likely=False):
            for place, where in enumerate(self.tile):
                builder.store(builder.load(self.totals[where]), builder.gep(self.held, [index(0), index(place)]))
            with cgutils.for_range(builder, index(len(self.rows)), intp=INT64) as row:
                self.look_at(row.index, part)

    def look_at(self, row: Any, part: Any) -> None:
        """Look at a single row of those that are held, at its norm where its extremes do not suffice."""
        builder, arrays = self.builder, self.arrays
        sums = {}
        for i, v in enumerate(self.vectors):
            place = builder.add(builder.mul(row, index(len(self.vectors))), index(i))
            sums[v] = builder.load(builder.gep(self.held, [index(0), place]))
        reached = self.reach(row, part)
        marks = {v: self.by_extremes(total, total, reached, part, v) for v, total in sums.items()}
        with builder.if_then(self.any_of(marks.values())):
            norm = spread(builder, self.norm(row, part))
            both = (builder.and_(marks[v], self.by_norm(total, norm, part, v)) for v, total in sums.items())
            flag, some = builder.add(self.first, row), builder.zext(self.any_of(both), INT8)
            arrays.store(builder.or_(arrays.load(14, flag, INT8, 1), some), 14, flag, 1)

    def by_extremes(self, most: Any, least: Any, reached: Any, part: Any, vector: int) -> Any:
        """Return which of the channels may pass a limit from sums between two, by what activations reach."""
        builder, pair = self.builder, spread(self.builder, self.builder.bitcast(reached, INT32))
        up, down = (self.constant(kind, part, vector) for kind in (UP, DOWN))
        return self.outside(plus_pairs(builder, most, pair, up), plus_pairs(builder, least, pair, down), part, vector)

    def by_norm(self, total: Any, norm: Any, part: Any, vector: int) -> Any:
        """Return which of the channels may pass a limit by the norm of the activations."""
        builder = self.builder
        up, down = (builder.mul(norm, self.constant(kind, part, vector)) for kind in (NORM_UP, NORM_DOWN))
        return self.outside(builder.add(total, up), builder.sub(total, down), part, vector)

    def outside(self, over: Any, under: Any, part: Any, vector: int) -> Any:
        """Return which of the channels pass a limit."""
        above = self.builder.icmp_signed(">", over, self.constant(HIGH, part, vector))
        return self.builder.or_(above, self.builder.icmp_signed("<", under, self.constant(LOW, part, vector)))

    def any_of(self, marks: Iterable[Any]) -> Any:
        """Return whether one of the channels is marked."""
        found = self.builder.bitcast(reduce(self.builder.or_, marks), INT16)
        return self.builder.icmp_signed("!=", found, ir.Constant(INT16, 0))

    def norm(self, row: Any, part: Any) -> Any:
        """Return no less than the norm of a row's activations in a part."""
        builder, arrays = self.builder, self.arrays
        base, begun = self.base(row), builder.mul(part, self.num_groups)
        offsets = spread(builder, builder.trunc(self.offset, INT32))
        offsets = builder.shuffle_vector(offsets, offsets, ir.Constant(_FOUR, list(range(GROUP_BYTES))))
        builder.store(ir.Constant(_FOUR, None), self.squares)
        with cgutils.for_range(builder, self.num_groups, intp=INT64) as some:
            group = builder.add(begun, some.index)
            operands = builder.add(builder.zext(self.operands(base, group, _FOUR_BYTES), _FOUR), offsets)
            taken = arrays.load(4, builder.mul(group, index(GROUP_BYTES)), _FOUR_BYTES)
            operands = builder.and_(operands, builder.sext(taken, _FOUR))
            builder.store(builder.add(builder.load(self.squares), builder.mul(operands, operands)), self.squares)
        by_byte = builder.load(self.squares)
        squares = (builder.extract_element(by_byte, ir.Constant(INT32, i)) for i in range(GROUP_BYTES))
        total = builder.sitofp(reduce(builder.add, squares), _DOUBLE)
        root = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_DOUBLE, [_DOUBLE]), "llvm.sqrt.f64")
        return builder.add(builder.fptosi(builder.call(root, [total]), INT32), ir.Constant(INT32, 1))

    def base(self, row: Any) -> Any:
        """Return where a row of the tile begins."""
        return self.arrays.load(1, self.builder.add(self.first, row), INT64, 8)

    def operands(self, base: Any, group: Any, kind: Any) -> Any:
        """Return a group of a row that begins there."""
        return self.arrays.load(0, self.builder.add(base, self.arrays.load(3, group, INT64, 8)), kind)

    def reach(self, row: Any, part: Any) -> Any:
        """Return what the activations of a row reach in a part, as two numbers."""
        corner = self.arrays.load(8, self.builder.add(self.first, row), INT64, 8)
        return self.arrays.load(7, self.builder.add(corner, self.arrays.load(9, part, INT64, 8)), _PAIR, 4)

    def constant(self, kind: int, part: Any, vector: int) -> Any:
        """Return a constant of the channels of a vector."""
        builder, blocks = self.builder, self.builder.extract_value(self.arrays.array(10).shape, 1)
        block = builder.add(builder.udiv(self.column, index(LANES)), index(vector))
        place = builder.add(builder.mul(part, blocks), block)
        place = builder.add(builder.mul(place, index(NUM_CONSTANTS * LANES)), index(kind * LANES))
        return self.arrays.load(10, place, VECTOR, 4)


def _outer(builder: Any, name: str, left: Any, right: Any) -> Any:
    """Return the greater (``smax``) or the lesser (``smin``) of two vectors' elements."""
    kind = left.type
    signature = ir.FunctionType(kind, [kind, kind])
    name = f"llvm.{name}.v{kind.count}i{kind.element.width}"
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), [left, right])


ROWS_OF_TILE = {4: 4, 2: 6, 1: 12} if instructions() is Instructions.VNNI else {4: 6, 2: 6, 1: 12}
"""Rows of a tile by its vectors: 12 or 16 sums, so that registers are left for looking at them, or whole blocks."""

extreme_4, extreme_2, extreme_1 = (_extreme_tile(ROWS_OF_TILE[vectors], vectors) for vectors in (4, 2, 1))
