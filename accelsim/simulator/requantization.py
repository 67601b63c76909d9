"""Requantization on its own: accumulators to codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.arrays import whole_number
from accelsim.errors import OperandError
from accelsim.formats import IntegerFormat, QuantizationParameters
from accelsim.machine import Requantizer
from accelsim.program.rescale import Rescale
from accelsim.simulator.engine import codes
from accelsim.simulator.operands import integer_array

_FARTHEST_OFFSET = (1 << 31) - 1
"""Of a zero point that comes without a quantizer."""

_FARTHEST_BOUND = (1 << 63) - 1
"""Of clamp bounds; any beyond the format stand for its ends."""


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
        With a format alone; 0 when left out. CMSIS-NN takes offsets that are no codes, and so does this.
    minimum, maximum : int, optional
        Clamp bounds, as a fused activation function sets them; the format's ends where they are beyond.

    Returns
    -------
    integer array, shape (n, p)
        Codes in the format's numpy type.

    Raises
    ------
    OperandError, LoweringError, MachineError
        When an argument does not fit.
    """
    chosen = Requantizer.preset(requantizer) if isinstance(requantizer, str) else requantizer
    if not isinstance(chosen, Requantizer):
        raise OperandError(f"requantizer must be a Requantizer or the name of a preset, got {requantizer!r}")
    if not isinstance(output, QuantizationParameters | IntegerFormat):
        raise OperandError(f"output must be QuantizationParameters or an IntegerFormat, got {output!r}")
    values = integer_array("accumulators", accumulators, 2)
    if values.dtype == np.uint64 or max(abs(int(values.min())), abs(int(values.max()))) >= 1 << 62:
        raise OperandError("accumulators must be within +-2^62 and not uint64; cast them to int64")
    if isinstance(output, QuantizationParameters):
        if output.per_channel:
            raise OperandError("output must be quantized per tensor")
        if zero_point is not None:
            raise OperandError(f"zero_point is the output quantizer's, {int(output.zero_point)}; leave it out")
        offset, stored_format = int(output.zero_point), output.format
    else:
        offset, stored_format = 0, output
        if zero_point is not None:
            offset = whole_number("zero_point", zero_point, -_FARTHEST_OFFSET, _FARTHEST_OFFSET)
    given = (input_scale, weight_scale), (mantissas, exponents)
    rescale = _rescale(chosen, *given, output, values.shape[0])
    low, high = stored_format.minimum, stored_format.maximum
    if minimum is not None:
        low = max(whole_number("minimum", minimum, -_FARTHEST_BOUND, _FARTHEST_BOUND), low)
    if maximum is not None:
        high = min(whole_number("maximum", maximum, -_FARTHEST_BOUND, _FARTHEST_BOUND), high)
    if low > high:
        raise OperandError(f"minimum must not be above maximum, got {low} and {high}")
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
        factors = _scales("weight_scale", weight_scale)
        if factors.shape not in ((), (channels,)):
            raise OperandError(f"weight_scale must be one number or {channels}, got shape {factors.shape}")
        scale = _scales("input_scale", input_scale)
        if scale.ndim:
            raise OperandError(f"input_scale must be one number, got shape {scale.shape}")
        return Rescale.of(requantizer, [scale, factors], output.scale, "requantize")
    raise OperandError("the multiplier must be given by input_scale and weight_scale, or by mantissas and exponents")


def _scales(name: str, values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return scales in float32; raise OperandError unless they are positive and finite there."""
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(values).astype(np.float32)
    except (TypeError, ValueError):
        raise OperandError(f"{name} must be numbers, got {values!r}") from None
    if not (np.isfinite(array).all() and (array > 0).all()):
        raise OperandError(f"{name} must be positive and finite in float32, got {array.min()}..{array.max()}")
    return array


def _multiplier_part(name: str, part: npt.ArrayLike, channels: int) -> npt.NDArray[Any]:
    """Return mantissas or exponents of a requantization; raise OperandError for another shape or type."""
    array = np.asarray(part)
    if array.dtype.kind not in "iu" or array.shape not in ((), (1,), (channels,)):
        raise OperandError(f"{name} must be one integer or {channels}, got {array.dtype} of shape {array.shape}")
    return array
