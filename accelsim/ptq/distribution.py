"""Values whose quantizer is sought, exact or counted in bins, and the error that a quantizer makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelsim.errors import FormatError
from accelsim.formats import IntegerFormat, QuantizationParameters

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

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

    def error(self, parameters: QuantizationParameters) -> Float64:
        """Return ``sum (v - v^)**2`` of each row; ``parameters`` has one quantizer per row.

        Notes
        -----
        ``v^`` is computed as `QuantizationParameters.dequantize` of the codes has it: white paper (7). In a histogram
        each bin counts with its mean. A bin beyond the grid limits also counts its variance, which makes its clipping
        error exact; a bin within them does not, because there the rounding error of the mean stands for that of the
        values, and with a step narrower than a bin it does so only on average.
        """
        scale, zero_point = parameters.scale[np.newaxis], parameters.zero_point[np.newaxis]
        error: Float64 = self.errors(scale, zero_point, parameters.format)[0]
        return error

    def errors(self, scale: Float32, zero_point: npt.NDArray[np.int64], format: IntegerFormat) -> Float64:
        """Return the `error` of each row under several quantizers.

        Parameters
        ----------
        scale, zero_point : array, shape (quantizers, rows)
            The quantizers, valid in the format.
        format : IntegerFormat
            Width and signedness of their codes.

        Returns
        -------
        float64 array, shape (quantizers, rows)
            One error per quantizer and row.
        """
        rows, columns = self.values.shape
        least = (format.minimum - zero_point).astype(np.float32)
        greatest = (format.maximum - zero_point).astype(np.float32)
        width = max(1, _BLOCK_VALUES // rows)
        together = max(1, _BLOCK_VALUES // (rows * min(width, columns)))
        total = np.zeros(scale.shape)
        for first in range(0, len(scale), together):
            some = slice(first, first + together)
            grids = (scale[some, :, np.newaxis], least[some, :, np.newaxis], greatest[some, :, np.newaxis])
            for start in range(0, columns, width):
                total[some] += self._squared_errors_of(slice(start, start + width), *grids)
        return total

    def _squared_errors_of(self, part: slice, scale: Float32, least: Float32, greatest: Float32) -> Float64:
        """Return the squared errors of some columns."""
        values = self.values[:, part]
        with np.errstate(over="ignore"):  # a quotient beyond float32 is an infinity, and clamps
            steps = values / scale
        np.rint(steps, out=steps)
        inside = np.clip(steps, least, greatest)
        errors = (values - scale * inside).astype(np.float64)
        errors *= errors
        if self.variances is not None:
            errors += self.variances[:, part] * (steps != inside)
        if self.counts is not None:
            errors *= self.counts[:, part]
        total: Float64 = errors.sum(axis=-1)
        return total
