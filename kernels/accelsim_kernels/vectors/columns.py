"""Products of channels with columns of activations, a panel of 64 positions at a time: docs/numerics.md (100)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.processor import Instructions, instructions, takes_bytes
from accelsim_kernels.vectors.code import (
    GROUP_BYTES,
    INT1,
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
from accelsim_kernels.vectors.products import Block, blocks_of, plus_bytes, plus_words

POSITIONS = 4 * LANES
"""Positions of a panel, which are packed together."""

Terms = npt.NDArray[np.int8] | npt.NDArray[np.int16]

CHANNELS_OF_TILE = 6 if takes_bytes() else 5
"""Channels of a tile; with a panel's positions their sums take 24 of AVX-512's 32 registers, or 10 of 16 at a time."""

_WIDE = ir.VectorType(INT64, 8)


def _pack_positions(
    columns: npt.NDArray[np.uint8] | npt.NDArray[np.uint16],
    k: Int,
    begin: Int,
    flipped: Int,
    packed: Terms,
    place: Int,
    counts: npt.NDArray[np.int64],
    ends: Bytes,
) -> None:
    """Store a group of a panel's terms, position by position, as wide or wider; what is beyond the columns is 0.

    Parameters
    ----------
    columns : uint8 or uint16 array, shape (k, p)
        Bits of the activations.
    k, begin : int64
        The group's first term, the panel's first position.
    flipped : int64
        Bits of every activation that are flipped: its highest adds half the range to a code, or takes it away.
    packed : int8 or int16 array
        Output: the bits of terms of 8 bits, or terms of 16.
    place : int64
        Where it begins.
    counts : int64 array, shape (at least k + group,)
        Of every term the activations that are not 0, before bits are flipped; added to.
    ends : uint8 array
        Bytes of the least value that was stored so far of each of a panel's positions, then of the greatest, as uint8
        or int16; kept up.
    """
    kind: Any = np.uint8 if columns.itemsize == 1 else np.int16
    per_group = GROUP_BYTES // packed.itemsize
    values = packed[place : place + per_group * POSITIONS].view(np.uint8 if packed.itemsize == 1 else np.int16)
    extremes = ends.view(kind)
    for i in range(POSITIONS):
        for term in range(per_group):
            value: Int = 0
            if k + term < columns.shape[0] and begin + i < columns.shape[1]:
                bits = int(columns[k + term, begin + i])
                value = bits ^ flipped
                value -= 1 << 16 if kind == np.int16 and value >= 1 << 15 else 0
                counts[k + term] += bits != 0
                extremes[i] = min(int(extremes[i]), value)
                extremes[POSITIONS + i] = max(int(extremes[POSITIONS + i]), value)
            values[i * per_group + term] = value


def _pack(builder: Any, arrays: Arrays) -> None:
    _, k, begin, flipped, _, place, _, _ = arrays.values
    width, wide = (arrays.kinds[argument].dtype.bitwidth for argument in (0, 4))
    element, per_group, size = ir.IntType(width), GROUP_BYTES * 8 // wide, width // 8
    vector = ir.VectorType(element, POSITIONS)
    some = (_Flags if instructions() is Instructions.VNNI else _Masks)(builder, vector)
    num_terms, num_positions = (builder.extract_value(arrays.array(0).shape, axis) for axis in (0, 1))
    popcount = cgutils.get_or_insert_function(builder.module, ir.FunctionType(INT64, [INT64]), "llvm.ctpop.i64")
    flips = _everywhere(builder, builder.trunc(flipped, element), vector)
    left = builder.sub(num_positions, begin)
    within = builder.select(builder.icmp_signed("<", left, index(POSITIONS)), left, index(POSITIONS))
    inside = some.first(within)
    least, most = (arrays.load(7, index(half * POSITIONS * size), vector) for half in (0, 1))
    below, above = ("<", ">")
    compare, ends = (
        (builder.icmp_unsigned, (0, 255)) if size == 1 else (builder.icmp_signed, (-(1 << 15), (1 << 15) - 1))
    )
    lines = []
    for term in range(per_group):
        number = builder.add(k, index(term))
        exists = builder.icmp_signed("<", number, num_terms)
        lanes = some.where(exists, inside)
        where = arrays.pointer(0, builder.add(builder.mul(number, num_positions), begin), vector)
        bits = some.read(where, lanes, builder.select(exists, within, index(0)))
        present = builder.bitcast(builder.icmp_unsigned("!=", bits, ir.Constant(vector, None)), INT64)
        count = builder.add(arrays.load(6, number, INT64, 8), builder.call(popcount, [present]))
        arrays.store(count, 6, number, 8)
        value = builder.xor(bits, flips)
        low, high = (some.keep(lanes, value, end) for end in reversed(ends))
        least = builder.select(compare(below, low, least), low, least)
        most = builder.select(compare(above, high, most), high, most)
        value = some.keep(lanes, value, 0)
        lines.append(value if wide == width else builder.zext(value, ir.VectorType(ir.IntType(wide), POSITIONS)))
    arrays.store(least, 7, index(0), 1)
    arrays.store(most, 7, index(POSITIONS * size), 1)
    while len(lines) > 1:  # pairs of lines that are per_group / 2 apart, then pairs of those
        half, length = len(lines) // 2, lines[0].type.count
        order = ir.Constant(ir.VectorType(INT32, 2 * length), [i // 2 + i % 2 * length for i in range(2 * length)])
        lines = [builder.shuffle_vector(lines[i], lines[i + half], order) for i in range(half)]
    arrays.store(lines[0], 4, place, 1)


class _Flags:
    """Some lanes of a vector of 8 or 16 bits, for processors with instructions that leave lanes out.

    Parameters
    ----------
    builder
        numba's.
    vector : ir.VectorType
        Its type.
    """

    def __init__(self, builder: Any, vector: Any) -> None:
        self.builder, self.vector, self.size = builder, vector, vector.element.width // 8

    def first(self, count: Any) -> Any:
        """Return so many first lanes."""
        builder, lanes = self.builder, ir.Constant(self.vector, list(range(self.vector.count)))
        width = _everywhere(builder, builder.trunc(count, self.vector.element), self.vector)
        return builder.icmp_unsigned("<", lanes, width)

    def where(self, flag: Any, lanes: Any) -> Any:
        """Return the lanes, or none of them."""
        return self.builder.select(flag, lanes, ir.Constant(lanes.type, None))

    def read(self, where: Any, lanes: Any, count: Any) -> Any:
        """Load the lanes, so many first ones, and 0 elsewhere."""
        kind = ir.FunctionType(self.vector, [self.vector.as_pointer(), INT32, lanes.type, self.vector])
        name = f"llvm.masked.load.v{self.vector.count}i{8 * self.size}.p0"
        load = cgutils.get_or_insert_function(self.builder.module, kind, name)
        size, nothing = ir.Constant(INT32, self.size), ir.Constant(self.vector, None)
        return self.builder.call(load, [where, size, lanes, nothing])

    def keep(self, lanes: Any, value: Any, other: int) -> Any:
        """Return the lanes of a value, and a constant elsewhere."""
        return self.builder.select(lanes, value, ir.Constant(self.vector, [other] * self.vector.count))


class _Masks(_Flags):
    """The same for processors that have no such instructions; lanes are those whose bits are all set."""

    def __init__(self, builder: Any, vector: Any) -> None:
        super().__init__(builder, vector)
        self._room = cgutils.alloca_once(builder, vector)

    def first(self, count: Any) -> Any:
        return self.builder.sext(super().first(count), self.vector)

    def where(self, flag: Any, lanes: Any) -> Any:
        return self.builder.and_(
            lanes, _everywhere(self.builder, self.builder.sext(flag, lanes.type.element), lanes.type)
        )

    def read(self, where: Any, lanes: Any, count: Any) -> Any:
        builder, whole = self.builder, self.builder.icmp_signed("==", count, index(self.vector.count))
        with cgutils.if_unlikely(builder, builder.not_(whole)):  # by way of memory that may be read
            builder.store(ir.Constant(self.vector, None), self._room)
            cgutils.raw_memcpy(builder, self._room, where, count, self.size)
        loaded = builder.load(builder.select(whole, where, self._room))
        loaded.align = 1
        return loaded

    def keep(self, lanes: Any, value: Any, other: int) -> Any:
        kept = self.builder.and_(value, lanes)
        constant = ir.Constant(self.vector, [other] * self.vector.count)
        return self.builder.or_(kept, self.builder.and_(self.builder.not_(lanes), constant)) if other else kept


def _everywhere(builder: Any, scalar: Any, vector: Any) -> Any:
    """Return a vector of a type whose elements all are a scalar."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INT32, vector.count), None))


