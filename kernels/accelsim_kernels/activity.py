"""What the values do to the hardware: zero operands and bit toggles of a PE's registers, docs/energy.md sections 3, 4.

A toggle is a bit of a register that differs from the cycle before. Operands and products are 0 in a bubble, and every
fold begins and ends in one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, callee, kernel
from accelsim_kernels.grid.lanes import Register
from accelsim_kernels.grid.pe import ProductRounding
from accelsim_kernels.integers import bring_in
from accelsim_kernels.rounding import round_shift
from accelsim_kernels.vectors.code import prefer_wide_vectors

Comparable = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Pair = tuple[Any, Any]

_BLOCK = 256

_PLACES = 4096
"""Counters that are worked on at a time, so that they stay in the first-level cache."""
_FEW_ROWS = 255
"""Rows of which counts fit 8 bits."""

_LOW_HALF = (1 << 32) - 1


@callee
def num_ones(value: Int) -> Int:
    """Count the ones among the 64 bits of a value, by its halves: no intermediate leaves 63 bits."""
    low = value & _LOW_HALF
    high = (value >> 32) & _LOW_HALF
    low = (low & 0x55555555) + ((low >> 1) & 0x55555555)
    high = (high & 0x55555555) + ((high >> 1) & 0x55555555)
    both = (low & 0x33333333) + ((low >> 2) & 0x33333333) + (high & 0x33333333) + ((high >> 2) & 0x33333333)
    both = (both & 0x0F0F0F0F) + ((both >> 4) & 0x0F0F0F0F)
    both = (both & 0x00FF00FF) + ((both >> 8) & 0x00FF00FF)
    return (both & 0xFFFF) + (both >> 16)


@kernel
def count_nonzero_taps(
    activations: Comparable,
    kernel_shape: Pair,
    strides: Pair,
    pads: Pair,
    dilations: Pair,
    output_shape: Pair,
    counts: npt.NDArray[np.int64],
) -> None:
    """Count the non-zero activations that each tap of a convolution meets inside the images, over all positions.

    Parameters
    ----------
    activations : uint8 or uint16 array, shape (batch, channels, height, width)
        0 where the operands as the PEs multiply them are.
    kernel_shape, strides, dilations, output_shape : pairs of int64
        (rows, columns).
    pads : pair of int64
        Padding before the first row and the first column.
    counts : int64 array, shape (channels, kernel rows, kernel columns)
        Added to.

    Notes
    -----
    Every row of an image is read once per column of the kernel, with a stride of 1 once in all: a tap's columns are the
    whole row but for its ends.
    """
    batch, channels, height, _ = activations.shape
    in_row = np.zeros(kernel_shape[1], dtype=np.int64)
    for image in range(batch):
        for channel in range(channels):
            for row in range(height):
                line = activations[image, channel, row]
                counted = False
                for i in range(kernel_shape[0]):
                    shifted = row + pads[0] - i * dilations[0]
                    if shifted < 0 or shifted % strides[0] != 0 or shifted // strides[0] >= output_shape[0]:
                        continue
                    if not counted:
                        count_row(line, strides[1], pads[1], dilations[1], output_shape[1], in_row)
                        counted = True
                    for j in range(kernel_shape[1]):
                        counts[channel, i, j] += in_row[j]


@callee
def count_row(
    line: Comparable, stride: Int, pad: Int, dilation: Int, num_outputs: Int, in_row: npt.NDArray[np.int64]
) -> None:
    """Count the non-zero elements of an image's row (width,) that each column of a kernel meets."""
    width = line.size
    whole = np.int64(0)
    if stride == 1:
        for column in range(width):
            whole += np.int64(line[column] != 0)
    for j in range(in_row.size):
        offset = j * dilation - pad
        first = max(0, (-offset + stride - 1) // stride)
        last = min(num_outputs - 1, (width - 1 - offset) // stride)
        count = np.int64(0)
        if last >= first:
            begin, end = first * stride + offset, last * stride + offset + 1
            if stride == 1:
                count = whole
                for column in range(begin):
                    count -= np.int64(line[column] != 0)
                for column in range(end, width):
                    count -= np.int64(line[column] != 0)
            else:
                for column in range(begin, end, stride):
                    count += np.int64(line[column] != 0)
        in_row[j] = count


@kernel
def count_unequal_rows(
    values: Comparable, value: Int, kinds: npt.NDArray[np.int64], counts: npt.NDArray[np.int32]
) -> None:
    """Count, for every place of a row, the rows of each kind that hold something else than a value there.

    Parameters
    ----------
    values : uint8 or uint16 array, shape (images * rows * places,)
        The rows one after the other; the last one may be shorter.
    value : int64
        What is not counted.
    kinds : int64 array, shape (rows,)
        Kind of each row of an image.
    counts : int32 array, shape (kinds, places)
        Added to.

    Notes
    -----
    As long as counts fit 8 bits, as many are added to at a time as a vector has bytes.
    """
    num_kinds, num_places = counts.shape
    few = np.zeros((num_kinds, min(num_places, _PLACES)), dtype=np.uint8)
    code = values.dtype.type(value)
    for block in range(0, num_places, _PLACES):
        length = min(_PLACES, num_places - block)
        num_rows = (values.size - block + num_places - 1) // num_places
        for first in range(0, num_rows, _FEW_ROWS):
            for row in range(first, min(first + _FEW_ROWS, num_rows)):
                begin = row * num_places + block
                some, line = few[kinds[row % kinds.size]], values[begin : min(begin + length, values.size)]
                for i in range(line.size):
                    some[i] += np.uint8(line[i] != code)
            for kind in range(num_kinds):
                some, total = few[kind], counts[kind, block : block + length]
                for i in range(length):
                    total[i] += np.int32(some[i])
                some[:] = 0


@kernel
def met_at_places(
    places: npt.NDArray[np.int32],
    terms: npt.NDArray[np.int64],
    weights: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    met: npt.NDArray[np.int64],
) -> None:
    """Add up what activations at the places of several layers' images meet.

    Parameters
    ----------
    places : int32 array
        Activations at each place, of `count_unequal_rows`: layer by layer, by kind of row, column and channel.
    terms : int64 array
        What one meets of one thing, in any channel: layer by layer, by kind of row and column.
    weights : int64 array
        What one meets of the other, as `places` lie.
    lengths : int64 array, shape (layers, 2)
        Of each layer, kinds of rows times columns, and channels.
    met : int64 array, shape (layers, 2)
        Output: of the one, and of the other.
    """
    place, column = np.int64(0), np.int64(0)
    for layer in range(len(lengths)):
        num_columns, channels = lengths[layer, 0], lengths[layer, 1]
        of_terms, of_weights = np.int64(0), np.int64(0)
        for _ in range(num_columns):
            here, some, factors = np.int64(0), places[place : place + channels], weights[place : place + channels]
            for channel in range(channels):
                count = np.int64(some[channel])
                here += count
                of_weights += count * factors[channel]
            of_terms += here * terms[column]
            place, column = place + channels, column + 1
        met[layer, 0], met[layer, 1] = of_terms, of_weights


@kernel
def count_nonzero_rows(values: npt.NDArray[np.uint8] | npt.NDArray[np.uint16], counts: npt.NDArray[np.int64]) -> None:
    """Add to counts (k,) the non-zero elements of each row of uint8 or uint16 values (k, m)."""
    prefer_wide_vectors()
    for k in range(values.shape[0]):
        for begin in range(0, values.shape[1], _PLACES):
            some = np.int32(0)
            line = values[k, begin : begin + _PLACES]
            for i in range(line.size):
                some += np.int32(line[i] != 0)
            counts[k] += np.int64(some)


@kernel
def count_nonzero_columns(values: npt.NDArray[np.int32], counts: npt.NDArray[np.int64]) -> None:
    """Add to counts (k,) the non-zero elements of each column of int32 values (m, k)."""
    for row in range(values.shape[0]):
        line = values[row]
        for k in range(line.size):
            counts[k] += np.int64(line[k] != 0)


@kernel
def successive_toggles(values: npt.NDArray[np.int32], distance: Int, mask: Int) -> Int:
    """Count the bits in which each row of a plane differs from the row some rows before it.

    Parameters
    ----------
    values : int32 array, shape (m, s)
        s registers' values, one after the other; the first ``distance`` rows are what they held before.
    distance : int64
        Rows between two values of one register, at least 1.
    mask : int64
        Ones for the register's bits.

    Returns
    -------
    int64
        Toggles.
    """
    toggles = np.int64(0)
    for row in range(distance, values.shape[0]):
        now, before = values[row], values[row - distance]
        for s in range(now.size):
            toggles += num_ones((np.int64(now[s]) ^ np.int64(before[s])) & mask)
    return toggles


@kernel
def kept_toggles(values: npt.NDArray[np.int32], first: Int, mask: Int, held: npt.NDArray[np.int64]) -> Int:
    """Count the toggles of the PEs that keep an operand, as they are loaded fold after fold.

    Parameters
    ----------
    values : int32 array, shape (v, k)
        Kept operands: weights (n, k), or activations (p, k).
    first : int64
        Number of the first of them; element v is kept by column ``(first + v) mod columns``.
    mask : int64
        Ones for the register's bits.
    held : int64 array, shape (rows, columns)
        What the PEs keep, updated.

    Returns
    -------
    int64
        Toggles.
    """
    rows, columns = held.shape
    num_terms = values.shape[1]
    padded = (num_terms + rows - 1) // rows * rows
    toggles = np.int64(0)
    for v in range(values.shape[0]):
        j = (first + v) % columns
        for k in range(padded):
            value = np.int64(values[v, k]) if k < num_terms else np.int64(0)
            toggles += num_ones((value ^ held[k % rows, j]) & mask)
            held[k % rows, j] = value
    return toggles


@kernel
def resident_toggles(
    weights: npt.NDArray[np.int32],
    columns: npt.NDArray[np.int32],
    start: npt.NDArray[np.int64],
    tile: Int,
    rounding: ProductRounding,
    tree: Register,
    register: Register,
    masks: Pair,
) -> Pair:
    """Count the toggles of products and accumulators where each output has a register of its own while it is computed.

    Parameters
    ----------
    weights : int32 array, shape (n, k)
        Operands.
    columns : int32 array, shape (k, p)
        Operands.
    start : int64 array, shape (n,)
        What the accumulators are loaded with, in their units.
    tile : int64
        Terms of one addition to the accumulator: 1 on an output-stationary grid, the columns of a broadcast grid; a
        multiplier makes every ``tile``-th product.
    rounding : tuple
        ``(shift, rule)`` of the products.
    tree, register : tuple
        ``(low, high, saturate)`` of an adder tree's output and of the accumulators.
    masks : pair of int64
        Ones for the bits of a product and of an accumulator.

    Returns
    -------
    pair of int64
        Toggles of the products and of the accumulators.
    """
    shift, rule = rounding
    product_mask, sum_mask = masks
    num_terms, num_positions = columns.shape
    product_toggles = np.int64(0)
    sum_toggles = np.int64(0)
    products = np.zeros((tile, _BLOCK), dtype=np.int64)  # the multipliers' outputs
    held = np.empty(_BLOCK, dtype=np.int64)
    exact = np.empty(_BLOCK, dtype=np.int64)
    for begin in range(0, num_positions, _BLOCK):
        width = min(_BLOCK, num_positions - begin)
        for n in range(weights.shape[0]):
            products[:] = 0
            held[:] = bring_in(start[n], register[0], register[1], register[2])
            exact[:] = 0
            for k in range(num_terms):
                weight = np.int64(weights[n, k])
                operands, made = columns[k, begin : begin + width], products[k % tile]
                for p in range(width):
                    product: Int = weight * np.int64(operands[p])
                    if shift > 0:
                        product = round_shift(product, shift, 0, rule)
                    product_toggles += num_ones((product ^ made[p]) & product_mask)
                    made[p] = product
                    exact[p] += product
                if (k + 1) % tile == 0 or k == num_terms - 1:
                    for p in range(width):
                        term = bring_in(exact[p], tree[0], tree[1], tree[2])
                        value = bring_in(held[p] + term, register[0], register[1], register[2])
                        sum_toggles += num_ones((value ^ held[p]) & sum_mask)
                        held[p] = value
                        exact[p] = 0
            # The bubble after the fold. A multiplier beyond the reduction's last, ragged tile has it a cycle earlier.
            for j in range(tile):
                for p in range(width):
                    product_toggles += num_ones(products[j, p] & product_mask)
    return product_toggles, sum_toggles


@kernel
def passing_toggles(
    kept: npt.NDArray[np.int32],
    moving: npt.NDArray[np.int32],
    tile: Int,
    rounding: ProductRounding,
    partial: Register,
    masks: Pair,
) -> Pair:
    """Count the toggles of products and partial sums where vectors stream past kept operands.

    Parameters
    ----------
    kept : int32 array, shape (s, k)
        Kept in the PEs: weights (n, k), or activations (p, k).
    moving : int32 array, shape (k, 1 + m)
        The vectors that stream through; the first one is what was in the registers before, zeros in a bubble.
    tile : int64
        Rows of the grid.
    rounding : tuple
        ``(shift, rule)`` of the products.
    partial : tuple
        ``(low, high, saturate)`` of the partial sums.
    masks : pair of int64
        Ones for the bits of a product and of a partial sum.

    Returns
    -------
    pair of int64
        Toggles of the products and of the partial sums.
    """
    shift, rule = rounding
    product_mask, sum_mask = masks
    num_terms, num_vectors = moving.shape
    product_toggles = np.int64(0)
    sum_toggles = np.int64(0)
    products = np.empty(_BLOCK + 1, dtype=np.int64)
    sums = np.empty(_BLOCK + 1, dtype=np.int64)
    for begin in range(0, num_vectors - 1, _BLOCK):
        width = min(_BLOCK + 1, num_vectors - begin)  # neighbouring blocks share a vector
        for s in range(kept.shape[0]):
            for k in range(num_terms):
                if k % tile == 0:
                    sums[:] = 0
                operand, vector = np.int64(kept[s, k]), moving[k, begin : begin + width]
                for m in range(width):
                    product: Int = operand * np.int64(vector[m])
                    if shift > 0:
                        product = round_shift(product, shift, 0, rule)
                    products[m] = product
                for m in range(width):
                    sums[m] = bring_in(sums[m] + products[m], partial[0], partial[1], partial[2])
                for m in range(1, width):
                    product_toggles += num_ones((products[m] ^ products[m - 1]) & product_mask)
                for m in range(1, width):
                    sum_toggles += num_ones((sums[m] ^ sums[m - 1]) & sum_mask)
    return product_toggles, sum_toggles
