"""Least squared error in closed form, after Banner et al.: "Post training 4-bit quantization", 2019.

The values are taken to have a Laplace or a normal distribution, whichever their ratio of mean magnitude to deviation is
nearer to. For both, the sum of clipping and rounding error has one minimum.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import lambertw, ndtr

from accelsim.formats import Scheme
from accelsim.ptq.distribution import Distribution

Float64 = npt.NDArray[np.float64]

_LAPLACE_RATIO = np.sqrt(0.5)
_NORMAL_RATIO = np.sqrt(2.0 / np.pi)


def closed_form_range(distribution: Distribution, bits: int, scheme: Scheme) -> tuple[Float64, Float64]:
    """Return the clipping range of each row.

    Parameters
    ----------
    distribution : Distribution
        The values.
    bits : int
        Width of the codes.
    scheme : {"affine", "symmetric"}
        ``symmetric`` centres the range on 0, ``affine`` on the mean. One-tailed values are half a distribution around
        0, whose half range has all the codes, as if there was one more bit.

    Returns
    -------
    low, high : float64 array, shape (rows,)
        Never outside the values' own range.

    Notes
    -----
    docs/ptq.md (90): Laplace with mean magnitude b: ``α = b · W(3 · 4^bits)`` with Lambert's W. Normal with deviation
    σ: ``α = σ · t`` where ``4 (φ(t) − t (1 − Φ(t))) = 2 t / (3 · 4^bits)``.
    """
    counts = np.ones_like(distribution.values, dtype=np.float64)
    if distribution.counts is not None:
        counts = distribution.counts
    values = distribution.values.astype(np.float64)
    total = counts.sum(axis=1)
    one_tailed = (distribution.low >= 0) | (distribution.high <= 0)
    mean = (values * counts).sum(axis=1) / total
    centre = np.where(one_tailed | (scheme == "symmetric"), 0.0, mean)
    apart = values - centre[:, np.newaxis]
    magnitude = (np.abs(apart) * counts).sum(axis=1) / total
    squares = np.square(apart)
    if distribution.variances is not None:
        squares = squares + distribution.variances
    deviation = np.sqrt((squares * counts).sum(axis=1) / total)
    ratio = magnitude / np.where(deviation > 0, deviation, 1.0)
    laplace = ratio < (_LAPLACE_RATIO + _NORMAL_RATIO) / 2
    reach = np.empty_like(magnitude)
    for row in range(reach.size):
        effective = bits + int(one_tailed[row])
        reach[row] = (
            magnitude[row] * laplace_clip(effective) if laplace[row] else deviation[row] * normal_clip(effective)
        )
    return np.maximum(distribution.low, centre - reach), np.minimum(distribution.high, centre + reach)


@cache
def laplace_clip(bits: int) -> float:
    """Return the best clipping point of a Laplace distribution as a multiple of its mean magnitude."""
    return float(lambertw(3.0 * 4.0**bits).real)


@cache
def normal_clip(bits: int) -> float:
    """Return the best clipping point of a normal distribution as a multiple of its deviation."""

    def slope(t: float) -> float:
        density = np.exp(-0.5 * t * t) / np.sqrt(2 * np.pi)
        return float(2 * t / (3 * 4.0**bits) - 4 * (density - t * ndtr(-t)))

    return float(brentq(slope, 0.0, 40.0))
