"""Layers that only ONNX models have: quantizers at run time, float parts, ONNX Runtime's own operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from accelsim.errors import ModelError
from accelsim.program.onnx import layers as kinds
from accelsim.program.onnx.quantization import Layout, dequantize, quantize
from accelsim.simulator.counts import Operation
from accelsim.simulator.engine import onnxruntime
from accelsim.simulator.layers.registry import Codes, VectorCount, counts, executes
from accelsim.simulator.operations import FLOAT_BITS, ending

_SINGLE = FLOAT_BITS["float32"]


def _each_sample(inputs: Sequence[Codes], function: Callable[..., npt.NDArray[Any]]) -> Codes:
    """Return a function of the inputs of each sample; inputs with one entry are the same for all."""
    samples = max(array.shape[0] for array in inputs)
    return np.stack([function(*(array[min(i, array.shape[0] - 1)] for array in inputs)) for i in range(samples)])


def _parameters_vary(inputs: Sequence[Codes], which: Sequence[int]) -> bool:
    """Whether some scales or zero points differ from sample to sample."""
    return any(inputs[index].shape[0] > 1 for index in which)


def _behind_samples(layout: Layout) -> Layout:
    """Return how scales lie over a tensor with the samples in front."""
    return Layout(None if layout.axis is None else layout.axis + 1, layout.block)


@executes(kinds.QuantizeLayer)
def quantize_linear(layer: kinds.QuantizeLayer, inputs: Sequence[Codes]) -> Codes:
    """Quantize real numbers, docs/numerics.md (60)."""
    if _parameters_vary(inputs, (1, 2)) or layer.layout.block:
        return _each_sample(inputs, lambda x, s, z: quantize(x, s, z, layer.layout, layer.format))
    x, scale, zero_point = inputs
    return quantize(x, scale[0], zero_point[0], _behind_samples(layer.layout), layer.format)


@executes(kinds.DequantizeLayer)
def dequantize_linear(layer: kinds.DequantizeLayer, inputs: Sequence[Codes]) -> Codes:
    """Return what codes stand for, docs/numerics.md (61)."""
    if _parameters_vary(inputs, (1, 2)) or layer.layout.block:
        return _each_sample(inputs, lambda q, s, z: dequantize(q, s, z, layer.layout))
    codes, scale, zero_point = inputs
    return dequantize(codes, scale[0], zero_point[0], _behind_samples(layer.layout))


@executes(kinds.DynamicQuantizeLayer)
def dynamic_quantize_linear(layer: kinds.DynamicQuantizeLayer, inputs: Sequence[Codes]) -> Codes:
    """Return one result of DynamicQuantizeLinear, docs/numerics.md (62)."""
    return _each_sample(inputs, lambda x: onnxruntime.dynamic_quantization(x, layer.part))


@executes(kinds.NodeLayer)
def run_node(layer: kinds.NodeLayer, inputs: Sequence[Codes]) -> Codes:
    """Run a node as the model says, sample by sample."""

    def run(*values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        stored = layer.runner.run(values)[layer.index]
        if stored.shape != layer.output_shape:
            raise ModelError(
                f"layer {layer.name!r} ({layer.op}): ONNX Runtime makes a tensor of shape {stored.shape}, ONNX says "
                f"{layer.output_shape}"
            )
        return stored.astype(np.int32) if stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2 else stored

    return _each_sample(inputs, run)


@executes(kinds.QLinearBinaryLayer)
def qlinear_binary(layer: kinds.QLinearBinaryLayer, inputs: Sequence[Codes]) -> Codes:
    """Add or multiply as ONNX Runtime does, docs/numerics.md (64) and (65)."""
    function = onnxruntime.multiply if layer.multiplies else onnxruntime.add
    bounds = (layer.format.minimum, layer.format.maximum)
    if _parameters_vary(inputs, (1, 2, 4, 5, 6, 7)):
        return _each_sample(inputs, lambda *values: function(_operands(values), bounds))
    return function(_operands(inputs), bounds)


@executes(kinds.FloatBinaryLayer)
def float_binary(layer: kinds.FloatBinaryLayer, inputs: Sequence[Codes]) -> Codes:
    """Dequantize, compute in float32 and quantize, docs/numerics.md (63)."""
    return onnxruntime.float_binary(layer.function, _operands(inputs), layer.clamp)


def _operands(inputs: Sequence[Codes]) -> onnxruntime.Operands:
    """Return codes as they are and scales and zero points as numbers."""
    a, scale_a, zero_a, b, scale_b, zero_b, scale, zero = inputs
    numbers = [array.reshape(-1)[0] for array in (scale_a, zero_a, scale_b, zero_b, scale, zero)]
    return onnxruntime.Operands(a, b, *numbers)


@executes(kinds.QLinearAveragePoolLayer)
def qlinear_average_pool(layer: kinds.QLinearAveragePoolLayer, inputs: Sequence[Codes]) -> Codes:
    """Average every window as ONNX Runtime does, docs/numerics.md (66)."""
    bounds = (layer.format.minimum, layer.format.maximum)

    def pool(*values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        codes = np.moveaxis(values[0], -1, 1) if layer.channels_last else values[0]
        shape = layer.output_shape[1:-1] if layer.channels_last else layer.output_shape[2:]
        window = onnxruntime.PoolWindow(layer.kernel_shape, layer.strides, layer.pads, shape, layer.count_padding)
        pooled = onnxruntime.average_pool(codes, _quantizers(values), window, bounds)
        return np.moveaxis(pooled, 1, -1) if layer.channels_last else pooled

    return _each_sample(inputs, pool)


@executes(kinds.QLinearGlobalAveragePoolLayer)
def qlinear_global_average_pool(layer: kinds.QLinearGlobalAveragePoolLayer, inputs: Sequence[Codes]) -> Codes:
    """Average whole images as ONNX Runtime does, docs/numerics.md (67)."""
    bounds = (layer.format.minimum, layer.format.maximum)

    def pool(*values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        codes = values[0]
        axes = tuple(range(1, codes.ndim - 1)) if layer.channels_last else tuple(range(2, codes.ndim))
        return onnxruntime.global_average_pool(codes, axes, _quantizers(values), bounds)

    return _each_sample(inputs, pool)


def _quantizers(values: Sequence[npt.NDArray[Any]]) -> onnxruntime.Quantizers:
    return onnxruntime.Quantizers(*(array.reshape(-1)[0] for array in values[1:]))


def _float(*names: Literal["float_add", "float_multiply"]) -> Counter[Operation]:
    return Counter(Operation(name, _SINGLE, _SINGLE) for name in names)


@counts(kinds.QuantizeLayer)
def count_quantize(layer: kinds.QuantizeLayer, outputs: int, num_samples: int, bits: Sequence[int]) -> VectorCount:
    """Count a division, priced as a multiplication, and its rounding per element."""
    return outputs, _float("float_multiply", "float_add") + ending(_SINGLE, bits[-1]), outputs


@counts(kinds.DequantizeLayer)
def count_dequantize(layer: kinds.DequantizeLayer, outputs: int, num_samples: int, bits: Sequence[int]) -> VectorCount:
    """Count a subtraction and a multiplication per element."""
    each = Counter({Operation("add", bits[0] + 1, bits[0]): 1}) + _float("float_multiply")
    return outputs, each, outputs


@counts(kinds.DynamicQuantizeLayer)
def count_dynamic(
    layer: kinds.DynamicQuantizeLayer, outputs: int, num_samples: int, bits: Sequence[int]
) -> VectorCount:
    """Count the codes like those of a QuantizeLinear; the search for the range is not counted."""
    if layer.part != "codes":
        return 0, Counter(), 0
    return outputs, _float("float_multiply", "float_add") + ending(_SINGLE, bits[-1]), outputs


@counts(kinds.NodeLayer)
def count_node(layer: kinds.NodeLayer, outputs: int, num_samples: int, bits: Sequence[int]) -> VectorCount:
    """Count an operation of the vector unit per element; what it costs inside depends on the unit."""
    return outputs, Counter(), 0


@counts(kinds.QLinearBinaryLayer)
def count_binary(layer: kinds.QLinearBinaryLayer, outputs: int, num_samples: int, bits: Sequence[int]) -> VectorCount:
    """Count the fused multiply-adds of QLinearAdd, or the product and the scaling of QLinearMul."""
    if layer.multiplies:
        each = Counter({Operation("add", width + 1, width): 1 for width in (bits[0], bits[3])})
        each[Operation("multiply", bits[0] + 1, bits[3] + 1)] += 1
        return outputs, each + _float("float_multiply", "float_add") + ending(_SINGLE, bits[-1]), outputs
    each = Counter({operation: 2 * count for operation, count in _float("float_multiply", "float_add").items()})
    return 2 * outputs, each + ending(_SINGLE, bits[-1]), outputs


@counts(kinds.FloatBinaryLayer)
def count_float_binary(
    layer: kinds.FloatBinaryLayer, outputs: int, num_samples: int, bits: Sequence[int]
) -> VectorCount:
    """Count two dequantizations, the function and a quantization."""
    each = Counter(Operation("add", width + 1, width) for width in (bits[0], bits[3]))
    each[Operation("float_multiply", _SINGLE, _SINGLE)] += 3 + (layer.function == "Mul")
    each[Operation("float_add", _SINGLE, _SINGLE)] += 1 + (layer.function != "Mul")
    return 2 * outputs, each + ending(_SINGLE, bits[-1]), outputs


@counts(kinds.QLinearAveragePoolLayer)
def count_average(
    layer: kinds.QLinearAveragePoolLayer, outputs: int, num_samples: int, bits: Sequence[int]
) -> VectorCount:
    """Count the float sum of every window."""
    return _mean(prod(layer.kernel_shape), outputs, bits)


@counts(kinds.QLinearGlobalAveragePoolLayer)
def count_global_average(
    layer: kinds.QLinearGlobalAveragePoolLayer, outputs: int, num_samples: int, bits: Sequence[int]
) -> VectorCount:
    """Count the scaling of every mean; its additions depend on the image and are those of the integer sum."""
    each = _float("float_multiply", "float_add") + ending(_SINGLE, bits[-1])
    return outputs, each, outputs


def _mean(taps: int, outputs: int, bits: Sequence[int]) -> VectorCount:
    each = Counter(
        {Operation("float_multiply", _SINGLE, _SINGLE): taps, Operation("float_add", _SINGLE, _SINGLE): taps}
    )
    each[Operation("float_multiply", _SINGLE, _SINGLE)] += 2
    return outputs * taps, each + ending(_SINGLE, bits[-1]), outputs
