"""Marked outputs of a matrix product where many lie together: six positions or channels of sixteen are stepped."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, callee
from accelsim_kernels.accumulate import Register
from accelsim_kernels.integers import bring_in, copy
from accelsim_kernels.ordered_tiles import State, load_row, step_tile
from accelsim_kernels.term_layout import lay_block, lay_position
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES
from accelsim_kernels.vectors.tile import ROWS

Narrow = npt.NDArray[np.int32]
Wide = npt.NDArray[np.int64]

Steps = tuple[Any, Any, Any, Any]
"""The forms in which lanes are channels and in which they are positions; the register and the order of
`accelsim_kernels.scattered.step_listed`. Forms are those of `accelsim_kernels.term_layout`."""


@callee
def load_lanes(start: Wide, block: Int, register: Register, state: State) -> None:
    """Load the accumulators of six rows whose lanes are a block of channels."""
    sums, events, firsts, inner_events = state
    low, high, saturate = register
    for lane in range(LANES):
        n = block * LANES + lane
        value = start[n] if n < start.size else np.int64(0)
        outside = value < low or value > high
        held = bring_in(value, low, high, saturate)
        for r in range(ROWS):
            place = r * LANES + lane
            sums[place], events[place], firsts[place], inner_events[place] = held, outside, -np.int64(not outside), 0


@callee
def note(
    state: State, row: Int, lanes: Int, output: Int, step: Int, accumulators: Wide, listed: Wide, taken: Int
) -> Int:
    """List the outputs of a row that have events and set what their accumulators hold; returns how many are listed.

    Parameters
    ----------
    state : tuple of arrays
        See `accelsim_kernels.ordered_tiles.State`.
    row, lanes : int64
        Which one, and its lanes that count, bits.
    output, step : int64
        Where the first lane's output is among all, and how far apart two are.
    accumulators : int64 array, shape (n * p,)
        Output.
    listed : int64 array, shape (4, all marks)
        Outputs, their events, numbers of the first one, events of inner registers; appended to.
    taken : int64
        How many are listed.
    """
    sums, events, firsts, inner_events = state
    found = np.int32(0)
    for lane in range(row * LANES, (row + 1) * LANES):
        found |= events[lane] | inner_events[lane]
    if found == 0:
        return taken
    for lane in range(LANES):
        place = row * LANES + lane
        if (lanes >> lane) & 1 and (events[place] | inner_events[place]):
            accumulators[output + lane * step] = sums[place]
            listed[0, taken], listed[1, taken] = output + lane * step, events[place]
            listed[2, taken], listed[3, taken] = firsts[place], inner_events[place]
            taken += 1
    return taken


@callee
def step_positions(
    packed: Any, begin: Int, num_terms: Int, start: Wide, ways: Narrow, steps: Steps, vectors: Any,
    accumulators: Wide, listed: Wide, taken: Int,
) -> Int:  # fmt: skip
    """Step the positions that are chosen, six at a time, lanes being channels.

    Parameters
    ----------
    packed : uint8 or int16 array
        Panels, from position ``begin`` on.
    begin, num_terms : int64
        See there; K.
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    ways : int32 array, shape (3, blocks of channels, blocks of positions)
        See `accelsim_kernels.marked_outputs.choose_ways`.
    steps : tuple
        See `Steps`.
    vectors : int16 or int32 array, shape (blocks of channels, size)
        Weights.
    accumulators, listed, taken
        See `note`.
    """
    _, _, _, length, _, _, stepping = steps[0]
    num_positions, flat = accumulators.shape[1], accumulators.reshape(-1)
    per_group = GROUP_BYTES // packed.itemsize
    line = np.empty((num_terms + per_group - 1) // per_group * per_group, dtype=packed.dtype)
    lists = np.empty((ways.shape[1], ways.shape[2] * LANES), dtype=np.int32)
    counts, most = np.zeros(ways.shape[1], dtype=np.int64), np.int64(0)
    for b in range(ways.shape[1]):
        for v in range(ways.shape[2]):
            mask, position = ways[0, b, v], v * LANES
            while mask != 0:
                if mask & 1:
                    lists[b, counts[b]] = position
                    counts[b] += 1
                mask >>= 1
                position += 1
        most = max(most, counts[b])
    numbers, laid = np.empty(ROWS * length, dtype=np.int32), np.empty(ROWS, dtype=np.int32)
    laid[:] = -1
    words = np.empty((4, ROWS * LANES), dtype=np.int32)
    state = (words[0], words[1], words[2], words[3])
    for first in range(0, most, ROWS):
        for b in range(ways.shape[1]):
            count = min(ROWS, counts[b] - first)
            for r in range(count):
                position = lists[b, first + r]
                if position != laid[r]:
                    laid[r] = position
                    own = numbers[r * length : (r + 1) * length]
                    lay_position(packed, position, num_terms, steps[0], vectors.itemsize == 2, line, own)
            if count > 0:
                load_lanes(start, b, steps[2], state)
                step_tile(
                    vectors.reshape(-1), b * vectors.shape[1], numbers, np.int64(0), length, stepping, steps[2][2],
                    state, np.int64(count),
                )  # fmt: skip
            for r in range(count):
                output = b * LANES * num_positions + begin + laid[r]
                lanes = np.int64((1 << min(LANES, start.size - b * LANES)) - 1)
                lanes &= ~np.int64(ways[1, b, laid[r] // LANES])
                taken = note(state, r, lanes, output, num_positions, flat, listed, taken)
    return taken


@callee
def step_channels(
    packed: Any, begin: Int, num_terms: Int, start: Wide, ways: Narrow, steps: Steps, rows: Narrow, room: Any,
    accumulators: Wide, listed: Wide, taken: Int,
) -> Int:  # fmt: skip
    """Step the channels that are chosen, six at a time, lanes being positions.

    Parameters
    ----------
    packed, begin, num_terms, start, ways, steps, accumulators, listed, taken
        As of `step_positions`; ways are the bits of channels.
    rows : int32 array, shape (n, length)
        Weights.
    room : int16 or int32 array
        For sixteen positions; overwritten.
    """
    _, _, _, length, _, _, stepping = steps[1]
    per_group = GROUP_BYTES // packed.itemsize
    line = np.empty((num_terms + per_group - 1) // per_group * per_group, dtype=packed.dtype)
    num_positions, flat = accumulators.shape[1], accumulators.reshape(-1)
    numbers, laid = np.zeros(ROWS * length, dtype=np.int32), np.empty(ROWS, dtype=np.int64)
    laid[:] = -1
    words, channels = np.empty((4, ROWS * LANES), dtype=np.int32), np.empty(start.size + ROWS, dtype=np.int64)
    state = (words[0], words[1], words[2], words[3])
    for v in range(ways.shape[1]):
        count, position = 0, begin + v * LANES
        for n in range(start.size):
            if (ways[n // LANES, v] >> (n % LANES)) & 1:
                channels[count] = n
                count += 1
        if count > 0:
            lay_block(packed, v * LANES, num_terms, steps[1], room.itemsize == 2, line, room.view(np.int32))
        lanes = np.int64((1 << min(LANES, num_positions - position)) - 1)
        for first in range(0, count, ROWS):
            own = min(ROWS, count - first)
            for r in range(own):
                n = channels[first + r]
                if n != laid[r]:
                    laid[r] = n
                    copy(rows[n], numbers[r * length :])
            for r in range(ROWS):
                load_row(start[channels[first + min(r, own - 1)]], stepping, steps[2][2], state, r)
            step_tile(room, np.int64(0), numbers, np.int64(0), length, stepping, steps[2][2], state, np.int64(own))
            for r in range(own):
                output = channels[first + r] * num_positions + position
                taken = note(state, r, lanes, output, np.int64(1), flat, listed, taken)
    return taken
