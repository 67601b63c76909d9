"""Pooling on stored integers: docs/numerics.md (30) and (31)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel
from accelsim_kernels.lowering import Pair
from accelsim_kernels.rounding import round_division

Codes = npt.NDArray[np.int32]


@kernel
def max_pool(activations: Codes, kernel_shape: Pair, strides: Pair, pads: Pair, dilations: Pair, output: Codes) -> None:
    """Take the greatest code of every window, (30).

    Parameters
    ----------
    activations : int32 array, shape (batch, channels, height, width)
        Codes.
    kernel_shape, strides, dilations : pairs of int64
        (rows, columns).
    pads : pair of int64
        Padding before the first row and the first column; padded taps never win.
    output : int32 array, shape (batch, channels, output rows, output columns)
        Every window has at least one tap inside the image.
    """
    batch, channels, height, width = activations.shape
    for image in range(batch):
        for channel in range(channels):
            plane = activations[image, channel]
            for out_row in range(output.shape[2]):
                for out_column in range(output.shape[3]):
                    best = np.int32(-(1 << 31))
                    for i in range(kernel_shape[0]):
                        row = out_row * strides[0] + i * dilations[0] - pads[0]
                        if row < 0 or row >= height:
                            continue
                        for j in range(kernel_shape[1]):
                            column = out_column * strides[1] + j * dilations[1] - pads[1]
                            if 0 <= column < width:
                                best = max(best, plane[row, column])
                    output[image, channel, out_row, out_column] = best


@kernel
def average_pool(
    activations: Codes, kernel_shape: Pair, strides: Pair, pads: tuple[int, int, int, int], dilations: Pair,
    count_padding: bool, zero_point: Int, centred: bool, rule: Int, output: Codes,
) -> None:  # fmt: skip
    """Average every window with one rounding, (31).

    Parameters
    ----------
    activations : int32 array, shape (batch, channels, height, width)
        Codes.
    kernel_shape, strides, dilations : pairs of int64
        (rows, columns).
    pads : four int64
        Padding at the top, left, bottom and right.
    count_padding : bool
        Padded taps count, with the zero point as their value; a window's part beyond the padding never counts.
    zero_point : int64
        Of input and output.
    centred : bool
        Round the mean of ``q - z`` and add z; else round the mean of the stored integers.
    rule : int64
        Tie rule.
    output : int32 array, shape (batch, channels, output rows, output columns)
        Every window has at least one tap that counts.
    """
    batch, channels, height, width = activations.shape
    for image in range(batch):
        for channel in range(channels):
            plane = activations[image, channel]
            for out_row in range(output.shape[2]):
                for out_column in range(output.shape[3]):
                    total, taps = np.int64(0), np.int64(0)
                    for i in range(kernel_shape[0]):
                        row = out_row * strides[0] + i * dilations[0] - pads[0]
                        for j in range(kernel_shape[1]):
                            column = out_column * strides[1] + j * dilations[1] - pads[1]
                            if 0 <= row < height and 0 <= column < width:
                                total += np.int64(plane[row, column])
                                taps += 1
                            elif count_padding and row < height + pads[2] and column < width + pads[3]:
                                total += zero_point
                                taps += 1
                    if centred:
                        mean = round_division(total - taps * zero_point, taps, np.int64(0), rule) + zero_point
                    else:
                        mean = round_division(total, taps, np.int64(0), rule)
                    output[image, channel, out_row, out_column] = mean
