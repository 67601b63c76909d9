"""ADD, SUB, MUL, QUANTIZE, DEQUANTIZE, Relu and its kin, LEAKY_RELU, MEAN, SOFTMAX: docs/numerics.md section 7."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import expit

from accelsim.errors import ModelError
from accelsim.formats import QuantizationParameters
from accelsim.machine import Requantizer
from accelsim.program.layers import AddLayer, Layer, MeanLayer, MultiplyLayer, TableLayer
from accelsim.program.rescale import Addition, Rescale
from accelsim.program.storage import PlainFormat, PlainTensor
from accelsim.program.tflite.context import TFLITE, Context, clamp_of
from accelsim.program.tflite.layers import (
    CodesToFloatLayer,
    FloatToCodesLayer,
    LeakyReluLayer,
    RequantizeLayer,
)
from accelsim.program.tflite.model import TfliteOperator, TfliteTensor

FLOAT32 = PlainTensor(PlainFormat(np.dtype(np.float32), 32))
_SHIFTS = Requantizer(multiplier="power_of_two", rounding=("half_away",))
_RELUS: dict[str, tuple[float | None, float | None]] = {
    "RELU": (0.0, None),
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU_0_TO_1": (0.0, 1.0),
}


def add(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower ADD and SUB."""
    (a, b, output), stored, common, layers = _operands(context, operator)
    scale_a, scale_b, target = stored
    pot = operator.options["PotScaleInt16"] and a.dtype == "INT16" and context.kernels == "litert"
    if pot and context.means_tflite and all(parameters.is_power_of_two for parameters in stored):
        addition = _shifted_addition(operator, a, b, output)
    else:
        addition = Addition.of(context.arithmetic(), scale_a, scale_b, target.scale, operator.where)
    sign = 1 if operator.op == "ADD" else -1
    return [*layers, AddLayer(**common, sign=sign, **vars(addition))]


