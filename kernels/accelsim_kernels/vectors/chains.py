"""Partial sums with a register of their own, six rows by sixteen lanes: docs/numerics.md (15), (16) and (112)."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.integers import bring_in
from accelsim_kernels.vectors.code import LANES, VECTOR, Arrays, vectorised
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


def _chains(saturate: bool) -> Any:
    """Make the step that adds the products of a tile one by one in a partial register, then that to the accumulator.

    Parameters
    ----------
    saturate : bool
        Mode of all registers.

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
        """Add the partial sums of all tiles of six rows by sixteen lanes to accumulators that hold their start.

        Parameters
        ----------
        vectors, place, numbers, row, length, tile, low, high, sums, events, firsts, num_rows
            As in `accelsim_kernels.vectors.steps`; products are scaled by (112) to the partial register, and to vectors
            of 16 bits the numbers are halves.
        inner_low, inner_high : int64
            Range of the partial sum, as of the accumulators in `accelsim_kernels.vectors.steps`.
        inner_events : int32 array, shape (96,)
            Its events; updated.
        """
        shift = scale((int(inner_high) - int(inner_low)).bit_length(), saturate)
        per_vector, count = numbers_per_vector(vectors, length), numbers_of_row(length)
        for i in range(num_rows * LANES):
            for number, begin in enumerate(range(0, count, tile)):
                inner = 0
                for k in range(begin, min(begin + tile, count)):
                    own = row_number(numbers, row, length, i // LANES, k)
                    scaled = product(vectors, place + k // per_vector * vector_items(vectors), own, i % LANES)
                    inner += scaled >> shift
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
        inner, register = one_by_one(tile, inner_low, inner_high, saturate), Register(tile, low, high, saturate)
        tile.each(sums, register.held)
        with tile.slices(tile.length, size) as (begin, count, number):
            for row in tile.rows:
                inner.put(row, ir.Constant(VECTOR, None))
            inner.add(begin, count, inner_events)
            number = tile.lane(number)
            for row in tile.rows:
                outside = register.keep(builder.add(builder.load(sums[row]), inner.get(row)), sums[row], events[row])
                register.note(firsts[row], outside, number)
        tile.each(sums, register.value)
        for argument, vectors in ((10, sums), (11, events), (12, firsts), (13, inner_events)):
            tile.store(vectors, argument)

    return vectorised(scalar, generate)


saturating_chains, wrapping_chains = _chains(True), _chains(False)
