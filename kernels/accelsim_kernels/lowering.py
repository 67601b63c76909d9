"""Convolution as a GEMM: copy the receptive fields of some positions into columns, docs/numerics.md section 2."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel

Bits = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.int32]
Pair = tuple[Any, Any]


@kernel
def columns_of(
    activations: Bits,
    first_channel: Int,
    num_channels: Int,
    kernel_shape: Pair,
    strides: Pair,
    pads: Pair,
    dilations: Pair,
    output_shape: Pair,
    pad_value: Int,
    spatial_first: bool,
    begin: Int,
    end: Int,
    columns: Bits,
) -> None:
    """Fill the columns of positions ``begin .. end - 1``.

    Parameters
    ----------
    activations : uint8, uint16 or int32 array, shape (batch, channels, height, width)
        Operands as the PEs multiply them, or their bits.
    first_channel, num_channels : int64
        The group's input channels.
    kernel_shape, strides, dilations, output_shape : pairs of int64
        (rows, columns).
    pads : pair of int64
        Padding before the first row and the first column.
    pad_value : int64
        What a padded tap holds, or its bits.
    spatial_first : bool
        k runs over (row, column, channel) instead of (channel, row, column).
    begin, end : int64
        Range of positions, which run over image, output row, output column.
    columns : array of the same type, shape (num_channels * kernel rows * kernel columns, end - begin)
        Output.
    """
    _, all_channels, height, width = activations.shape
    out_height, out_width = output_shape
    taps, stride, count = kernel_shape[0] * kernel_shape[1], strides[1], end - begin
    source, target = activations.reshape(-1), columns.reshape(-1)
    for channel in range(num_channels):
        for i in range(kernel_shape[0]):
            for j in range(kernel_shape[1]):
                tap = i * kernel_shape[1] + j
                k = tap * num_channels + channel if spatial_first else channel * taps + tap
                row_offset = i * dilations[0] - pads[0]
                column_offset = j * dilations[1] - pads[1]
                first_inside = max(np.int64(0), (-column_offset + stride - 1) // stride)
                end_inside = (width - 1 - column_offset) // stride + 1
                position = begin
                while position < end:  # one output row at a time
                    image, rest = divmod(position, out_height * out_width)
                    out_row, out_column = divmod(rest, out_width)
                    run = min(out_width - out_column, end - position)
                    row = out_row * strides[0] + row_offset
                    place = k * count + position - begin
                    inside, outside = np.int64(0), np.int64(0)  # the taps inside the image
                    if 0 <= row < height:
                        inside = min(max(first_inside - out_column, np.int64(0)), run)
                        outside = max(min(end_inside - out_column, run), inside)
                        line = ((image * all_channels + first_channel + channel) * height + row) * width
                        line += out_column * stride + column_offset
                        if stride == 1:
                            for q in range(inside, outside):
                                target[place + q] = source[line + q]
                        else:
                            for q in range(inside, outside):
                                target[place + q] = source[line + q * stride]
                    for q in range(inside):
                        target[place + q] = pad_value
                    for q in range(outside, run):
                        target[place + q] = pad_value
                    position += run