def mul(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower MUL; TFLite forms its multiplier in float32."""
    (a, b, output), _, common, layers = _operands(context, operator)
    factors: list[Any] = [a.scale[0], b.scale[0]]
    divisor: Any = output.scale[0]
    if context.means_tflite:
        factors, divisor = [np.float32(a.scale[0] * b.scale[0]) / divisor], np.float32(1)
    return [*layers, MultiplyLayer(**common, rescale=context.rescale(operator, factors, divisor))]


def _operands(
    context: Context, operator: TfliteOperator
) -> tuple[tuple[TfliteTensor, ...], list[QuantizationParameters], dict[str, Any], list[Layer]]:
    """Return both inputs and the output, their quantizers, the layer's fields, and layers that align the axes."""
    output, layers = context.output(operator), []
    names, tensors = [], []
    for position in range(2):
        name, tensor, made = context.operand(operator, position, len(output.shape))
        names.append(name)
        tensors.append(tensor)
        layers += made
    if all(tensor.data is not None for tensor in tensors):
        raise ModelError(f"{operator.where}: both inputs are constants")
    try:
        fits = np.broadcast_shapes(*(tensor.shape for tensor in tensors)) == output.shape
    except ValueError:
        fits = False
    if not fits:
        shapes = " and ".join(str(tensor.shape) for tensor in tensors)
        raise ModelError(f"{operator.where}: inputs {shapes} do not make an output of shape {output.shape}")
    stored = context.activations_stored(operator, *tensors, output)
    common = {
        **context.common(operator, names),
        "zero_points": tuple(int(parameters.zero_point) for parameters in stored[:2]),
        "zero_point": int(stored[2].zero_point),
        "output_format": stored[2].format,
        "clamp": context.bounds(operator, stored[2]),
    }
    return (*tensors, output), stored, common, layers


def _shifted_addition(operator: TfliteOperator, a: TfliteTensor, b: TfliteTensor, output: TfliteTensor) -> Addition:
    """Return the addition of int16 tensors whose scales are powers of two, (49): one input is shifted right."""
    ratios = [float(tensor.scale[0]) / float(output.scale[0]) for tensor in (a, b)]
    if max(ratios) != 1.0:
        raise ModelError(
            f"{operator.where}: with power-of-two scales one input must have the output's scale and the other at most "
            f"that, got ratios {ratios[0]} and {ratios[1]}"
        )
    one = np.float32(1)
    rescales = [Rescale.of(_SHIFTS, [np.float32(ratio)], one, operator.where) for ratio in (*ratios, 1.0)]
    return Addition((rescales[0], rescales[1]), 0, rescales[2])


def quantize(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower QUANTIZE, from real numbers or from another grid."""
    source, output = context.activation(operator, 0), context.output(operator)
    same_shape(operator, source, output)
    target = context.stored(operator, output)
    common = context.common(operator, (source.name,))
    if source.dtype == "FLOAT32":
        return [FloatToCodesLayer(**common, parameters=target)]
    stored = context.stored(operator, source)
    return [_requantize(context, operator, common, stored, target, (None, None))]


def dequantize(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower DEQUANTIZE."""
    source, output = context.activation(operator, 0), context.output(operator)
    same_shape(operator, source, output)
    if output.dtype != "FLOAT32":
        raise ModelError(f"{operator.where}: the output must be FLOAT32, got {output.dtype}")
    return [
        CodesToFloatLayer(**context.common(operator, (source.name,)), parameters=context.stored(operator, source))
    ]  # fmt: skip


def relu(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower RELU, RELU6, RELU_N1_TO_1 and RELU_0_TO_1 that stand alone."""
    source, output = context.activation(operator, 0), context.output(operator)
    same_shape(operator, source, output)
    stored, target = context.activations_stored(operator, source, output)
    if context.kernels == "tflite_micro" and operator.op == "RELU6" and stored != target:
        raise ModelError(f"{operator.where}: TFLite Micro clamps codes only; input and output must have one quantizer")
    common = context.common(operator, (source.name,))
    return [_requantize(context, operator, common, stored, target, _RELUS[operator.op])]


def _requantize(
    context: Context,
    operator: TfliteOperator,
    common: dict[str, Any],
    stored: QuantizationParameters,
    target: QuantizationParameters,
    bounds: tuple[float | None, float | None],
) -> RequantizeLayer:
    """Return the layer from one grid to another, (47); Relu's multiplier is a float32 quotient."""
    factors, divisor = [stored.scale], target.scale
    if operator.op != "QUANTIZE" and context.means_tflite:
        factors, divisor = [np.asarray(stored.scale / target.scale)], np.ones((), dtype=np.float32)
    return RequantizeLayer(
        **common,
        source_zero_point=int(stored.zero_point),
        rescale=context.rescale(operator, factors, divisor),
        zero_point=int(target.zero_point),
        output_format=target.format,
        clamp=clamp_of(bounds, target),
    )


def table(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower LOGISTIC and TANH of INT8 to a table: real numbers of every code, halves away from zero, (48)."""
    source, output = context.activation(operator, 0), context.output(operator)
    same_shape(operator, source, output)
    stored, target = context.activations_stored(operator, source, output)
    if source.dtype != "INT8" or context.kernels != "litert":
        raise ModelError(f"{operator.where}: only LiteRT's table of INT8 is known, got {source.dtype}")
    codes = np.arange(stored.format.minimum, stored.format.maximum + 1)
    function: Any = expit if operator.op == "LOGISTIC" else np.tanh
    steps = function(stored.dequantize(codes).astype(np.float64)) / float(target.scale)
    whole = np.trunc(steps)
    rounded = whole + np.sign(steps) * (np.abs(steps - whole) >= 0.5) + int(target.zero_point)
    entries = np.clip(rounded, target.format.minimum, target.format.maximum).astype(np.int32)
    return [
        TableLayer(
            **context.common(operator, (source.name,)), tables=entries.reshape(1, -1), lowest=stored.format.minimum
        )
    ]


def leaky_relu(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower LEAKY_RELU; LiteRT forms its multipliers in float32, TFLite Micro in float64."""
    source, output = context.activation(operator, 0), context.output(operator)
    same_shape(operator, source, output)
    stored, target = context.activations_stored(operator, source, output)
    alpha = np.float32(operator.options["Alpha"])
    if not (math.isfinite(alpha) and alpha >= 0):
        raise ModelError(f"{operator.where}: alpha must be a number of at least 0, got {alpha}")
    one = np.float32(1)
    if context.means_tflite and context.kernels == "litert":
        ratio, slope = stored.scale / target.scale, np.float32(stored.scale * alpha) / target.scale
        rescales = [context.rescale(operator, [factor], one) for factor in (ratio, slope)]
    else:
        rescales = [context.rescale(operator, [stored.scale, factor], target.scale) for factor in (one, alpha)]
    return [
        LeakyReluLayer(
            **context.common(operator, (source.name,)),
            source_zero_point=int(stored.zero_point),
            rescale=rescales[0],
            negative=rescales[1],
            zero_point=int(target.zero_point),
            output_format=target.format,
            clamp=(target.format.minimum, target.format.maximum),
        )
    ]


def mean(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower MEAN over any axes."""
    source, output = context.activation(operator, 0), context.output(operator)
    stored, target = context.activations_stored(operator, source, output)
    given, rank = context.constant(operator, 1).integers(), len(source.shape)
    if any(not -rank <= axis < rank for axis in given):
        raise ModelError(f"{operator.where}: axes must be within {-rank}..{rank - 1}, got {given}")
    axes = sorted({axis % rank for axis in given})
    kept = [length for axis, length in enumerate(source.shape) if axis not in axes]
    if operator.options["KeepDims"]:
        kept = [1 if axis in axes else length for axis, length in enumerate(source.shape)]
    if tuple(kept) != output.shape:
        raise ModelError(f"{operator.where}: the output must have shape {tuple(kept)}, got {output.shape}")
    count = math.prod(source.shape[axis] for axis in axes)
    return [
        MeanLayer(
            **context.common(operator, (source.name,)),
            axes=tuple(axis + 1 for axis in axes),
            count=count,
            source_zero_point=int(stored.zero_point),
            rescale=_mean_rescale(context, operator, stored, target, count),
            zero_point=int(target.zero_point),
            output_format=target.format,
            clamp=(target.format.minimum, target.format.maximum),
        )
    ]


def _mean_rescale(
    context: Context,
    operator: TfliteOperator,
    stored: QuantizationParameters,
    target: QuantizationParameters,
    count: int,
) -> Rescale:
    """Return the multiplier of a mean; TFLite divides its mantissa by the count, (45)."""
    if not context.means_tflite:
        return context.rescale(operator, [stored.scale], np.float64(target.scale) * count)
    whole = Rescale.of(TFLITE, [stored.scale], target.scale, operator.where)
    mantissa, exponent = int(whole.mantissas[0]), int(whole.exponents[0])
    shift = max(0, min(count.bit_length() - 1, 32, 31 + exponent))
    return Rescale.of_parts(TFLITE, (mantissa << shift) // count, exponent - shift, operator.where)


def same_shape(operator: TfliteOperator, source: TfliteTensor, output: TfliteTensor) -> None:
    """Refuse an output of another shape than the input."""
    if source.shape != output.shape:
        raise ModelError(f"{operator.where}: the output must have shape {source.shape}, got {output.shape}")
