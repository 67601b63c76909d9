"""CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED: docs/numerics.md section 7."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import ModelError
from accelsim.formats import IntegerFormat
from accelsim.machine import Requantizer
from accelsim.program.geometry import Geometry
from accelsim.program.layers import Layer, MacLayer
from accelsim.program.rescale import Rescale
from accelsim.program.tflite.context import FLOAT64, INT16, TFLITE, Context
from accelsim.program.tflite.model import FORMATS, TfliteOperator, TfliteTensor
from accelsim.program.tflite.windows import image_shape, slide

WIDEST_START = 1 << 61
MAX_REDUCTION = 1 << 26
_INT32_BIAS = 2
"""TensorType.INT32 in an operator's ``QuantizedBiasType``."""


def conv_2d(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower CONV_2D; the channels of the weights say how many groups there are."""
    source, weights = context.activation(operator, 0), context.constant(operator, 1)
    channels = image_shape(operator, source)[0]
    kernel = _kernel(operator, weights)
    num_outputs, rows, columns, depth = kernel.shape
    if channels % depth or num_outputs % (channels // depth):
        raise ModelError(
            f"{operator.where}: weights of shape {kernel.shape} do not fit {channels} channels: the last length must "
            f"divide them, and the number of groups the first"
        )
    groups = channels // depth
    geometry = slide(operator, source, (rows, columns), context.output(operator), num_outputs, groups)
    ordered = kernel if context.machine.reduction_order == "spatial_first" else np.moveaxis(kernel, -1, 1)
    return [_linear(context, operator, np.ascontiguousarray(ordered).reshape(num_outputs, -1), geometry)]


def depthwise_conv_2d(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower DEPTHWISE_CONV_2D: as many groups as input channels."""
    source, weights = context.activation(operator, 0), context.constant(operator, 1)
    channels = image_shape(operator, source)[0]
    kernel = _kernel(operator, weights)
    one, rows, columns, num_outputs = kernel.shape
    if one != 1 or num_outputs % channels:
        raise ModelError(
            f"{operator.where}: weights of shape {kernel.shape} do not fit {channels} channels: must be "
            f"(1, rows, columns, a multiple of {channels})"
        )
    geometry = slide(operator, source, (rows, columns), context.output(operator), num_outputs, channels)
    return [_linear(context, operator, kernel[0].transpose(2, 0, 1).reshape(num_outputs, -1), geometry)]


def fully_connected(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower FULLY_CONNECTED: rows of K, whatever axes the input has."""
    source, weights = context.activation(operator, 0), context.constant(operator, 1)
    output = context.output(operator)
    if operator.options["WeightsFormat"] != 0:
        raise ModelError(f"{operator.where}: shuffled weights are not supported")
    if weights.data is None or weights.data.ndim != 2:
        raise ModelError(f"{operator.where}: weights must have 2 axes, got shape {weights.shape}")
    num_outputs, reduction = weights.shape
    if source.size % reduction or output.size != source.size // reduction * num_outputs:
        raise ModelError(
            f"{operator.where}: input {source.shape}, weights {weights.shape} and output {output.shape} do not fit"
        )
    if output.shape[-1:] != (num_outputs,):
        raise ModelError(f"{operator.where}: the output's last length must be {num_outputs}, got shape {output.shape}")
    return [_linear(context, operator, np.asarray(weights.data), None)]


def _kernel(operator: TfliteOperator, weights: TfliteTensor) -> npt.NDArray[Any]:
    """Return a convolution's weights."""
    if weights.data is None or weights.data.ndim != 4:
        raise ModelError(f"{operator.where}: weights must have 4 axes, got shape {weights.shape}")
    return weights.data


def _linear(context: Context, operator: TfliteOperator, rows: npt.NDArray[Any], geometry: Geometry | None) -> MacLayer:
    """Return the layer of weights (n, k) in the machine's order."""
    machine = context.machine
    source, weights, output = context.tensor(operator, 0), context.tensor(operator, 1), context.output(operator)
    stored, target = context.activations_stored(operator, source, output)
    num_outputs, reduction = rows.shape
    weight_format = _weight_format(operator, weights, num_outputs)
    context.check_width(operator, "weight", weight_format, machine.weight_bits)
    context.check_width(operator, "activation", stored.format, machine.activation_bits)
    if reduction > MAX_REDUCTION:
        raise ModelError(
            f"{operator.where}: the reduction has {reduction:,} terms, at most {MAX_REDUCTION:,} are summed"
        )
    context.charge_weights(operator, rows.size)
    integers = np.ascontiguousarray(rows, dtype=np.int32)
    bias = _bias(context, operator, num_outputs)
    # Convolutions take their weights for symmetric; so does FULLY_CONNECTED where they have a scale per channel.
    asymmetric = geometry is None and weights.scale.size == 1
    weight_zero = int(weights.zero_point[0]) if asymmetric else 0
    if not weight_format.minimum <= weight_zero <= weight_format.maximum:
        raise ModelError(f"{operator.where}: {weights.where}: zero point {weight_zero} is outside {weight_format}")
    zero_point = int(stored.zero_point)
    at_input = machine.zero_point == "at_input"
    zeros = np.full(num_outputs, weight_zero, dtype=np.int64)
    if at_input:
        start, last, integers = bias, np.zeros_like(zeros), integers - np.int32(weight_zero)
    else:
        start = bias - zero_point * integers.sum(axis=1, dtype=np.int64) + reduction * zero_point * zeros  # (7)
        last = zeros
    if (np.abs(bias) > WIDEST_START - (1 << 60)).any() or (np.abs(start) > WIDEST_START).any():
        raise ModelError(f"{operator.where}: a bias is beyond +-2^60")
    return MacLayer(
        **context.common(operator, (source.name,)),
        weights=integers,
        start=start,
        weight_zero_points=last,
        input_offset=zero_point if at_input else 0,
        pad_value=0 if at_input else zero_point,
        geometry=geometry,
        weight_format=weight_format,
        input_format=stored.format,
        rescale=_rescale(context, operator, (source, weights, output), geometry is None),
        zero_point=int(target.zero_point),
        output_format=target.format,
        clamp=context.bounds(operator, target),
        channels_last=True,
    )


def _weight_format(operator: TfliteOperator, weights: TfliteTensor, num_outputs: int) -> IntegerFormat:
    """Return the format of the weights; refuse other types and another number of scales."""
    if weights.dtype not in ("INT8", "INT4"):
        raise ModelError(f"{operator.where}: weights must be INT8 or INT4, got {weights.dtype}")
    if weights.scale.size not in (1, num_outputs):
        raise ModelError(
            f"{operator.where}: {weights.where} must have one scale or one for each of {num_outputs} channels, "
            f"got {weights.scale.size}"
        )
    return FORMATS[weights.dtype]


def sums_in_64_bits(context: Context, operator: TfliteOperator) -> bool:
    """Return whether TFLite's kernel for a linear operator adds in 64 bits: docs/numerics.md (42)."""
    source, bias = context.tensor(operator, 0), context.optional(operator, 2)
    if source.dtype != "INT16":
        return False
    return operator.options.get("QuantizedBiasType", 0) != _INT32_BIAS if bias is None else bias.dtype == "INT64"


def _bias(context: Context, operator: TfliteOperator, num_outputs: int) -> npt.NDArray[np.int64]:
    """Return the bias in accumulator units."""
    source, bias = context.tensor(operator, 0), context.optional(operator, 2)
    if bias is None:
        return np.zeros(num_outputs, dtype=np.int64)
    known = ("INT32", "INT64") if source.dtype == "INT16" else ("INT32",)
    if source.dtype == "INT16" and operator.op == "DEPTHWISE_CONV_2D":
        known = ("INT64",)  # the one that the kernels read
    if bias.data is None or bias.dtype not in known or bias.size != num_outputs:
        raise ModelError(
            f"{operator.where}: the bias must be a constant of {num_outputs} {' or '.join(known)}, got {bias.dtype} of "
            f"shape {bias.shape}"
        )
    return bias.data.reshape(-1).astype(np.int64)


def _rescale(
    context: Context,
    operator: TfliteOperator,
    tensors: tuple[TfliteTensor, TfliteTensor, TfliteTensor],
    is_product: bool,
) -> Rescale:
    """Return the multipliers: docs/numerics.md (42)."""
    source, weights, output = tensors
    requantizer: Requantizer = INT16 if sums_in_64_bits(context, operator) else TFLITE
    factors: list[npt.ArrayLike] = [source.scale[0], weights.scale if weights.scale.size > 1 else weights.scale[0]]
    if is_product and context.kernels == "litert":
        requantizer = FLOAT64
    elif is_product and weights.scale.size == 1 and context.means_tflite:
        factors = [source.scale[0] * weights.scale[0]]  # in float32
    if context.machine.product_shift_bits > 0:  # an accumulator counts in units of 2^h products, (13a)
        factors.append(np.float32(2.0**context.machine.product_shift_bits))
    return Rescale.of(context.arithmetic(requantizer), factors, output.scale[0], operator.where)
