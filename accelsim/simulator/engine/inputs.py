"""Inputs as they are stored: real numbers quantized channels last, as convolutions of the fast engine read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.formats import QuantizationParameters
from accelsim.simulator.engine.bounds import for_kernels
from accelsim.simulator.engine.dots import unsigned
from accelsim_kernels.inputs import quantize_float32


def quantize_images(
    parameters: QuantizationParameters, values: npt.NDArray[np.float32], channels_last: bool
) -> npt.NDArray[Any]:
    """Quantize finite real numbers, docs/numerics.md (1), as `QuantizationParameters.quantize` does.

    Parameters
    ----------
    parameters : QuantizationParameters
        Per tensor, of at most 16 bits.
    values : float32 array, shape (samples, ...)
        Contiguous.
    channels_last : bool
        Leave images (samples, channels, height, width) channels last in memory.

    Returns
    -------
    integer array, same shape
        Codes in the format's numpy type.
    """
    zero_point, limits = int(parameters.zero_point), parameters.format
    samples = values.shape[0]
    channels = values.shape[1] if channels_last else 1
    places = values.size // (samples * channels)
    codes = np.empty((samples, places, channels), dtype=limits.dtype)
    with np.errstate(over="ignore"):  # a quotient beyond float32 is an infinity, and clamps
        quantize_float32(
            for_kernels(values).reshape(samples, channels, places),
            np.float32(parameters.scale),
            (np.float32(limits.minimum - zero_point), np.float32(limits.maximum - zero_point)),
            np.int32(zero_point),
            codes.view(unsigned(codes.itemsize)),
        )
    if not channels_last:
        return codes.reshape(values.shape)
    return codes.reshape(samples, *values.shape[2:], channels).transpose(0, 3, 1, 2)
