"""Ranges of a tensor channel by channel, held against its quantizer's: the look at distributions in figure 9."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelsim.formats import QuantizationParameters
from accelsim.graph.feeds import Feeds
from accelsim.graph.operators import LINEAR
from accelsim.graph.quantized import QuantizedGraph
from accelsim.ptq.folding import weight_axis
from accelsim.reference.batches import samples_per_batch
from accelsim.reference.runner import OnnxRunner

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ChannelRanges:
    """Least and greatest value per channel, and what the quantizer can represent.

    Parameters
    ----------
    low, high : float64 array, shape (channels,)
        Of the float values.
    grid_low, grid_high : float64 array, shape (channels,)
        Limits q_min and q_max of the grid, the same for all channels of a per-tensor quantizer.
    step : float64 array, shape (channels,)
        Scale.
    clipped : float
        Share of all values that are beyond the grid by more than half a step, 0..1.
    """

    low: Float64
    high: Float64
    grid_low: Float64
    grid_high: Float64
    step: Float64
    clipped: float

    @property
    def spread(self) -> float:
        """Range of the widest channel over that of the median one; channels that are always 0 do not count."""
        widths = np.maximum(self.high, 0.0) - np.minimum(self.low, 0.0)
        widths = widths[widths > 0]
        return float(widths.max() / np.median(widths)) if widths.size else 1.0

    @property
    def starved(self) -> int:
        """How many channels, of those that are not always 0, have less than 8 steps for their whole range."""
        widths = np.maximum(self.high, 0.0) - np.minimum(self.low, 0.0)
        return int(np.count_nonzero((widths > 0) & (widths < 8 * self.step)))


def _made(values: list[Float64], parameters: QuantizationParameters, clipped: int, total: int) -> ChannelRanges:
    low, high = values
    step = np.broadcast_to(parameters.scale.astype(np.float64), low.shape)
    zero = np.broadcast_to(parameters.zero_point.astype(np.float64), low.shape)
    grid_low, grid_high = (step * (end - zero) for end in (parameters.format.minimum, parameters.format.maximum))
    return ChannelRanges(low, high, grid_low, grid_high, step, clipped / max(1, total))


def weight_ranges(quantized: QuantizedGraph) -> dict[str, ChannelRanges]:
    """Return the ranges of every linear layer's weights per output channel, by the name of the constant."""
    found = {}
    for node in quantized.graph.nodes:
        name = node.inputs[1] if len(node.inputs) > 1 else ""
        if name not in quantized.weights or node.op not in LINEAR:
            continue
        parameters = quantized.weights[name].parameters
        values = np.moveaxis(quantized.graph.constants[name].astype(np.float64), weight_axis(node), 0)
        rows = values.reshape(values.shape[0], -1)
        beyond = _beyond(rows, parameters)
        found[name] = _made([rows.min(axis=1), rows.max(axis=1)], parameters, beyond, rows.size)
    return found


def activation_ranges(quantized: QuantizedGraph, feeds: Feeds, tensors: Sequence[str]) -> dict[str, ChannelRanges]:
    """Measure activations of the float network per channel of axis 1, as they are before their quantizers.

    Parameters
    ----------
    quantized : QuantizedGraph
        The network; its rescaled float graph is run.
    feeds : Feeds
        The images; memory is that of a batch.
    tensors : sequence of str
        Stored tensors.
    """
    graph = quantized.graph
    runner = OnnxRunner.of_normalised(graph, [name for name in tensors if graph.producer(name)] or None)
    ends: dict[str, list[Float64]] = {}
    beyond = dict.fromkeys(tensors, 0)
    total = dict.fromkeys(tensors, 0)
    for batch in feeds.batches(samples_per_batch(graph)):
        made = {**batch, **runner.run(batch)}
        for name in tensors:
            values = made[name]
            rows = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1).astype(np.float64)
            beyond[name] += _beyond(rows, quantized.activations[name])
            total[name] += rows.size
            low, high = rows.min(axis=1), rows.max(axis=1)
            if name in ends:
                low, high = np.minimum(low, ends[name][0]), np.maximum(high, ends[name][1])
            ends[name] = [low, high]
    return {name: _made(ends[name], quantized.activations[name], beyond[name], total[name]) for name in tensors}


def _beyond(rows: Float64, parameters: QuantizationParameters) -> int:
    """Count the values that are beyond the grid by more than half a step; one row per channel."""
    sides = (-1, 1) if parameters.per_channel else ()
    steps = rows / parameters.scale.reshape(sides) + parameters.zero_point.reshape(sides)
    outside = (steps < parameters.format.minimum - 0.5) | (steps > parameters.format.maximum + 0.5)
    return int(np.count_nonzero(outside))
