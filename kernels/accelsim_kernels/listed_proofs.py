"""Marked outputs of a matrix product that lie alone, proven safe by what their running sums reach."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, callee
from accelsim_kernels.integers import num_bits
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES
from accelsim_kernels.vectors.columns import POSITIONS
from accelsim_kernels.vectors.listed_ranges import CHANNELS, LISTED, listed_ranges_s16, listed_ranges_u8

Narrow = npt.NDArray[np.int32]

_BLOCKS = CHANNELS // LANES


@callee
def lay_groups(weights: Any, groups: Narrow) -> None:
    """Lay weights out as `accelsim_kernels.vectors.listed_ranges` reads them.

    Parameters
    ----------
    weights : int8 or int16 array, shape (n, length)
        In whole groups.
    groups : int32 array, shape (n / 64 rounded up, length in groups, 64)
        Output; of channels that there are.
    """
    words = weights.view(np.int32)
    for n in range(words.shape[0]):
        own = groups[n // CHANNELS].reshape(-1)
        for group in range(words.shape[1]):
            own[group * CHANNELS + n % CHANNELS] = words[n, group]


@callee
def unmark_listed(
    groups: Narrow, packed: Any, begin: Int, low: Narrow, high: Narrow, ways: Narrow, masks: Narrow
) -> tuple[Int, Int]:
    """Take the marks off outputs whose running sum stays between its limits.

    Parameters
    ----------
    groups : int32 array
        See `lay_groups`.
    packed : uint8 or int16 array
        Panels, from position ``begin`` on.
    begin : int64
        See there.
    low, high : int32 arrays, shape (n,)
        What a sum of products must not pass.
    ways : int32 array, shape (blocks of channels, blocks of positions)
        Where marks are looked at.
    masks : int32 array, shape (n, blocks of all positions)
        A bit per position; updated.

    Returns
    -------
    tuple of int64
        Marks looked at and marks taken off.
    """
    panels, num_groups, size = packed.view(np.uint8), groups.shape[1], GROUP_BYTES // packed.itemsize
    lists, flat = np.empty((4, CHANNELS * POSITIONS + LISTED), dtype=np.int32), groups.reshape(-1).view(np.uint8)
    channels, positions, least, greatest = lists[0], lists[1], lists[2], lists[3]
    tried: Int = 0
    proven: Int = 0
    for v in range(0, ways.shape[1], POSITIONS // LANES):
        place = v * LANES * num_groups * GROUP_BYTES
        for b in range(0, ways.shape[0], _BLOCKS):
            count = list_marks(
                ways[b : b + _BLOCKS, v : v + POSITIONS // LANES], b, begin // LANES + v, masks, channels, positions
            )
            for first in range(0, count, LISTED):
                if size == 4:
                    listed_ranges_u8(
                        flat, b // _BLOCKS * num_groups * GROUP_BYTES * CHANNELS, panels, place, channels, positions,
                        first, num_groups, least, greatest,
                    )  # fmt: skip
                else:
                    listed_ranges_s16(
                        flat, b // _BLOCKS * num_groups * GROUP_BYTES * CHANNELS, panels, place, channels, positions,
                        first, num_groups, least, greatest,
                    )  # fmt: skip
            for i in range(count):
                n, block = b * LANES + channels[i], begin // LANES + v + positions[i] // LANES
                if least[i] >= low[n] and greatest[i] <= high[n]:
                    masks[n, block] &= ~(1 << (positions[i] % LANES))
                    proven += 1
            tried += count
    return tried, proven


@callee
def list_marks(ways: Narrow, block: Int, column: Int, masks: Narrow, channels: Narrow, positions: Narrow) -> Int:
    """List the marked outputs of some squares, filled up to whole steps; returns how many.

    Parameters
    ----------
    ways : int32 array, shape (blocks of channels, blocks of positions)
        Where.
    block, column : int64
        The first block of channels, and of positions among the masks.
    masks : int32 array
        See `unmark_listed`.
    channels, positions : int32 arrays
        Output: of each mark, from the first one on.
    """
    count: Int = 0
    for b in range(ways.shape[0]):
        for v in range(ways.shape[1]):
            if ways[b, v] == 0:
                continue
            for n in range(b * LANES, min((b + 1) * LANES, masks.shape[0] - block * LANES)):
                mask = np.int64(masks[block * LANES + n, column + v])
                while mask != 0:
                    channels[count], positions[count] = n, v * LANES + num_bits((mask & -mask) - 1)
                    count += 1
                    mask &= mask - 1
    for place in range(count, (count + LISTED - 1) // LISTED * LISTED):
        channels[place], positions[place] = 0, 0
    return count
