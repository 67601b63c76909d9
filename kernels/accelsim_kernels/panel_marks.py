"""Sums of panels of a matrix product, and marks where bounds by parts do not prove them safe: (108) and (121)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, callee
from accelsim_kernels.vectors.code import GROUP_BYTES
from accelsim_kernels.vectors.columns import CHANNELS_OF_TILE, POSITIONS
from accelsim_kernels.vectors.part_tiles import part_tile_s16, part_tile_u8
from accelsim_kernels.vectors.running_tiles import (
    CHANNELS_OF_RUNNING_TILE,
    LONG,
    running_tile_s16_long,
    running_tile_s16_short,
    running_tile_u8_long,
    running_tile_u8_short,
)

Narrow = npt.NDArray[np.int32]
Wide = npt.NDArray[np.int64]

Parts = tuple[Any, Any, Any]
"""Groups of a part; `sums` and `limits` of `accelsim_kernels.column_risk.limit_parts`."""

QUARTERS = 0
"""Parts as these say, and not `LONG` or `SHORT` ones: each takes more time than the one before, and marks less."""


@callee
def find_reach(weights: Any, part_groups: Int, reach: Narrow) -> None:
    """Find the greatest sum of the positive weights of a part, and the least of the negative ones, of every channel.

    Parameters
    ----------
    weights : int8 or int16 array, shape (n, length)
        In whole groups.
    part_groups : int64
        Groups of a part.
    reach : int32 array, shape (2, n)
        Output.
    """
    size = part_groups * (GROUP_BYTES // weights.itemsize)
    reach[:] = 0
    for n in range(weights.shape[0]):
        for begin in range(0, weights.shape[1], size):
            up, down = np.int32(0), np.int32(0)
            for weight in weights[n, begin : begin + size]:
                up += max(np.int32(weight), np.int32(0))
                down += min(np.int32(weight), np.int32(0))
            reach[0, n], reach[1, n] = max(reach[0, n], up), min(reach[1, n], down)


@callee
def sum_and_mark(
    weights: Any, panels: Any, begin: Int, num_panels: Int, start: Wide, rows: Wide, length: Int, parts: Parts,
    reach: Narrow, ends: Narrow, accumulators: Wide, masks: Narrow,
) -> None:  # fmt: skip
    """Compute ``start[n] + Σ_k w·x`` of some panels and mark the outputs that a bound does not prove safe.

    Parameters
    ----------
    weights : int8 or int16 array, shape (n, length)
        In whole groups.
    panels : uint8 array
        Packed, from position ``begin`` on.
    begin, num_panels : int64
        See there; how many.
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    rows : int64 array
        The channels, the last one as often as a tile needs.
    length : int64
        `QUARTERS`, for (108), or `LONG` or `SHORT`, for (121).
    parts : tuple
        See `Parts`.
    reach : int32 array, shape (2, n)
        Of (121), see `find_reach`.
    ends : int32 array, shape (panels, 2, 64)
        Of every position what no activation is less than and what none is greater than; 0 lies between them.
    accumulators : int64 array, shape (n, p)
        Output.
    masks : int32 array, shape (n, blocks of all positions)
        Output: a bit per position.
    """
    flat, (groups, (up, down), (low, high)) = weights.view(np.uint8), parts
    size, panel = weights.itemsize, flat.shape[1] * POSITIONS
    for first in range(0, weights.shape[0], CHANNELS_OF_TILE if length == QUARTERS else CHANNELS_OF_RUNNING_TILE):
        for i in range(num_panels):
            place, position = i * panel, begin + i * POSITIONS
            if length == QUARTERS and size == 1:
                part_tile_u8(
                    flat, first, panels, place, start, rows, position, accumulators, groups, up, down, low, high, ends,
                    i, masks,
                )  # fmt: skip
            elif length == QUARTERS:
                part_tile_s16(
                    flat, first, panels, place, start, rows, position, accumulators, groups, up, down, low, high, ends,
                    i, masks,
                )  # fmt: skip
            elif length == LONG and size == 1:
                running_tile_u8_long(
                    flat, first, panels, place, start, rows, position, accumulators, reach, low, high, ends, i, masks
                )  # fmt: skip
            elif length == LONG:
                running_tile_s16_long(
                    flat, first, panels, place, start, rows, position, accumulators, reach, low, high, ends, i, masks
                )  # fmt: skip
            elif size == 1:
                running_tile_u8_short(
                    flat, first, panels, place, start, rows, position, accumulators, reach, low, high, ends, i, masks
                )  # fmt: skip
            else:
                running_tile_s16_short(
                    flat, first, panels, place, start, rows, position, accumulators, reach, low, high, ends, i, masks
                )  # fmt: skip
