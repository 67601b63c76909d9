"""Ordered sums with every addition stepped, six rows by sixteen lanes: docs/numerics.md (13) to (16), (102), (112)."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.integers import bring_in
from accelsim_kernels.vectors.code import INT32, INT64, LANES, VECTOR, Arrays, cgutils, index, spread, vectorised
from accelsim_kernels.vectors.tile import ROWS, Narrow, Tile, Vectors, product, vector_items

_AT_A_TIME = 30
"""Additions whose events are noted in a word; even, and less than its 32 bits, as one is of the addition before."""


def _products(saturate: bool) -> Any:
    """Make the step that adds one product at a time to registers at the top of the lane, (13) and (112).

    Parameters
    ----------
    saturate : bool
        Mode of the accumulators.

    Returns
    -------
    callable
        ``(vectors, place, numbers, row, length, low, high, sums, events, firsts)``, see `scalar` below.
    """

    def scalar(
        vectors: Vectors, place: Int, numbers: Narrow, row: Int, length: Int, low: Int, high: Int,
        sums: Narrow, events: Narrow, firsts: Narrow,
    ) -> None:  # fmt: skip
        """Add all products of six rows by sixteen lanes to accumulators that hold their start.

        Parameters
        ----------
        vectors : int16 or int32 array
            Terms of the lanes; of 16 bits, by pairs.
        place : int64
            Where those of this tile begin.
        numbers : int32 array
            Terms of the rows; to vectors of 16 bits, halves. Products are scaled by (112).
        row : int64
            Where the first row's begin; the other rows' follow.
        length : int64
            Numbers of a row; even where they are halves.
        low, high : int64
            Range of the accumulators, of up to 31 bits; 32 where they saturate.
        sums, events, firsts : int32 arrays, shape (96,)
            What the accumulators hold, their overflow events, and the number of the first addition with one or -1;
            updated.
        """
        bits = (int(high) - int(low)).bit_length()
        shift = 32 - bits if saturate else 31 - bits
        halves = 2 if vectors.itemsize == 2 else 1
        for i in range(ROWS * LANES):
            own = row + i // LANES * length
            for k in range(length):
                scaled = product(vectors, place + k // halves * vector_items(vectors), numbers[own + k], i % LANES)
                value = int(sums[i]) + (scaled >> shift)
                if not low <= value <= high:
                    events[i] += 1
                    firsts[i] = k if firsts[i] < 0 else firsts[i]
                sums[i] = bring_in(np.int64(value), np.int64(low), np.int64(high), saturate)

    def generate(builder: Any, arrays: Arrays) -> None:
        tile = Tile(builder, arrays)
        low, high = arrays.values[5:7]
        sums, events, firsts = (tile.state(argument) for argument in (7, 8, 9))
        words = tile.constants(0)
        least, span = tile.lane(low), tile.lane(builder.sub(high, low))
        shift = tile.leading_zeros(span)  # 32 - bits
        if not saturate:
            tile.each(sums, lambda held: builder.shl(builder.sub(held, least), builder.sub(shift, tile.one)))
        else:
            tile.each(sums, lambda held: builder.shl(held, shift))

        def step(row: int, vector: Any, number: Any) -> None:
            before = builder.load(sums[row])
            total = tile.plus_product(before, vector, number)
            mark = total
            if saturate:
                kept = tile.plus_product(before, vector, number, True)
                mark = builder.xor(total, kept)  # 0 where nothing was clamped, else of another sign
                total = kept
            builder.store(total, sums[row])
            builder.store(tile.shifted_in(builder.load(words[row]), mark), words[row])

        slices = cgutils.for_range_slice(
            builder, index(0), tile.length, index(_AT_A_TIME), intp=INT64, inc=True
        )  # fmt: skip
        with slices as (begin, _):
            left = builder.sub(tile.length, begin)
            count = builder.select(builder.icmp_signed("<", left, index(_AT_A_TIME)), left, index(_AT_A_TIME))
            tile.for_steps(begin, count, step, True)
            new = builder.trunc(count, INT32)
            mask = spread(builder, builder.sub(builder.shl(ir.Constant(INT32, 1), new), ir.Constant(INT32, 1)))
            last = builder.sub(builder.add(builder.trunc(begin, INT32), new), ir.Constant(INT32, 32))
            for r in range(ROWS):
                word = builder.load(words[r])
                changed = word if saturate else builder.xor(word, builder.lshr(word, tile.one))
                changed = builder.and_(changed, mask)
                builder.store(builder.add(builder.load(events[r]), tile.ones(changed)), events[r])
                number = builder.add(tile.leading_zeros(changed), spread(builder, last))
                before, none = builder.load(firsts[r]), ir.Constant(VECTOR, None)
                is_first = builder.and_(
                    builder.icmp_signed("<", before, none), builder.icmp_signed("!=", changed, none)
                )
                builder.store(builder.select(is_first, number, before), firsts[r])
        if saturate:
            tile.each(sums, lambda held: builder.ashr(held, shift))
        else:
            tile.each(sums, lambda held: builder.add(builder.lshr(builder.shl(held, tile.one), shift), least))
        for argument, vectors in ((7, sums), (8, events), (9, firsts)):
            tile.store(vectors, argument)

    return vectorised(scalar, generate)


saturating_products, wrapping_products = _products(True), _products(False)

EXACT, TREE, CHAIN = "exact", "tree", "chain"


def _tiles(saturate: bool, kind: str) -> Any:
    """Make the step that sums tiles of the reduction first, (14) to (16).

    Parameters
    ----------
    saturate : bool
        Mode of all registers.
    kind : str
        Whether the register inside a tile holds every sum (`EXACT`), takes a tile's exact sum once (`TREE`) or every
        product (`CHAIN`).

    Returns
    -------
    callable
        See `scalar` below.
    """

    def scalar(
        vectors: Vectors, place: Int, numbers: Narrow, row: Int, length: Int, tile: Int, low: Int, high: Int,
        inner_low: Int, inner_high: Int, sums: Narrow, events: Narrow, firsts: Narrow, inner_events: Narrow,
    ) -> None:  # fmt: skip
        """Add the sums of all tiles of six rows by sixteen lanes to accumulators that hold their start.

        Parameters
        ----------
        vectors, place, numbers, row, length, low, high, sums, events, firsts
            As in `_products`, not scaled. To vectors of 16 bits the numbers are halves in a chain, else pairs.
        tile : int64
            Numbers of a tile; even where they are halves.
        inner_low, inner_high : int64
            Range of the partial sum, or of the adder tree's output.
        inner_events : int32 array, shape (96,)
            Their events; updated.
        """
        halves = 2 if kind == CHAIN and vectors.itemsize == 2 else 1
        for i in range(ROWS * LANES):
            own = row + i // LANES * length
            for number, begin in enumerate(range(0, length, tile)):
                inner, last = 0, min(begin + tile, length) - 1
                for k in range(begin, last + 1):
                    inner += product(vectors, place + k // halves * vector_items(vectors), numbers[own + k], i % LANES)
                    if kind == CHAIN or (kind == TREE and k == last):
                        inner_events[i] += not inner_low <= inner <= inner_high
                        inner = int(bring_in(np.int64(inner), np.int64(inner_low), np.int64(inner_high), saturate))
                value = int(sums[i]) + inner
                if not low <= value <= high:
                    events[i] += 1
                    firsts[i] = number if firsts[i] < 0 else firsts[i]
                sums[i] = bring_in(np.int64(value), np.int64(low), np.int64(high), saturate)

    def generate(builder: Any, arrays: Arrays) -> None:
        tile = Tile(builder, arrays)
        size = arrays.values[5]
        low, high, inner_low, inner_high = (tile.lane(arrays.values[argument]) for argument in range(6, 10))
        sums, events, firsts, inner_events = (tile.state(argument) for argument in (10, 11, 12, 13))
        nothing = ir.Constant(VECTOR, None)
        inner, span, inner_span = tile.constants(0), builder.sub(high, low), builder.sub(inner_high, inner_low)
        if not saturate:
            tile.each(sums, lambda held: builder.sub(held, low))

        def keep(raw: Any, ends: tuple[Any, Any, Any], register: Any, counted: Any) -> Any:
            """Bring values into registers; of wrapping ones they are counted from the least, so the range is a mask."""
            if saturate:
                kept = tile.least(tile.most(raw, ends[0]), ends[1])
                outside = builder.icmp_signed("!=", raw, kept)
            else:
                kept, outside = builder.and_(raw, ends[2]), builder.icmp_unsigned(">", raw, ends[2])
            builder.store(kept, register)
            before = builder.load(counted)
            builder.store(builder.select(outside, builder.add(before, tile.one), before), counted)
            return outside

        empty = nothing if saturate else builder.neg(inner_low)
        slices = cgutils.for_range_slice(builder, index(0), tile.length, size, intp=INT64, inc=True)
        with slices as (begin, number):
            left = builder.sub(tile.length, begin)
            count = builder.select(builder.icmp_signed("<", left, size), left, size)
            if kind != EXACT:
                tile.each(inner, lambda _: empty)
            totals = sums if kind == EXACT else inner

            def step(row: int, vector: Any, value: Any) -> None:
                raw = tile.plus_product(builder.load(totals[row]), vector, value)
                if kind == CHAIN:
                    keep(raw, (inner_low, inner_high, inner_span), inner[row], inner_events[row])
                else:
                    builder.store(raw, totals[row])

            tile.for_steps(begin, count, step, kind == CHAIN)
            number = tile.lane(number)
            for r in range(ROWS):
                raw = builder.load(totals[r])
                if kind == TREE:
                    keep(raw, (inner_low, inner_high, inner_span), inner[r], inner_events[r])
                    raw = builder.load(inner[r])
                if kind != EXACT:
                    part = raw if saturate else builder.add(raw, inner_low)
                    raw = builder.add(builder.load(sums[r]), part)
                outside = keep(raw, (low, high, span), sums[r], events[r])
                before = builder.load(firsts[r])
                earlier = builder.select(builder.icmp_unsigned("<", before, number), before, number)
                builder.store(builder.select(outside, earlier, before), firsts[r])
        if not saturate:
            tile.each(sums, lambda held: builder.add(held, low))
        for argument, vectors in ((10, sums), (11, events), (12, firsts), (13, inner_events)):
            tile.store(vectors, argument)

    return vectorised(scalar, generate)


saturating_tiles, wrapping_tiles = _tiles(True, EXACT), _tiles(False, EXACT)
saturating_trees, wrapping_trees = _tiles(True, TREE), _tiles(False, TREE)
saturating_chains, wrapping_chains = _tiles(True, CHAIN), _tiles(False, CHAIN)
