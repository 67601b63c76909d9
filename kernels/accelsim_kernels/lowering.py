"""Convolution as a GEMM: copy the receptive fields of some positions into columns, docs/numerics.md section 2."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel

Pair = tuple[Any, Any]


@kernel
def columns_of(
    activations: npt.NDArray[np.int32],
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
    columns: npt.NDArray[np.int32],
) -> None:
    """Fill the columns of positions ``begin .. end - 1``.

    Parameters
    ----------
    activations : int32 array, shape (batch, channels, height, width)
        Operands as the PEs multiply them.
    first_channel, num_channels : int64
        The group's input channels.
    kernel_shape, strides, dilations, output_shape : pairs of int64
        (rows, columns).
    pads : pair of int64
        Padding before the first row and the first column.
    pad_value : int32
        What a padded tap holds.
    spatial_first : bool
        k runs over (row, column, channel) instead of (channel, row, column).
    begin, end : int64
        Range of positions, which run over image, output row, output column.
    columns : int32 array, shape (num_channels * kernel rows * kernel columns, end - begin)
        Output.
    """
    _, _, height, width = activations.shape
    out_height, out_width = output_shape
    taps = kernel_shape[0] * kernel_shape[1]
    for channel in range(num_channels):
        for i in range(kernel_shape[0]):
            for j in range(kernel_shape[1]):
                tap = i * kernel_shape[1] + j
                k = tap * num_channels + channel if spatial_first else channel * taps + tap
                row_offset = i * dilations[0] - pads[0]
                column_offset = j * dilations[1] - pads[1]
                position = begin
                while position < end:  # one output row at a time
                    image, rest = divmod(position, out_height * out_width)
                    out_row, out_column = divmod(rest, out_width)
                    run = min(out_width - out_column, end - position)
                    row = out_row * strides[0] + row_offset
                    target = columns[k, position - begin : position - begin + run]
                    if 0 <= row < height:
                        line = activations[image, first_channel + channel, row]
                        for q in range(run):
                            column = (out_column + q) * strides[1] + column_offset
                            target[q] = line[column] if 0 <= column < width else pad_value
                    else:
                        target[:] = pad_value
                    position += run
