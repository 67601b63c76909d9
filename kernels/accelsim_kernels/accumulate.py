"""Ordered dot products in registers of limited width: docs/numerics.md section 3.

The additions of one output happen in the order of the dataflow; different positions are independent, so the innermost
loops run over positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, callee, kernel
from accelsim_kernels.integers import bring_in
from accelsim_kernels.rounding import round_shift

Register = tuple[Any, Any, Any]
"""``(low, high, saturate)`` of a register."""

ProductRounding = tuple[Any, Any]
"""``(shift, rule)`` of the products, numerics.md (13a); shift 0 keeps them."""

_BLOCK = 256


@callee
def multiply_row(
    weight: Int, operands: npt.NDArray[np.int32], rounding: ProductRounding, products: npt.NDArray[np.int64]
) -> None:
    """Multiply one weight with the activations of some positions, (13a)."""
    shift, rule = rounding
    for p in range(products.size):
        products[p] = weight * np.int64(operands[p])
    if shift > 0:
        for p in range(products.size):
            products[p] = round_shift(products[p], shift, 0, rule)


@callee
def add_into(
    sums: npt.NDArray[np.int64],
    terms: npt.NDArray[np.int64],
    register: Register,
    number: Int,
    events: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
) -> None:
    """Do one addition of every position: ``sums = ov(sums + terms)``, counting events.

    Parameters
    ----------
    sums, terms : int64 arrays, shape (p,)
        Registers, updated, and what is added to them.
    register : tuple
        Width and mode of the registers.
    number : int64
        Number of this addition.
    events, first : int64 arrays, shape (p,)
        Events so far and number of the first one (-1: none), updated.
    """
    low, high, saturate = register
    for p in range(sums.size):
        value = sums[p] + terms[p]
        outside = value < low or value > high
        sums[p] = bring_in(value, low, high, saturate)
        events[p] += np.int64(outside)
        first[p] = number if outside and first[p] < 0 else first[p]


@callee
def load_start(
    start: Int,
    register: Register,
    sums: npt.NDArray[np.int64],
    events: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
) -> None:
    """Load the accumulators of one channel: ``sums = ov(start)``; a start that does not fit is an event of number 0."""
    low, high, saturate = register
    outside = start < low or start > high
    sums[:] = bring_in(start, low, high, saturate)
    events[:] = np.int64(outside)
    first[:] = np.int64(0) if outside else np.int64(-1)


@kernel
def accumulate_products(
    weights: npt.NDArray[np.int32],
    columns: npt.NDArray[np.int32],
    start: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    rounding: ProductRounding,
    register: Register,
    accumulators: npt.NDArray[np.int64],
    events: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
) -> None:
    """Add one product at a time, (13).

    Parameters
    ----------
    weights : int32 array, shape (n, k)
        Operands as the PEs multiply them.
    columns : int32 array, shape (k, p)
        Activations.
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    rows : int64 array
        The channels to compute.
    rounding : tuple
        ``(shift, rule)`` of the products.
    register : tuple
        The accumulators' ``(low, high, saturate)``.
    accumulators, events, first : int64 arrays, shape (n, p)
        Outputs: value after the last addition, overflow events, number of the first addition with one or -1.
    """
    num_terms, num_positions = columns.shape
    products = np.empty(_BLOCK, dtype=np.int64)
    for begin in range(0, num_positions, _BLOCK):
        end = min(begin + _BLOCK, num_positions)
        terms = products[: end - begin]
        for n in rows:
            sums, counts, numbers = accumulators[n, begin:end], events[n, begin:end], first[n, begin:end]
            load_start(start[n], register, sums, counts, numbers)
            for k in range(num_terms):
                multiply_row(np.int64(weights[n, k]), columns[k, begin:end], rounding, terms)
                add_into(sums, terms, register, np.int64(k), counts, numbers)


@kernel
def accumulate_tiles(
    weights: npt.NDArray[np.int32],
    columns: npt.NDArray[np.int32],
    start: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    rounding: ProductRounding,
    register: Register,
    tile: Int,
    partial: Register,
    chained: bool,
    accumulators: npt.NDArray[np.int64],
    events: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    partial_events: npt.NDArray[np.int64],
) -> None:
    """Sum tiles of the reduction first, then add each tile's sum to the accumulator, (14) to (16).

    Parameters
    ----------
    weights, columns, start, rows, rounding, register, accumulators, events, first
        As in `accumulate_products`; additions are numbered by tile.
    tile : int64
        Terms in a tile.
    partial : tuple
        Register of the partial sum or at the adder tree's output.
    chained : bool
        True: every product is added in the partial-sum register (15); False: the tile's exact sum is brought into it
        once, at the output of the tree (14).
    partial_events : int64 array, shape (n, p)
        Output: events of the partial registers.
    """
    num_terms, num_positions = columns.shape
    products = np.empty(_BLOCK, dtype=np.int64)
    partial_sums = np.empty(_BLOCK, dtype=np.int64)
    partial_first = np.empty(_BLOCK, dtype=np.int64)
    nothing = np.zeros(_BLOCK, dtype=np.int64)
    for begin in range(0, num_positions, _BLOCK):
        end = min(begin + _BLOCK, num_positions)
        width = end - begin
        terms, sums_of_tile, unused = products[:width], partial_sums[:width], partial_first[:width]
        for n in rows:
            sums, counts, numbers = accumulators[n, begin:end], events[n, begin:end], first[n, begin:end]
            tile_counts = partial_events[n, begin:end]
            tile_counts[:] = 0
            load_start(start[n], register, sums, counts, numbers)
            for number in range((num_terms + tile - 1) // tile):
                sums_of_tile[:] = 0
                for k in range(number * tile, min((number + 1) * tile, num_terms)):
                    multiply_row(np.int64(weights[n, k]), columns[k, begin:end], rounding, terms)
                    if chained:
                        add_into(sums_of_tile, terms, partial, np.int64(0), tile_counts, unused)
                    else:
                        for p in range(width):
                            sums_of_tile[p] += terms[p]
                if not chained:
                    add_into(sums_of_tile, nothing[:width], partial, np.int64(0), tile_counts, unused)
                add_into(sums, sums_of_tile, register, np.int64(number), counts, numbers)


@kernel
def running_range(
    weights: npt.NDArray[np.int32],
    columns: npt.NDArray[np.int32],
    start: npt.NDArray[np.int64],
    rounding: ProductRounding,
    tile: Int,
    range_min: npt.NDArray[np.int64],
    range_max: npt.NDArray[np.int64],
    total: npt.NDArray[np.int64],
) -> None:
    """Find the least and greatest value of the unbounded running sum of every output; numerics.md, section 3.

    Parameters
    ----------
    weights, columns, start, rounding
        As in `accumulate_products`.
    tile : int64
        Terms between two additions to the accumulator.
    range_min, range_max, total : int64 arrays, shape (n, p)
        Outputs: the range, and the sum after the last addition.
    """
    num_terms, num_positions = columns.shape
    products = np.empty(_BLOCK, dtype=np.int64)
    for begin in range(0, num_positions, _BLOCK):
        end = min(begin + _BLOCK, num_positions)
        terms = products[: end - begin]
        for n in range(weights.shape[0]):
            sums, least, most = total[n, begin:end], range_min[n, begin:end], range_max[n, begin:end]
            sums[:] = start[n]
            least[:] = start[n]
            most[:] = start[n]
            for k in range(num_terms):
                multiply_row(np.int64(weights[n, k]), columns[k, begin:end], rounding, terms)
                for p in range(end - begin):
                    sums[p] += terms[p]
                if (k + 1) % tile == 0 or k == num_terms - 1:
                    for p in range(end - begin):
                        least[p] = min(least[p], sums[p])
                        most[p] = max(most[p], sums[p])


@kernel
def add_last(
    row_sums: npt.NDArray[np.int64],
    weight_zero_points: npt.NDArray[np.int64],
    rounding: ProductRounding,
    register: Register,
    number: Int,
    accumulators: npt.NDArray[np.int64],
    events: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
) -> None:
    """Do the data-dependent addition of asymmetric weights, (8): ``A = ov(A - z_w * Σ_k x)``.

    Parameters
    ----------
    row_sums : int64 array, shape (p,)
        ``Σ_k X[k, p]``.
    weight_zero_points : int64 array, shape (n,)
        Channels with 0 are left alone.
    rounding : tuple
        ``(shift, rule)`` that brings the term to accumulator units, (13a).
    register : tuple
        The accumulators' ``(low, high, saturate)``.
    number : int64
        Number of this addition.
    accumulators, events, first : int64 arrays, shape (n, p)
        Updated.
    """
    for n in range(weight_zero_points.size):
        if weight_zero_points[n] != 0:
            shift, rule = rounding
            terms = -weight_zero_points[n] * row_sums
            for p in range(terms.size):
                terms[p] = round_shift(terms[p], shift, 0, rule)
            add_into(accumulators[n], terms, register, number, events[n], first[n])


@kernel
def to_accumulator_units(
    values: npt.NDArray[np.int64], rounding: ProductRounding, rounded: npt.NDArray[np.int64]
) -> None:
    """Bring values in units of a product to those of the accumulator, (13a); int64 arrays, shape (n,)."""
    shift, rule = rounding
    for i in range(values.size):
        rounded[i] = round_shift(values[i], shift, 0, rule)
