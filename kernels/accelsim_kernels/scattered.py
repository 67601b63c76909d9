"""Outputs that bounds leave at risk, wherever they lie: found by their own products, and stepped one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel
from accelsim_kernels.accumulate import Register
from accelsim_kernels.integers import bring_in
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES
from accelsim_kernels.vectors.marks import mark_sixteen
from accelsim_kernels.vectors.scattered import (
    Activations,
    Narrow,
    Weights,
    saturating_scattered,
    saturating_scattered_chains,
    saturating_scattered_trees,
    wrapping_scattered,
    wrapping_scattered_chains,
    wrapping_scattered_trees,
)

Order = tuple[Any, Any, Any, Any, Any]
"""``(tiled, tile, low, high, chained)``: whether terms are summed by tile first, their number, the range of the inner
register, and whether each term is brought into it."""

State = tuple[Any, Any, Any, Any]
"""Of every listed output: sum, events, number of the first one, events of the inner register; int32 arrays."""

_ROWS, _LISTED = 64, 1024
"""Windows and outputs that are brought together at a time."""


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
def load_listed(start: Int, register: Register, state: State, place: Int) -> None:
    """Load the accumulator of a listed output; a start that does not fit is an event of number 0."""
    low, high, saturate = register
    sums, events, firsts, inner_events = state
    outside = start < low or start > high
    sums[place] = bring_in(start, low, high, saturate)
    events[place] = np.int32(outside)
    firsts[place] = 0 if outside else -1
    inner_events[place] = 0


@kernel
def step_listed(
    weights: Weights,
    rows: Activations,
    weight_places: Narrow,
    row_places: Narrow,
    stride: Int,
    num_groups: Int,
    count: Int,
    register: Register,
    order: Order,
    state: State,
) -> None:
    """Add all terms of listed outputs in the order of the dataflow, (13) to (16).

    Parameters
    ----------
    weights, rows, weight_places, row_places, stride, num_groups
        See `accelsim_kernels.vectors.scattered`; the places have room for whole vectors.
    count : int64
        Listed outputs, at least one.
    register : tuple
        The accumulators' ``(low, high, saturate)``.
    order : tuple
        See `Order`.
    state : tuple of arrays
        See `State`; the sums hold the start.
    """
    low, high, saturate = register
    tiled, tile, inner_low, inner_high, chained = order
    sums, events, firsts, inner_events = state
    for place in range(count, (count + LANES - 1) // LANES * LANES):  # lanes that nobody looks at
        weight_places[place], row_places[place] = weight_places[count - 1], row_places[count - 1]
        sums[place], events[place], firsts[place], inner_events[place] = 0, 0, 0, 0
    for first in range(0, count, LANES):
        if not tiled:
            if saturate:
                saturating_scattered(
                    weights, rows, weight_places, row_places, stride, num_groups, first, low, high, tile, inner_low,
                    inner_high, sums, events, firsts, inner_events,
                )  # fmt: skip
            else:
                wrapping_scattered(
                    weights, rows, weight_places, row_places, stride, num_groups, first, low, high, tile, inner_low,
                    inner_high, sums, events, firsts, inner_events,
                )  # fmt: skip
        elif chained:
            if saturate:
                saturating_scattered_chains(
                    weights, rows, weight_places, row_places, stride, num_groups, first, low, high, tile, inner_low,
                    inner_high, sums, events, firsts, inner_events,
                )  # fmt: skip
            else:
                wrapping_scattered_chains(
                    weights, rows, weight_places, row_places, stride, num_groups, first, low, high, tile, inner_low,
                    inner_high, sums, events, firsts, inner_events,
                )  # fmt: skip
        elif saturate:
            saturating_scattered_trees(
                weights, rows, weight_places, row_places, stride, num_groups, first, low, high, tile, inner_low,
                inner_high, sums, events, firsts, inner_events,
            )  # fmt: skip
        else:
            wrapping_scattered_trees(
                weights, rows, weight_places, row_places, stride, num_groups, first, low, high, tile, inner_low,
                inner_high, sums, events, firsts, inner_events,
            )  # fmt: skip


@kernel
def step_windows(
    operands: Activations,
    bases: npt.NDArray[np.int64],
    per_base: Int,
    between: Int,
    places: npt.NDArray[np.int64],
    depthwise: bool,
    weights: Weights,
    start: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    register: Register,
    order: Order,
    listed: Narrow,
    count: Int,
    sums: Narrow,
) -> tuple[Int, Int, Int]:
    """Step listed outputs of a layer and put what their accumulators hold in the place of their exact sums.

    Parameters
    ----------
    operands : uint8 or int16 array
        Activations as the PEs multiply them, padded, channels last.
    bases : int64 array
        Where the windows of ``per_base`` successive positions begin, ``between`` apart.
    per_base, between : int64
        See there.
    places : int64 array, shape (k,)
        Where each term of a window is, after its base, in the machine's order.
    depthwise : bool
        Whether a channel's window begins with its number.
    weights : int8 array, or int16 where the operands are, shape (channels, whole groups of terms)
        In the machine's order, filled up with 0.
    start : int64 array, shape (channels,)
        What the accumulators are loaded with.
    offsets : int64 array, shape (channels,)
        What the kernels' sums are less than the accumulators.
    register, order : tuples
        See `step_listed`.
    listed : int32 array, shape (2, count or more)
        Positions, ascending, and channels.
    count : int64
        How many.
    sums : int32 array, shape (positions, channels)
        Updated.

    Returns
    -------
    tuple of int64
        Events, outputs with an event, events of the inner registers.
    """
    length = weights.shape[1]
    rows = np.zeros((_ROWS, length), dtype=operands.dtype)
    lists = np.empty((6, _LISTED), dtype=np.int32)
    weight_places, row_places = lists[0], lists[1]
    state = (lists[2], lists[3], lists[4], lists[5])
    flat_weights, flat_rows, per_group = weights.reshape(-1), rows.reshape(-1), GROUP_BYTES // weights.itemsize
    num_events, num_outputs, num_inner, done = np.int64(0), np.int64(0), np.int64(0), 0
    run, first = 0, np.int64(0)
    while done < count:
        taken, filled, before = 0, 0, np.int64(-1)
        while taken < _LISTED and done + taken < count:
            position, channel = np.int64(listed[0, done + taken]), np.int64(listed[1, done + taken])
            if depthwise or position != before:
                if filled == _ROWS:
                    break
                while position >= first + per_base:
                    run, first = run + 1, first + per_base
                row, base = rows[filled], bases[run] + (position - first) * between + (channel if depthwise else 0)
                for k in range(places.size):
                    row[k] = operands[base + places[k]]
                filled, before = filled + 1, position
            weight_places[taken], row_places[taken] = channel * length, (filled - 1) * length
            load_listed(start[channel], register, state, taken)
            taken += 1
        step_listed(
            flat_weights, flat_rows, weight_places, row_places, per_group, length // per_group, taken, register, order,
            state,
        )  # fmt: skip
        for i in range(taken):
            channel = np.int64(listed[1, done + i])
            sums[listed[0, done + i], channel] = np.int64(state[0][i]) - offsets[channel]
            num_events += state[1][i]
            num_outputs += np.int64(state[1][i] > 0)
            num_inner += state[3][i]
        done += taken
    return num_events, num_outputs, num_inner
