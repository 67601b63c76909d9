"""Least squared error by grid search: white paper section 3.1, equation (16).

The whole range is the first candidate and is left only for a smaller error, so the result is never worse than min-max
on the values it was given. Real zero is inside every range.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim.formats import IntegerFormat, QuantizationParameters, Scheme
from accelsim.ptq.distribution import Distribution

Float64 = npt.NDArray[np.float64]

COARSE_STEPS = 40
"""The first search tries so many equal steps of the scale, from that of the whole range down towards 0."""

COARSE_PLACES = 9
"""Under the affine scheme each of these scales is tried at so many places of the grid, each with its zero point."""

FINE_STEPS = 6
"""The second search tries this many scales on each side of the best coarse one."""

FINE_PLACES = 5
"""Under the affine scheme each of these scales is tried at so many places around the best one."""

POWER_OF_TWO_OCTAVES = 10
"""A power-of-two search tries the covering scale and so many halvings of it."""

POWER_OF_TWO_PLACES = 17
"""Under the affine scheme each power of two is tried at so many places of the grid."""

_SMALLEST_EXPONENT = -126  # of a normal float32
_SMALLEST_SCALE = 2.0**_SMALLEST_EXPONENT


class RangeSearch:
    """The quantizer with the least error so far, row by row, and where its grid lies."""

    def __init__(self, distribution: Distribution, start: QuantizationParameters, scheme: Scheme) -> None:
        self._distribution = distribution
        self._low = np.minimum(distribution.low, 0.0)
        self._high = np.maximum(distribution.high, 0.0)
        self._format = start.format
        self._scheme = scheme
        self._error = distribution.error(start)
        self.scale = start.scale.astype(np.float64)
        self.place = np.zeros(start.scale.size)
        self._zero_point = start.zero_point.copy()

    def parameters(self) -> QuantizationParameters:
        """Return the best quantizers, per channel on axis 0."""
        return QuantizationParameters(self.scale.astype(np.float32), self._zero_point, self._format, 0)

    def places(self, count: int) -> Float64:
        """Return how far along the range the grid is tried: only at 0 where nothing is gained by moving it."""
        one_tailed = not (self._low.any() and self._high.any())
        return np.linspace(0.0, 1.0, 1 if self._scheme == "symmetric" or one_tailed else count)

    def offer(self, scale: Float64, place: Float64) -> Float64:
        """Take scales, with the grid at some place, in the rows in which the error becomes less; return the errors.

        Parameters
        ----------
        scale, place : float64 array, shape (candidates, rows)
            Of candidates with the same error the first one is taken.

        Notes
        -----
        A grid narrower than the range cuts something off: at place 0 nothing below zero, at place 1 nothing above, in
        between some of both.
        """
        scale = np.maximum(scale, _SMALLEST_SCALE).astype(np.float32).astype(np.float64)
        least, greatest = self._format.minimum, self._format.maximum
        if self._scheme == "symmetric":
            zero_point = np.zeros(scale.shape, dtype=np.int64)
        else:
            keeps_low, keeps_high = least - self._low / scale, greatest - self._high / scale
            wanted = np.rint(keeps_low + place * (keeps_high - keeps_low))
            zero_point = np.clip(wanted, least, greatest).astype(np.int64)
        error = self._distribution.errors(scale.astype(np.float32), zero_point, self._format)
        best = error.argmin(axis=0)
        better = np.flatnonzero(error[best, np.arange(best.size)] < self._error)
        chosen = best[better], better
        for kept, new in (
            (self._error, error),
            (self.scale, scale),
            (self.place, place),
            (self._zero_point, zero_point),
        ):
            kept[better] = new[chosen]
        return error


def search_grid(
    distribution: Distribution, format: IntegerFormat, scheme: Scheme, power_of_two: bool = False
) -> QuantizationParameters:
    """Choose the quantizer of each row with the least error on a grid of scales and places.

    Parameters
    ----------
    distribution : Distribution
        What is to be quantized, and the error that counts.
    format, scheme, power_of_two
        As in `accelsim.ptq.ranges.set_range`.

    Notes
    -----
    The scale shrinks from that of the whole range in 40 equal steps; a second round tries 6 finer steps on each side
    of the best. Under the affine scheme a narrower grid can lie anywhere between keeping the lower and keeping the
    upper end of two-tailed values: 9 places are tried with each scale, 5 around the best in the second round. A local
    search of one end after the other is not enough: at 4 bits it was seen to end with 45 % more error. Power of two:
    the scale that covers the range and ten halvings of it, each at 17 places.
    """
    start = QuantizationParameters.from_range(distribution.low, distribution.high, format, scheme, power_of_two, axis=0)
    search = RangeSearch(distribution, start, scheme)
    if power_of_two:
        exponent, halvings = np.log2(start.scale.astype(np.float64)), np.arange(POWER_OF_TWO_OCTAVES + 1)
        scale = np.exp2(np.maximum(exponent - halvings[:, np.newaxis], _SMALLEST_EXPONENT))
        search.offer(*_combined(scale, search.places(POWER_OF_TWO_PLACES)))
        return search.parameters()
    whole = start.scale.astype(np.float64)
    steps = np.arange(COARSE_STEPS, 0, -1)[:, np.newaxis]
    search.offer(*_combined(whole * (steps / COARSE_STEPS), search.places(COARSE_PLACES)))
    best, at = search.scale.copy(), search.place.copy()
    steps = np.arange(-FINE_STEPS, FINE_STEPS + 1)[:, np.newaxis]
    scale = np.minimum(best + whole * (steps / (COARSE_STEPS * (FINE_STEPS + 1))), whole)
    shifts = search.places(FINE_PLACES) - (0.5 if search.places(FINE_PLACES).size > 1 else 0.0)
    scale, shift = _combined(scale, shifts)
    search.offer(scale, np.clip(at + shift * 2 / (COARSE_PLACES - 1), 0.0, 1.0))
    return search.parameters()


def _combined(scale: Float64, places: Float64) -> tuple[Float64, Float64]:
    """Return every scale, shape (steps, rows), at every place: candidates as `RangeSearch.offer` takes them."""
    steps, rows = scale.shape
    place = np.broadcast_to(places[:, np.newaxis], (steps, places.size, rows))
    return np.repeat(scale, places.size, axis=0), place.reshape(-1, rows)
