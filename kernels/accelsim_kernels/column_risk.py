"""Matrix products with outputs at risk: all sums and their bounds in one pass, then what those leave is stepped."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel
from accelsim_kernels.accumulate import Register
from accelsim_kernels.exact import no_ends
from accelsim_kernels.scattered import Order, load_listed, step_listed
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES, Bytes
from accelsim_kernels.vectors.columns import CHANNELS_OF_TILE, POSITIONS, pack_positions
from accelsim_kernels.vectors.part_tiles import Narrow, part_tile_s16, part_tile_u8

Weights = npt.NDArray[np.int8] | npt.NDArray[np.int16]
Columns = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Wide = npt.NDArray[np.int64]

Parts = tuple[Any, Any, Any, Any, Any]
"""Groups of a part; sums of the positive and of the negative weights of every part, int32 arrays (n, parts); what a
channel's sum of products must not pass, int32 arrays (n,)."""

Outputs = tuple[Any, Any, Any, Any]
"""Accumulators, events, numbers of the first event, events of the inner registers: int64, shape (n, p); the last one of
shape (0, 0) where there can be none."""

_PANELS, _PACKED_BYTES, _LINE_BYTES = 16, 1 << 20, 64
"""Most panels that are packed at a time, most bytes of them, and a line of the cache."""

_LISTED = 1024
"""Outputs that are brought together at a time."""


