"""The kernel calls of safe layers whose requantization has 32-bit lanes: made once for all batches of one length.

Between the kernels of a small batch there is as much Python as there is arithmetic; what does not depend on the codes
is not worked out again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.simulator.engine.dots import PackedWeights, near_sums, unsigned
from accelsim.simulator.engine.lanes import LaneConstants
from accelsim.simulator.engine.tap_weights import TapWeights
from accelsim.simulator.engine.windows import Windows
from accelsim_kernels.layer_rows import depthwise_layer, depthwise_layer_dots, dot_layer
from accelsim_kernels.vectors.code import LANES

Codes = npt.NDArray[Any]
Call = Callable[[Codes], Codes]
"""Takes operands, of `LayerOperands.of`, and returns codes (positions, channels)."""

NEAR_SUM_BYTES = 16 << 10
"""Sums that are held at a time where they are requantized in 32-bit lanes: they stay in the first-level cache."""


def dot_call(groups: list[PackedWeights], lanes: list[LaneConstants], windows: Windows, dtype: np.dtype[Any]) -> Call:
    """Return the call that multiplies windows with all channels, group by group.

    Parameters
    ----------
    groups : list of PackedWeights
        Weights of every group.
    lanes : list of LaneConstants
        Requantization of every group, filled up as its weights are.
    windows : Windows
        Where the windows of a batch lie.
    dtype : numpy dtype
        Of the codes.
    """
    packed, words = groups[0], groups[0].words
    size, per_group, num_windows = 2 if words else 1, len(groups[0].weights), windows.num_windows
    channels = per_group * len(groups)
    places, segments = windows.in_bytes(size)
    bits = unsigned(dtype.itemsize)
    at_a_time = packed.whole_tiles(min(packed.positions_at_a_time(NEAR_SUM_BYTES), num_windows))
    room = at_a_time, packed.width
    calls = [
        (
            group * windows.group_offset * size,
            (places, segments, np.int64(weights.groups), weights.packed, words, weights.lost),
            (constants.constants, constants.two),
            (channels, group * per_group, per_group),
        )
        for group, (weights, constants) in enumerate(zip(groups, lanes, strict=True))
    ]

    def call(operands: Codes) -> Codes:
        stored, sums = np.empty(num_windows * channels, dtype=bits), near_sums(room)
        flat = operands.view(np.uint8) if words else operands
        for begin, factors, requantization, part in calls:
            dot_layer(flat[begin:] if begin else flat, *factors, sums, *requantization, stored, part)
        return stored.view(dtype).reshape(num_windows, channels)

    return call


def depthwise_call(taps: TapWeights, lanes: LaneConstants, windows: Windows, dtype: np.dtype[Any]) -> Call:
    """Return the call that convolves every channel with its own kernel; parameters as of `dot_call`."""
    run, channels, num_windows, by_dots = windows.run, len(taps.weights), windows.num_windows, taps.by_dots
    bits = unsigned(dtype.itemsize)
    at_a_time = min(max(1, NEAR_SUM_BYTES // (4 * run)), num_windows)
    room = (at_a_time * run + LANES,)
    where = windows.in_bytes(1)[0], run, windows.segments, taps.repeated
    for_dots = taps.for_dots(windows.segments) if by_dots else None
    requantization = lanes.constants, lanes.two

    def call(operands: Codes) -> Codes:
        stored, sums = np.empty(num_windows * run, dtype=bits), near_sums(room)[:-LANES]
        if for_dots is not None:
            depthwise_layer_dots(operands, *where, for_dots, sums, *requantization, stored)
        else:
            depthwise_layer(operands, *where, sums, *requantization, stored)
        return stored.view(dtype).reshape(-1, channels)

    return call
