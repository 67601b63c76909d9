"""Bias correction: white paper section 3.3. The shift of a layer's mean output goes into its bias.

Empirical: the mean before the activation function, per channel, over calibration data, with the layer's own weights
and everything before it quantized, is brought to the float network's. Analytic: the expected input is that of a
clipped normal, from batch norms, and only the error of the weights is corrected.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from accelsim.graph.graph import Graph, Node
from accelsim.graph.quantized import QuantizedWeights
from accelsim.ptq.moments import Moments, linear_map, shape_by_channel
from accelsim.ptq.rewriting import bias_of

Float64 = npt.NDArray[np.float64]


class ChannelMean:
    """Running mean per channel.

    Parameters
    ----------
    axis : int
        Where the channels are.
    """

    def __init__(self, axis: int) -> None:
        self._axis = axis
        self._sum: Float64 | float = 0.0
        self._count = 0

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Take in a batch."""
        rows = np.moveaxis(values, self._axis, 0).reshape(values.shape[self._axis], -1)
        self._sum = self._sum + rows.sum(axis=1, dtype=np.float64)
        self._count += rows.shape[1]

    @property
    def mean(self) -> Float64:
        """Mean of each channel, shape (channels,)."""
        return np.asarray(self._sum) / self._count


def channel_axis(graph: Graph, node: Node) -> int:
    """Return the axis of a linear layer's output that counts its channels."""
    return len(graph.shapes[node.output]) - 1 if node.op == "MatMul" else 1


def mean_output(batches: Iterable[npt.NDArray[np.float32]], axis: int) -> Float64:
    """Return the mean per channel over batches of a layer's output."""
    mean = ChannelMean(axis)
    for batch in batches:
        mean.add(batch)
    return mean.mean


def corrected_bias(graph: Graph, node: Node, shift: Float64, limit: npt.ArrayLike = np.inf) -> Float64:
    """Subtract the shift of a layer's output from its bias, which it may not have had.

    Parameters
    ----------
    graph : Graph
        The float network.
    node : Node
        A Conv, Gemm or MatMul of it.
    shift : float64 array, shape (channels,)
        ``E[ŷ] − E[y]``.
    limit : float or float64 array, shape (channels,)
        Greatest magnitude of the bias: what fits the accumulator.

    Returns
    -------
    float64 array, shape (channels,)
        The corrected bias.
    """
    bias: Float64 = np.clip(bias_of(graph, node) - shift, -np.asarray(limit), limit)
    return bias


def expected_shift(graph: Graph, node: Node, weights: QuantizedWeights, source: Moments) -> Float64:
    """Return ``ΔW E[x]`` per output channel, the shift of a layer's mean that its rounded weights cause.

    Parameters
    ----------
    graph : Graph
        The float network.
    node : Node
        A Conv, Gemm or MatMul of it.
    weights : QuantizedWeights
        Its integers.
    source : Moments
        Of the layer's input.
    """
    error = weights.dequantize().astype(np.float64) - graph.constants[node.inputs[1]].astype(np.float64)
    return linear_map(shape_by_channel(node, error), source.mean)
