"""Softmax of TFLite models: docs/numerics.md (50) to (58)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

from accelsim.errors import ModelError
from accelsim.program.layers import Layer
from accelsim.program.tflite.context import Context
from accelsim.program.tflite.elementwise import same_shape
from accelsim.program.tflite.layers import FixedPointSoftmaxLayer, TableSoftmaxLayer
from accelsim.program.tflite.model import TfliteOperator

Int64 = npt.NDArray[np.int64]

_MOST_CLASSES = 4095
"""The sum of exponentials has 12 integer bits."""

_MOST_WIDE_CLASSES = 1 << 16
"""Likewise of an int16 softmax: exponentials are below 2^15."""

_STEPS = 512
_ONE = 1 << 15
_DIFFERENCES = 1 << 16
"""Differences of two int16 codes, 0 to 2^16 - 1."""


def softmax(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower SOFTMAX of INT8 onto INT8 or INT16, and of INT16 onto INT16."""
    source, output = context.activation(operator, 0), context.output(operator)
    same_shape(operator, source, output)
    if source.dtype not in ("INT8", "INT16") or not source.shape:
        raise ModelError(
            f"{operator.where}: the input must be INT8 or INT16 with at least one axis, got {source.dtype}"
        )
    wide = source.dtype == "INT16"
    most = _MOST_WIDE_CLASSES if wide else _MOST_CLASSES
    if source.shape[-1] > most:
        raise ModelError(f"{operator.where}: at most {most} classes are summed, got {source.shape[-1]}")
    beta = float(operator.options["Beta"])
    if not (math.isfinite(beta) and beta > 0):
        raise ModelError(f"{operator.where}: beta must be a positive number, got {beta}")
    scale = float(context.stored(operator, source).scale) * beta
    if wide:
        context.stored_wide_softmax(operator, output)
        return [_by_tables(context, operator, scale)]
    return [_in_fixed_point(context, operator, scale, context.stored_softmax(operator, output).format.bits)]


def _in_fixed_point(context: Context, operator: TfliteOperator, scale: float, bits: int) -> Layer:
    """Return the softmax of int8 codes; ``scale`` is beta times theirs."""
    mantissa, left_shift = _quantized(min(scale * 2.0**26, 2.0**31 - 1))
    if left_shift < 0:
        raise ModelError(f"{operator.where}: beta times the input's scale must be at least 2^-27, got {scale}")
    return FixedPointSoftmaxLayer(
        **context.common(operator, (context.activation(operator, 0).name,)),
        mantissa=mantissa,
        left_shift=left_shift,
        least_difference=-math.floor((2**5 - 1) * 2.0 ** (31 - 5 - left_shift)),
        bits=bits,
    )


def _by_tables(context: Context, operator: TfliteOperator, scale: float) -> Layer:
    """Return the softmax of int16 codes; ``scale`` is beta times theirs."""
    mantissa, exponent = _quantized(scale / (10.0 / 65535.0))
    if not -31 <= exponent <= 14:  # 2^16 differences shifted left stay within 32 bits
        raise ModelError(f"{operator.where}: beta times the input's scale must be 2^-44 to 2, got {scale}")
    return TableSoftmaxLayer(
        **context.common(operator, (context.activation(operator, 0).name,)),
        exponentials=_exponentials(mantissa, exponent),
        reciprocals=_reciprocals(),
    )


def _quantized(real: float) -> tuple[int, int]:
    """Return mantissa and exponent of a positive number, (19) with w = 32."""
    fraction, exponent = math.frexp(real)
    mantissa = math.floor(fraction * 2.0**31 + 0.5)
    return (mantissa >> 1, exponent + 1) if mantissa == 1 << 31 else (mantissa, exponent)


def _exponentials(mantissa: int, exponent: int) -> Int64:
    """Return the exponential of every difference, (56), in units of 2^-15; int64, shape (2^16,)."""
    differences = -np.arange(_DIFFERENCES, dtype=np.int64) << max(exponent, 0)
    products = (differences * mantissa + (1 << 30)) >> 31
    right = max(-exponent, 0)
    half = (1 << right) >> 1
    shifted = np.sign(products) * ((np.abs(products) + half) >> right)
    table = _interpolated(math.exp, -10.0, 10.0 / 65535.0)
    return np.asarray(table[np.clip(shifted + _ONE - 1, -_ONE, _ONE - 1) + _ONE], dtype=np.int64)


@cache
def _reciprocals() -> Int64:
    """Return ``1 / (1 + x)`` for x = 0, 1 / 65535, ... 1, (57), in units of 2^-15; int64, shape (2^16,)."""
    return _interpolated(lambda x: 1.0 / (1.0 + x), 0.0, 1.0 / 65535.0)


def _interpolated(function: Callable[[float], float], first: float, unit: float) -> Int64:
    """Return a function of 2^16 arguments as TFLite's int16 tables have it, (55).

    Parameters
    ----------
    function : callable
        Of a float.
    first, unit : float
        The least argument, and the distance of two.
    """
    step = 65535 * unit / _STEPS
    places = [first + step * i for i in range(_STEPS + 1)]
    values = [_ONE * function(place) for place in places]
    points = []
    for i in range(_STEPS):
        sample = _half_away(values[i])
        chord = _half_away((values[i + 1] + sample) / 2)
        middle = _half_away(_ONE * function(places[i] + step / 2))
        points.append(sample - _half_away((chord - middle) / 2))
    points.append(_half_away(values[_STEPS]))
    table = np.clip(np.array(points, dtype=np.int64), -_ONE, _ONE - 1)
    which, rest = np.divmod(np.arange(_DIFFERENCES), _DIFFERENCES // _STEPS)
    slopes = table[which + 1] - table[which]
    return np.asarray(table[which] + ((slopes * rest + 64) >> 7), dtype=np.int64)


def _half_away(value: float) -> int:
    """Round half away from zero."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))
