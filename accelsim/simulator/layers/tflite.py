"""Layers of TFLite models: docs/numerics.md section 7."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from accelsim.program.tflite import layers as kinds
from accelsim.simulator.counts import Operation
from accelsim.simulator.engine import codes as engine_codes
from accelsim.simulator.layers.registry import Codes, VectorCount, counts, executes, output_shape
from accelsim.simulator.operations import WIDE_BITS, ending, rescaling


@executes(kinds.RequantizeLayer)
def requantize(layer: kinds.RequantizeLayer, inputs: Sequence[Codes]) -> Codes:
    """Bring codes onto another grid, (47)."""
    return engine_codes.rescale_codes(
        inputs[0], layer.source_zero_point, layer.rescale, layer.zero_point, layer.clamp, layer.output_format
    )  # fmt: skip


@executes(kinds.LeakyReluLayer)
def leaky_relu(layer: kinds.LeakyReluLayer, inputs: Sequence[Codes]) -> Codes:
    """Bring codes onto another grid with a multiplier for each side of zero, (46)."""
    zero = layer.source_zero_point
    sides = [
        engine_codes.rescale_codes(inputs[0], zero, rescale, layer.zero_point, layer.clamp, layer.output_format)
        for rescale in (layer.rescale, layer.negative)
    ]
    return np.where(inputs[0] >= zero, *sides)


@executes(kinds.FixedPointSoftmaxLayer)
def softmax(layer: kinds.FixedPointSoftmaxLayer, inputs: Sequence[Codes]) -> Codes:
    """Softmax in fixed point, (50) to (54)."""
    return engine_codes.fixed_point_softmax(
        inputs[0], layer.mantissa, layer.left_shift, layer.least_difference, layer.bits
    )  # fmt: skip


@executes(kinds.TableSoftmaxLayer)
def table_softmax(layer: kinds.TableSoftmaxLayer, inputs: Sequence[Codes]) -> Codes:
    """Softmax by tables, (55) to (58)."""
    return engine_codes.table_softmax(inputs[0], layer.exponentials, layer.reciprocals)


@executes(kinds.SliceLayer)
def take_slice(layer: kinds.SliceLayer, inputs: Sequence[Codes]) -> Codes:
    """Take a range of each axis."""
    taken = inputs[0]
    for axis, (start, stop, step) in enumerate(layer.ranges, start=1):
        if (start, stop, step) != (0, taken.shape[axis], 1):
            taken = taken.take(np.arange(start, stop, step), axis=axis)
    return taken.reshape(output_shape(layer, inputs[0]))


@executes(kinds.FloatToCodesLayer)
def float_to_codes(layer: kinds.FloatToCodesLayer, inputs: Sequence[Codes]) -> Codes:
    """Quantize real numbers, halves away from zero, (48)."""
    parameters = layer.parameters
    with np.errstate(over="ignore"):  # a quotient beyond float32 is an infinity, and clamps
        quotients = (inputs[0] / parameters.scale).astype(np.float64)
    whole = np.trunc(quotients)
    with np.errstate(invalid="ignore"):
        steps = whole + np.sign(quotients) * (np.abs(quotients - whole) >= 0.5)
    limits = parameters.format.minimum, parameters.format.maximum
    stored: Codes = np.clip(steps + parameters.zero_point, *limits).astype(np.int32)
    return stored


@executes(kinds.CodesToFloatLayer)
def codes_to_float(layer: kinds.CodesToFloatLayer, inputs: Sequence[Codes]) -> Codes:
    """Return real numbers, (2)."""
    real: Codes = layer.parameters.dequantize(inputs[0])
    return real


@counts(kinds.RequantizeLayer)
def count_requantize(layer: kinds.RequantizeLayer, outputs: int, num_samples: int, bits: Sequence[int]) -> VectorCount:
    """Count a multiplier per element, and a comparison where there are two to choose from."""
    each = Counter({Operation("add", bits[0] + 1, bits[0]): 1})
    each += rescaling(layer.rescale.requantizer, bits[0] + 1) + ending(WIDE_BITS, bits[-1])
    if isinstance(layer, kinds.LeakyReluLayer):
        each[Operation("compare", bits[0], bits[0])] += 1
    return outputs, each, outputs


@counts(kinds.FixedPointSoftmaxLayer)
def count_softmax(
    layer: kinds.FixedPointSoftmaxLayer, outputs: int, num_samples: int, bits: Sequence[int]
) -> VectorCount:
    """Count each class: its difference, the polynomial and seven factors of its exponential, a sum, a product."""
    each = Counter({Operation("compare", bits[0], bits[0]): 1, Operation("add", bits[0] + 1, bits[0]): 1})
    each += Counter({Operation("multiply", 32, 32): 13, Operation("add", 32, 32): 8, Operation("shift", 32, 32): 3})
    return outputs, each, outputs


@counts(kinds.TableSoftmaxLayer)
def count_table_softmax(
    layer: kinds.TableSoftmaxLayer, outputs: int, num_samples: int, bits: Sequence[int]
) -> VectorCount:
    """Count each class: its difference, scaled, the interpolated exponential, a sum, a product."""
    each = Counter({Operation("compare", bits[0], bits[0]): 1, Operation("add", bits[0] + 1, bits[0]): 1})
    each += Counter(
        {Operation("multiply", 32, 32): 1, Operation("look_up", bits[0], 16): 2, Operation("add", 16, 16): 2}
    )
    each += Counter({Operation("multiply", 16, 7): 1, Operation("add", WIDE_BITS, 16): 1})
    each += Counter({Operation("multiply", 16, 16): 1, Operation("shift", WIDE_BITS, WIDE_BITS): 1})
    return outputs, each, outputs


@counts(kinds.FloatToCodesLayer)
def count_quantize(layer: kinds.FloatToCodesLayer, outputs: int, num_samples: int, bits: Sequence[int]) -> VectorCount:
    """Count a division in floating point."""
    return outputs, Counter({Operation("divide", 32, 32): 1}) + ending(WIDE_BITS, bits[-1]), outputs


@counts(kinds.CodesToFloatLayer)
def count_dequantize(
    layer: kinds.CodesToFloatLayer, outputs: int, num_samples: int, bits: Sequence[int]
) -> VectorCount:
    """Count a product in floating point."""
    return outputs, Counter({Operation("float_multiply", 32, 32): 1}), outputs
