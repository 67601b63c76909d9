"""Outputs that bounds leave at risk: found by their own products, and kept as a bit per channel of a block."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel
from accelsim_kernels.vectors.code import LANES
from accelsim_kernels.vectors.marks import Narrow, mark_sixteen


@kernel
def mark_at_risk(
    values: Narrow,
    magnitudes: Narrow,
    sign: Int,
    blocks: npt.NDArray[np.int64],
    low: Narrow,
    high: Narrow,
    masks: Narrow,
) -> None:
    """Mark the outputs of which a register may leave its range in some order of additions, (106), (107).

    Parameters
    ----------
    values : int32 array, shape (positions, channels)
        ``S'`` of every output, or what takes its place.
    magnitudes : int32 array, shape (positions, LANES * blocks)
        ``A = Σ_k |w·x|`` times the sign, of the blocks' channels.
    sign : int64
        1 or -1.
    blocks : int64 array
        Blocks of `LANES` channels to look at.
    low, high : int32 arrays, shape (LANES * blocks,)
        Limits of ``S' - A`` and ``S' + A``.
    masks : int32 array, shape (positions, blocks)
        Output: a bit per channel of each block.
    """
    for b in range(blocks.size):
        mark_sixteen(values, blocks[b] * LANES, magnitudes, b * LANES, sign, low, high, masks, b)


@kernel
def keep_marked(masks: Narrow, places: npt.NDArray[np.int64]) -> Int:
    """Move positions with a mark to the front.

    Parameters
    ----------
    masks : int32 array, shape (positions or more, blocks)
        Updated.
    places : int64 array, shape (positions,)
        The positions' numbers; updated.

    Returns
    -------
    int64
        Positions with a mark.
    """
    kept = 0
    for p in range(places.size):
        found = masks[p, 0]
        for b in range(1, masks.shape[1]):
            found |= masks[p, b]
        if found != 0:
            for b in range(masks.shape[1]):
                masks[kept, b] = masks[p, b]
            places[kept] = places[p]
            kept += 1
    return kept


@kernel
def list_marked(masks: Narrow, blocks: npt.NDArray[np.int64], positions: npt.NDArray[np.int64], listed: Narrow) -> Int:
    """List marked outputs.

    Parameters
    ----------
    masks, blocks
        As of `mark_at_risk`.
    positions : int64 array, shape (positions,)
        Their numbers.
    listed : int32 array, shape (2, at least all outputs of the blocks)
        Output: positions, ascending, and channels.

    Returns
    -------
    int64
        How many are listed.
    """
    count = 0
    for p in range(masks.shape[0]):
        for b in range(blocks.size):
            mask, channel = masks[p, b], blocks[b] * LANES
            while mask != 0:
                if mask & 1:
                    listed[0, count], listed[1, count] = positions[p], channel
                    count += 1
                mask >>= 1
                channel += 1
    return count


@kernel
def count_marked(masks: Narrow) -> Int:
    """Count blocks with a mark."""
    marked = np.int64(0)
    for p in range(masks.shape[0]):
        for b in range(masks.shape[1]):
            marked += np.int64(masks[p, b] != 0)
    return marked
