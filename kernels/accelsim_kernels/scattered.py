"""Outputs that bounds leave at risk, wherever they lie, stepped one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, callee, kernel
from accelsim_kernels.accumulate import Register
from accelsim_kernels.integers import bring_in
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES
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

_LISTED = 64
"""Outputs that are brought together at a time."""


@callee
def load_listed(start: Int, register: Register, state: State, place: Int) -> None:
    """Load the accumulator of a listed output; a start that does not fit is an event of number 0."""
    low, high, saturate = register
    sums, events, firsts, inner_events = state
    outside = start < low or start > high
    sums[place] = bring_in(start, low, high, saturate)
    events[place] = np.int32(outside)
    firsts[place] = 0 if outside else -1
    inner_events[place] = 0


@callee
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
def step_channels(
    operands: Activations, bases: npt.NDArray[np.int64], per_base: Int, places: npt.NDArray[np.int64],
    weights: Weights, start: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64], register: Register, order: Order,
    listed: Narrow, count: Int, sums: Narrow,
) -> tuple[Int, Int, Int]:  # fmt: skip
    """Step listed outputs of a depthwise layer and put what they hold in the place of their exact sums.

    Parameters
    ----------
    operands : uint8 or int16 array
        Activations as the PEs multiply them, padded, channels last.
    bases : int64 array
        Where the windows of ``per_base`` successive positions begin, all channels of one apart.
    per_base : int64
        See there.
    places : int64 array, shape (k,)
        Where each term of a window is, after its base and the number of its channel, in the machine's order.
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
    num_channels, length = weights.shape
    rows, lists = np.zeros((_LISTED, length), dtype=operands.dtype), np.empty((6, _LISTED), dtype=np.int32)
    weight_places, row_places = lists[0], lists[1]
    state = (lists[2], lists[3], lists[4], lists[5])
    flat_weights, flat_rows, per_group = weights.reshape(-1), rows.reshape(-1), GROUP_BYTES // weights.itemsize
    num_events, num_outputs, num_inner = np.int64(0), np.int64(0), np.int64(0)
    for first in range(0, count, _LISTED):
        taken = min(_LISTED, count - first)
        for i in range(taken):
            position, channel, row = np.int64(listed[0, first + i]), np.int64(listed[1, first + i]), rows[i]
            base = bases[position // per_base] + position % per_base * num_channels + channel
            for k in range(places.size):
                row[k] = operands[base + places[k]]
            weight_places[i], row_places[i] = channel * length, i * length
            load_listed(start[channel], register, state, i)
        step_listed(
            flat_weights, flat_rows, weight_places, row_places, per_group, length // per_group, taken, register, order,
            state,
        )  # fmt: skip
        for i in range(taken):
            channel = np.int64(listed[1, first + i])
            sums[listed[0, first + i], channel] = np.int64(state[0][i]) - offsets[channel]
            num_events += state[1][i]
            num_outputs += np.int64(state[1][i] > 0)
            num_inner += state[3][i]
    return num_events, num_outputs, num_inner
