"""Registers of a block of sixteen channels, loaded before it is stepped at six positions and stored after it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir

from accelsim_kernels._jit import Int
from accelsim_kernels.vectors.code import LANES, VECTOR, Arrays, index, vectorised
from accelsim_kernels.vectors.tile import ROWS

Narrow = npt.NDArray[np.int32]


def _loaded(
    held: Narrow, outside: Narrow, place: Int, sums: Narrow, events: Narrow, firsts: Narrow, inner_events: Narrow
) -> None:
    """Load the registers of six rows; a start that did not fit is an event of number 0.

    Parameters
    ----------
    held, outside : int32 arrays
        What the accumulators of sixteen channels hold before the first product, and 1 where the start did not fit.
    place : int64
        Where they begin.
    sums, events, firsts, inner_events : int32 arrays, shape (96,)
        Outputs.
    """
    for i in range(ROWS * LANES):
        sums[i], events[i] = held[place + i % LANES], outside[place + i % LANES]
        firsts[i], inner_events[i] = events[i] - 1, 0


def _load(builder: Any, arrays: Arrays) -> None:
    held, outside = (arrays.load(argument, arrays.values[2], VECTOR, 4) for argument in (0, 1))
    first = builder.add(outside, ir.Constant(VECTOR, [-1] * LANES))
    for row in range(ROWS):
        for argument, value in ((3, held), (4, outside), (5, first), (6, ir.Constant(VECTOR, None))):
            arrays.store(value, argument, index(row * LANES), 4)


loaded = vectorised(_loaded, _load)


def _stored(
    values: Narrow, events: Narrow, inner_events: Narrow, row: Int, offsets: Narrow, place: Int, sums: Narrow,
    target: Int, counts: Narrow,
) -> None:  # fmt: skip
    """Store a row and count its events.

    Parameters
    ----------
    values, events, inner_events : int32 arrays, shape (96,)
        What the registers of six rows hold.
    row : int64
        Which row.
    offsets : int32 array
        What the sums of sixteen channels are less than the accumulators.
    place : int64
        Where they begin.
    sums : int32 array
        Output.
    target : int64
        Where the row's begin.
    counts : int32 array, shape (48,)
        Of every channel events, outputs with one, events of the inner registers; added to.
    """
    for i in range(LANES):
        lane = row * LANES + i
        sums[target + i] = values[lane] - offsets[place + i]
        counts[i] += events[lane]
        counts[LANES + i] += events[lane] > 0
        counts[2 * LANES + i] += inner_events[lane]


def _store(builder: Any, arrays: Arrays) -> None:
    _, _, _, row, _, place, _, target, _ = arrays.values
    lanes = builder.mul(row, index(LANES))
    value, events, inner = (arrays.load(argument, lanes, VECTOR, 4) for argument in range(3))
    arrays.store(builder.sub(value, arrays.load(4, place, VECTOR, 4)), 6, target, 4)
    some = builder.zext(builder.icmp_signed(">", events, ir.Constant(VECTOR, None)), VECTOR)
    for number, added in enumerate((events, some, inner)):
        where = index(number * LANES)
        arrays.store(builder.add(arrays.load(8, where, VECTOR, 4), added), 8, where, 4)


stored = vectorised(_stored, _store)
