"""Six rows by sixteen lanes: what the generated steps of ordered sums share, docs/numerics.md (13) to (16).

What belongs to the lanes lies in vectors; what belongs to a row is read one number at a time and meets all lanes.
Lanes are positions and rows channels, or the other way round.

Operands have one of two forms. Of 16 bits, two terms lie side by side in the 32 bits of a lane and one instruction
multiplies and adds both, which takes the processor to have it (`accelsim_kernels.processor`): a row's number has two
terms likewise (*pairs*), or one of them beside a 0 (*halves*), which leaves the vector's other term out. Of 32 bits
there is one term everywhere, and generic vectors are multiplied.

A row's numbers lie side by side, or are read out of an image of activations of 16 or 32 bits in place: then a row is a
window, each number has its place in it, and of 16 bits it is a term with whatever follows in the image. A vector of one
term beside a 0 leaves that out, and a vector of a pair takes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.processor import Instructions, instructions
from accelsim_kernels.vectors.code import INT1, INT32, INT64, LANES, VECTOR, Arrays, cgutils, index, spread
from accelsim_kernels.vectors.products import plus_pairs, plus_words_clamped

ROWS = 6
"""Rows that a step takes."""

Vectors = npt.NDArray[np.int16] | npt.NDArray[np.int32]
Narrow = npt.NDArray[np.int32]

Row = Any
"""Where the numbers of the first of six rows begin, int64, the others' following; or where six windows of an image
begin, an int64 array."""

Length = Any
"""Numbers of a row, int64; or of windows an int64 array of where each number is, after the beginning."""


def row_number(numbers: Vectors, row: Row, length: Length, r: int, k: int) -> int:
    """Return a number of a row; of 16 bits a term and, in the high half, what follows it."""
    if not isinstance(length, np.ndarray):
        return int(numbers[row + r * length + k])
    place = row[r] + length[k]
    return int(numbers[place]) & 0xFFFF | int(numbers[place + 1]) << 16 if numbers.itemsize == 2 else numbers[place]


def numbers_of_row(length: Length) -> int:
    """Return how many numbers a row has."""
    return len(length) if isinstance(length, np.ndarray) else int(length)


def numbers_per_vector(vectors: Vectors, length: Length) -> int:
    """Return how many numbers of one term meet a vector; of windows, each has its own."""
    return 1 if vectors.itemsize == 4 or isinstance(length, np.ndarray) else 2


def product(vectors: Vectors, place: Int, number: Int, lane: Int) -> int:
    """Return what a row's number adds to a lane; ``place`` is where the vector of its terms begins."""
    if vectors.itemsize == 4:
        return int(vectors[place + lane]) * int(number)
    low, high = (int(number) + (1 << 15)) % (1 << 16) - (1 << 15), int(number) >> 16
    return int(vectors[place + 2 * lane]) * low + int(vectors[place + 2 * lane + 1]) * high


def vector_items(vectors: Vectors) -> int:
    """Return how many elements a vector of 64 bytes has."""
    return 4 * LANES // vectors.itemsize


