"""Ordered sums with every addition stepped: docs/numerics.md (13) to (16) and (102).

Sixteen positions are a vector. The registers of six channels stay in the processor's own from the first addition to the
last. Operands of 32 bits are multiplied and added by generic vectors; for operands of 16 bits a dot-product instruction
does both at once, and takes the processor to have it (`has_dot_instructions`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.integers import bring_in
from accelsim_kernels.vectors.code import INT16, INT32, INT64, LANES, VECTOR, Arrays, cgutils, index, spread, vectorised

CHANNELS = 6
"""Channels that are stepped together."""

Operands = npt.NDArray[np.int32] | npt.NDArray[np.int16]
Wide = npt.NDArray[np.int64]

_HALVES = ir.VectorType(INT16, LANES)
_WIDE = ir.VectorType(INT64, LANES)


class _Tile:
    """What the generated steps share: six channels by sixteen positions.

    The first five arguments of every step are weights, columns, rows, the place of the first channel in ``rows``, and
    the block of positions.

    Parameters
    ----------
    builder
        numba's.
    arrays : Arrays
        The step's arguments.
    """

    def __init__(self, builder: Any, arrays: Arrays) -> None:
        self.builder, self.arrays = builder, arrays
        self.halves = arrays.kinds[0].dtype.bitwidth == 16
        self.length = builder.extract_value(arrays.array(0).shape, 1)
        self.block = arrays.values[4]
        first = arrays.values[3]
        self.channels = [arrays.load(2, builder.add(first, index(c)), INT64, 8) for c in range(CHANNELS)]
        self.weights = [builder.mul(channel, self.length) for channel in self.channels]

    def constants(self, value: int) -> list[Any]:
        """Make a vector per channel that holds a number in all lanes."""
        constant = ir.Constant(VECTOR, [value] * LANES)
        return [cgutils.alloca_once_value(self.builder, constant) for _ in range(CHANNELS)]

    def lane(self, number: Any) -> Any:
        """Spread an int64 over the lanes of a vector."""
        return spread(self.builder, self.builder.trunc(number, INT32))

    def _place(self, argument: int, channel: int) -> Any:
        """Return where the sixteen values of a channel lie in an output."""
        builder = self.builder
        width = builder.extract_value(self.arrays.array(argument).shape, 1)
        line = builder.mul(self.channels[channel], width)
        return builder.add(line, builder.mul(self.block, index(LANES)))

    def load(self, argument: int) -> list[Any]:
        """Load a vector per channel from an int64 output."""
        loaded = (self.arrays.load(argument, self._place(argument, c), _WIDE, 8) for c in range(CHANNELS))
        return [cgutils.alloca_once_value(self.builder, self.builder.trunc(wide, VECTOR)) for wide in loaded]

    def store(self, vectors: list[Any], argument: int) -> None:
        """Store a vector per channel to an int64 output."""
        for c in range(CHANNELS):
            wide = self.builder.sext(self.builder.load(vectors[c]), _WIDE)
            self.arrays.store(wide, argument, self._place(argument, c), 8)

    def positions(self, k: Any) -> Any:
        """Load the activations of a term; of 16 bits each, they are followed by 16 bits of 0."""
        place = self.builder.mul(self.builder.add(self.builder.mul(self.block, self.length), k), index(LANES))
        if self.halves:
            return self.builder.zext(self.arrays.load(1, place, _HALVES, 2), VECTOR)
        return self.arrays.load(1, place, VECTOR, 4)

    def plus_product(self, total: Any, positions: Any, channel: int, k: Any) -> Any:
        """Return ``total + w * x``.

        Of 16 bits each, a weight is loaded with its neighbour, which meets the 0 beside the activation.
        """
        place = self.builder.add(self.weights[channel], k)
        weight = spread(self.builder, self.arrays.load(0, place, INT32, 2 if self.halves else 4))
        if not self.halves:
            return self.builder.add(total, self.builder.mul(weight, positions))
        fused = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(VECTOR, [VECTOR] * 3), "llvm.x86.avx512.vpdpwssd.512"
        )
        return self.builder.call(fused, [total, positions, weight])

    def least(self, left: Any, right: Any) -> Any:
        """Return the lesser of two, lane by lane."""
        return self.builder.select(self.builder.icmp_signed("<", left, right), left, right)

    def most(self, left: Any, right: Any) -> Any:
        """Return the greater of two, lane by lane."""
        return self.builder.select(self.builder.icmp_signed(">", left, right), left, right)

    def bring_in(self, raw: Any, low: Any, high: Any, saturate: bool) -> tuple[Any, Any]:
        """Return what a register holds after it is given values, and where they did not fit.

        A wrapping register holds its value less ``low``, so that its range is a mask.
        """
        builder = self.builder
        if saturate:
            kept = self.least(self.most(raw, low), high)
            return kept, builder.icmp_signed("!=", raw, kept)
        mask = builder.sub(high, low)
        return builder.and_(raw, mask), builder.icmp_unsigned(">", raw, mask)

    def count(self, events: Any, outside: Any) -> None:
        """Count events, in one masked addition."""
        before = self.builder.load(events)
        one_more = self.builder.add(before, ir.Constant(VECTOR, [1] * LANES))
        self.builder.store(self.builder.select(outside, one_more, before), events)

    def note(self, first: Any, outside: Any, number: Any) -> None:
        """Keep the least number of an addition with an event; -1, none, is the greatest without a sign."""
        before = self.builder.load(first)
        earlier = self.builder.select(self.builder.icmp_unsigned("<", before, number), before, number)
        self.builder.store(self.builder.select(outside, earlier, before), first)

    def shift(self, vectors: list[Any], amount: Any) -> None:
        """Add the same to every lane."""
        for vector in vectors:
            self.builder.store(self.builder.add(self.builder.load(vector), amount), vector)


def _products(saturate: bool, noting: bool) -> Any:
    """Make the step that adds one product at a time, (13).

    Parameters
    ----------
    saturate : bool
        Mode of the accumulators.
    noting : bool
        Keep the number of the first event.

    Returns
    -------
    callable
        ``(weights, columns, rows, first, block, low, high, accumulators, events, firsts)``, see `scalar` below.
    """

    def scalar(
        weights: Operands, columns: Operands, rows: Wide, first: Int, block: Int, low: Int, high: Int,
        accumulators: Wide, events: Wide, firsts: Wide,
    ) -> None:  # fmt: skip
        """Add all products of six channels at sixteen positions to accumulators that hold their start.

        Parameters
        ----------
        weights : int32 or int16 array, shape (n, k)
            Operands as the PEs multiply them; of 16 bits, there is one more value behind the last one.
        columns : array of the same type, shape (blocks, k, 16)
            Activations by block of positions.
        rows : int64 array
            Channels.
        first : int64
            The first of them.
        block : int64
            The block of positions.
        low, high : int64
            Range of the accumulators.
        accumulators, events, firsts : int64 arrays, shape (n, 16 * blocks)
            What they hold, their overflow events, and the number of the first addition with one or -1; updated, the
            last one where it is kept.
        """
        for n in dict.fromkeys(rows[first : first + CHANNELS].tolist()):
            for lane in range(LANES):
                p = block * LANES + lane
                for k in range(weights.shape[1]):
                    value = int(accumulators[n, p]) + int(weights[n, k]) * int(columns[block, k, lane])
                    if not low <= value <= high:
                        events[n, p] += 1
                        firsts[n, p] = k if noting and firsts[n, p] < 0 else firsts[n, p]
                    accumulators[n, p] = bring_in(np.int64(value), np.int64(low), np.int64(high), saturate)

    def generate(builder: Any, arrays: Arrays) -> None:
        tile = _Tile(builder, arrays)
        low, high = tile.lane(arrays.values[5]), tile.lane(arrays.values[6])
        sums, events, firsts = (tile.load(argument) for argument in (7, 8, 9))
        if not saturate:
            tile.shift(sums, builder.neg(low))
        with cgutils.for_range(builder, tile.length, intp=INT64) as term:
            positions = tile.positions(term.index)
            number = spread(builder, builder.trunc(term.index, INT32))
            for c in range(CHANNELS):
                raw = tile.plus_product(builder.load(sums[c]), positions, c, term.index)
                kept, outside = tile.bring_in(raw, low, high, saturate)
                builder.store(kept, sums[c])
                tile.count(events[c], outside)
                if noting:
                    tile.note(firsts[c], outside, number)
        if not saturate:
            tile.shift(sums, low)
        tile.store(sums, 7)
        tile.store(events, 8)
        if noting:
            tile.store(firsts, 9)

    return vectorised(scalar, generate)


saturating_products, saturating_products_noting = _products(True, False), _products(True, True)
wrapping_products, wrapping_products_noting = _products(False, False), _products(False, True)


def _tiles(saturate: bool, chained: bool) -> Any:
    """Make the step that sums tiles of the reduction first, (14) to (16).

    Parameters
    ----------
    saturate : bool
        Mode of all registers.
    chained : bool
        Whether each product is brought into the inner register, or a tile's exact sum once.

    Returns
    -------
    callable
        See `scalar` below.
    """

    def scalar(
        weights: Operands, columns: Operands, rows: Wide, first: Int, block: Int, tile: Int, low: Int, high: Int,
        inner_low: Int, inner_high: Int, accumulators: Wide, events: Wide, firsts: Wide, inner_events: Wide,
    ) -> None:  # fmt: skip
        """Add the sums of all tiles of six channels at sixteen positions to accumulators that hold their start.

        Parameters
        ----------
        weights, columns, rows, first, block, low, high, accumulators, events, firsts
            As in `_products`.
        tile : int64
            Terms of a tile.
        inner_low, inner_high : int64
            Range of the partial sum, or of the adder tree's output.
        inner_events : int64 array, shape (n, 16 * blocks)
            Their events; updated.
        """
        limits, inner_limits = (np.int64(low), np.int64(high)), (np.int64(inner_low), np.int64(inner_high))
        length = weights.shape[1]
        for n in dict.fromkeys(rows[first : first + CHANNELS].tolist()):
            for lane in range(LANES):
                p = block * LANES + lane
                for number, begin in enumerate(range(0, length, tile)):
                    inner = 0
                    for k in range(begin, min(begin + tile, length)):
                        inner += int(weights[n, k]) * int(columns[block, k, lane])
                        if chained or k == min(begin + tile, length) - 1:
                            inner_events[n, p] += not inner_low <= inner <= inner_high
                            inner = int(bring_in(np.int64(inner), *inner_limits, saturate))
                    value = int(accumulators[n, p]) + inner
                    if not low <= value <= high:
                        events[n, p] += 1
                        firsts[n, p] = number if firsts[n, p] < 0 else firsts[n, p]
                    accumulators[n, p] = bring_in(np.int64(value), *limits, saturate)

    def generate(builder: Any, arrays: Arrays) -> None:
        tile = _Tile(builder, arrays)
        size = arrays.values[5]
        low, high, inner_low, inner_high = (tile.lane(arrays.values[argument]) for argument in range(6, 10))
        sums, events, firsts, inner_events = (tile.load(argument) for argument in (10, 11, 12, 13))
        inner = tile.constants(0)
        if not saturate:
            tile.shift(sums, builder.neg(low))
        nothing = ir.Constant(VECTOR, None)
        bias = nothing if saturate else inner_low  # what a wrapping register is short of
        empty = nothing if saturate else builder.neg(inner_low)

        def bring_into_inner(channel: int, raw: Any) -> None:
            kept, outside = tile.bring_in(raw, inner_low, inner_high, saturate)
            builder.store(kept, inner[channel])
            tile.count(inner_events[channel], outside)

        with cgutils.for_range_slice(builder, index(0), tile.length, size, intp=INT64, inc=True) as (begin, number):
            for c in range(CHANNELS):
                builder.store(empty, inner[c])
            left = builder.sub(tile.length, begin)
            terms = builder.select(builder.icmp_signed("<", left, size), left, size)
            with cgutils.for_range(builder, terms, intp=INT64) as term:
                k = builder.add(begin, term.index)
                positions = tile.positions(k)
                for c in range(CHANNELS):
                    raw = tile.plus_product(builder.load(inner[c]), positions, c, k)
                    if chained:
                        bring_into_inner(c, raw)
                    else:
                        builder.store(raw, inner[c])
            number_of_tile = spread(builder, builder.trunc(number, INT32))
            for c in range(CHANNELS):
                if not chained:
                    bring_into_inner(c, builder.load(inner[c]))
                part = builder.add(builder.load(inner[c]), bias)
                kept, outside = tile.bring_in(builder.add(builder.load(sums[c]), part), low, high, saturate)
                builder.store(kept, sums[c])
                tile.count(events[c], outside)
                tile.note(firsts[c], outside, number_of_tile)
        if not saturate:
            tile.shift(sums, low)
        for argument, vectors in ((10, sums), (11, events), (12, firsts), (13, inner_events)):
            tile.store(vectors, argument)

    return vectorised(scalar, generate)


saturating_chains = _tiles(True, True)
wrapping_chains = _tiles(False, True)
saturating_trees = _tiles(True, False)
wrapping_trees = _tiles(False, False)


def _range(one_by_one: bool) -> Any:
    """Make the step that finds the least and greatest value of unbounded running sums.

    Parameters
    ----------
    one_by_one : bool
        A tile is one product; its argument is not looked at then.

    Returns
    -------
    callable
        See `scalar` below.
    """

    def scalar(
        weights: Operands, columns: Operands, rows: Wide, first: Int, block: Int, tile: Int,
        least: Wide, most: Wide, total: Wide,
    ) -> None:  # fmt: skip
        """Run the sums of six channels at sixteen positions.

        Parameters
        ----------
        weights, columns, rows, first, block
            As in `_products`.
        tile : int64
            Products between two values that count.
        least, most, total : int64 arrays, shape (n, 16 * blocks)
            Least and greatest value, and the sum; all hold the start, and are updated.
        """
        length, step = weights.shape[1], 1 if one_by_one else tile
        for n in dict.fromkeys(rows[first : first + CHANNELS].tolist()):
            for lane in range(LANES):
                p = block * LANES + lane
                for k in range(length):
                    total[n, p] += int(weights[n, k]) * int(columns[block, k, lane])
                    if (k + 1) % step == 0 or k == length - 1:
                        least[n, p] = min(least[n, p], total[n, p])
                        most[n, p] = max(most[n, p], total[n, p])

    def generate(builder: Any, arrays: Arrays) -> None:
        tile = _Tile(builder, arrays)
        size = index(1) if one_by_one else arrays.values[5]
        least, most, sums = (tile.load(argument) for argument in (6, 7, 8))

        def widen(channel: int) -> None:
            value = builder.load(sums[channel])
            builder.store(tile.least(builder.load(least[channel]), value), least[channel])
            builder.store(tile.most(builder.load(most[channel]), value), most[channel])

        def add(k: Any) -> None:
            positions = tile.positions(k)
            for c in range(CHANNELS):
                builder.store(tile.plus_product(builder.load(sums[c]), positions, c, k), sums[c])
                if one_by_one:
                    widen(c)

        if one_by_one:
            with cgutils.for_range(builder, tile.length, intp=INT64) as term:
                add(term.index)
        else:
            with cgutils.for_range_slice(builder, index(0), tile.length, size, intp=INT64, inc=True) as (begin, _):
                left = builder.sub(tile.length, begin)
                terms = builder.select(builder.icmp_signed("<", left, size), left, size)
                with cgutils.for_range(builder, terms, intp=INT64) as term:
                    add(builder.add(begin, term.index))
                for c in range(CHANNELS):
                    widen(c)
        for argument, vectors in ((6, least), (7, most), (8, sums)):
            tile.store(vectors, argument)

    return vectorised(scalar, generate)


range_of_products = _range(True)
range_of_tiles = _range(False)
