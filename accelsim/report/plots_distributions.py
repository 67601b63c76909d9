"""Figures of what is quantized: weights and activations of a layer, with the quantization grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import DataError
from accelsim.formats import QuantizationParameters
from accelsim.graph.feeds import Feeds, Images
from accelsim.graph.operators import LINEAR
from accelsim.graph.quantized import QuantizedGraph
from accelsim.report.plots import COLOURS, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 64
"""A grid with more codes is drawn as ticks at the axis instead of lines across it."""


def distributions(
    quantized: QuantizedGraph, images: Images | None = None, layer: str | None = None, channel: int = 0
) -> Figure:
    """Draw the weights of a layer and its stored output as float values, with the grids that they are rounded to.

    Parameters
    ----------
    quantized : QuantizedGraph
        A quantized network.
    images : array or mapping, optional
        Inputs for the float values of the output; without them only the weights are drawn.
    layer : str, optional
        Name of a Conv, Gemm or MatMul node; the first one when left out.
    channel : int
        Output channel whose weights are drawn where each channel has a scale of its own.

    Returns
    -------
    Figure
        A histogram each; codes as lines, or as ticks where they are many; the range that does not clip is shaded.

    Raises
    ------
    DataError
        When there is no such layer or channel.
    """
    nodes = {node.name: node for node in quantized.graph.nodes if node.op in LINEAR}
    if layer is None:
        layer = next(iter(nodes))
    if layer not in nodes:
        raise DataError(f"layer {layer!r} must be one of {', '.join(nodes)}")
    node = nodes[layer]
    weights, parameters, what = _weights(quantized, node.inputs[1], channel)
    panels: list[tuple[npt.NDArray[Any], QuantizationParameters, str]] = [(weights, parameters, what)]
    if images is not None:
        panels.append(_output(quantized, node.output, images))
    with figure(3.4 * len(panels) + 0.4, 2.8, 1, len(panels), squeeze=False) as (drawn, axes):
        for axis, (values, grid, label) in zip(axes[0], panels, strict=True):
            _draw(axis, values, grid)
            axis.set_xlabel(label)
            axis.set_ylabel("share of values (%)")
        drawn.suptitle(f"{quantized.graph.name}: {layer}", x=0.01, ha="left", fontsize=9)
    return drawn


def _weights(
    quantized: QuantizedGraph, name: str, channel: int
) -> tuple[npt.NDArray[Any], QuantizationParameters, str]:
    """Return float weights, their quantizer per tensor, and a label."""
    values, parameters = quantized.graph.constants[name], quantized.weights[name].parameters
    if parameters.axis is None:
        return values.reshape(-1), parameters, "weight"
    if not 0 <= channel < parameters.scale.size:
        raise DataError(f"channel must be 0..{parameters.scale.size - 1}, got {channel}")
    chosen = np.take(values, channel, axis=parameters.axis).reshape(-1)
    zero_point = np.broadcast_to(parameters.zero_point, parameters.scale.shape)[channel]
    one = QuantizationParameters(parameters.scale[channel], zero_point, parameters.format)
    return chosen, one, f"weight of channel {channel}"


def _output(
    quantized: QuantizedGraph, tensor: str, images: Images
) -> tuple[npt.NDArray[Any], QuantizationParameters, str]:
    """Return float values of the first stored tensor after a node, its quantizer and a label."""
    from accelsim.reference import OnnxRunner

    while tensor not in quantized.activations:
        tensor = quantized.graph.consumers(tensor)[0].output
    feeds = Feeds(quantized.graph, images)
    values = OnnxRunner.of_normalised(quantized.graph, [tensor]).run(feeds.slice(0, feeds.num_samples))[tensor]
    return values.reshape(-1), quantized.activations[tensor], f"activation, {feeds.num_samples:,} samples"


def _draw(axes: Axes, values: npt.NDArray[Any], grid: QuantizationParameters) -> None:
    """Draw one histogram with its grid."""
    codes = np.arange(grid.format.minimum, grid.format.maximum + 1)
    points = grid.dequantize(codes).astype(np.float64)
    low, high = float(min(values.min(), 0)), float(max(values.max(), 0))
    margin = 0.03 * (high - low or 1.0)
    inside = points[(points >= low - margin) & (points <= high + margin)]
    weights = np.full(values.size, 100 / values.size)
    axes.hist(values, bins=min(80, max(10, values.size // 4)), weights=weights, color=COLOURS[4], edgecolor="none")
    axes.axvspan(points[0], points[-1], color="#000000", alpha=0.06, linewidth=0)
    height = 1 if inside.size <= MOST_LINES else 0.05
    axes.vlines(inside, 0, height, transform=axes.get_xaxis_transform(), color=COLOURS[1], linewidth=0.5)
    clipped = 100 * float(np.mean((values < points[0]) | (values > points[-1])))
    axes.set_title(f"{grid.format}, step {float(grid.scale):.3g}, {clipped:.2g} % clipped", loc="left")
    axes.set_xlim(low - margin, high + margin)
