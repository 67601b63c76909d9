"""Ordered dot products whose values fit the lanes of a vector: six channels by sixteen positions at a time.

The engine proves, before it calls these, that no value leaves its lane: docs/numerics.md (102).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel
from accelsim_kernels.accumulate import Register, load_start
from accelsim_kernels.vectors.code import LANES
from accelsim_kernels.vectors.steps import (
    CHANNELS,
    Operands,
    Wide,
    range_of_products,
    range_of_tiles,
    saturating_chains,
    saturating_products,
    saturating_products_noting,
    saturating_trees,
    wrapping_chains,
    wrapping_products,
    wrapping_products_noting,
    wrapping_trees,
)

_BLOCKS = 32
"""Blocks that are written at a time."""

Outputs = tuple[Any, Any, Any, Any]
"""Accumulators, events, numbers of the first event, events of the inner registers: int64, shape (n, 16 * blocks)."""


@kernel
def cut_into_blocks(columns: Operands, blocks: Operands) -> None:
    """Bring columns (k, 16 * blocks) into the order (blocks, k, 16), some blocks at a time."""
    for first in range(0, blocks.shape[0], _BLOCKS):
        last = min(first + _BLOCKS, blocks.shape[0])
        for k in range(columns.shape[0]):
            for block in range(first, last):
                for lane in range(LANES):
                    blocks[block, k, lane] = columns[k, block * LANES + lane]


@kernel
def step_products(
    weights: Operands, columns: Operands, start: npt.NDArray[np.int64], rows: Wide, register: Register,
    noting: bool, outputs: Outputs,
) -> None:  # fmt: skip
    """Add one product at a time, (13).

    Parameters
    ----------
    weights : int32 or int16 array, shape (n, k)
        Operands as the PEs multiply them.
    columns : array of the same type, shape (blocks, k, 16)
        Activations by block of positions.
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    rows : int64 array
        The channels to compute, the last one repeated up to a multiple of `CHANNELS`.
    register : tuple
        The accumulators' ``(low, high, saturate)``.
    noting : bool
        Keep the number of the first event.
    outputs : tuple of arrays
        See `Outputs`; other channels are left alone.
    """
    accumulators, events, first, _ = outputs
    low, high, saturate = register
    for n in rows:
        load_start(start[n], register, accumulators[n], events[n], first[n])
    for block in range(columns.shape[0]):
        for place in range(0, rows.size, CHANNELS):
            if saturate and noting:
                saturating_products_noting(
                    weights, columns, rows, place, block, low, high, accumulators, events, first
                )  # fmt: skip
            elif noting:
                wrapping_products_noting(weights, columns, rows, place, block, low, high, accumulators, events, first)
            elif saturate:
                saturating_products(weights, columns, rows, place, block, low, high, accumulators, events, first)
            else:
                wrapping_products(weights, columns, rows, place, block, low, high, accumulators, events, first)


@kernel
def step_tiles(
    weights: Operands, columns: Operands, start: npt.NDArray[np.int64], rows: Wide, register: Register,
    tile: Int, inner: Register, chained: bool, outputs: Outputs,
) -> None:  # fmt: skip
    """Sum tiles of the reduction first, (14) to (16).

    Parameters
    ----------
    weights, columns, start, rows, register, outputs
        As in `step_products`.
    tile : int64
        Terms of a tile.
    inner : tuple
        The partial sums' register, or the one at the output of the adder tree.
    chained : bool
        Bring every product into it, instead of a tile's exact sum.
    """
    accumulators, events, first, inner_events = outputs
    low, high, saturate = register
    inner_low, inner_high, _ = inner
    for n in rows:
        load_start(start[n], register, accumulators[n], events[n], first[n])
        inner_events[n] = 0
    for block in range(columns.shape[0]):
        for place in range(0, rows.size, CHANNELS):
            if saturate and chained:
                saturating_chains(
                    weights, columns, rows, place, block, tile, low, high, inner_low, inner_high, accumulators,
                    events, first, inner_events,
                )  # fmt: skip
            elif saturate:
                saturating_trees(
                    weights, columns, rows, place, block, tile, low, high, inner_low, inner_high, accumulators,
                    events, first, inner_events,
                )  # fmt: skip
            elif chained:
                wrapping_chains(
                    weights, columns, rows, place, block, tile, low, high, inner_low, inner_high, accumulators,
                    events, first, inner_events,
                )  # fmt: skip
            else:
                wrapping_trees(
                    weights, columns, rows, place, block, tile, low, high, inner_low, inner_high, accumulators,
                    events, first, inner_events,
                )  # fmt: skip


@kernel
def step_range(
    weights: Operands, columns: Operands, start: npt.NDArray[np.int64], rows: Wide, tile: Int,
    least: Wide, most: Wide, total: Wide,
) -> None:  # fmt: skip
    """Find the least and greatest value of the unbounded running sum; numerics.md, section 3.

    Parameters
    ----------
    weights, columns, start, rows
        As in `step_products`.
    tile : int64
        Terms between two additions to the accumulator.
    least, most, total : int64 arrays, shape (n, 16 * blocks)
        Outputs: the range, and the sum after the last addition.
    """
    for n in rows:
        least[n], most[n], total[n] = start[n], start[n], start[n]
    for block in range(columns.shape[0]):
        for place in range(0, rows.size, CHANNELS):
            if tile == 1:
                range_of_products(weights, columns, rows, place, block, tile, least, most, total)
            else:
                range_of_tiles(weights, columns, rows, place, block, tile, least, most, total)