pack_positions = vectorised(_pack_positions, _pack)


def _panel_tile(words: bool, num_vectors: int) -> Any:
    """Make the step that multiplies a tile of channels with positions of a panel, over the whole reduction.

    Parameters
    ----------
    words : bool
        Two operands of 16 bits in a group, both signed; else four of 8 bits, the weights signed.
    num_vectors : int
        Positions, in vectors.

    Returns
    -------
    callable
        See `scalar` below.
    """

    def scalar(
        weights: Bytes,
        first: Int,
        packed: Bytes,
        place: Int,
        start: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
        position: Int,
        accumulators: npt.NDArray[np.int64],
    ) -> None:
        """Set ``accumulators[n, position + i]`` to ``start[n]`` and a dot product modulo 2**32, for some rows n.

        Parameters
        ----------
        weights : uint8 array, shape (n, length)
            Bytes of the channels' weights, signed, in whole groups.
        first : int64
            Where in ``rows`` the tile's begin.
        packed : uint8 array
            Bytes of panels: by group and position.
        place : int64
            Where the panel begins.
        start : int64 array, shape (n,)
            What is added.
        rows : int64 array
            The channels.
        position : int64
            The panel's first; what lies beyond the accumulators is left out.
        accumulators : int64 array, shape (n, p)
            Output.
        """
        kinds: Any = (np.int16, np.int16) if words else (np.int8, np.uint8)
        num_groups = weights.shape[1] // GROUP_BYTES
        for r in range(CHANNELS_OF_TILE):
            n = rows[first + r]
            left = weights[n].view(kinds[0]).astype(np.int64).reshape(num_groups, -1)
            for i in range(min(num_vectors * LANES, accumulators.shape[1] - position)):
                places = place + GROUP_BYTES * (np.arange(num_groups)[:, None] * POSITIONS + i) + np.arange(GROUP_BYTES)
                right = packed[places].view(kinds[1]).astype(np.int64)
                total = int((left * right).sum())
                accumulators[n, position + i] = start[n] + (total + (1 << 31)) % (1 << 32) - (1 << 31)

    def generate(builder: Any, arrays: Arrays) -> None:
        _, first, _, _, _, _, position, _ = arrays.values
        totals = [[zero(builder) for _ in range(num_vectors)] for _ in range(CHANNELS_OF_TILE)]
        rows = [arrays.load(5, builder.add(first, index(r)), INT64, 8) for r in range(CHANNELS_OF_TILE)]
        length = builder.extract_value(arrays.array(0).shape, 1)
        bases = [builder.mul(row, length) for row in rows]
        num_groups = builder.udiv(length, index(GROUP_BYTES))
        for channels, vectors in blocks_of(CHANNELS_OF_TILE, num_vectors):
            with cgutils.for_range(builder, num_groups, intp=INT64) as group:
                add_group(builder, arrays, words, bases, totals, (channels, vectors), group.index)
        num_positions = builder.extract_value(arrays.array(7).shape, 1)
        left = builder.sub(num_positions, position)
        whole = builder.icmp_signed(">=", left, index(num_vectors * LANES))
        with builder.if_else(whole) as (then, otherwise):
            with then:
                store_tile(builder, arrays, rows, totals, None)
            with otherwise:
                store_tile(builder, arrays, rows, totals, left)

    return vectorised(scalar, generate)


