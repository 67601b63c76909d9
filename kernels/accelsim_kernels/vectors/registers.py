"""Registers of a tile in generated code, and their events: docs/numerics.md (9) to (11), (112).

Where products are added one by one, what takes the fewest instructions depends on the processor: `TopOfLane` is for
those that clamp a sum in the instruction that makes it and count the ones of a word, `Packed` for others.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from accelsim_kernels.processor import Instructions, instructions
from accelsim_kernels.vectors.code import INT32, VECTOR, cgutils, index, spread
from accelsim_kernels.vectors.products import SIGNS, places_of_signs, signs
from accelsim_kernels.vectors.tile import Tile

_AT_A_TIME = 30
"""Additions whose events are noted in a word; even, and less than its 32 bits, as one is of the addition before."""

_AT_A_TIME_IN_BYTES = 254
"""Additions whose events are counted in a byte; even."""


def at_top(saturate: bool) -> bool:
    """Return whether registers to which products are added one by one are at the top of the lane, (112)."""
    return not saturate or instructions() is Instructions.VNNI


def scale(bits: int, saturate: bool) -> int:
    """Return by how much products are shifted that are added one by one to registers of some bits."""
    return (32 if saturate else 31) - bits if at_top(saturate) else 0


def one_by_one(tile: Tile, low: Any, high: Any, saturate: bool) -> TopOfLane | Packed:
    """Make registers to which products are added one by one; parameters as of `Register`."""
    return (TopOfLane if instructions() is Instructions.VNNI else Packed)(tile, low, high, saturate)


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

    def fitted(self, raw: Any) -> Any:
        """Return what a register holds after it is given something: the same just if it fits."""
        if self.saturate:
            return self.tile.least(self.tile.most(raw, self.low), self.high)
        return self.builder.and_(raw, self.span)

    def keep(self, raw: Any, register: Any, events: Any) -> Any:
        """Bring something into a row's registers and count events; returns where there was one."""
        builder, kept = self.builder, self.fitted(raw)
        if self.saturate:
            outside = builder.icmp_signed("!=", raw, kept)
        else:
            outside = builder.icmp_unsigned(">", raw, self.span)
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

    def add(self, begin: Any, count: Any, events: list[Any], firsts: list[Any] | None = None) -> None:
        """Add the products of some numbers and count their events, some at a time.

        Parameters
        ----------
        begin, count : int64
            The first number and how many, even where they are halves.
        events : list
            Of every row, updated.
        firsts : list, optional
            The number of the first addition with an event or -1, of every row; updated.
        """
        tile, builder = self.tile, self.builder
        with tile.slices(count, index(_AT_A_TIME)) as (done, some, _):
            first = builder.add(begin, done)
            tile.for_steps(first, some, self._step, True)
            new = builder.trunc(some, INT32)
            mask = spread(builder, builder.sub(builder.shl(ir.Constant(INT32, 1), new), ir.Constant(INT32, 1)))
            last = builder.sub(builder.add(builder.trunc(first, INT32), new), ir.Constant(INT32, 32))
            before_first = spread(builder, last)
            for row in tile.rows:
                counted = builder.add(builder.load(events[row]), tile.ones(builder.and_(self._marks(row), mask)))
                builder.store(counted, events[row])
            for row, first_event in enumerate(firsts or ()):
                marks = builder.and_(self._marks(row), mask)
                _note_first(builder, first_event, marks, builder.add(tile.leading_zeros(marks), before_first))

    def _marks(self, row: int) -> Any:
        """Return the word of events, and above them older ones."""
        word = self.builder.load(self.words[row])
        return word if self.saturate else self.builder.xor(word, self.builder.lshr(word, self.tile.one))


