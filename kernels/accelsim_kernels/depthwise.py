"""Depthwise convolution without columns, for channels that cannot overflow: docs/numerics.md (17), (18), (100)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, callee, kernel
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES, Activations
from accelsim_kernels.vectors.window_ranges import window_range_1, window_range_4
from accelsim_kernels.vectors.windows import TAPS_AT_A_TIME, window_1, window_4, window_dots

_FOUR = 4 * LANES


@kernel
def depthwise_rows(
    rows: Activations,
    bases: npt.NDArray[np.int64],
    run: Int,
    segments: npt.NDArray[np.int64],
    weights: npt.NDArray[np.int16],
    sums: npt.NDArray[np.int32],
) -> None:
    """Convolve each channel with its own kernel, channels last, modulo 2**32.

    Parameters
    ----------
    rows : uint8 or int16 array
        Activations, channels last.
    bases : int64 array, shape (runs,)
        Where the window of each run of outputs begins: a row of outputs with a stride of 1, one position otherwise.
    run : int64
        Outputs in a run.
    segments : int64 array, shape (taps,)
        Where each tap of a window is, after its base.
    weights : int16 array, shape (taps, repeats * channels)
        Weights, repeated so that a run is cut into few pieces.
    sums : int32 array, shape (runs * run,)
        Output.
    """
    width = weights.shape[1]
    for r in range(bases.size):
        for begin in range(0, run, width):
            length = min(width, run - begin)
            base, place = bases[r] + begin, r * run + begin
            done = 0
            while length - done >= _FOUR:
                window_4(rows, base + done, segments, weights, done, sums, place + done)
                done += _FOUR
            if length >= LANES:
                for column in range(done, length, LANES):
                    some = min(column, length - LANES)  # the last vector, moved back to the end
                    window_1(rows, base + some, segments, weights, some, sums, place + some)
            else:
                short_piece(rows, base, segments, weights, length, sums, place)


@callee
def short_piece(
    rows: Activations, base: Int, segments: npt.NDArray[np.int64], weights: npt.NDArray[np.int16], length: Int,
    sums: npt.NDArray[np.int32], place: Int,
) -> None:  # fmt: skip
    """Compute a piece of a run with fewer outputs than a vector; parameters otherwise as in `window_1`."""
    for i in range(length):
        total = np.int64(0)
        for t in range(segments.size):
            total += np.int64(weights[t, i]) * np.int64(rows[base + segments[t] + i])
        sums[place + i] = total


@callee
def depthwise_dots(
    rows: npt.NDArray[np.uint8], bases: npt.NDArray[np.int64], run: Int, segments: npt.NDArray[np.int64],
    weights: npt.NDArray[np.int16], for_dots: tuple[Any, Any], sums: npt.NDArray[np.int32],
) -> None:  # fmt: skip
    """Do what `depthwise_rows` does on a processor with dot-product instructions, with operands of 8 bits.

    Parameters
    ----------
    rows, bases, run, segments, weights, sums
        As in `depthwise_rows`.
    for_dots : pair of arrays
        Segments and bytes of the weights as `window_dots` takes them; the weights by 64 channels, as often as they go
        into a row of ``weights``.
    """
    width, (places, packed) = weights.shape[1], for_dots
    per_channel = places.size * (GROUP_BYTES // TAPS_AT_A_TIME)
    for r in range(bases.size):
        for begin in range(0, run, width):
            length = min(width, run - begin)
            base, place = bases[r] + begin, r * run + begin
            done = 0
            while length - done >= _FOUR:
                window_dots(rows, base + done, places, packed, done * per_channel, sums, place + done)
                done += _FOUR
            if length >= LANES:
                for column in range(done, length, LANES):
                    some = min(column, length - LANES)  # the last vector, moved back to the end
                    window_1(rows, base + some, segments, weights, some, sums, place + some)
            else:
                short_piece(rows, base, segments, weights, length, sums, place)


@kernel
def depthwise_ranges(
    rows: Activations, bases: npt.NDArray[np.int64], run: Int, segments: npt.NDArray[np.int64],
    weights: npt.NDArray[np.int16], start: npt.NDArray[np.int32], tile: Int, least: npt.NDArray[np.int32],
    most: npt.NDArray[np.int32],
) -> None:  # fmt: skip
    """Find the least and greatest value of the unbounded running sums of every channel; docs/numerics.md, section 3.

    Parameters
    ----------
    rows : int16 or int32 array
        Activations as the PEs multiply them, channels last.
    bases, run, segments, weights
        As in `depthwise_rows`; the taps in the machine's order.
    start : int32 array, shape (repeats * channels,)
        What the accumulators are loaded with.
    tile : int64
        Taps between two values that count.
    least, most : int32 arrays, shape (repeats * channels,)
        Range so far; updated.
    """
    width = weights.shape[1]
    for r in range(bases.size):
        for begin in range(0, run, width):
            length, base = min(width, run - begin), bases[r] + begin
            done = 0
            while length - done >= _FOUR:
                window_range_4(rows, base + done, segments, weights, done, tile, start, least, most)
                done += _FOUR
            while length - done >= LANES:
                window_range_1(rows, base + done, segments, weights, done, tile, start, least, most)
                done += LANES
            if 0 < done < length:  # the last vector again, moved back to the end
                done = length - LANES
                window_range_1(rows, base + done, segments, weights, done, tile, start, least, most)
                done = length
            for i in range(done, length):
                total = np.int64(start[i])
                for t in range(segments.size):
                    total += np.int64(weights[t, i]) * np.int64(rows[base + segments[t] + i])
                    if (t + 1) % tile == 0 or t + 1 == segments.size:
                        least[i], most[i] = min(np.int64(least[i]), total), max(np.int64(most[i]), total)
