"""Least squared error by golden section: white paper section 3.1.

From the whole range inwards the error falls, while rounding gets finer, and then rises, while more is cut off. Golden
section narrows an interval around the minimum with one evaluation a step. The function is not quite unimodal, so what
comes out may be a minimum beside the least one; the grid search of `mse_range` is slower and sees all of the range.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim.formats import IntegerFormat, QuantizationParameters, Scheme
from accelsim.ptq.distribution import Distribution
from accelsim.ptq.mse_range import COARSE_PLACES, RangeSearch, search_grid

Float64 = npt.NDArray[np.float64]

STEPS = 16
"""Each divides the interval by 1.618: to 1/2207 of the whole range."""

_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0


def search_golden_section(
    distribution: Distribution, format: IntegerFormat, scheme: Scheme, power_of_two: bool = False
) -> QuantizationParameters:
    """Choose the quantizer of each row by golden section over the scale.

    Parameters
    ----------
    distribution : Distribution
        What is to be quantized.
    format : IntegerFormat
        Width and signedness of the codes.
    scheme : {"affine", "symmetric"}
        With ``affine`` and two-tailed values, one search for each of nine places of the grid.
    power_of_two : bool
        There are so few powers of two that all of them are tried, as by `search_grid`.

    Returns
    -------
    QuantizationParameters
        Per channel on axis 0, one quantizer per row; never worse than min-max.
    """
    if power_of_two:
        return search_grid(distribution, format, scheme, power_of_two=True)
    start = QuantizationParameters.from_range(distribution.low, distribution.high, format, scheme, axis=0)
    search = RangeSearch(distribution, start, scheme)
    whole = start.scale.astype(np.float64)
    for place in search.places(COARSE_PLACES):
        places = np.full((1, whole.size), place)
        low, high = np.zeros((1, whole.size)), whole[np.newaxis]
        inner = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        errors = search.offer(inner[0], places), search.offer(inner[1], places)
        for _ in range(STEPS):
            left = errors[0] < errors[1]  # the minimum is left of the right inner point
            low, high = np.where(left, low, inner[0]), np.where(left, inner[1], high)
            kept, kept_error = np.where(left, inner[0], inner[1]), np.where(left, errors[0], errors[1])
            new = np.where(left, high - _GOLDEN * (high - low), low + _GOLDEN * (high - low))
            new_error = search.offer(new, places)
            inner = np.where(left, new, kept), np.where(left, kept, new)
            errors = np.where(left, new_error, kept_error), np.where(left, kept_error, new_error)
    return search.parameters()
