"""Overflow events of a GEMM's outputs: as arrays, or as a list of the outputs that have some."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from accelsim.simulator.engine.exact import in_large_pages

Int64 = npt.NDArray[np.int64]

_ZERO, _MINUS_ONE = bytes(8), b"\xff" * 8
"""An int64, which is seen as a whole array of them."""


class EventTotals(NamedTuple):
    """Events of all outputs."""

    events: int
    """Of accumulators."""
    outputs: int
    """Outputs with one of those."""
    partial: int
    """Of partial sums or adder trees."""


@dataclass(frozen=True, eq=False)
class EventArrays:
    """Events as arrays of shape (n, p), or that of a convolution's outputs.

    Parameters
    ----------
    counts, first, partial : int64 arrays
        Accumulator overflow events, numbers of the first addition with one or -1, events of partial sums or trees.
    """

    counts: Int64
    first: Int64
    partial: Int64

    @staticmethod
    @lru_cache(maxsize=64)
    def none(shape: tuple[int, ...]) -> EventArrays:
        """Return those of outputs without events, in no memory, read-only."""
        nowhere = (0,) * len(shape)
        zeros = np.ndarray(shape, np.int64, _ZERO, 0, nowhere)
        return EventArrays(zeros, np.ndarray(shape, np.int64, _MINUS_ONE, 0, nowhere), zeros)

    @property
    def nowhere(self) -> bool:
        """Whether these are those of `none`."""
        return not any(self.counts.strides) and not any(self.partial.strides)

    def totals(self) -> EventTotals:
        """Return the events of all outputs."""
        if self.nowhere:
            return EventTotals(0, 0, 0)
        return EventTotals(int(self.counts.sum()), int(np.count_nonzero(self.counts)), int(self.partial.sum()))


@dataclass(frozen=True, eq=False)
class ListedEvents:
    """Events of few outputs, of which arrays are made when they are asked for.

    Parameters
    ----------
    shape : tuple of int
        n and p.
    listed : int64 array, shape (4, outputs with events)
        Their places among all outputs, events, numbers of the first one or -1, events of partial sums or trees.
    """

    shape: tuple[int, int]
    listed: Int64

    @property
    def nowhere(self) -> bool:
        """Whether none is listed."""
        return self.listed.size == 0

    def totals(self) -> EventTotals:
        """Return the events of all outputs."""
        _, counts, _, partial = self.listed
        return EventTotals(int(counts.sum()), int(np.count_nonzero(counts)), int(partial.sum()))

    def _spread(self, row: int, rest: int) -> Int64:
        array = in_large_pages(self.shape, zeros=rest == 0)
        if rest:
            array.fill(rest)
        array.reshape(-1)[self.listed[0]] = self.listed[row]
        return array

    @cached_property
    def counts(self) -> Int64:
        """Accumulator overflow events, shape (n, p)."""
        return self._spread(1, 0)

    @cached_property
    def first(self) -> Int64:
        """Numbers of the first addition with one, -1 where there is none, shape (n, p)."""
        return self._spread(2, -1)

    @cached_property
    def partial(self) -> Int64:
        """Events of partial sums or trees, shape (n, p)."""
        return self._spread(3, 0)


Events = EventArrays | ListedEvents
