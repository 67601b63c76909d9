"""Sums of panels of a matrix product, and marks where bounds by parts do not prove them safe: numerics.md (108)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, callee
from accelsim_kernels.vectors.code import GROUP_BYTES
from accelsim_kernels.vectors.columns import CHANNELS_OF_TILE, POSITIONS
from accelsim_kernels.vectors.norms import norms_of_bytes, norms_s16, norms_u8
from accelsim_kernels.vectors.part_tiles import part_tile_s16, part_tile_u8

Narrow = npt.NDArray[np.int32]
Wide = npt.NDArray[np.int64]

PARTS, PART_TERMS = 4, 96
"""Parts of a reduction, at least, and terms of a part, at most."""

TIMES = (1, 3, 12)
"""How many times as many parts there are for each length: shorter ones take more time and leave fewer marks."""

_SHORT = 1 << 10
"""Norms of so many operands below this magnitude have no more than 14 bits."""


@callee
def groups_of_part(length: Int, weights: Any) -> Int:
    """Return how many groups are a part of one of the lengths."""
    per_group = GROUP_BYTES // weights.itemsize
    num_parts = max(PARTS, (weights.shape[1] + PART_TERMS - 1) // PART_TERMS) * TIMES[length]
    groups: Int = (weights.shape[1] // per_group + num_parts - 1) // num_parts
    return groups


@callee
def shift_of_norms(greatest: Int) -> Int:
    """Return by how many bits norms are shifted to the right, of operands up to a magnitude: they have 14 at most."""
    shift: Int = np.int64(0)
    while greatest >> shift >= _SHORT:
        shift += 1
    return shift


@callee
def find_norms(weights: Any, part_groups: Int, both: bool, shift: Int, norms: Narrow) -> None:
    """Find no less than the norms of the positive and of the negative weights of every part, the greater of the two.

    Parameters
    ----------
    weights : int8 or int16 array, shape (n, length)
        In whole groups.
    part_groups : int64
        Groups of a part.
    both : bool
        Or of all weights of the part together.
    shift : int64
        See `shift_of_norms`.
    norms : int32 array, shape (n, parts)
        Output.
    """
    size = part_groups * (GROUP_BYTES // weights.itemsize)
    rest, places = np.int32((1 << 2 * shift) - 1), np.int32(2 * shift)
    for n in range(weights.shape[0]):
        line = weights[n]
        for part in range(norms.shape[1]):
            up, down = np.int64(0), np.int64(0)
            for k in range(part * size, min((part + 1) * size, line.size)):
                over, under = max(np.int32(line[k]), np.int32(0)), min(np.int32(line[k]), np.int32(0))
                up += np.int32(np.int32(over * over) + rest) >> places
                down += np.int32(np.int32(under * under) + rest) >> places
            norms[n, part] = root_above(up + down if both else max(up, down))


@callee
def root_above(total: Int) -> Int:
    """Return the square root of a number below 2**28, rounded up."""
    root: Int = np.int64(0)
    for bit in range(13, -1, -1):
        longer = root | 1 << bit
        if longer * longer < total:
            root = longer
    return root + 1 if total > 0 else root


@callee
def find_panel_norms(
    panels: Any, weights: Any, num_panels: Int, part_groups: Int, narrow: bool, shift: Int, norms: Narrow
) -> None:
    """Find the norms of the activations of every part of some panels.

    Parameters
    ----------
    panels : uint8 array
        Packed.
    weights : int8 or int16 array, shape (n, length)
        As wide as the activations are there.
    num_panels, part_groups : int64
        How many; groups of a part.
    narrow : bool
        Whether the activations have 8 bits, though they may have been widened.
    shift : int64
        See `shift_of_norms`.
    norms : int32 array, shape (at least panels, parts, 64)
        Output.
    """
    num_groups = weights.shape[1] * weights.itemsize // GROUP_BYTES
    for i in range(num_panels):
        place = i * num_groups * GROUP_BYTES * POSITIONS
        if weights.itemsize == 1:
            norms_u8(panels, place, num_groups, part_groups, shift, norms, i)
        elif narrow:
            norms_of_bytes(panels, place, num_groups, part_groups, shift, norms, i)
        else:
            norms_s16(panels, place, num_groups, part_groups, shift, norms, i)


@callee
def sum_and_mark(
    weights: Any, panels: Any, begin: Int, num_panels: Int, start: Wide, rows: Wide, part_groups: Int, own: Narrow,
    others: Narrow, shift: Int, origin: Narrow, most: Narrow, accumulators: Wide, masks: Narrow,
) -> None:  # fmt: skip
    """Compute ``start[n] + origin[n] + Σ_k w·x`` of some panels, and mark what (108) does not prove safe.

    Parameters
    ----------
    weights : int8 or int16 array, shape (n, length)
        In whole groups.
    panels : uint8 array
        Packed, from position ``begin`` on.
    begin, num_panels : int64
        See there; how many.
    start : int64 array, shape (n,)
        See above.
    rows : int64 array
        The channels, the last one as often as a tile needs.
    part_groups, own, others, shift, origin, most
        See `accelsim_kernels.vectors.part_tiles`.
    accumulators : int64 array, shape (n, p)
        Output.
    masks : int32 array, shape (n, blocks of all positions)
        Output: a bit per position.
    """
    flat = weights.view(np.uint8)
    for first in range(0, weights.shape[0], CHANNELS_OF_TILE):
        for i in range(num_panels):
            place, position = i * flat.shape[1] * POSITIONS, begin + i * POSITIONS
            if weights.itemsize == 1:
                part_tile_u8(
                    flat, first, panels, place, start, rows, position, accumulators, part_groups, own, others, i,
                    shift, origin, most, masks,
                )  # fmt: skip
            else:
                part_tile_s16(
                    flat, first, panels, place, start, rows, position, accumulators, part_groups, own, others, i,
                    shift, origin, most, masks,
                )  # fmt: skip