@kernel
def pack_panel(columns: Columns, begin: Int, packed: Bytes, nonzero: Wide, ends: Bytes) -> None:
    """Pack 64 positions from ``begin`` on; see `accelsim_kernels.vectors.columns.pack_positions`."""
    per_group = GROUP_BYTES // columns.itemsize
    for k in range(0, columns.shape[0], per_group):
        pack_positions(columns, k, begin, 0, packed, k // per_group * GROUP_BYTES * POSITIONS, nonzero, ends)


@kernel
def sum_parts(weights: Weights, size: Int, positive: Narrow, negative: Narrow) -> None:
    """Sum the positive and the negative weights of every part of ``size`` terms; int32 arrays, shape (n, parts)."""
    for n in range(weights.shape[0]):
        for part in range(positive.shape[1]):
            some = weights[n, part * size : min((part + 1) * size, weights.shape[1])]
            over, under = np.int32(0), np.int32(0)
            for weight in some:
                over += np.int32(max(weight, 0))
                under += np.int32(min(weight, 0))
            positive[n, part], negative[n, part] = over, under


@kernel
def sum_and_mark(
    weights: Weights, columns: Columns, start: Wide, parts: Parts, inner: tuple[Any, Any, Any, Any], nonzero: Wide,
    most: Int, accumulators: Wide, masks: Narrow,
) -> tuple[Int, Int, bool]:  # fmt: skip
    """Compute ``start[n] + Σ_k w·x`` and mark the outputs that (108) does not prove safe.

    Parameters
    ----------
    weights : int8 or int16 array, shape (n, length)
        Filled up with 0 to whole groups of `GROUP_BYTES`.
    columns : uint8 or uint16 array, shape (k, p)
        Activations, unsigned of 8 bits or the bits of signed ones of 16.
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    parts : tuple
        See `Parts`.
    inner : tuple
        Sums of the positive and of the negative weights, int32 arrays of shape (n,), of the tile with the greatest and
        with the least one; range of the inner registers.
    nonzero : int64 array, shape (length,)
        Activations of every term that are not 0; added to.
    most : int64
        Of 16 outputs of all positions so far, how many may be marked for the work to go on.
    accumulators : int64 array, shape (n, p)
        Output: the sums.
    masks : int32 array, shape (n, 4 * panels)
        Output: a bit per position; beyond the last position it means nothing.

    Returns
    -------
    tuple
        Least and greatest activation, int64, and whether all is done.
    """
    part_groups, positive, negative, low, high = parts
    num_channels, num_positions = accumulators.shape
    size, flat = weights.itemsize, weights.view(np.uint8)
    panel, per_group = flat.shape[1] * POSITIONS, GROUP_BYTES // size
    num_panels = max(1, min(_PANELS, _PACKED_BYTES // panel, (num_positions + POSITIONS - 1) // POSITIONS))
    memory = np.empty(num_panels * panel + _LINE_BYTES, dtype=np.uint8)
    packed = memory[-memory.ctypes.data % _LINE_BYTES :]
    rows = np.minimum(np.arange(0, num_channels + CHANNELS_OF_TILE - 1), num_channels - 1)
    met, ends = no_ends(size), np.empty((num_panels, 2, POSITIONS), dtype=np.int32)
    seen = np.empty((num_panels, met.size), dtype=np.uint8)
    least, greatest, marked = np.int64(1 << 16), np.int64(-(1 << 16)), np.int64(0)
    end = np.int64(0)
    while end < num_positions:
        begin, end = end, min(end + (num_panels if end > 0 else 1) * POSITIONS, num_positions)
        seen[:] = met
        for k in range(0, columns.shape[0], per_group):
            for position in range(begin, end, POSITIONS):
                place = (position - begin) * flat.shape[1] + k // per_group * GROUP_BYTES * POSITIONS
                own = seen[(position - begin) // POSITIONS]
                pack_positions(columns, k, position, 0, packed, place, nonzero, own)
        for i in range((end - begin + POSITIONS - 1) // POSITIONS):
            own_ends = note_ends(seen[i], size, ends[i])
            least, greatest = min(least, np.int64(own_ends[0])), max(greatest, np.int64(own_ends[1]))
        for first in range(0, num_channels, CHANNELS_OF_TILE):
            for position in range(begin, end, POSITIONS):
                place = (position - begin) * flat.shape[1]
                if size == 1:
                    part_tile_u8(
                        flat, first, packed, place, start, rows, position, accumulators, part_groups, positive,
                        negative, low, high, ends, (position - begin) // POSITIONS, masks,
                    )  # fmt: skip
                else:
                    part_tile_s16(
                        flat, first, packed, place, start, rows, position, accumulators, part_groups, positive,
                        negative, low, high, ends, (position - begin) // POSITIONS, masks,
                    )  # fmt: skip
        for position in range(begin, end, POSITIONS):
            mark_inner(ends[(position - begin) // POSITIONS], position, inner, masks)
        marked += count_marks(masks, begin // LANES, (end + LANES - 1) // LANES)
        if marked * LANES > most * num_channels * end:
            return least, greatest, False
    return least, greatest, True


@kernel
def count_marks(masks: Narrow, begin: Int, end: Int) -> Int:
    """Count the bits of some blocks of all channels."""
    count = np.int64(0)
    for n in range(masks.shape[0]):
        for block in range(begin, end):
            mask = np.int64(masks[n, block])
            mask -= (mask >> 1) & 0x5555
            mask = (mask & 0x3333) + ((mask >> 2) & 0x3333)
            mask = (mask + (mask >> 4)) & 0x0F0F
            count += (mask + (mask >> 8)) & 0x1F
    return count


@kernel
def note_ends(seen: Bytes, size: Int, ends: Narrow) -> tuple[Int, Int]:
    """Bring what was seen of a panel's positions to int32 (2, 64), 0 between; returns the least and greatest of all."""
    least, greatest = np.int64(1 << 16), np.int64(-(1 << 16))
    if size == 1:
        for i in range(POSITIONS):
            least, greatest = min(least, np.int64(seen[i])), max(greatest, np.int64(seen[POSITIONS + i]))
            ends[0, i], ends[1, i] = 0, seen[POSITIONS + i]
    else:
        values = seen.view(np.int16)
        for i in range(POSITIONS):
            low, high = np.int64(values[i]), np.int64(values[POSITIONS + i])
            least, greatest = min(least, low), max(greatest, high)
            ends[0, i], ends[1, i] = min(low, np.int64(0)), max(high, np.int64(0))
    return least, greatest


@kernel
def mark_inner(ends: Narrow, position: Int, inner: tuple[Any, Any, Any, Any], masks: Narrow) -> None:
    """Mark the outputs of a panel of which a register inside a tile may overflow."""
    positive, negative, low, high = inner
    for n in range(positive.size):
        for i in range(POSITIONS):
            least, greatest = np.int64(ends[0, i]), np.int64(ends[1, i])
            over = greatest * positive[n] + least * negative[n]
            under = greatest * negative[n] + least * positive[n]
            if over > high or under < low:
                masks[n, (position + i) // LANES] |= 1 << (i % LANES)


@kernel
def step_marked(
    weights: Weights, columns: Columns, start: Wide, masks: Narrow, room: Any,
    register: Register, order: Order, outputs: Outputs,
) -> None:  # fmt: skip
    """Step the marked outputs in the order of the dataflow, (13) to (16).

    Parameters
    ----------
    weights, columns, start, masks
        As of `sum_and_mark`.
    room : uint8 or int16 array, shape (length * 64,)
        Overwritten.
    register, order : tuples
        See `accelsim_kernels.scattered.step_listed`.
    outputs : tuple of arrays
        See `Outputs`; other outputs are left alone.
    """
    accumulators, events, first, inner_events = outputs
    num_channels, num_positions = accumulators.shape
    length, per_group = weights.shape[1], GROUP_BYTES // weights.itemsize
    nonzero, ends, lists = np.zeros(length, dtype=np.int64), no_ends(weights.itemsize), np.empty((8, _LISTED), np.int32)
    channels, positions, weight_places, row_places = lists[0], lists[1], lists[2], lists[3]
    state = (lists[4], lists[5], lists[6], lists[7])
    flat, packed = weights.reshape(-1), room.view(np.uint8)
    for begin in range(0, num_positions, POSITIONS):
        block, taken = begin // LANES, 0
        if not np.any(masks[:, block : block + POSITIONS // LANES]):
            continue
        pack_panel(columns, begin, packed, nonzero, ends)
        for n in range(num_channels):
            for v in range(POSITIONS // LANES):
                mask, position = masks[n, block + v], begin + v * LANES
                while mask != 0 and position < num_positions:
                    if mask & 1:
                        channels[taken], positions[taken] = n, position
                        weight_places[taken], row_places[taken] = n * length, (position - begin) * per_group
                        load_listed(start[n], register, state, taken)
                        taken += 1
                    mask >>= 1
                    position += 1
            if taken > 0 and (taken > _LISTED - POSITIONS or n == num_channels - 1):
                step_listed(
                    flat, room, weight_places, row_places, per_group * POSITIONS, length // per_group, taken, register,
                    order, state,
                )  # fmt: skip
                for i in range(taken):
                    row, column = channels[i], positions[i]
                    accumulators[row, column], events[row, column] = state[0][i], state[1][i]
                    first[row, column] = state[2][i]
                    if state[3][i] != 0:
                        inner_events[row, column] = state[3][i]
                taken = 0
