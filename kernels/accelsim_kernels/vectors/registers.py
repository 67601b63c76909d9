"""Registers of six rows by sixteen lanes in generated code, and their events: docs/numerics.md (9) to (11), (112)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from accelsim_kernels.vectors.code import INT32, VECTOR, index, spread
from accelsim_kernels.vectors.tile import ROWS, Tile

_AT_A_TIME = 30
"""Additions whose events are noted in a word; even, and less than its 32 bits, as one is of the addition before."""


class Register:
    """What is brought into registers that are narrower than a lane.

    A wrapping register holds its value less the least one, so that its range is a mask.

    Parameters
    ----------
    tile : Tile
        Whose rows and lanes they have.
    low, high : int64
        Their range.
    saturate : bool
        Their mode.
    """

    def __init__(self, tile: Tile, low: Any, high: Any, saturate: bool) -> None:
        self.tile, self.builder, self.saturate = tile, tile.builder, saturate
        self.low, self.high, self.span = tile.lane(low), tile.lane(high), tile.lane(tile.builder.sub(high, low))

    def held(self, value: Any) -> Any:
        """Return what a register holds that has a value."""
        return value if self.saturate else self.builder.sub(value, self.low)

    def value(self, held: Any) -> Any:
        """Return the value of a register."""
        return held if self.saturate else self.builder.add(held, self.low)

    def keep(self, raw: Any, register: Any, events: Any) -> Any:
        """Bring something into a row's registers and count events; returns where there was one."""
        builder = self.builder
        if self.saturate:
            kept = self.tile.least(self.tile.most(raw, self.low), self.high)
            outside = builder.icmp_signed("!=", raw, kept)
        else:
            kept, outside = builder.and_(raw, self.span), builder.icmp_unsigned(">", raw, self.span)
        builder.store(kept, register)
        before = builder.load(events)
        builder.store(builder.select(outside, builder.add(before, self.tile.one), before), events)
        return outside

    def note(self, firsts: Any, outside: Any, number: Any) -> None:
        """Keep the least number of an addition with an event; -1, none, is the greatest without a sign."""
        before = self.builder.load(firsts)
        earlier = self.builder.select(self.builder.icmp_unsigned("<", before, number), before, number)
        self.builder.store(self.builder.select(outside, earlier, before), firsts)


class TopOfLane:
    """A register per row and lane at the top of the lane, to which scaled products are added one by one, (112).

    Events are noted as bits of a word.

    Parameters
    ----------
    tile : Tile
        Of which products are added.
    low, high : int64
        Range of the registers, of up to 31 bits; 32 where they saturate.
    saturate : bool
        Their mode.
    """

    def __init__(self, tile: Tile, low: Any, high: Any, saturate: bool) -> None:
        self.tile, self.builder, self.saturate = tile, tile.builder, saturate
        self.low, span = tile.lane(low), tile.lane(tile.builder.sub(high, low))
        self.unused = tile.leading_zeros(span)  # 32 - bits
        self.values, self.words = tile.constants(0), tile.constants(0)

    def put(self, row: int, value: Any) -> None:
        """Let the registers of a row hold values that fit, without an event."""
        builder = self.builder
        if self.saturate:
            held = builder.shl(value, self.unused)
        else:
            held = builder.shl(builder.sub(value, self.low), builder.sub(self.unused, self.tile.one))
        builder.store(held, self.values[row])
        builder.store(ir.Constant(VECTOR, None), self.words[row])

    def get(self, row: int) -> Any:
        """Return what the registers of a row hold."""
        builder, held = self.builder, self.builder.load(self.values[row])
        if self.saturate:
            return builder.ashr(held, self.unused)
        return builder.add(builder.lshr(builder.shl(held, self.tile.one), self.unused), self.low)

    def _step(self, row: int, vector: Any, number: Any) -> None:
        """Add a product, and shift into the words if it had an event; of wrapping registers, the quotient's parity."""
        builder, before = self.builder, self.builder.load(self.values[row])
        total = mark = self.tile.plus_product(before, vector, number)
        if self.saturate:
            total = self.tile.plus_product_clamped(before, vector, number)
            mark = builder.xor(mark, total)  # 0 where nothing was clamped, else of another sign
        builder.store(total, self.values[row])
        builder.store(self.tile.shifted_in(builder.load(self.words[row]), mark), self.words[row])

    @contextmanager
    def add(self, begin: Any, count: Any) -> Iterator[tuple[Callable[[int], Any], Any]]:
        """Add the products of some numbers, and do what follows for some of them at a time.

        Parameters
        ----------
        begin, count : int64
            The first number and how many, even where they are halves.

        Yields
        ------
        tuple
            A function that gives a row's events as bits of a word, and what is added to leading zeros for their number.
        """
        builder = self.builder
        with self.tile.slices(count, index(_AT_A_TIME)) as (done, some, _):
            first = builder.add(begin, done)
            self.tile.for_steps(first, some, self._step, True)
            new = builder.trunc(some, INT32)
            mask = spread(builder, builder.sub(builder.shl(ir.Constant(INT32, 1), new), ir.Constant(INT32, 1)))
            last = builder.sub(builder.add(builder.trunc(first, INT32), new), ir.Constant(INT32, 32))
            yield lambda row: builder.and_(self._marks(row), mask), spread(builder, last)

    def _marks(self, row: int) -> Any:
        """Return the word of events, and above them older ones."""
        word = self.builder.load(self.words[row])
        return word if self.saturate else self.builder.xor(word, self.builder.lshr(word, self.tile.one))

    def count(self, events: list[Any], marks: Callable[[int], Any]) -> None:
        """Count the events of all rows."""
        for row in range(ROWS):
            counted = self.builder.add(self.builder.load(events[row]), self.tile.ones(marks(row)))
            self.builder.store(counted, events[row])
