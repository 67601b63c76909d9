"""Layers that move codes, and put them on another grid on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from accelsim.program import layers as kinds
from accelsim.simulator.counts import Operation
from accelsim.simulator.engine import codes as engine_codes
from accelsim.simulator.layers.registry import Codes, VectorCount, counts, executes, output_shape
from accelsim.simulator.operations import WIDE_BITS, ending, rescaling


@executes(kinds.ConcatLayer)
def concat(layer: kinds.ConcatLayer, inputs: Sequence[Codes]) -> Codes:
    """Bring every input onto the output's grid and join them, docs/numerics.md (29)."""
    output = (layer.zero_point, layer.clamp, layer.output_format)
    parts = [
        codes if rescale is None else engine_codes.rescale_codes(codes, zero, rescale, *output)
        for codes, zero, rescale in zip(inputs, layer.zero_points, layer.rescales, strict=True)
    ]
    return np.concatenate(parts, axis=layer.axis)


@executes(kinds.ReshapeLayer, as_stored=True)
def reshape(layer: kinds.ReshapeLayer, inputs: Sequence[Codes]) -> Codes:
    """Give codes the output's shape."""
    return inputs[0].reshape(output_shape(layer, inputs[0]))


@executes(kinds.TransposeLayer, as_stored=True)
def transpose(layer: kinds.TransposeLayer, inputs: Sequence[Codes]) -> Codes:
    """Exchange the axes."""
    return np.ascontiguousarray(inputs[0].transpose(layer.permutation))


@executes(kinds.PadLayer)
def pad(layer: kinds.PadLayer, inputs: Sequence[Codes]) -> Codes:
    """Put a border of one code around."""
    half = len(layer.pads) // 2
    widths = list(zip(layer.pads[:half], layer.pads[half:], strict=True))
    return np.pad(inputs[0], widths, constant_values=layer.code)


@counts(kinds.ConcatLayer)
def count_concat(layer: kinds.ConcatLayer, outputs: int, num_samples: int, bits: Sequence[int]) -> VectorCount:
    """Count the rescaling of the inputs that are on another grid."""
    elements, each = 0, Counter[Operation]()
    for length, width, rescale in zip(layer.sizes, bits, layer.rescales, strict=False):
        if rescale is not None:
            elements += length * num_samples
            part = Counter({Operation("add", width + 1, width): 1})
            part += rescaling(rescale.requantizer, width + 1) + ending(WIDE_BITS, bits[-1])
            each += Counter({operation: count * length for operation, count in part.items()})
    return elements, each, num_samples
