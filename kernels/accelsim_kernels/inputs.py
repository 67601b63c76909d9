"""Quantize real inputs, docs/numerics.md (1), and leave them channels last."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import callee, kernel
from accelsim_kernels.vectors.code import prefer_wide_vectors

Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
_AT_A_TIME = 4096
"""Places that are quantized before their channels are interleaved."""


@callee
def quantize_line_float32(
    values: npt.NDArray[np.float32], scale: Any, ends: tuple[Any, Any], zero_point: Any, codes: Codes
) -> None:
    """Set codes (n,) to the low bits of ``clamp(rint(value / scale)) + zero_point``; ``ends`` are less zero_point."""
    prefer_wide_vectors()
    low, high = ends
    mask = np.int32((1 << (8 * codes.itemsize)) - 1)
    for i in range(values.size):
        steps = np.rint(values[i] / scale)
        steps = low if steps < low else (high if steps > high else steps)
        codes[i] = np.int32(np.int32(steps) + zero_point) & mask


@kernel
def quantize_float32(
    values: npt.NDArray[np.float32], scale: Any, ends: tuple[Any, Any], zero_point: Any, codes: Codes
) -> None:
    """Quantize images, the division and the rounding in float32.

    Parameters
    ----------
    values : float32 array, shape (images, channels, places)
        Finite real numbers.
    scale : float32
        Of the quantizer.
    ends : pair of float32
        Least and greatest code, less the zero point.
    zero_point : int32
        Of the quantizer.
    codes : uint8 or uint16 array, shape (images, places, channels)
        Output: the low bits of the codes.
    """
    images, channels, places = values.shape
    room = np.empty((channels, _AT_A_TIME), dtype=codes.dtype)
    for image in range(images):
        for begin in range(0, places, _AT_A_TIME):
            count = min(_AT_A_TIME, places - begin)
            for channel in range(channels):
                quantize_line_float32(
                    values[image, channel, begin : begin + count], scale, ends, zero_point, room[channel, :count]
                )
            target = codes[image, begin : begin + count]
            if channels == 3:  # written out with their distance, the compiler interleaves vectors
                first, second, third, line = room[0], room[1], room[2], target.reshape(-1)
                for i in range(count):
                    line[3 * i] = first[i]
                    line[3 * i + 1] = second[i]
                    line[3 * i + 2] = third[i]
            else:
                for channel in range(channels):
                    line = room[channel]
                    for i in range(count):
                        target[i, channel] = line[i]
