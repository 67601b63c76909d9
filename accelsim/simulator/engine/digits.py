"""Sums of more than 32 bits, of weights cut into digits whose sums fit: docs/numerics.md (117)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.simulator.engine.bounds import ChannelBounds
from accelsim.simulator.engine.dots import Int32, Int64, PackedWeights
from accelsim.simulator.engine.tap_weights import TapWeights

Room = tuple[Int32, Int64]
"""For the sums of one digit, and of all."""

_MOST_DIGITS = 4
"""Each digit takes as long as all weights do where sums fit 32 bits."""


@dataclass(frozen=True)
class Digits:
    """How weights are cut.

    Parameters
    ----------
    count : int
        Digits; 1 where weights stay as they are.
    bits : int
        Of each but the highest, which is what is left.
    """

    count: int
    bits: int

    @staticmethod
    def of(weights: Int32, least: int, greatest: int) -> Digits | None:
        """Return the fewest digits whose sums fit 32 bits; None where no few do.

        Parameters
        ----------
        weights : int32 array, shape (n, k)
            Of up to 16 signed bits.
        least, greatest : int
            Bounds of the activations.
        """
        bits = max(int(weights.max()), ~int(weights.min())).bit_length() + 1
        for count in range(1, _MOST_DIGITS + 1):
            digits, none = Digits(count, -(-bits // count)), np.zeros(len(weights), dtype=np.int64)
            bounds = [ChannelBounds(digit, none, none) for digit in digits.cut(weights)]
            ends = [bound.of_products(least, greatest) for bound in bounds]
            if all(low.min() >= -(1 << 31) and high.max() < 1 << 31 for low, high in ends):
                return digits
        return None

    def cut(self, weights: Int32) -> list[Int32]:
        """Return the digits of weights, the highest first."""
        digits, half = [], 1 << (self.bits - 1)
        for _ in range(self.count - 1):
            digit = ((weights + half) & (2 * half - 1)) - half
            digits.append(digit)
            weights = (weights - digit) >> self.bits
        return [weights, *digits[::-1]]


@dataclass(frozen=True, eq=False)
class WideWeights:
    """Weights of some channels, packed digit by digit; used as `PackedWeights` are.

    Parameters
    ----------
    digits : list of PackedWeights
        The highest first.
    bits : int
        See `Digits`.
    """

    digits: list[PackedWeights]
    bits: int

    @property
    def width(self) -> int:
        """Channels, rounded up to whole vectors."""
        return self.digits[0].width

    def positions_at_a_time(self, num_bytes: int) -> int:
        """Return how many positions' sums of 64 bits fit so many bytes; at least a tile, and whole tiles."""
        return self.digits[0].positions_at_a_time(num_bytes // 2)

    def room_for(self, num_positions: int) -> Room:
        """Return room for sums."""
        room = self.digits[0].room_for(num_positions)
        return room, np.empty(room.shape, dtype=np.int64)

    def sums(self, operands: npt.NDArray[Any], bases: Int64, segments: Int64, room: Room) -> Int64:
        """Multiply as `PackedWeights.sums` does, with sums of 64 bits."""
        total = room[1][: bases.size]
        for number, packed in enumerate(self.digits):
            add_digit(total, packed.sums(operands, bases, segments, room[0]), self.bits if number else None)
        return total


@dataclass(frozen=True, eq=False)
class WideTapWeights:
    """Weights of channels with a kernel each, digit by digit; used as `TapWeights` are.

    Parameters
    ----------
    digits, bits
        As of `WideWeights`.
    """

    digits: list[TapWeights]
    bits: int

    def room_for(self, num_runs: int, run: int) -> Room:
        """Return room for sums of so many runs."""
        return self.digits[0].room_for(num_runs, run), np.empty((num_runs, run), dtype=np.int64)

    def sums(self, operands: npt.NDArray[Any], bases: Int64, segments: Int64, room: Room) -> Int64:
        """Convolve as `TapWeights.sums` does, with sums of 64 bits."""
        total = room[1][: bases.size]
        for number, taps in enumerate(self.digits):
            add_digit(total, taps.sums(operands, bases, segments, room[0]), self.bits if number else None)
        return total


def add_digit(total: Int64, sums: Int32, bits: int | None) -> None:
    """Shift what higher digits add up to by the bits of a digit, and add its sums; None for the highest digit."""
    if bits is None:
        np.copyto(total, sums)
    else:
        np.left_shift(total, bits, out=total)
        total += sums