class Tile:
    """The registers of some of the six rows by sixteen lanes, and what is done to them.

    The first five arguments of every step are the vectors, where those of the tile's lanes begin among them, the rows'
    numbers, `Row` and `Length`.

    Parameters
    ----------
    builder
        numba's.
    arrays : Arrays
        The step's arguments.
    first : int64
        The first of the rows.
    count : int
        How many.
    """

    def __init__(self, builder: Any, arrays: Arrays, first: Any, count: int) -> None:
        self.builder, self.arrays, self.rows = builder, arrays, range(count)
        self._own = [builder.add(first, index(r)) for r in self.rows]
        self.paired = arrays.kinds[0].dtype.bitwidth == 16
        _, self.place, _, row, self.length = arrays.values[:5]
        self.in_place = hasattr(arrays.kinds[4], "dtype")
        if self.in_place:
            self.length = builder.extract_value(arrays.array(4).shape, 0)
            begins = [arrays.load(3, own, INT64, 8) for own in self._own]
        else:
            begins = [builder.add(row, builder.mul(self.length, own)) for own in self._own]
        self._numbers = [builder.gep(arrays.array(2).data, [begin]) for begin in begins]
        self.one = ir.Constant(VECTOR, [1] * LANES)

    def state(self, argument: int) -> list[Any]:
        """Load a vector per row from an int32 array of `ROWS` times `LANES` values."""
        loaded = (self.arrays.load(argument, self._place(row), VECTOR, 4) for row in self.rows)
        return [cgutils.alloca_once_value(self.builder, vector) for vector in loaded]

    def constants(self, value: int) -> list[Any]:
        """Make a vector per row that holds a number in all lanes."""
        constant = ir.Constant(VECTOR, [value] * LANES)
        return [cgutils.alloca_once_value(self.builder, constant) for _ in self.rows]

    def store(self, vectors: list[Any], argument: int) -> None:
        """Store a vector per row."""
        for row in self.rows:
            self.arrays.store(self.builder.load(vectors[row]), argument, self._place(row), 4)

    def _place(self, row: int) -> Any:
        return self.builder.mul(self._own[row], index(LANES))

    def lane(self, number: Any) -> Any:
        """Spread an int64 over the lanes of a vector."""
        return spread(self.builder, self.builder.trunc(number, INT32))

    def each(self, vectors: list[Any], change: Any) -> None:
        """Replace every vector by what a function makes of it."""
        for vector in vectors:
            self.builder.store(change(self.builder.load(vector)), vector)

    def vector(self, number: Any) -> Any:
        """Load a vector of terms."""
        items = index(2 * LANES if self.paired else LANES)
        place = self.builder.add(self.place, self.builder.mul(number, items))
        return self.arrays.load(0, place, VECTOR, 2 if self.paired else 4)

    def number(self, row: int, place: Any) -> Any:
        """Load a row's number, from a place after the row's beginning, and spread it."""
        pointer = self.builder.bitcast(self.builder.gep(self._numbers[row], [place]), INT32.as_pointer())
        loaded = self.builder.load(pointer)
        loaded.align = self.arrays.kinds[2].dtype.bitwidth // 8
        return spread(self.builder, loaded)

    def plus_product(self, total: Any, vector: Any, number: Any) -> Any:
        """Return ``total + Σ terms`` modulo 2**32."""
        builder = self.builder
        if self.paired:
            return plus_pairs(builder, total, vector, number)
        return builder.add(total, builder.mul(number, vector))

    def plus_product_clamped(self, total: Any, vector: Any, number: Any) -> Any:
        """Return ``total + Σ terms`` clamped to 32 bits."""
        if self.paired:
            return plus_words_clamped(self.builder, total, vector, number)
        term = self.builder.mul(number, vector)
        return self.builder.call(self._function("llvm.sadd.sat.v16i32", 2), [total, term])

    def shifted_in(self, word: Any, value: Any) -> Any:
        """Return ``word << 1 | sign of value``."""
        return self.builder.call(self._function("llvm.fshl.v16i32", 3), [word, value, self.one])

    def ones(self, value: Any) -> Any:
        """Count the bits that are set."""
        return self.builder.call(self._function("llvm.ctpop.v16i32", 1), [value])

    def leading_zeros(self, value: Any) -> Any:
        """Count the bits above the highest one that is set."""
        signature = ir.FunctionType(VECTOR, [VECTOR, INT1])
        function = cgutils.get_or_insert_function(self.builder.module, signature, "llvm.ctlz.v16i32")
        return self.builder.call(function, [value, ir.Constant(INT1, 0)])

    def _function(self, name: str, count: int) -> Any:
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(VECTOR, [VECTOR] * count), name)

    def least(self, left: Any, right: Any) -> Any:
        """Return the lesser of two, lane by lane."""
        return self.builder.select(self.builder.icmp_signed("<", left, right), left, right)

    def most(self, left: Any, right: Any) -> Any:
        """Return the greater of two, lane by lane."""
        return self.builder.select(self.builder.icmp_signed(">", left, right), left, right)

    @contextmanager
    def slices(self, total: Any, size: Any) -> Iterator[tuple[Any, Any, Any]]:
        """Do what follows for slices of a number of things: where each begins, how many they are, and its number."""
        builder = self.builder
        with cgutils.for_range_slice(builder, index(0), total, size, intp=INT64, inc=True) as (begin, number):
            left = builder.sub(total, begin)
            yield begin, builder.select(builder.icmp_signed("<", left, size), left, size), number

    def for_steps(self, begin: Any, count: Any, step: Any, halves: bool, after: Any = None) -> None:
        """Do a step for each number of the rows from ``begin`` on: ``step(row, vector, number)`` for all rows.

        Parameters
        ----------
        begin, count
            An even number of them where ``halves``.
        step : callable
            See above.
        halves : bool
            Of paired operands, whether two successive numbers meet one vector, each one term of it.
        after : callable, optional
            What is done after the rows' steps for a number.
        """
        builder, two = self.builder, halves and self.paired and not self.in_place
        with cgutils.for_range_slice(
            builder, index(0), count, index(2 if two else 1), intp=index(0).type, inc=True
        ) as (i, _):
            first = builder.add(begin, i)
            vector = self.vector(builder.lshr(first, index(1)) if two else first)
            for half in range(2 if two else 1):
                place = builder.add(first, index(half))
                if self.in_place:
                    place = self.arrays.load(4, place, INT64, 8)
                for row in self.rows:
                    step(row, vector, self.number(row, place))
                if after is not None:
                    after()


@contextmanager
def tiles(builder: Any, arrays: Arrays, at_a_time: int, num_rows: Any = None) -> Iterator[Tile]:
    """Do what follows for all rows or the first ones, some at a time where the processor has only sixteen registers.

    Parameters
    ----------
    builder, arrays
        As of `Tile`.
    at_a_time : int
        Rows then: as many as all that is kept of them fits the registers.
    num_rows : int64, optional
        How many rows count; what becomes of the others is not said.
    """
    if instructions() is Instructions.VNNI:
        yield Tile(builder, arrays, index(0), ROWS)
    else:
        # an empty instruction hides the number from LLVM, which would write the loop out
        end = builder.asm(
            ir.FunctionType(INT64, [INT64]), "", "=r,0", [index(ROWS) if num_rows is None else num_rows], True
        )
        with cgutils.for_range_slice(builder, index(0), end, index(at_a_time), intp=INT64, inc=True) as (first, _):
            yield Tile(builder, arrays, first, at_a_time)
