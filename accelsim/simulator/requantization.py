"""Requantization on its own: accumulators to codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import OperandError
from accelsim.formats import IntegerFormat, QuantizationParameters
from accelsim.machine import Requantizer
from accelsim.program.rescale import Rescale
from accelsim.simulator.engine import codes
from accelsim.simulator.operands import integer_array


def requantize(
    accumulators: npt.ArrayLike,
    requantizer: Requantizer | str,
    *,
    input_scale: float | None = None,
    weight_scale: npt.ArrayLike | None = None,
    mantissas: npt.ArrayLike | None = None,
    exponents: npt.ArrayLike | None = None,
    output: QuantizationParameters | IntegerFormat,
    zero_point: int | None = None,
    minimum: int | None = None,
    maximum: int | None = None,
) -> npt.NDArray[Any]:
    """Bring accumulators to codes, docs/numerics.md section 5.

    Parameters
    ----------
    accumulators : integer array, shape (n, p)
        Values in units of ``input_scale * weight_scale``.
    requantizer : Requantizer or str
        The arithmetic, or the name of a preset.
    input_scale : float
        s_x, rounded to float32.
    weight_scale : float or array, shape (n,)
        s_w, rounded to float32.
    mantissas, exponents : int or integer array, shape (n,)
        Instead of scales: the multiplier ``mantissa * 2**(exponent - 31)`` as integers, as CMSIS-NN has it.
    output : QuantizationParameters or IntegerFormat
        s_y, zero point and format; per tensor. With integer multipliers the format is enough.
    zero_point : int, optional
        With a format alone; 0 when left out.
    minimum, maximum : int, optional
        Clamp bounds inside the format, as a fused activation function sets them.

    Returns
    -------
    integer array, shape (n, p)
        Codes in the format's numpy type.

    Raises
    ------
    OperandError, LoweringError, MachineError
        When an argument does not fit.
    """
    values = integer_array("accumulators", accumulators, 2)
    if values.dtype == np.uint64 or max(abs(int(values.min())), abs(int(values.max()))) >= 1 << 62:
        raise OperandError("accumulators must be within +-2^62 and not uint64; cast them to int64")
    chosen = Requantizer.preset(requantizer) if isinstance(requantizer, str) else requantizer
    if isinstance(output, QuantizationParameters):
        if output.per_channel:
            raise OperandError("output must be quantized per tensor")
        if zero_point is not None:
            raise OperandError(f"zero_point is the output quantizer's, {int(output.zero_point)}; leave it out")
        offset, stored_format = int(output.zero_point), output.format
    else:
        offset, stored_format = 0 if zero_point is None else zero_point, output
    given = (input_scale, weight_scale), (mantissas, exponents)
    rescale = _rescale(chosen, *given, output, values.shape[0])
    low = stored_format.minimum if minimum is None else max(minimum, stored_format.minimum)
    high = stored_format.maximum if maximum is None else min(maximum, stored_format.maximum)
    if low > high:
        raise OperandError(f"minimum must not be above maximum, got {low} and {high}")
    if abs(offset) >= 1 << 31:
        raise OperandError(f"zero_point must be within +-2^31, got {offset}")
    stored = codes.requantize(values.astype(np.int64), rescale, offset, (low, high), stored_format)
    return stored.astype(stored_format.dtype)


def _rescale(
    requantizer: Requantizer,
    scales: tuple[float | None, npt.ArrayLike | None],
    integers: tuple[npt.ArrayLike | None, npt.ArrayLike | None],
    output: QuantizationParameters | IntegerFormat,
    channels: int,
) -> Rescale:
    """Return the multipliers from scales or from integers, whichever are given."""
    (input_scale, weight_scale), (mantissas, exponents) = scales, integers
    if mantissas is not None and exponents is not None and input_scale is None and weight_scale is None:
        mantissa = _multiplier_part("mantissas", mantissas, channels)
        exponent = _multiplier_part("exponents", exponents, channels)
        return Rescale.of_parts(requantizer, mantissa, exponent, "requantize")
    if input_scale is not None and weight_scale is not None and mantissas is None and exponents is None:
        if not isinstance(output, QuantizationParameters):
            raise OperandError("output must be QuantizationParameters with scales; a format is enough with mantissas")
        factors = np.asarray(weight_scale, dtype=np.float32)
        if factors.shape not in ((), (channels,)):
            raise OperandError(f"weight_scale must be one number or {channels}, got shape {factors.shape}")
        return Rescale.of(requantizer, [np.float32(input_scale), factors], output.scale, "requantize")
    raise OperandError("the multiplier must be given by input_scale and weight_scale, or by mantissas and exponents")


def _multiplier_part(name: str, part: npt.ArrayLike, channels: int) -> npt.NDArray[Any]:
    """Return mantissas or exponents of a requantization; raise OperandError for another shape or type."""
    array = np.asarray(part)
    if array.dtype.kind not in "iu" or array.shape not in ((), (1,), (channels,)):
        raise OperandError(f"{name} must be one integer or {channels}, got {array.dtype} of shape {array.shape}")
    return array
