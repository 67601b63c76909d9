"""Matrix products with outputs at risk: all sums and their bounds in one pass, then what those leave is stepped."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, callee, kernel
from accelsim_kernels.exact import PACKED_BYTES, PANELS, no_ends
from accelsim_kernels.integers import copy
from accelsim_kernels.listed_proofs import lay_groups, unmark_listed
from accelsim_kernels.marked_outputs import SPARSE, THIN, choose_ways, step_pass, unmark_beyond, with_room
from accelsim_kernels.marked_tiles import Steps
from accelsim_kernels.panel_marks import (
    TIMES,
    find_norms,
    find_panel_norms,
    groups_of_part,
    shift_of_norms,
    sum_and_mark,
)
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES, Bytes
from accelsim_kernels.vectors.columns import CHANNELS_OF_TILE, POSITIONS, pack_positions
from accelsim_kernels.vectors.listed_ranges import CHANNELS

Weights = npt.NDArray[np.int8] | npt.NDArray[np.int16]
Columns = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | npt.NDArray[np.uint16]]
Narrow = npt.NDArray[np.int32]
Wide = npt.NDArray[np.int64]

_WORTH = 4
"""Marks that are looked at once more for one that is taken off: where there are more, no others are."""

_MANY = 64
"""Outputs of which no more than one shall be left: where more are, parts are made shorter, if that spares as many."""

_LINE_BYTES = 64
"""A line of the cache."""


@kernel
def limit_channels(
    weights: Weights, start: Wide, ends: tuple[Any, Any], register: tuple[Any, Any], inner: tuple[Any, Any],
    limits: Narrow,
) -> tuple[Int, Int, Int, bool]:  # fmt: skip
    """Say what a channel's sums of products must not pass.

    Parameters
    ----------
    weights : int8 or int16 array, shape (n, length)
        See `sum_and_step`.
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    ends : tuple of int64
        What no activation is less than and none is greater than, with 0 between.
    register, inner : tuple of int64
        Ranges of the accumulators and of the registers inside a tile.
    limits : int32 array, shape (4, n)
        Output: the accumulators' range less ``start``, as far as 32 bits hold it; ``start``, or 0 where the magnitude
        of the accumulators' least value is no greater; what the magnitude of ``start`` and a sum must not pass, or -1.

    Returns
    -------
    tuple
        Least and greatest weight, or 0; greatest sum of the magnitudes of a channel's; whether (17) and (18) prove all
        channels safe, where nothing is added by (8).
    """
    least, greatest, widest, safe = np.int32(0), np.int32(0), np.int64(0), True
    for n in range(weights.shape[0]):
        over, under, line = np.int64(0), np.int64(0), weights[n]
        for k in range(line.size):
            value = np.int32(line[k])
            over += max(value, np.int32(0))
            under += min(value, np.int32(0))
            least, greatest = min(least, value), max(greatest, value)
        low, high = register[0] - start[n], register[1] - start[n]
        below, above = over * ends[0] + under * ends[1], over * ends[1] + under * ends[0]
        safe &= low <= below and above <= high and inner[0] <= below and above <= inner[1]
        widest = max(widest, over - under)
        limits[0, n] = min(max(low, np.int64(-(1 << 31))), np.int64((1 << 31) - 1))
        limits[1, n] = min(max(high, np.int64(-(1 << 31))), np.int64((1 << 31) - 1))
        inside = -register[1] <= start[n] <= register[1]
        limits[2, n], limits[3, n] = start[n] if inside else 0, register[1] if inside else -1
    return np.int64(least), np.int64(greatest), widest, safe


@kernel
def sum_and_step(
    weights: Weights, columns: Columns, term: Any, start: Wide, limits: Narrow, greatest: Int,
    inner: tuple[Any, Any, Any, Any], steps: Steps, lane: Any, few: Int, thin: Int, most: Int, accumulators: Wide,
) -> tuple[bool, Wide, Wide, Narrow]:  # fmt: skip
    """Compute ``start[n] + Σ_k w·x`` and step the outputs that (108) does not prove safe.

    Parameters
    ----------
    weights : int8 or int16 array, shape (n, length)
        Filled up with 0 to whole groups of `GROUP_BYTES`.
    columns : tuple of uint8 array and uint8 or uint16 array, shape (k, p)
        Activations: unsigned of 8 bits in the first, or the bits of signed ones of 16 in the second, which has the
        weights' size; the other is empty. So there is one kernel where weights always have 16 bits.
    term : uint8 or int16 array
        Of the activations' type when they are as wide as the weights; not read.
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    limits : int32 array, shape (4, n)
        See `limit_channels`.
    greatest : int64
        Greatest magnitude of a weight.
    inner : tuple
        Sums of the positive and of the negative weights, int32 arrays of shape (n,), of the tile with the greatest and
        with the least one; range of the inner registers.
    steps : tuple
        See `accelsim_kernels.marked_tiles`.
    lane : int16 or int32 array
        Of the type of the lanes' terms; not read.
    few : int64
        Up to how many marks of a panel that lie alone are stepped without a look.
    thin : int64
        See `accelsim_kernels.marked_outputs.choose_ways`.
    most : int64
        Of 16 rows of sixteen outputs of all positions so far, how many may be stepped for the work to go on.
    accumulators : int64 array, shape (n, p)
        Output: what the accumulators hold at the end.

    Returns
    -------
    tuple
        Whether all is done; of every term the activations that are not 0, then the least and the greatest activation,
        int64 array, shape (length + 2,); outputs with events, see `accelsim_kernels.marked_tiles.note`; a bit per
        position that was stepped, int32 array, shape (n, blocks of positions).
    """
    narrow, wide = columns
    num_terms, width = (wide.shape[0], wide.itemsize) if wide.shape[0] > 0 else (narrow.shape[0], 1)
    num_channels, num_positions = accumulators.shape
    size, flat = weights.itemsize, weights.view(np.uint8)
    per_group, panel = GROUP_BYTES // size, flat.shape[1] * POSITIONS
    num_panels = max(1, min(PANELS, PACKED_BYTES // panel, (num_positions + POSITIONS - 1) // POSITIONS))
    memory = np.empty(num_panels * panel + _LINE_BYTES, dtype=np.uint8)
    panels = memory[-memory.ctypes.data % _LINE_BYTES :]
    panels = panels[: num_panels * panel]
    packed, terms = panels.view(term.dtype), panels.view(weights.dtype)
    tiles = np.empty(num_channels + CHANNELS_OF_TILE - 1, dtype=np.int64)
    for n in range(tiles.size):
        tiles[n] = min(n, num_channels - 1)
    met, ends = no_ends(width), np.empty((num_panels, 2, POSITIONS), dtype=np.int32)
    seen = np.empty((num_panels, met.size), dtype=np.uint8)
    blocks, per_panel = (num_channels + LANES - 1) // LANES, POSITIONS // LANES
    masks = np.empty((num_channels, (num_positions + POSITIONS - 1) // POSITIONS * per_panel), dtype=np.int32)
    every = np.empty((3, blocks, num_panels * per_panel), dtype=np.int32)
    room = (
        np.empty((blocks, steps[0][5]), dtype=lane.dtype), np.empty((num_channels, steps[1][3]), dtype=np.int32),
        np.empty(steps[1][5], dtype=lane.dtype), np.zeros(2, dtype=np.bool_),
    )  # fmt: skip
    groups = np.empty(((num_channels + CHANNELS - 1) // CHANNELS, flat.shape[1] // GROUP_BYTES, CHANNELS), np.int32)
    survey = np.zeros(weights.shape[1] + 2, dtype=np.int64)
    survey[-2], survey[-1] = 1 << 16, -(1 << 16)
    listed = np.empty((4, 0), dtype=np.int64)
    taken: Int = np.int64(0)  # a literal would be a type of its own, and kernels would be compiled for it, too
    end: Int = np.int64(0)
    stepped: Int = 0
    total: Int = 0
    settled = False
    settled_length: Int = np.int64(0)
    low, high, origin = limits[0], limits[1], limits[2]
    shift = shift_of_norms(greatest)
    laid: Int = np.int64(-1)
    rest, farthest = np.empty(num_channels, dtype=np.int64), np.empty(num_channels, dtype=np.int32)
    for n in range(num_channels):
        rest[n] = start[n] - np.int64(origin[n])
    part_groups: Int = np.int64(0)
    own, others = np.empty((0, 0), dtype=np.int32), np.empty((0, 0, 0), dtype=np.int32)
    tried: Int = 0
    proven: Int = 0
    while end < num_positions:
        begin, end = end, min(end + (num_panels if end > 0 else 1) * POSITIONS, num_positions)
        for some in seen:
            copy(met, some)
        for k in range(0, num_terms, per_group):
            for position in range(begin, end, POSITIONS):
                place = (position - begin) * weights.shape[1] + k * POSITIONS
                some = seen[(position - begin) // POSITIONS]
                if width == 1:
                    pack_positions(narrow, k, position, 0, terms, place, survey, some)
                else:
                    pack_positions(wide, k, position, 0, terms, place, survey, some)
        count = (end - begin + POSITIONS - 1) // POSITIONS
        for i in range(count):
            note_ends(seen[i], width, ends[i], survey[-2:])
        own_shift = shift_of_norms(np.int64(255) if width == 1 else max(-survey[-2], survey[-1]))
        scale = shift + own_shift
        for n in range(num_channels):
            farthest[n] = (np.int64(limits[3, n]) >> scale) - np.int64(scale > 0)
        ways = every[:, :, : (end - begin + LANES - 1) // LANES]
        outputs: Int = num_channels * (end - begin)
        length: Int = settled_length
        before: Int = -1
        inside = False
        while True:  # with shorter parts as long as many are marked, and for good where that spared enough
            if length != laid:
                laid, part_groups = length, groups_of_part(length, weights)
                parts = (flat.shape[1] // GROUP_BYTES + part_groups - 1) // part_groups
                own = np.empty((num_channels, parts), dtype=np.int32)
                others = np.empty((num_panels, parts, POSITIONS), dtype=np.int32)
                find_norms(weights, part_groups, width == 2, shift, own)
            find_panel_norms(panels, weights, count, part_groups, width == 1, own_shift, others)
            sum_and_mark(
                weights, panels, begin, count, rest, tiles, part_groups, own, others, scale, origin, farthest,
                accumulators, masks,
            )  # fmt: skip
            for i in range(count):
                inside |= mark_inner(ends[i], begin + i * POSITIONS, inner, masks)
            if end == num_positions:
                unmark_beyond(masks, end)
            rows, marks, alone = choose_ways(masks, begin // LANES, max(thin, SPARSE), ways)
            cost = SPARSE * rows + alone
            if before >= 0 and (before - cost) * _MANY < outputs:
                settled = True
                break
            settled_length = length
            if settled or inside or length == len(TIMES) - 1 or cost * _MANY <= outputs:
                break
            length, before = length + 1, cost
        if marks > 0:
            if alone > few * count and not inside and tried <= _WORTH * proven:
                if tried == 0:
                    lay_groups(weights, groups)
                looked_at, safe = unmark_listed(groups, packed, begin, low, high, ways[2], masks)
                tried, proven = tried + looked_at, proven + safe
            rows, marks, alone = choose_ways(masks, begin // LANES, thin, ways)
        stepped, total = stepped + rows + alone // THIN, total + num_channels * ways.shape[2]
        if stepped * 16 > most * total:
            return False, survey, listed, masks
        if marks > 0:
            listed = with_room(listed, taken, taken + marks)
            taken = step_pass(
                weights, packed, begin, num_terms, masks, start, ways, steps, room, accumulators, listed, taken
            )  # fmt: skip
    return True, survey, listed[:, :taken], masks


@callee
def note_ends(seen: Bytes, size: Int, ends: Narrow, both: Wide) -> None:
    """Bring what was seen of a panel's positions to int32 (2, 64), 0 between, and to the ends of all."""
    if size == 1:
        for i in range(POSITIONS):
            both[0], both[1] = min(both[0], np.int64(seen[i])), max(both[1], np.int64(seen[POSITIONS + i]))
            ends[0, i], ends[1, i] = 0, seen[POSITIONS + i]
    else:
        values = seen.view(np.int16)
        for i in range(POSITIONS):
            low, high = np.int64(values[i]), np.int64(values[POSITIONS + i])
            both[0], both[1] = min(both[0], low), max(both[1], high)
            ends[0, i], ends[1, i] = min(low, np.int64(0)), max(high, np.int64(0))


@callee
def mark_inner(ends: Narrow, position: Int, inner: tuple[Any, Any, Any, Any], masks: Narrow) -> bool:
    """Mark the outputs of a panel of which a register inside a tile may overflow; returns whether there are any."""
    positive, negative, low, high = inner
    found = False
    for n in range(positive.size):
        for i in range(POSITIONS):
            least, greatest = np.int64(ends[0, i]), np.int64(ends[1, i])
            over = greatest * positive[n] + least * negative[n]
            under = greatest * negative[n] + least * positive[n]
            if over > high or under < low:
                masks[n, (position + i) // LANES] |= 1 << (i % LANES)
                found = True
    return found
