"""Windows over images with their channels last: padding SAME and VALID, pooling. docs/numerics.md (44)."""

from __future__ import annotations

from accelsim.errors import ModelError
from accelsim.formats import QuantizationParameters
from accelsim.program.geometry import Geometry
from accelsim.program.layers import AveragePoolLayer, Layer, MaxPoolLayer
from accelsim.program.tflite.context import Context
from accelsim.program.tflite.model import TfliteOperator, TfliteTensor

_SAME, _VALID = 0, 1
_LONGEST = 1 << 20
"""Of a stride, a dilation or a filter."""
_SCALE_TOLERANCE = 1e-6
"""By how much the scales of a pooling layer's ends may differ in TFLite's own check."""


def image_shape(operator: TfliteOperator, tensor: TfliteTensor) -> tuple[int, int, int]:
    """Return (channels, height, width) of a tensor (batch, height, width, channels)."""
    if len(tensor.shape) != 4:
        raise ModelError(f"{operator.where}: {tensor.where} must have 4 axes, got shape {tensor.shape}")
    _, height, width, channels = tensor.shape
    return channels, height, width


def slide(
    operator: TfliteOperator,
    source: TfliteTensor,
    kernel: tuple[int, int],
    output: TfliteTensor,
    num_outputs: int,
    groups: int = 1,
) -> Geometry:
    """Return the geometry of an operator's window; refuse an output of another shape than it makes."""
    options, image = operator.options, image_shape(operator, source)
    strides = options["StrideH"], options["StrideW"]
    dilations = options.get("DilationHFactor", 1), options.get("DilationWFactor", 1)
    if min(*strides, *dilations, *kernel) < 1 or max(*strides, *dilations, *kernel) > _LONGEST:
        raise ModelError(
            f"{operator.where}: strides, dilations and filter must be 1..{_LONGEST}, got {strides}, "
            f"{dilations}, {kernel}"
        )
    if options["Padding"] not in (_SAME, _VALID):
        raise ModelError(f"{operator.where}: padding must be SAME or VALID, got number {options['Padding']}")
    places, before, after = [], [], []
    for axis, length in enumerate(image[1:]):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        if options["Padding"] == _SAME:
            count = -(-length // strides[axis])
            total = max((count - 1) * strides[axis] + reach - length, 0)
        else:
            count, total = -(-(length - reach + 1) // strides[axis]), 0
        places.append(count)
        before.append(total // 2)
        after.append(total - total // 2)
    made = source.shape[0], *places, num_outputs
    if min(places) < 1 or output.shape != made:
        raise ModelError(f"{operator.where}: the output must have shape {made}, got {output.shape}")
    pads = (before[0], before[1], after[0], after[1])
    return Geometry.of(image, kernel, strides, pads, dilations, (places[0], places[1]), groups)


def max_pool_2d(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower MAX_POOL_2D."""
    geometry, stored = _pool(context, operator)
    return [
        MaxPoolLayer(
            **context.common(operator, (context.tensor(operator, 0).name,)),
            geometry=geometry,
            clamp=context.bounds(operator, stored),
            channels_last=True,
        )
    ]


def average_pool_2d(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower AVERAGE_POOL_2D."""
    geometry, stored = _pool(context, operator)
    return [
        AveragePoolLayer(
            **context.common(operator, (context.tensor(operator, 0).name,)),
            geometry=geometry,
            count_padding=False,
            zero_point=int(stored.zero_point),
            requantizer=context.machine.requantizer,
            clamp=context.bounds(operator, stored),
            channels_last=True,
        )
    ]


def _pool(context: Context, operator: TfliteOperator) -> tuple[Geometry, QuantizationParameters]:
    """Return the window of a pooling operator and the quantizer of its output."""
    source, output = context.activation(operator, 0), context.output(operator)
    channels = image_shape(operator, source)[0]
    stored, target = context.activations_stored(operator, source, output)
    near = abs(float(stored.scale) - float(target.scale)) <= _SCALE_TOLERANCE
    if stored.zero_point != target.zero_point or not near:
        raise ModelError(f"{operator.where}: input and output must have one quantizer, got {stored} and {target}")
    kernel = operator.options["FilterHeight"], operator.options["FilterWidth"]
    return slide(operator, source, kernel, output, channels), target
