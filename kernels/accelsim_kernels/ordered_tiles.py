"""Ordered dot products whose values fit the lanes of a vector: six rows by sixteen lanes at a time.

The engine proves, before it calls these, that no value leaves its lane: docs/numerics.md (102) and (112).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from accelsim_kernels._jit import Int, callee
from accelsim_kernels.integers import bring_in
from accelsim_kernels.vectors.chains import saturating_chains, wrapping_chains
from accelsim_kernels.vectors.code import LANES
from accelsim_kernels.vectors.moves import filled
from accelsim_kernels.vectors.steps import (
    saturating_products,
    saturating_tiles,
    saturating_trees,
    wrapping_products,
    wrapping_tiles,
    wrapping_trees,
)
from accelsim_kernels.vectors.tile import Length, Row, Vectors

PRODUCTS, TILES, TREES, CHAINS = 0, 1, 2, 3
"""How terms are added: one by one; a tile's exact sum, at once or through the register of a tree; each into a tile's
register, then that."""

Stepping = tuple[Any, Any, Any, Any, Any, Any]
"""One of these, the numbers of a tile, the ends of the accumulators and of the inner registers, all int64."""

State = tuple[Any, Any, Any, Any]
"""Sums, events, numbers of the first one, and events of inner registers of a tile's outputs: int32 arrays (96,)."""


@callee
def step_tile(
    vectors: Vectors, place: Int, numbers: Vectors, row: Row, length: Length, stepping: Stepping, saturate: bool,
    state: State, num_rows: Int,
) -> None:  # fmt: skip
    """Add all terms of six rows by sixteen lanes in the order of the dataflow, (13) to (16).

    Parameters
    ----------
    vectors, place, numbers, row, length
        See `accelsim_kernels.vectors.steps`.
    stepping : tuple
        See `Stepping`.
    saturate : bool
        Mode of all registers.
    state : tuple of arrays
        See `State`; the sums hold the start. Updated.
    num_rows : int64
        How many rows count; what becomes of the others is not said.
    """
    kind, tile, low, high, inner_low, inner_high = stepping
    sums, events, firsts, inner_events = state
    if kind == PRODUCTS and saturate:
        saturating_products(vectors, place, numbers, row, length, low, high, sums, events, firsts, num_rows)
    elif kind == PRODUCTS:
        wrapping_products(vectors, place, numbers, row, length, low, high, sums, events, firsts, num_rows)
    elif kind == TILES and saturate:
        saturating_tiles(
            vectors, place, numbers, row, length, tile, low, high, inner_low, inner_high, sums, events, firsts,
            inner_events, num_rows,
        )  # fmt: skip
    elif kind == TILES:
        wrapping_tiles(
            vectors, place, numbers, row, length, tile, low, high, inner_low, inner_high, sums, events, firsts,
            inner_events, num_rows,
        )  # fmt: skip
    elif kind == TREES and saturate:
        saturating_trees(
            vectors, place, numbers, row, length, tile, low, high, inner_low, inner_high, sums, events, firsts,
            inner_events, num_rows,
        )  # fmt: skip
    elif kind == TREES:
        wrapping_trees(
            vectors, place, numbers, row, length, tile, low, high, inner_low, inner_high, sums, events, firsts,
            inner_events, num_rows,
        )  # fmt: skip
    elif saturate:
        saturating_chains(
            vectors, place, numbers, row, length, tile, low, high, inner_low, inner_high, sums, events, firsts,
            inner_events, num_rows,
        )  # fmt: skip
    else:
        wrapping_chains(
            vectors, place, numbers, row, length, tile, low, high, inner_low, inner_high, sums, events, firsts,
            inner_events, num_rows,
        )  # fmt: skip


@callee
def load_row(start: Int, stepping: Stepping, saturate: bool, state: State, row: Int) -> None:
    """Load the accumulators of a row; a start that does not fit is an event of number 0."""
    _, _, low, high, _, _ = stepping
    sums, events, firsts, inner_events = state
    outside, place = start < low or start > high, row * LANES
    filled(bring_in(start, low, high, saturate), sums, place)
    filled(np.int64(outside), events, place)
    filled(np.int64(0) if outside else np.int64(-1), firsts, place)
    filled(np.int64(0), inner_events, place)
