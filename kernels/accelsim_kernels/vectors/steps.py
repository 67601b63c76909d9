"""Ordered sums with every addition stepped, six rows by sixteen lanes: docs/numerics.md (13) to (16), (102), (112)."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.integers import bring_in
from accelsim_kernels.vectors.code import LANES, VECTOR, Arrays, index, vectorised
from accelsim_kernels.vectors.registers import Register, one_by_one, scale
from accelsim_kernels.vectors.tile import (
    Length,
    Narrow,
    Row,
    Tile,
    Vectors,
    numbers_of_row,
    numbers_per_vector,
    product,
    row_number,
    tiles,
    vector_items,
)


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
        vectors: Vectors, place: Int, numbers: Vectors, row: Row, length: Length, low: Int, high: Int,
        sums: Narrow, events: Narrow, firsts: Narrow, num_rows: Int,
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
        num_rows : int64
            How many rows count; what becomes of the others is not said.
        """
        shift, per_vector = scale((int(high) - int(low)).bit_length(), saturate), numbers_per_vector(vectors, length)
        for i in range(num_rows * LANES):
            for k in range(numbers_of_row(length)):
                number = row_number(numbers, row, length, i // LANES, k)
                scaled = product(vectors, place + k // per_vector * vector_items(vectors), number, i % LANES)
                value = int(sums[i]) + (scaled >> shift)
                if not low <= value <= high:
                    events[i] += 1
                    firsts[i] = k if firsts[i] < 0 else firsts[i]
                sums[i] = bring_in(np.int64(value), np.int64(low), np.int64(high), saturate)

    def generate(builder: Any, arrays: Arrays) -> None:
        with tiles(builder, arrays, 2, arrays.values[-1]) as tile:
            sums, events, firsts = (tile.state(argument) for argument in (7, 8, 9))
            low, high = arrays.values[5:7]
            register = one_by_one(tile, low, high, saturate)
            for row in tile.rows:
                register.put(row, builder.load(sums[row]))
            register.add(index(0), tile.length, events, firsts)
            for row in tile.rows:
                builder.store(register.get(row), sums[row])
            for argument, vectors in ((7, sums), (8, events), (9, firsts)):
                tile.store(vectors, argument)

    return vectorised(scalar, generate)


saturating_products, wrapping_products = _products(True), _products(False)


def _tiles(saturate: bool, tree: bool) -> Any:
    """Make the step that adds exact sums of tiles of the reduction, (13) to (16).

    Parameters
    ----------
    saturate : bool
        Mode of all registers.
    tree : bool
        Whether a tile's sum goes through a register of its own, at the output of an adder tree.

    Returns
    -------
    callable
        See `scalar` below.
    """

    def scalar(
        vectors: Vectors, place: Int, numbers: Vectors, row: Row, length: Length, tile: Int, low: Int, high: Int,
        inner_low: Int, inner_high: Int, sums: Narrow, events: Narrow, firsts: Narrow, inner_events: Narrow,
        num_rows: Int,
    ) -> None:  # fmt: skip
        """Add the sums of all tiles of six rows by sixteen lanes to accumulators that hold their start.

        Parameters
        ----------
        vectors, place, numbers, row, length, low, high, sums, events, firsts, num_rows
            As in `_products`, not scaled; to vectors of 16 bits the numbers are pairs.
        tile : int64
            Numbers of a tile.
        inner_low, inner_high : int64
            Range of the adder tree's output.
        inner_events : int32 array, shape (96,)
            Its events; updated.
        """
        count = numbers_of_row(length)
        for i in range(num_rows * LANES):
            for number, begin in enumerate(range(0, count, tile)):
                inner = 0
                for k in range(begin, min(begin + tile, count)):
                    own = row_number(numbers, row, length, i // LANES, k)
                    inner += product(vectors, place + k * vector_items(vectors), own, i % LANES)
                if tree:
                    inner_events[i] += not inner_low <= inner <= inner_high
                    inner = int(bring_in(np.int64(inner), np.int64(inner_low), np.int64(inner_high), saturate))
                value = int(sums[i]) + inner
                if not low <= value <= high:
                    events[i] += 1
                    firsts[i] = number if firsts[i] < 0 else firsts[i]
                sums[i] = bring_in(np.int64(value), np.int64(low), np.int64(high), saturate)

    def generate(builder: Any, arrays: Arrays) -> None:
        with tiles(builder, arrays, 2, arrays.values[-1]) as tile:
            run(builder, tile)

    def run(builder: Any, tile: Tile) -> None:
        size, low, high, inner_low, inner_high = tile.arrays.values[5:10]
        sums, events, firsts, inner_events = (tile.state(argument) for argument in (10, 11, 12, 13))
        register, inner = (Register(tile, *ends, saturate) for ends in ((low, high), (inner_low, inner_high)))
        tile.each(sums, register.held)
        totals = tile.constants(0) if tree else sums

        def step(row: int, vector: Any, number: Any) -> None:
            builder.store(tile.plus_product(builder.load(totals[row]), vector, number), totals[row])

        with tile.slices(tile.length, size) as (begin, count, number):
            if tree:
                tile.each(totals, lambda _: inner.held(ir.Constant(VECTOR, None)))
            tile.for_steps(begin, count, step, False)
            number = tile.lane(number)
            for row in tile.rows:
                raw = builder.load(totals[row])
                if tree:
                    inner.keep(raw, totals[row], inner_events[row])
                    raw = builder.add(builder.load(sums[row]), inner.value(builder.load(totals[row])))
                register.note(firsts[row], register.keep(raw, sums[row], events[row]), number)
        tile.each(sums, register.value)
        for argument, vectors in ((10, sums), (11, events), (12, firsts), (13, inner_events)):
            tile.store(vectors, argument)

    return vectorised(scalar, generate)


saturating_tiles, wrapping_tiles = _tiles(True, False), _tiles(False, False)
saturating_trees, wrapping_trees = _tiles(True, True), _tiles(False, True)
