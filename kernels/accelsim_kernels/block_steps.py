"""Whole blocks of sixteen channels stepped at some positions of a layer: lanes are channels, rows windows in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel
from accelsim_kernels.ordered_tiles import Stepping, step_tile
from accelsim_kernels.vectors.block_rows import loaded, stored
from accelsim_kernels.vectors.code import LANES
from accelsim_kernels.vectors.running_ranges import range_of_products, range_of_tiles
from accelsim_kernels.vectors.tile import ROWS, Narrow, Vectors

Wide = npt.NDArray[np.int64]

Lanes = tuple[Any, Any, Any, Any]
"""Terms of the blocks' channels, (blocks, size); what the accumulators hold before the first product, whether the start
did not fit, and what the kernels' sums are less than the accumulators, int32 arrays of shape (blocks * LANES,)."""


@kernel
def step_blocks(
    image: Vectors, bases: Wide, places: Wide, lanes: Lanes, stepping: Stepping, saturate: bool, masks: Narrow,
    positions: Wide, blocks: Wide, sums: Narrow,
) -> tuple[Int, Int, Int]:  # fmt: skip
    """Step all channels of blocks with a mark, and put what accumulators hold in the place of their exact sums.

    Channels without a mark overflow nowhere: what they hold is their sum.

    Parameters
    ----------
    image : int16 or int32 array
        Activations as the PEs multiply them, scaled by (112), padded, channels last; behind the last one is another.
    bases : int64 array
        Where the windows of all positions begin.
    places : int64 array
        Where each number of a window is, after its base.
    lanes : tuple
        See `Lanes`.
    stepping, saturate
        As of `accelsim_kernels.ordered_tiles.step_tile`.
    masks : int32 array, shape (positions, blocks)
        A bit per channel.
    positions : int64 array, shape (positions,)
        Their numbers.
    blocks : int64 array, shape (blocks,)
        Theirs.
    sums : int32 array, shape (positions, channels)
        Channels are filled up to whole blocks. Updated.

    Returns
    -------
    tuple of int64
        Events, outputs with an event, events of the inner registers.
    """
    vectors, held, outside, offsets = lanes
    size, flat, flat_sums, width = vectors.shape[1], vectors.reshape(-1), sums.reshape(-1), sums.shape[1]
    chosen, windows = np.empty(ROWS, dtype=np.int64), np.empty(ROWS, dtype=np.int64)
    lists, counts = np.empty((4, ROWS * LANES), dtype=np.int32), np.empty(3 * LANES, dtype=np.int32)
    state = (lists[0], lists[1], lists[2], lists[3])
    num_events, num_outputs, num_inner = np.int64(0), np.int64(0), np.int64(0)
    for b in range(blocks.size):
        taken, own, channel = 0, b * LANES, blocks[b] * LANES
        counts[:] = 0
        for p in range(positions.size):
            if masks[p, b] != 0:
                chosen[taken] = positions[p]
                taken += 1
            if taken == 0 or (taken < ROWS and p < positions.size - 1):
                continue
            for r in range(ROWS):  # the last one is repeated where there are fewer
                windows[r] = bases[chosen[min(r, taken - 1)]]
            loaded(held, outside, own, state[0], state[1], state[2], state[3])
            step_tile(flat, b * size, image, windows, places, stepping, saturate, state, np.int64(taken))
            for r in range(taken):
                stored(state[0], state[1], state[3], r, offsets, own, flat_sums, chosen[r] * width + channel, counts)
            taken = 0
        for i in range(LANES):
            num_events += counts[i]
            num_outputs += counts[LANES + i]
            num_inner += counts[2 * LANES + i]
    return num_events, num_outputs, num_inner


@kernel
def range_blocks(
    image: Vectors, bases: Wide, places: Wide, vectors: Vectors, start: Narrow, tile: Int, least: Narrow, most: Narrow
) -> None:
    """Find the least and greatest value of the unbounded running sums of channels; docs/numerics.md, section 3.

    Parameters
    ----------
    image, bases, places
        As of `step_blocks`; not scaled.
    vectors : int16 or int32 array, shape (blocks, size)
        Terms of the blocks' channels.
    start : int32 array, shape (blocks, ROWS * LANES)
        What the accumulators of six rows are loaded with.
    tile : int64
        Numbers between two values that count; 0: every product does.
    least, most : int32 arrays, shape (blocks, ROWS * LANES)
        Range of each channel over some of the positions, with the start from the beginning; updated.
    """
    size, flat, first_sums = vectors.shape[1], vectors.reshape(-1), start.reshape(-1)
    windows, sums = np.empty(ROWS, dtype=np.int64), np.empty(ROWS * LANES, dtype=np.int32)
    for b in range(vectors.shape[0]):
        own_least, own_most = least[b], most[b]
        for first in range(0, bases.size, ROWS):
            for r in range(ROWS):  # the last one is repeated where there are fewer
                windows[r] = bases[min(first + r, bases.size - 1)]
            for i in range(ROWS * LANES):
                sums[i] = first_sums[b * ROWS * LANES + i]
            if tile == 0:
                range_of_products(flat, b * size, image, windows, places, tile, own_least, own_most, sums)
            else:
                range_of_tiles(flat, b * size, image, windows, places, tile, own_least, own_most, sums)
