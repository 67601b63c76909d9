"""Layers that TFLite has beside those of `accelsim.program.layers`: docs/numerics.md section 7.

A program of a TFLite model is a ``whole`` one: shapes are the model's own, with its leading axis, and one axis of
samples in front.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelsim.formats import IntegerFormat, QuantizationParameters
from accelsim.program.layers import Layer
from accelsim.program.rescale import Rescale


@dataclass(frozen=True, kw_only=True, eq=False)
class RequantizeLayer(Layer):
    """Codes on another grid, and Relu, Relu6 and the like on their own: (47).

    Parameters
    ----------
    source_zero_point, zero_point : int
        Of the two grids.
    rescale : Rescale
        From one to the other.
    output_format : IntegerFormat
        Of the output.
    clamp : pair of int
        Bounds of the output.
    """

    source_zero_point: int
    rescale: Rescale
    zero_point: int
    output_format: IntegerFormat
    clamp: tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class LeakyReluLayer(RequantizeLayer):
    """Leaky Relu with two multipliers, (46): ``rescale`` for values from 0 on, ``negative`` for the others."""

    negative: Rescale


@dataclass(frozen=True, kw_only=True, eq=False)
class FixedPointSoftmaxLayer(Layer):
    """Softmax over the last axis in gemmlowp's fixed point, (50) to (54).

    Parameters
    ----------
    mantissa, left_shift : int
        Multiplier of (50) from differences of codes to Q5.26.
    least_difference : int
        Differences below this one give 0.
    bits : int
        Width of the output, signed.
    """

    mantissa: int
    left_shift: int
    least_difference: int
    bits: int


@dataclass(frozen=True, kw_only=True, eq=False)
class SliceLayer(Layer):
    """Every so many-th code of a range of each axis.

    Parameters
    ----------
    ranges : tuple of (start, stop, step)
        Of each axis but the samples; what Python's ``range`` runs through.
    """

    ranges: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class TableSoftmaxLayer(Layer):
    """Softmax of int16 codes over the last axis by two tables, (55) to (58).

    Parameters
    ----------
    exponentials : int64 array, shape (2**16,)
        Of each difference to the greatest code, in units of ``2**-15``.
    reciprocals : int64 array, shape (2**16,)
        ``1 / (1 + x)`` for x from 0 to 1, likewise.
    """

    exponentials: npt.NDArray[np.int64]
    reciprocals: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class FloatToCodesLayer(Layer):
    """Real numbers onto a grid, rounded half away from zero: (48).

    Parameters
    ----------
    parameters : QuantizationParameters
        Of the output.
    """

    parameters: QuantizationParameters


@dataclass(frozen=True, kw_only=True, eq=False)
class CodesToFloatLayer(Layer):
    """Codes as the real numbers that they stand for, (2).

    Parameters
    ----------
    parameters : QuantizationParameters
        Of the input.
    """

    parameters: QuantizationParameters
