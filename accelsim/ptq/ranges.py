"""Range setting: white paper section 3.1, equations (14) to (16). One module per method; here one is chosen.

*Min-max* covers every value. *MSE* looks for the range with the least squared error between the values and their
quantized twins, by grid search (`mse_range`), golden section (`golden_section`) or a closed-form approximation
(`closed_form_range`). *Percentile* cuts off a share of the values. Real zero is inside every range.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from accelsim.formats import IntegerFormat, QuantizationParameters, Scheme
from accelsim.ptq.closed_form_range import closed_form_range
from accelsim.ptq.config import RangeMethod
from accelsim.ptq.distribution import Distribution
from accelsim.ptq.golden_section import search_golden_section
from accelsim.ptq.mse_range import search_grid
from accelsim.ptq.percentile import percentile_range

__all__ = ["Distribution", "per_tensor", "set_range", "weight_range"]


def set_range(
    distribution: Distribution,
    format: IntegerFormat,
    scheme: Scheme,
    method: RangeMethod,
    power_of_two: bool = False,
    percentile: float = 99.99,
) -> QuantizationParameters:
    """Choose a quantizer for each row of a distribution.

    Parameters
    ----------
    distribution : Distribution
        What is to be quantized.
    format : IntegerFormat
        Width and signedness of the codes.
    scheme : {"affine", "symmetric"}
        Whether a zero point is fitted.
    method : {"min_max", "mse", "golden_section", "closed_form", "percentile"}
        The whole range; least squared error by grid search, golden section or in closed form; or a share of all values.
    power_of_two : bool
        Restrict scales to powers of two.
    percentile : float
        Share of values, in per cent, that ``percentile`` keeps on either side.

    Returns
    -------
    QuantizationParameters
        Per channel on axis 0, one quantizer per row.
    """
    match method:
        case "mse":
            return search_grid(distribution, format, scheme, power_of_two)
        case "golden_section":
            return search_golden_section(distribution, format, scheme, power_of_two)
        case "closed_form":
            low, high = closed_form_range(distribution, format.bits, scheme)
        case "percentile":
            low, high = percentile_range(distribution, percentile, scheme)
        case "min_max":
            low, high = distribution.low, distribution.high
    return QuantizationParameters.from_range(low, high, format, scheme, power_of_two, axis=0)


def per_tensor(parameters: QuantizationParameters) -> QuantizationParameters:
    """Make per-tensor parameters of those of a distribution with one row."""
    return QuantizationParameters(parameters.scale[0], parameters.zero_point[0], parameters.format)


def weight_range(
    weights: npt.ArrayLike,
    format: IntegerFormat,
    scheme: Scheme,
    method: RangeMethod,
    power_of_two: bool = False,
    axis: int | None = None,
    percentile: float = 99.99,
    importance: npt.ArrayLike | None = None,
) -> QuantizationParameters:
    """Choose the quantizer of a constant from its exact values.

    Parameters
    ----------
    weights : float array
        The values.
    format, scheme, method, power_of_two
        As in `set_range`.
    axis : int or None
        Channel axis for one quantizer per channel, None for one per tensor.
    percentile : float
        As in `set_range`.
    importance : float array of the weights' shape, optional
        How much the squared error of each value counts, for ``mse`` and ``golden_section``.

    Returns
    -------
    QuantizationParameters
        A channel of zeros gets the largest scale of the other channels; where all are zero the scale is 1.
    """
    distribution = Distribution.of(weights, axis)
    if importance is not None and method in ("mse", "golden_section"):
        counts = Distribution.of(importance, axis).values.astype(np.float64)
        # A row in which nothing counts has no best range: there all values count alike.
        counts[counts.max(axis=1) <= 0] = 1.0
        distribution = replace(distribution, counts=counts)
    found = set_range(distribution, format, scheme, method, power_of_two, percentile)
    if axis is None:
        return per_tensor(found)
    scale = found.scale.copy()
    dead = (distribution.low == 0) & (distribution.high == 0)
    if dead.any() and not dead.all():
        scale[dead] = scale[~dead].max()
    return QuantizationParameters(scale, found.zero_point, format, axis)
