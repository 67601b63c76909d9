"""Values whose quantizer is sought, exact or counted in bins, and the error that a quantizer makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelsim.errors import FormatError
from accelsim.formats import QuantizationParameters

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
