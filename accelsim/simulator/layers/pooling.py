"""Pooling layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod

import numpy as np

from accelsim.program import layers as kinds
from accelsim.simulator.counts import Operation
from accelsim.simulator.engine import codes as engine_codes
from accelsim.simulator.layers.registry import (
    Codes,
    VectorCount,
    counts,
    executes,
    from_planes,
    output_shape,
    planes,
)
from accelsim.simulator.operations import WIDE_BITS, ending, rescaling
from accelsim.simulator.widths import ceil_log2


@executes(kinds.MaxPoolLayer)
def max_pool(layer: kinds.MaxPoolLayer, inputs: Sequence[Codes]) -> Codes:
    """Take the greatest code of every window, docs/numerics.md (30)."""
    images = planes(inputs[0], layer.geometry.input_shape, layer.channels_last)
    return _clamped(engine_codes.max_pool(images, layer.geometry), layer, inputs[0])


@executes(kinds.AveragePoolLayer)
def average_pool(layer: kinds.AveragePoolLayer, inputs: Sequence[Codes]) -> Codes:
    """Average every window, docs/numerics.md (31)."""
    images = planes(inputs[0], layer.geometry.input_shape, layer.channels_last)
    pooled = engine_codes.average_pool(images, layer.geometry, layer.count_padding, layer.zero_point, layer.requantizer)
    return _clamped(pooled, layer, inputs[0])


@executes(kinds.MeanLayer)
def mean(layer: kinds.MeanLayer, inputs: Sequence[Codes]) -> Codes:
    """Sum over the axes, then requantize, (36) and (45)."""
    sums = inputs[0].sum(axis=layer.axes, dtype=np.int64) - layer.source_zero_point * layer.count
    means = engine_codes.requantize(
        sums.reshape(1, -1), layer.rescale, layer.zero_point, layer.clamp, layer.output_format
    )
    return means.reshape(output_shape(layer, inputs[0]))


def _clamped(pooled: Codes, layer: kinds.MaxPoolLayer | kinds.AveragePoolLayer, first: Codes) -> Codes:
    """Return what a pooling layer stores."""
    if layer.clamp is not None:
        pooled = np.clip(pooled, *layer.clamp)
    return from_planes(pooled, output_shape(layer, first), layer.channels_last)


@counts(kinds.MaxPoolLayer)
def count_max_pool(layer: kinds.MaxPoolLayer, outputs: int, num_samples: int, bits: Sequence[int]) -> VectorCount:
    """Count the comparisons of max pooling."""
    taps = prod(layer.geometry.kernel_shape)
    return outputs * taps, Counter({Operation("compare", bits[0], bits[0]): taps - 1}), outputs


@counts(kinds.AveragePoolLayer)
def count_average_pool(
    layer: kinds.AveragePoolLayer, outputs: int, num_samples: int, bits: Sequence[int]
) -> VectorCount:
    """Count the additions and the division of average pooling."""
    taps = prod(layer.geometry.kernel_shape)
    width = bits[0] + ceil_log2(taps)
    each = Counter({Operation("add", width, bits[0]): taps - 1})
    each[Operation("divide", width, taps.bit_length())] += 1
    return outputs * taps, each, outputs


@counts(kinds.MeanLayer)
def count_mean(layer: kinds.MeanLayer, outputs: int, num_samples: int, bits: Sequence[int]) -> VectorCount:
    """Count the additions of a mean and its multiplier."""
    width = bits[0] + ceil_log2(layer.count)
    each = Counter({Operation("add", width, bits[0]): layer.count})
    each += rescaling(layer.rescale.requantizer, width) + ending(WIDE_BITS, bits[-1])
    return outputs * layer.count, each, outputs
