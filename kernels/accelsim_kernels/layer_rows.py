"""Whole layers that cannot overflow, channels last: sums of some positions, requantized while in the cache, then more.

The requantization is that of 32-bit lanes, docs/numerics.md (110) and (111); layers that have no such form go through
`exact.dot_rows` or `depthwise.depthwise_rows` and `requantize_rows` one after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, callee, kernel
from accelsim_kernels.activity import count_unequal_rows
from accelsim_kernels.depthwise import depthwise_dots, depthwise_rows
from accelsim_kernels.exact import dot_rows
from accelsim_kernels.vectors.code import LANES, Activations
from accelsim_kernels.vectors.dots import ROWS_OF_NARROW_TILE
from accelsim_kernels.vectors.requantization import one_rounding, two_roundings
from accelsim_kernels.vectors.row_sums import add_row_sum

Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

Places = tuple[Any, Any, Any, Any, Any]
"""Windows of a layer: how many lie in a row and how many rows in an image; the distance from an image to the next, from
a row to the next, from a window to the next."""

Lost = tuple[Any, Any]
"""Ones and what weights lost, as `vectors.row_sums.add_row_sum` takes them; empty arrays where they lost nothing."""

Source = tuple[Any, Any, Any, Any]
"""What a layer reads: stored codes, uint8 or uint16, flat; the other parameters of
`accelsim_kernels.activity.count_unequal_rows`; those of `pad_rows`, up to its output; that output. Empty counts and an
empty output leave these out."""


@kernel
def pad_rows(
    stored: Codes, shape: tuple[Any, Any, Any], border: tuple[Any, Any, Any, Any], flipped: Int, value: Int,
    padded: Codes,
) -> None:  # fmt: skip
    """Put a border around images and flip a bit of their codes, (100).

    Parameters
    ----------
    stored : uint8 or uint16 array, shape (images * rows * line,)
        Bits of the codes.
    shape : tuple of int64
        (images, rows, line): a line is a row of all channels.
    border : tuple of int64
        Rows above and below, codes before and behind each line.
    flipped : int64
        The bit, or 0.
    value : int64
        Bits of the border.
    padded : array of the same type, shape (images * (above + rows + below) * (before + line + behind) + slack,)
        Output; the slack becomes 0.
    """
    images, rows, line = shape
    above, below, before, behind = border
    width, source, target = before + line + behind, np.int64(0), np.int64(0)
    for _ in range(images):
        padded[target : target + above * width + before] = value
        target += above * width + before
        for _ in range(rows):
            some, place = stored[source : source + line], padded[target : target + line]
            for i in range(line):
                place[i] = some[i] ^ flipped
            source += line
            target += line
            padded[target : target + behind + before] = value  # and what is before the next line
            target += behind + before
        padded[target : target - before + below * width] = value
        target += below * width - before
    padded[target:] = 0


@callee
def take_in(source: Source) -> None:
    """Count codes by place and pad them, as `Source` says.

    In one call with the products, as each call of a small batch takes as long in the interpreter as in the kernel.
    """
    stored, counting, padding, padded = source
    value, kinds, counts = counting
    shape, border, flipped, pad = padding
    if counts.size > 0:
        count_unequal_rows(stored, value, kinds, counts)
    if padded.size > 0:
        pad_rows(stored, shape, border, flipped, pad, padded)


@callee
def fill_bases(begin: Int, places: Places, bases: npt.NDArray[np.int64]) -> None:
    """Set int64 bases (count,) to where the windows from number ``begin`` on begin, row by row, image by image."""
    columns, rows, image_step, row_step, column_step = places
    column, line = begin % columns, begin // columns
    row, image = line % rows, line // rows
    place = image * image_step + row * row_step + column * column_step
    for i in range(bases.size):
        bases[i] = place
        column += 1
        place += column_step
        if column == columns:
            column = np.int64(0)
            row += 1
            if row == rows:
                row = np.int64(0)
                image += 1
            place = image * image_step + row * row_step


@kernel
def requantize_lanes(
    sums: npt.NDArray[np.int32], count: Int, valid: Int, constants: npt.NDArray[np.int32], two: bool,
    codes: Codes, place: Int, stride: Int,
) -> None:  # fmt: skip
    """Bring the sums of some positions to codes.

    Parameters
    ----------
    sums : int32 array
        Of the first ``count`` positions, as many for each as ``constants`` has channels.
    count, valid : int64
        Positions, and how many of the channels are stored.
    constants : int32 array, shape (9, channels)
        See `accelsim_kernels.vectors.requantization`; a multiple of `LANES` channels.
    two : bool
        Two roundings.
    codes : uint8 or uint16 array
        Output.
    place, stride : int64
        Where the first position's codes begin, and the distance to the next position's.
    """
    width = constants.shape[1]
    for column in range(0, valid, LANES):
        if two:
            two_roundings(
                sums, column, width, count, constants, column, codes, place + column, stride, valid - column
            )  # fmt: skip
        else:
            one_rounding(
                sums, column, width, count, constants, column, codes, place + column, stride, valid - column
            )  # fmt: skip


@kernel
def dot_layer(
    source: Source, rows: npt.NDArray[np.uint8], places: Places, segments: npt.NDArray[np.int64], num_groups: Int,
    channels: npt.NDArray[np.uint8], words: bool, lost: Lost, sums: npt.NDArray[np.int32],
    constants: npt.NDArray[np.int32], two: bool, codes: Codes, part: tuple[Any, Any, Any],
) -> None:  # fmt: skip
    """Multiply all windows with the channels of a group and store their codes.

    Parameters
    ----------
    source : tuple
        What is done before, see `Source`.
    rows, segments, num_groups, channels, words
        As in `accelsim_kernels.exact.dot_rows`.
    places : tuple
        See `Places`; distances in bytes.
    lost : tuple
        See `Lost`.
    sums : int32 array, shape (positions, channels)
        Room for sums; its size is how many positions are worked on at a time, a multiple of `ROWS_OF_NARROW_TILE`.
    constants, two
        As in `requantize_lanes`.
    codes : uint8 or uint16 array, shape (positions * stride,)
        Output.
    part : tuple
        Stride, that is the channels of all groups; the group's first channel; its number of channels.
    """
    take_in(source)
    stride, first, valid = part
    num_positions, at_a_time = codes.size // stride, sums.shape[0]
    bases, flat = np.empty(at_a_time, dtype=np.int64), sums.reshape(-1)
    for begin in range(0, num_positions, at_a_time):
        count = min(at_a_time, num_positions - begin)
        tiles = (count + ROWS_OF_NARROW_TILE - 1) // ROWS_OF_NARROW_TILE * ROWS_OF_NARROW_TILE
        fill_bases(begin, places, bases[:count])
        bases[count:tiles] = bases[count - 1]
        dot_rows(rows, bases[:tiles], segments, num_groups, channels, words, sums[:tiles])
        add_row_sums(rows, bases[:count], segments, lost, sums)
        requantize_lanes(flat, count, valid, constants, two, codes, begin * stride + first, stride)


@kernel
def add_row_sums(
    rows: npt.NDArray[np.uint8], bases: npt.NDArray[np.int64], segments: npt.NDArray[np.int64], lost: Lost,
    sums: npt.NDArray[np.int32],
) -> None:  # fmt: skip
    """Add what the weights lost times the sum of its activations to the sums of each window, (116).

    Parameters
    ----------
    rows, bases, segments
        As in `accelsim_kernels.exact.dot_rows`, with 8 bits.
    lost : tuple
        See `Lost`.
    sums : int32 array, shape (positions, channels)
        Updated.
    """
    ones, weights = lost
    if weights.size > 0:
        for position in range(bases.size):
            add_row_sum(rows, bases[position], segments, ones, weights, sums, position)


@kernel
def depthwise_layer(
    source: Source, rows: Activations, places: Places, run: Int, segments: npt.NDArray[np.int64],
    weights: npt.NDArray[np.int16], sums: npt.NDArray[np.int32], constants: npt.NDArray[np.int32], two: bool,
    codes: Codes,
) -> None:  # fmt: skip
    """Convolve each channel with its own kernel and store the codes.

    Parameters
    ----------
    source : tuple
        What is done before, see `Source`.
    rows, run, segments, weights
        As in `accelsim_kernels.depthwise.depthwise_rows`.
    places : tuple
        Of the runs, see `Places`.
    sums : int32 array, shape (runs * run,)
        Room for sums; its size is how many runs are worked on at a time.
    constants, two
        As in `requantize_lanes`, the channels repeated to a multiple of `LANES`.
    codes : uint8 or uint16 array, shape (runs * run,)
        Output.
    """
    take_in(source)
    at_a_time = sums.size // run
    bases = np.empty(at_a_time, dtype=np.int64)
    for begin in range(0, codes.size // run, at_a_time):
        count = min(at_a_time, codes.size // run - begin)
        fill_bases(begin, places, bases[:count])
        depthwise_rows(rows, bases[:count], run, segments, weights, sums)
        requantize_runs(sums, count * run, constants, two, codes, begin * run)


@kernel
def depthwise_layer_dots(
    source: Source, rows: npt.NDArray[np.uint8], places: Places, run: Int, segments: npt.NDArray[np.int64],
    weights: npt.NDArray[np.int16], for_dots: tuple[Any, Any], sums: npt.NDArray[np.int32],
    constants: npt.NDArray[np.int32], two: bool, codes: Codes,
) -> None:  # fmt: skip
    """Do what `depthwise_layer` does by `depthwise_dots`, whose parameter is ``for_dots``."""
    take_in(source)
    at_a_time = sums.size // run
    bases = np.empty(at_a_time, dtype=np.int64)
    for begin in range(0, codes.size // run, at_a_time):
        count = min(at_a_time, codes.size // run - begin)
        fill_bases(begin, places, bases[:count])
        depthwise_dots(rows, bases[:count], run, segments, weights, for_dots, sums)
        requantize_runs(sums, count * run, constants, two, codes, begin * run)


@callee
def requantize_runs(
    sums: npt.NDArray[np.int32], size: Int, constants: npt.NDArray[np.int32], two: bool, codes: Codes, place: Int
) -> None:
    """Bring the first sums, side by side like the channels in ``constants`` again and again, to codes at a place."""
    width = constants.shape[1]
    done = size // width * width
    requantize_lanes(sums, size // width, width, constants, two, codes, place, width)
    requantize_lanes(sums[done:], np.int64(1), size - done, constants, two, codes, place + done, width)
