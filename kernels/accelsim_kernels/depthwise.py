"""Depthwise convolution without columns, for channels that cannot overflow: docs/numerics.md (17) and (18)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import Int, kernel
from accelsim_kernels.lowering import Pair


@kernel
def exact_depthwise(
    activations: npt.NDArray[np.int32],
    weights: npt.NDArray[np.int32],
    start: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    kernel_shape: Pair,
    strides: Pair,
    pads: Pair,
    dilations: Pair,
    pad_value: Int,
    accumulators: npt.NDArray[np.int64],
) -> None:
    """Convolve each input channel with its own kernels.

    Parameters
    ----------
    activations : int32 array, shape (batch, channels, height, width)
        Operands as the PEs multiply them.
    weights : int32 array, shape (channels * multiplier, kernel rows * kernel columns)
        Output channel n reads input channel ``n // multiplier``.
    start : int64 array, shape (channels * multiplier,)
        What the accumulators are loaded with.
    rows : int64 array
        The output channels to compute.
    kernel_shape, strides, dilations : pairs of int64
        (rows, columns).
    pads : pair of int64
        Padding before the first row and the first column.
    pad_value : int32
        What a padded tap holds.
    accumulators : int64 array, shape (channels * multiplier, batch, output rows, output columns)
        Output; other channels are left alone.
    """
    batch, channels, height, width = activations.shape
    multiplier = weights.shape[0] // channels
    _, _, out_height, out_width = accumulators.shape
    for n in rows:
        for image in range(batch):
            plane = activations[image, n // multiplier]
            for out_row in range(out_height):
                sums = accumulators[n, image, out_row]
                sums[:] = start[n]
                for i in range(kernel_shape[0]):
                    row = out_row * strides[0] + i * dilations[0] - pads[0]
                    for j in range(kernel_shape[1]):
                        weight = np.int64(weights[n, i * kernel_shape[1] + j])
                        if row < 0 or row >= height:
                            sums += weight * np.int64(pad_value)
                            continue
                        offset = j * dilations[1] - pads[1]
                        line = plane[row]
                        for out_column in range(out_width):
                            column = out_column * strides[1] + offset
                            operand = line[column] if 0 <= column < width else pad_value
                            sums[out_column] += weight * np.int64(operand)
