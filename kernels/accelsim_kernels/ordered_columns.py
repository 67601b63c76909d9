"""Matrix products with all outputs of some channels stepped: lanes are positions, rows channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from accelsim_kernels._jit import Int, callee, kernel
from accelsim_kernels.ordered_tiles import Stepping, load_row, step_tile
from accelsim_kernels.vectors.code import LANES
from accelsim_kernels.vectors.moves import Columns, Narrow, Wide, fetched, filled, laid, laid_in_pairs, widened
from accelsim_kernels.vectors.running_ranges import range_of_products, range_of_tiles
from accelsim_kernels.vectors.tile import ROWS, Vectors

Outputs = tuple[Any, Any, Any, Any]
"""Accumulators, events, numbers of the first event, events of the inner registers: int64, shape (n, p); the last one of
shape (0, 0) where there are none."""

PANEL = 16
"""Blocks of `LANES` positions that are laid out at a time: 8-bit activations of as many are four lines of the cache."""


@callee
def lay_columns(columns: Columns, begin: Int, tile: Int, shift: Int, room: Vectors) -> None:
    """Bring the activations of some blocks of positions into the order in which steps read them.

    Parameters
    ----------
    columns : uint8, int16 or int32 array, shape (k, p)
        Activations.
    begin : int64
        The first position.
    tile : int64
        Terms after which a new pair begins.
    shift : int64
        By how much each is shifted to the left.
    room : int16 or int32 array, shape (blocks, size)
        Output: by block, then by pair of terms or by term, then by position; beside the last term of an odd tile is 0.
    """
    num_terms, num_positions = columns.shape
    words, flat, paired = room.reshape(-1).view(np.int32), columns.reshape(-1), room.itemsize == 2
    size, place = words.size // room.shape[0], 0
    edge, mask = np.zeros(2 * LANES, dtype=columns.dtype), np.int64(0xFFFF if paired else -1)
    end = min(begin + room.shape[0] * LANES, num_positions)
    for first in range(0, num_terms, tile):
        last = min(first + tile, num_terms)
        for k in range(first, last, 2 if paired else 1):
            both = paired and k + 1 < last
            for position in range(begin, end, LANES):
                target, low = (position - begin) // LANES * size + place, k * num_positions + position
                high = low + num_positions if both else low
                if position + LANES > num_positions:
                    for lane in range(num_positions - position):
                        edge[lane], edge[LANES + lane] = flat[low + lane], flat[high + lane]
                    if both:
                        laid_in_pairs(edge, np.int64(0), np.int64(LANES), shift, words, target)
                    else:
                        laid(edge, np.int64(0), shift, mask, words, target)
                elif both:
                    laid_in_pairs(flat, low, high, shift, words, target)
                else:
                    laid(flat, low, shift, mask, words, target)
            place += LANES


@callee
def write(values: Narrow, row: Int, output: Wide, place: Int, count: Int) -> None:
    """Copy the first values of a row of a tile to where they belong."""
    if count >= LANES:
        widened(values, row * LANES, output, place)
    else:
        for lane in range(count):
            output[place + lane] = values[row * LANES + lane]


@kernel
def step_columns(
    columns: Columns, numbers: Narrow, channels: Wide, start: Wide, terms: Int, shift: Int, stepping: Stepping,
    saturate: bool, room: Vectors, outputs: Outputs,
) -> None:  # fmt: skip
    """Add the products of some channels at all positions in the order of the dataflow, (13) to (16).

    Parameters
    ----------
    columns : uint8, int16 or int32 array, shape (k, p)
        Activations.
    numbers : int32 array, shape (rows, length)
        Weights, see `lay_numbers`; a multiple of `ROWS` rows.
    channels : int64 array
        Which channel each row is; fewer than rows where the last ones are none.
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    terms, shift : int64
        The tile and the shift of `lay_columns`.
    stepping, saturate
        See `step_tile`.
    room : int16 or int32 array
        For up to `PANEL` blocks, see `lay_columns`; overwritten.
    outputs : tuple of arrays
        See `Outputs`; other channels are left alone.
    """
    accumulators, events, firsts = outputs[0].reshape(-1), outputs[1].reshape(-1), outputs[2].reshape(-1)
    inner_events = outputs[3].reshape(-1)
    num_positions, length, flat = columns.shape[1], numbers.shape[1], numbers.reshape(-1)
    lists = np.empty((4, ROWS * LANES), dtype=np.int32)
    state, vectors = (lists[0], lists[1], lists[2], lists[3]), room.reshape(-1)
    for begin in range(0, num_positions, room.shape[0] * LANES):
        lay_columns(columns, begin, terms, shift, room)
        for first in range(0, channels.size, ROWS):
            count = min(ROWS, channels.size - first)
            for position in range(begin, min(begin + room.shape[0] * LANES, num_positions), LANES):
                for r in range(ROWS):
                    channel = channels[first + min(r, count - 1)]
                    load_row(start[channel], stepping, saturate, state, r)
                    output = channel * num_positions + position
                    fetched(accumulators, output)
                    fetched(events, output)
                    fetched(firsts, output)
                    if inner_events.size:
                        fetched(inner_events, output)
                place = (position - begin) // LANES * room.shape[1]
                step_tile(vectors, place, flat, first * length, length, stepping, saturate, state, np.int64(count))
                left = num_positions - position
                for r in range(count):
                    output = channels[first + r] * num_positions + position
                    write(state[0], r, accumulators, output, left)
                    write(state[1], r, events, output, left)
                    write(state[2], r, firsts, output, left)
                    if inner_events.size:
                        write(state[3], r, inner_events, output, left)


@kernel
def range_columns(
    columns: Columns, numbers: Narrow, channels: Wide, start: Wide, terms: Int, tile: Int, room: Vectors,
    least: Wide, most: Wide, total: Wide,
) -> None:  # fmt: skip
    """Find the least and greatest value of the unbounded running sums of some channels; numerics.md, section 3.

    Parameters
    ----------
    columns, numbers, channels, start, terms, room
        As in `step_columns`.
    tile : int64
        Numbers between two values that count; 0: every product does, and the numbers are halves.
    least, most, total : int64 arrays, shape (n, p)
        Outputs: the range, and the sum after the last addition; other channels are left alone.
    """
    num_positions, length, flat = columns.shape[1], numbers.shape[1], numbers.reshape(-1)
    lists, outputs = (
        np.empty((3, ROWS * LANES), dtype=np.int32),
        (least.reshape(-1), most.reshape(-1), total.reshape(-1)),
    )
    lows, highs, sums, vectors = lists[0], lists[1], lists[2], room.reshape(-1)
    for begin in range(0, num_positions, room.shape[0] * LANES):
        lay_columns(columns, begin, terms, np.int64(0), room)
        for first in range(0, channels.size, ROWS):
            count = min(ROWS, channels.size - first)
            for position in range(begin, min(begin + room.shape[0] * LANES, num_positions), LANES):
                for r in range(ROWS):
                    channel = channels[first + min(r, count - 1)]
                    output = channel * num_positions + position
                    for i in range(3):
                        filled(start[channel], lists[i], r * LANES)
                        fetched(outputs[i], output)
                place = (position - begin) // LANES * room.shape[1]
                if tile == 0:
                    range_of_products(vectors, place, flat, first * length, length, tile, lows, highs, sums)
                else:
                    range_of_tiles(vectors, place, flat, first * length, length, tile, lows, highs, sums)
                left = num_positions - position
                for r in range(count):
                    output = channels[first + r] * num_positions + position
                    write(lows, r, outputs[0], output, left)
                    write(highs, r, outputs[1], output, left)
                    write(sums, r, outputs[2], output, left)
