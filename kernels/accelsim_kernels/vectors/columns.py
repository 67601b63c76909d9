"""Products of channels with columns of activations, a panel of 64 positions at a time: docs/numerics.md (100)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
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
from accelsim_kernels.vectors.products import plus_bytes, plus_words

POSITIONS = 4 * LANES
"""Positions of a panel, which are packed together."""

CHANNELS_OF_TILE = 6
"""Channels of a tile; with a panel's positions their sums take 24 of the processor's 32 vector registers."""

_WIDE = ir.VectorType(INT64, 8)


def _pack_positions(
    columns: npt.NDArray[np.uint8] | npt.NDArray[np.uint16],
    k: Int,
    begin: Int,
    flipped: Int,
    packed: Bytes,
    place: Int,
    counts: npt.NDArray[np.int64],
    ends: Bytes,
) -> None:
    """Store a group of a panel's terms, position by position; what is beyond the columns is 0.

    Parameters
    ----------
    columns : uint8 or uint16 array, shape (k, p)
        Bits of the activations.
    k, begin : int64
        The group's first term, the panel's first position.
    flipped : int64
        Bits of every activation that are flipped: its highest adds half the range to a code, or takes it away.
    packed : uint8 array
        Output, bytes.
    place : int64
        Where it begins.
    counts : int64 array, shape (at least k + group,)
        Of every term the activations that are not 0, before bits are flipped; added to.
    ends : uint8 array
        Bytes of the least value that was stored so far of each of a panel's positions, then of the greatest, as uint8
        or int16; kept up.
    """
    kind: Any = np.uint8 if columns.itemsize == 1 else np.int16
    values, extremes = packed[place : place + GROUP_BYTES * POSITIONS].view(kind), ends.view(kind)
    per_group = GROUP_BYTES // columns.itemsize
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
    width = arrays.kinds[0].dtype.bitwidth
    element, per_group, size = ir.IntType(width), GROUP_BYTES * 8 // width, width // 8
    vector, flags = ir.VectorType(element, POSITIONS), ir.VectorType(INT1, POSITIONS)
    num_terms, num_positions = (builder.extract_value(arrays.array(0).shape, axis) for axis in (0, 1))
    name = f"llvm.masked.load.v{POSITIONS}i{width}.p0"
    kind = ir.FunctionType(vector, [vector.as_pointer(), INT32, flags, vector])
    load = cgutils.get_or_insert_function(builder.module, kind, name)
    popcount = cgutils.get_or_insert_function(builder.module, ir.FunctionType(INT64, [INT64]), "llvm.ctpop.i64")
    nothing = ir.Constant(vector, None)
    flips = _everywhere(builder, builder.trunc(flipped, element), vector)
    left = builder.sub(num_positions, begin)
    within = builder.select(builder.icmp_signed("<", left, index(POSITIONS)), left, index(POSITIONS))
    lanes = ir.Constant(vector, list(range(POSITIONS)))
    inside = builder.icmp_unsigned("<", lanes, _everywhere(builder, builder.trunc(within, element), vector))
    least, most = (arrays.load(7, index(half * POSITIONS * size), vector) for half in (0, 1))
    below, above = ("<", ">")
    compare = builder.icmp_unsigned if size == 1 else builder.icmp_signed
    lines = []
    for term in range(per_group):
        number = builder.add(k, index(term))
        exists = builder.icmp_signed("<", number, num_terms)
        mask = builder.select(exists, inside, ir.Constant(flags, None))
        where = arrays.pointer(0, builder.add(builder.mul(number, num_positions), begin), vector)
        bits = builder.call(load, [where, ir.Constant(INT32, size), mask, nothing])
        present = builder.bitcast(builder.icmp_unsigned("!=", bits, nothing), INT64)
        count = builder.add(arrays.load(6, number, INT64, 8), builder.call(popcount, [present]))
        arrays.store(count, 6, number, 8)
        value = builder.select(mask, builder.xor(bits, flips), nothing)
        least = builder.select(builder.and_(mask, compare(below, value, least)), value, least)
        most = builder.select(builder.and_(mask, compare(above, value, most)), value, most)
        lines.append(value)
    arrays.store(least, 7, index(0), 1)
    arrays.store(most, 7, index(POSITIONS * size), 1)
    while len(lines) > 1:  # pairs of lines that are per_group / 2 apart, then pairs of those
        half, length = len(lines) // 2, lines[0].type.count
        order = ir.Constant(ir.VectorType(INT32, 2 * length), [i // 2 + i % 2 * length for i in range(2 * length)])
        lines = [builder.shuffle_vector(lines[i], lines[i + half], order) for i in range(half)]
    arrays.store(lines[0], 4, place, 1)


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
        _, first, _, place, _, _, position, _ = arrays.values
        plus = plus_words if words else plus_bytes
        totals = [
            [cgutils.alloca_once_value(builder, ir.Constant(VECTOR, None)) for _ in range(num_vectors)]
            for _ in range(CHANNELS_OF_TILE)
        ]
        rows = [arrays.load(5, builder.add(first, index(r)), INT64, 8) for r in range(CHANNELS_OF_TILE)]
        length = builder.extract_value(arrays.array(0).shape, 1)
        bases = [builder.mul(row, length) for row in rows]
        num_groups = builder.udiv(length, index(GROUP_BYTES))
        with cgutils.for_range(builder, num_groups, intp=INT64) as group:
            here = builder.add(place, builder.mul(group.index, index(GROUP_BYTES * POSITIONS)))
            columns = [
                arrays.load(2, builder.add(here, index(v * GROUP_BYTES * LANES)), VECTOR) for v in range(num_vectors)
            ]
            distance = builder.mul(group.index, index(GROUP_BYTES))
            for r in range(CHANNELS_OF_TILE):
                operand = spread(builder, arrays.load(0, builder.add(bases[r], distance), INT32))
                for v in range(num_vectors):
                    total = plus(builder, builder.load(totals[r][v]), columns[v], operand)
                    builder.store(total, totals[r][v])
        num_positions = builder.extract_value(arrays.array(7).shape, 1)
        left = builder.sub(num_positions, position)
        whole = builder.icmp_signed(">=", left, index(num_vectors * LANES))
        with builder.if_else(whole) as (then, otherwise):
            with then:
                store_tile(builder, arrays, rows, totals, None)
            with otherwise:
                store_tile(builder, arrays, rows, totals, left)

    return vectorised(scalar, generate)


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
