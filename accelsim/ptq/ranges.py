"""Range setting: white paper section 3.1, equations (14) to (16).

*Min-max* covers every value. *MSE* looks for the range with the least squared error between the values and their
quantized twins, by grid search from the whole range inwards. The whole range is the first candidate and is left only
for a smaller error, so MSE is never worse than min-max on the data it was given. Real zero is inside every range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelsim.errors import FormatError
from accelsim.formats import IntegerFormat, QuantizationParameters, Scheme
from accelsim.ptq.config import RangeMethod

Float32 = npt.NDArray[np.float32]
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
_BLOCK_VALUES = 1 << 17  # errors are computed for so many values at a time: bounded memory, and it stays in the cache


@dataclass(frozen=True)
class Distribution:
    """Values of several rows that are quantized row by row: exact, or as a histogram.

    Parameters
    ----------
    values : float32 array, shape (rows, values)
        The values, or the mean of each bin.
    low, high : float64 array, shape (rows,)
        Least and greatest value of each row.
    counts : float64 array, shape (rows, values), or None
        How many values each entry stands for; None where it is one.
    variances : float64 array, shape (rows, values), or None
        Variance of the values of each bin around its mean; None where an entry is a single value.
    """

    values: Float32
    low: Float64
    high: Float64
    counts: Float64 | None = None
    variances: Float64 | None = None

    @classmethod
    def of(cls, values: npt.ArrayLike, axis: int | None = None) -> Distribution:
        """Take the values of an array: as one row, or one row per channel of an axis."""
        array = np.asarray(values, dtype=np.float32)
        if array.size == 0:
            raise FormatError(f"a range needs at least one value, got an array of shape {array.shape}")
        rows = array.reshape(1, -1) if axis is None else np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
        return cls(rows, rows.min(axis=1).astype(np.float64), rows.max(axis=1).astype(np.float64))

    def squared_error(self, parameters: QuantizationParameters) -> Float64:
        """Return ``sum (v - v^)**2`` of each row; ``parameters`` has one quantizer per row.

        Notes
        -----
        ``v^`` is computed as `QuantizationParameters.dequantize` of the codes has it: white paper (7). In a histogram
        each bin counts with its mean. A bin beyond the grid limits also counts its variance, which makes its clipping
        error exact; a bin within them does not, because there the rounding error of the mean stands for that of the
        values, and with a step narrower than a bin it does so only on average.
        """
        total = np.zeros(self.values.shape[0])
        width = max(1, _BLOCK_VALUES // self.values.shape[0])
        for start in range(0, self.values.shape[1], width):
            total += self._squared_error_of(slice(start, start + width), parameters)
        return total

    def _squared_error_of(self, part: slice, parameters: QuantizationParameters) -> Float64:
        """Return the squared error of some columns."""
        scale = parameters.scale[:, np.newaxis]
        zero_point = parameters.zero_point[:, np.newaxis]
        least = (parameters.format.minimum - zero_point).astype(np.float32)
        greatest = (parameters.format.maximum - zero_point).astype(np.float32)
        values = self.values[:, part]
        with np.errstate(over="ignore"):  # a quotient beyond float32 is an infinity, and clamps
            steps = np.rint(values / scale)
        inside = np.clip(steps, least, greatest)
        errors = (values - scale * inside).astype(np.float64)
        errors *= errors
        if self.variances is not None:
            errors += self.variances[:, part] * (steps != inside)
        if self.counts is not None:
            errors *= self.counts[:, part]
        total: Float64 = errors.sum(axis=1)
        return total


class _Search:
    """The quantizer with the least error so far, row by row, and where its grid lies."""

    def __init__(self, distribution: Distribution, start: QuantizationParameters, scheme: Scheme) -> None:
        self._distribution = distribution
        self._low = np.minimum(distribution.low, 0.0)
        self._high = np.maximum(distribution.high, 0.0)
        self._format = start.format
        self._scheme = scheme
        self._error = distribution.squared_error(start)
        self.scale = start.scale.astype(np.float64)
        self.place = np.zeros(start.scale.size)
        self._zero_point = start.zero_point.copy()

    def parameters(self) -> QuantizationParameters:
        return QuantizationParameters(self.scale.astype(np.float32), self._zero_point, self._format, 0)

    def places(self, count: int) -> Float64:
        """Return how far along the range the grid is tried: only at 0 where nothing is gained by moving it."""
        one_tailed = not (self._low.any() and self._high.any())
        return np.linspace(0.0, 1.0, 1 if self._scheme == "symmetric" or one_tailed else count)

    def offer(self, scale: Float64, place: Float64) -> None:
        """Take a scale, with the grid at some place, in the rows in which the error becomes less.

        Notes
        -----
        A grid narrower than the range cuts something off: at place 0 nothing below zero, at place 1 nothing above, in
        between some of both.
        """
        scale = np.maximum(scale, _SMALLEST_SCALE).astype(np.float32).astype(np.float64)
        least, greatest = self._format.minimum, self._format.maximum
        if self._scheme == "symmetric":
            zero_point = np.zeros(scale.size, dtype=np.int64)
        else:
            keeps_low, keeps_high = least - self._low / scale, greatest - self._high / scale
            wanted = np.rint(keeps_low + place * (keeps_high - keeps_low))
            zero_point = np.clip(wanted, least, greatest).astype(np.int64)
        candidate = QuantizationParameters(scale.astype(np.float32), zero_point, self._format, 0)
        error = self._distribution.squared_error(candidate)
        better = error < self._error
        for kept, new in (
            (self._error, error),
            (self.scale, scale),
            (self.place, place),
            (self._zero_point, zero_point),
        ):
            kept[better] = new[better]


def set_range(
    distribution: Distribution,
    format: IntegerFormat,
    scheme: Scheme,
    method: RangeMethod,
    power_of_two: bool = False,
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
    method : {"mse", "min_max"}
        Least squared error, or the whole range.
    power_of_two : bool
        Restrict scales to powers of two.

    Returns
    -------
    QuantizationParameters
        Per channel on axis 0, one quantizer per row.

    Notes
    -----
    The scale shrinks from that of the whole range in 40 equal steps; a second round tries 6 finer steps on each side
    of the best. Under the affine scheme a narrower grid can lie anywhere between keeping the lower and keeping the
    upper end of two-tailed values: 9 places are tried with each scale, 5 around the best in the second round. A local
    search of one end after the other is not enough: at 4 bits it was seen to end with 45 % more error. Power of two:
    the scale that covers the range and ten halvings of it, each at 17 places.
    """
    start = QuantizationParameters.from_range(distribution.low, distribution.high, format, scheme, power_of_two, axis=0)
    if method == "min_max":
        return start
    search = _Search(distribution, start, scheme)
    if power_of_two:
        for halvings in range(POWER_OF_TWO_OCTAVES + 1):
            scale = np.exp2(np.maximum(np.log2(start.scale.astype(np.float64)) - halvings, _SMALLEST_EXPONENT))
            for place in search.places(POWER_OF_TWO_PLACES):
                search.offer(scale, np.full(scale.size, place))
        return search.parameters()
    whole = start.scale.astype(np.float64)
    for step in range(COARSE_STEPS, 0, -1):
        for place in search.places(COARSE_PLACES):
            search.offer(whole * (step / COARSE_STEPS), np.full(whole.size, place))
    best, at = search.scale.copy(), search.place.copy()
    for step in range(-FINE_STEPS, FINE_STEPS + 1):
        scale = best + whole * (step / (COARSE_STEPS * (FINE_STEPS + 1)))
        for shift in search.places(FINE_PLACES) - (0.5 if search.places(FINE_PLACES).size > 1 else 0.0):
            search.offer(np.minimum(scale, whole), np.clip(at + shift * 2 / (COARSE_PLACES - 1), 0.0, 1.0))
    return search.parameters()


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

    Returns
    -------
    QuantizationParameters
        A channel of zeros gets the largest scale of the other channels; where all are zero the scale is 1.
    """
    distribution = Distribution.of(weights, axis)
    found = set_range(distribution, format, scheme, method, power_of_two)
    if axis is None:
        return per_tensor(found)
    scale = found.scale.copy()
    dead = (distribution.low == 0) & (distribution.high == 0)
    if dead.any() and not dead.all():
        scale[dead] = scale[~dead].max()
    return QuantizationParameters(scale, found.zero_point, format, axis)
