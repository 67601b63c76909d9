"""Least and greatest value of unbounded running sums, six rows by sixteen lanes: docs/numerics.md, section 3."""

from __future__ import annotations

from typing import Any

from accelsim_kernels._jit import Int
from accelsim_kernels.vectors.code import LANES, Arrays, index, vectorised
from accelsim_kernels.vectors.tile import (
    ROWS,
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
        vectors: Vectors, place: Int, numbers: Vectors, row: Row, length: Length, tile: Int,
        least: Narrow, most: Narrow, total: Narrow,
    ) -> None:  # fmt: skip
        """Run the sums of six rows by sixteen lanes.

        Parameters
        ----------
        vectors, place, numbers, row, length
            As in `accelsim_kernels.vectors.steps`, not scaled. To vectors of 16 bits the numbers are halves one by one,
            else pairs.
        tile : int64
            Numbers between two values that count.
        least, most, total : int32 arrays, shape (96,)
            Least and greatest value, and the sum; all hold the start, and are updated.
        """
        per_vector, count = numbers_per_vector(vectors, length) if one_by_one else 1, numbers_of_row(length)
        for i in range(ROWS * LANES):
            for k in range(count):
                number = row_number(numbers, row, length, i // LANES, k)
                total[i] += product(vectors, place + k // per_vector * vector_items(vectors), number, i % LANES)
                if one_by_one or (k + 1) % tile == 0 or k == count - 1:
                    least[i], most[i] = min(least[i], total[i]), max(most[i], total[i])

    def generate(builder: Any, arrays: Arrays) -> None:
        with tiles(builder, arrays, 1 if one_by_one else 2) as tile:
            run(builder, tile)

    def run(builder: Any, tile: Tile) -> None:
        size = tile.arrays.values[5]
        least, most, sums = (tile.state(argument) for argument in (6, 7, 8))

        def widen(row: int) -> None:
            value = builder.load(sums[row])
            builder.store(tile.least(builder.load(least[row]), value), least[row])
            builder.store(tile.most(builder.load(most[row]), value), most[row])

        def step(row: int, vector: Any, number: Any) -> None:
            builder.store(tile.plus_product(builder.load(sums[row]), vector, number), sums[row])
            if one_by_one:
                widen(row)

        if one_by_one:
            tile.for_steps(index(0), tile.length, step, True)
        else:
            with tile.slices(tile.length, size) as (begin, count, _):
                tile.for_steps(begin, count, step, False)
                for row in tile.rows:
                    widen(row)
        for argument, vectors in ((6, least), (7, most), (8, sums)):
            tile.store(vectors, argument)

    return vectorised(scalar, generate)


range_of_products, range_of_tiles = _range(True), _range(False)