def zero(builder: Any) -> Any:
    """Return a register of sums."""
    return cgutils.alloca_once_value(builder, ir.Constant(VECTOR, None))


def add_group(builder: Any, arrays: Arrays, words: bool, bases: Any, totals: Any, block: Block, group: Any) -> None:
    """Add a group's products to some sums of a tile, of steps that begin with the arguments of `panel_u8_4`."""
    plus, (channels, vectors) = plus_words if words else plus_bytes, block
    here = builder.add(arrays.values[3], builder.mul(group, index(GROUP_BYTES * POSITIONS)))
    columns = {v: arrays.load(2, builder.add(here, index(v * GROUP_BYTES * LANES)), VECTOR) for v in vectors}
    distance = builder.mul(group, index(GROUP_BYTES))
    for r in channels:
        operand = spread(builder, arrays.load(0, builder.add(bases[r], distance), INT32))
        for v in vectors:
            builder.store(plus(builder, builder.load(totals[r][v]), columns[v], operand), totals[r][v])


def store_tile(builder: Any, arrays: Arrays, rows: Any, totals: Any, left: Any) -> None:
    """Store sums and what they start from, up to where the accumulators end."""
    position = arrays.values[6]
    num_positions = builder.extract_value(arrays.array(7).shape, 1)
    flags = ir.VectorType(INT1, 8)
    kind = ir.FunctionType(ir.VoidType(), [_WIDE, _WIDE.as_pointer(), INT32, flags])
    masked = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.store.v8i64.p0")
    places = [ir.Constant(ir.VectorType(INT32, 8), list(range(half * 8, half * 8 + 8))) for half in (0, 1)]
    for r, row in enumerate(rows):
        loaded = _everywhere(builder, arrays.load(4, row, INT64, 8), _WIDE)
        line = builder.add(builder.mul(row, num_positions), position)
        for v, total in enumerate(totals[r]):
            sums = builder.load(total)
            for half in (0, 1):
                begin = v * LANES + half * 8
                part = builder.sext(builder.shuffle_vector(sums, sums, places[half]), _WIDE)
                value = builder.add(part, loaded)
                if left is None:
                    arrays.store(value, 7, builder.add(line, index(begin)), 8)
                    continue
                lanes = ir.Constant(_WIDE, [begin + i for i in range(8)])
                inside = builder.icmp_signed("<", lanes, _everywhere(builder, left, _WIDE))
                where = arrays.pointer(7, builder.add(line, index(begin)), _WIDE)
                builder.call(masked, [value, where, ir.Constant(INT32, 8), inside])


panel_u8_4 = _panel_tile(False, 4)
panel_u8_1 = _panel_tile(False, 1)
panel_s16_4 = _panel_tile(True, 4)
panel_s16_1 = _panel_tile(True, 1)