class Packed:
    """A register per row and lane of two rows, to which products are added one by one.

    A saturating register holds its value as it is, and a wrapping one is at the top of the lane. Either way an addition
    leaves something in each lane whose sign says whether there was an event, and the signs of both rows fill one vector
    of bytes. There a comparison sets all bits, which is -1: so additions without an event are counted by subtracting
    it, and those before the first event by subtracting what all comparisons so far have in common.

    Parameters
    ----------
    tile, low, high, saturate
        As of `TopOfLane`; at most 31 bits in either mode.
    """

    def __init__(self, tile: Tile, low: Any, high: Any, saturate: bool) -> None:
        self.tile, self.builder, self.saturate = tile, tile.builder, saturate
        self.register = Register(tile, low, high, saturate)
        self.shift = tile.leading_zeros(self.register.span) if not saturate else None
        self.values = tile.constants(0)
        self._signs: list[Any] = []

    def put(self, row: int, value: Any) -> None:
        """Let the registers of a row hold values that fit, without an event."""
        held = self.register.held(value)
        if not self.saturate:
            held = self.builder.shl(held, self.builder.sub(self.shift, self.tile.one))
        self.builder.store(held, self.values[row])

    def get(self, row: int) -> Any:
        """Return what the registers of a row hold."""
        held = self.builder.load(self.values[row])
        if not self.saturate:
            held = self.builder.lshr(self.builder.shl(held, self.tile.one), self.shift)
        return self.register.value(held)

    def _step(self, row: int, vector: Any, number: Any) -> None:
        """Add a product, and note a sign: of saturating registers where it fits, of wrapping ones the parity."""
        total = sign = self.tile.plus_product(self.builder.load(self.values[row]), vector, number)
        if self.saturate:
            total = self.register.fitted(total)
            sign = self.builder.sext(self.builder.icmp_signed("==", sign, total), VECTOR)
        self.builder.store(total, self.values[row])
        self._signs.append(sign)

    def add(self, begin: Any, count: Any, events: list[Any], firsts: list[Any] | None = None) -> None:
        """Do what `TopOfLane.add` does."""
        if self.saturate and firsts is None:
            self._add_and_count(begin, count, events)
            return
        tile, builder = self.tile, self.builder
        none, ones = ir.Constant(SIGNS, None), ir.Constant(SIGNS, [-1] * SIGNS.count)
        fitting, before_first, all_fit = (cgutils.alloca_once_value(builder, none) for _ in range(3))
        held = none if self.saturate else signs(builder, *map(builder.load, self.values))
        parity = cgutils.alloca_once_value(builder, held)

        def note() -> None:
            fits = signs(builder, *self._signs)
            self._signs.clear()
            if not self.saturate:
                same = builder.xor(builder.load(parity), fits)
                builder.store(fits, parity)
                fits = builder.sext(builder.icmp_signed(">", same, ones), SIGNS)
            builder.store(builder.sub(builder.load(fitting), fits), fitting)
            if firsts is not None:
                common = builder.and_(builder.load(all_fit), fits)
                builder.store(common, all_fit)
                builder.store(builder.sub(builder.load(before_first), common), before_first)

        with tile.slices(count, index(_AT_A_TIME_IN_BYTES)) as (done, some, _):
            first = builder.add(begin, done)
            for counter, value in ((fitting, none), (before_first, none), (all_fit, ones)):
                builder.store(value, counter)
            tile.for_steps(first, some, self._step, True, note)
            for row in tile.rows:
                outside = builder.sub(tile.lane(some), self._of_row(fitting, row))
                builder.store(builder.add(builder.load(events[row]), outside), events[row])
                if firsts is not None:
                    number = builder.add(tile.lane(first), self._of_row(before_first, row))
                    _note_first(builder, firsts[row], outside, number)

    def _add_and_count(self, begin: Any, count: Any, events: list[Any]) -> None:
        """Count events in lanes, which takes as many instructions; short tiles have no counts in bytes to widen.

        Where an addition fits, the comparison takes one from the additions.
        """
        tile, builder = self.tile, self.builder

        def step(row: int, vector: Any, number: Any) -> None:
            self._step(row, vector, number)
            builder.store(builder.add(builder.load(events[row]), self._signs.pop()), events[row])

        tile.for_steps(begin, count, step, True)
        additions = tile.lane(count)
        tile.each(events, lambda counted: builder.add(counted, additions))

    def _of_row(self, counter: Any, row: int) -> Any:
        loaded, places = self.builder.load(counter), ir.Constant(VECTOR, places_of_signs(row))
        return self.builder.zext(self.builder.shuffle_vector(loaded, loaded, places), VECTOR)


def _note_first(builder: Any, first: Any, events: Any, number: Any) -> None:
    """Keep the number of the first addition with an event, where there are some and none was before."""
    none, before = ir.Constant(VECTOR, None), builder.load(first)
    now = builder.and_(builder.icmp_signed("<", before, none), builder.icmp_signed("!=", events, none))
    builder.store(builder.select(now, number, before), first)
