"""Marked outputs of a matrix product: how each square of sixteen by sixteen is stepped, and those that lie alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, callee
from accelsim_kernels.integers import copy, num_bits, num_set
from accelsim_kernels.marked_tiles import Steps, step_channels, step_positions
from accelsim_kernels.scattered import load_listed, step_listed
from accelsim_kernels.term_layout import lay_channels
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES
from accelsim_kernels.vectors.columns import POSITIONS

Narrow = npt.NDArray[np.int32]
Wide = npt.NDArray[np.int64]

Room = tuple[Any, Any, Any, Any]
"""Weights whose lanes are channels, int16 or int32 array (blocks of channels, size), and whose rows are, int32 array
(n, numbers), each laid out when it is needed first; sixteen positions, of the lanes' type; what is laid out."""

THIN = 3
"""Marks of a row of sixteen that take as long, stepped one by one, as the row does."""

SPARSE = 8
"""Marks of a row of sixteen that take as long to be looked at once more as the row takes to be stepped."""

FEW = LANES
"""Marks of a panel that take as long to be looked at once more, up to three vectors at a time, as to be stepped."""

ALONE = LANES + 1
"""More marks than a row has: no row is stepped whole."""

_LISTED = 1024
"""Outputs that are brought together at a time."""


@callee
def choose_ways(masks: Narrow, begin: Int, thin: Int, ways: Narrow) -> tuple[Int, Int, Int]:
    """Say how the marked outputs of every square of sixteen channels by sixteen positions are stepped.

    Parameters
    ----------
    masks : int32 array, shape (n, blocks)
        A bit per position.
    begin : int64
        The first block.
    thin : int64
        From how many marks a row on it is stepped whole.
    ways : int32 array, shape (3, blocks of channels, blocks)
        Output: channels that are stepped at all positions, bits, in the second; positions of which all other channels
        are, bits, in the first; 1 in the third where marks are stepped one by one.

    Returns
    -------
    tuple of int64
        Rows of sixteen that are stepped, marks in all, and those that are stepped one by one.
    """
    rows: Int = 0
    marks: Int = 0
    alone: Int = 0
    ways[:] = 0
    for n in range(masks.shape[0]):
        found, line = ways[0, n // LANES], masks[n, begin : begin + ways.shape[2]]
        for v in range(line.size):
            found[v] |= line[v]
    for b in range(ways.shape[1]):
        for v in range(ways.shape[2]):
            if ways[0, b, v] == 0:
                continue
            found, channels, count = np.int64(ways[0, b, v]), np.int64(0), np.int64(0)
            heavy, rest = np.int64(0), np.int64(0)
            for n in range(b * LANES, min((b + 1) * LANES, masks.shape[0])):
                mask = np.int64(masks[n, begin + v])
                own, bit = num_bits(mask), np.int64(mask != 0) << (n - b * LANES)
                channels, count = channels | bit, count + own
                if own > LANES // 2:
                    heavy |= bit
                else:
                    rest |= mask
            marks += count
            by_channel, by_both = num_bits(channels), num_bits(heavy) + num_bits(rest)
            fewest = min(num_bits(found), by_channel, by_both)
            if count < thin * fewest:
                found, channels, ways[2, b, v] = np.int64(0), np.int64(0), 1
                alone, fewest = alone + count, np.int64(0)
            elif num_bits(found) == fewest:
                channels = np.int64(0)
            elif by_channel == fewest:
                found = np.int64(0)
            else:
                found, channels = rest, heavy
            ways[0, b, v], ways[1, b, v] = found, channels
            rows += fewest
    return rows, marks, alone


@callee
def step_pass(
    weights: Any, packed: Any, begin: Int, num_terms: Int, masks: Narrow, start: Wide, ways: Narrow, steps: Steps,
    room: Room, accumulators: Wide, listed: Wide, taken: Int,
) -> Int:  # fmt: skip
    """Step the marked outputs of some successive positions.

    Parameters
    ----------
    weights, start, steps, accumulators
        As of `accelsim_kernels.column_risk.sum_and_step`.
    packed : uint8 or int16 array
        Panels, from position ``begin`` on.
    begin, num_terms : int64
        See there; K.
    masks, ways
        As of `choose_ways`.
    room : tuple
        See `Room`.
    listed, taken
        See `accelsim_kernels.marked_tiles.note`.
    """
    vectors, rows, positions, laid = room
    paired = vectors.itemsize == 2
    if num_set(ways[0]) > 0:
        if not laid[0]:
            vectors[-1] = 0
            lay_channels(weights, num_terms, steps[0], vectors.view(np.int32), True, paired)
            laid[0] = True
        taken = step_positions(
            packed, begin, num_terms, start, ways, steps, vectors, accumulators, listed, taken
        )  # fmt: skip
    if num_set(ways[1]) > 0:
        if not laid[1]:
            lay_channels(weights, num_terms, steps[1], rows, False, paired)
            laid[1] = True
        taken = step_channels(
            packed, begin, num_terms, start, ways[1], steps, rows, positions, accumulators, listed, taken
        )  # fmt: skip
    if num_set(ways[2]) > 0:
        taken = step_marks(weights, packed, begin, masks, start, ways[2], steps, accumulators, listed, taken)
    return taken


@callee
def with_room(listed: Wide, taken: Int, needed: Int) -> Wide:
    """Return a list with room for as many outputs as needed."""
    if needed <= listed.shape[1]:
        return listed
    larger = np.empty((4, max(needed, 2 * listed.shape[1])), dtype=np.int64)
    for field in range(4):
        copy(listed[field, :taken], larger[field])
    return larger


@callee
def unmark_beyond(masks: Narrow, end: Int) -> None:
    """Take away the marks of positions that do not exist."""
    for n in range(masks.shape[0]):
        for block in range(end // LANES, masks.shape[1]):
            masks[n, block] &= (1 << max(end - block * LANES, 0)) - 1


@callee
def step_marks(
    weights: Any, packed: Any, begin: Int, masks: Narrow, start: Wide, ways: Narrow, steps: Steps, accumulators: Wide,
    listed: Wide, taken: Int,
) -> Int:  # fmt: skip
    """Step marked outputs one by one.

    Parameters
    ----------
    weights : int8 or int16 array, shape (n, length)
        In whole groups.
    packed, begin, start, steps, accumulators, listed, taken
        As of `step_positions`.
    masks : int32 array, shape (n, blocks of all positions)
        A bit per position.
    ways : int32 array, shape (blocks of channels, blocks of positions)
        Where.
    """
    _, _, register, order = steps
    num_positions, length, outputs = accumulators.shape[1], weights.shape[1], accumulators.reshape(-1)
    per_group, flat = GROUP_BYTES // weights.itemsize, weights.reshape(-1)
    lists, places = np.empty((6, _LISTED), dtype=np.int32), np.empty(_LISTED, dtype=np.int64)
    state, count, left = (lists[0], lists[1], lists[2], lists[3]), np.int64(0), num_set(ways)
    for v in range(ways.shape[1]):
        for b in range(ways.shape[0]):
            if ways[b, v] == 0:
                continue
            left -= 1
            for n in range(b * LANES, min((b + 1) * LANES, start.size)):
                mask, position = masks[n, begin // LANES + v], v * LANES
                while mask != 0:
                    if mask & 1:
                        places[count] = n * num_positions + begin + position
                        lists[4, count] = n * length
                        lists[5, count] = position // POSITIONS * length * POSITIONS + position % POSITIONS * per_group
                        load_listed(start[n], register, state, count)
                        count += 1
                    mask >>= 1
                    position += 1
            if count > _LISTED - LANES * LANES or (left == 0 and count > 0):
                step_listed(
                    flat, packed, lists[4], lists[5], per_group * POSITIONS, length // per_group, count, register,
                    order, state,
                )  # fmt: skip
                for i in range(count):
                    if state[1][i] | state[3][i]:
                        outputs[places[i]] = state[0][i]
                        listed[0, taken], listed[1, taken] = places[i], state[1][i]
                        listed[2, taken], listed[3, taken] = state[2][i], state[3][i]
                        taken += 1
                count = np.int64(0)
    return taken
