"""Cross-layer equalization: white paper section 3.2, equations (20) to (23), after Nagel et al. (2019).

Two layers that follow each other get the same weight range in every channel between them. Pairs are taken in graph
order; a depthwise layer is in two of them, so a chain is swept several times.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim.graph.graph import Graph
from accelsim.ptq.moments import weights_by_channel
from accelsim.ptq.scaling import ScaleGroup, rescale, scale_groups, scales_by_tensor

Float64 = npt.NDArray[np.float64]

SWEEPS = 3
"""Measured on MobileNetV1: see benchmarks/README.md. More sweeps even out weights further, but spread the ranges of
activations, whose clip is divided by the scale."""

LARGEST_SCALE = 10.0
"""No channel is scaled by more than this, up or down, over all sweeps: a nearly dead channel would be blown up."""

NEGLIGIBLE = 1e-3
"""A channel whose weights on either side are under this share of the layer's greatest is left alone."""


def equalize(
    graph: Graph, sweeps: int = SWEEPS, largest_scale: float = LARGEST_SCALE
) -> tuple[Graph, dict[str, Float64], tuple[str, ...]]:
    """Equalize weight ranges across layers.

    Parameters
    ----------
    graph : Graph
        The float network with batch norms folded.
    sweeps : int
        How often every pair is equalized.
    largest_scale : float
        Bound of the accumulated scales, at least 1.

    Returns
    -------
    graph : Graph
        The same function.
    scales : dict of tensor name to float64 array
        What the channels of a tensor were divided by.
    log : tuple of str
        One line per pair of layers.

    Notes
    -----
    ``s_i = sqrt(r1_i / r2_i)``, docs/ptq.md (80), with r the greatest magnitude of a channel's weights on either
    side. Pairs are chains of one layer, homogeneous functions and pooling, and one other layer; a branch ends a chain.
    """
    pairs = [group for group in scale_groups(graph) if group.chain]
    ranges = _Ranges(graph)
    scales = {group: np.ones(group.channels) for group in pairs}
    for _ in range(sweeps):
        for group in pairs:
            made, read = ranges.of(group, scales)
            usable = (made > NEGLIGIBLE * made.max()) & (read > NEGLIGIBLE * read.max())
            step = np.sqrt(np.divide(made, read, out=np.ones_like(made), where=usable))
            scales[group] = np.clip(scales[group] * step, 1 / largest_scale, largest_scale)
    by_tensor = scales_by_tensor(scales)
    log = tuple(
        f"equalized {group.producers[0].op} {group.producers[0].name!r} and {group.consumers[0].op} "
        f"{group.consumers[0].name!r}: channels divided by {scale.min():.3g} .. {scale.max():.3g}"
        for group, scale in scales.items()
    )
    return rescale(graph, by_tensor), by_tensor, log


class _Ranges:
    """Greatest magnitudes of weights by output and input channel, under the scales of the moment."""

    def __init__(self, graph: Graph) -> None:
        self._peaks: dict[str, Float64] = {}
        self._graph = graph

    def of(self, group: ScaleGroup, scales: dict[ScaleGroup, Float64]) -> tuple[Float64, Float64]:
        """Return the ranges of what makes a group's channels and of what reads them."""
        of_tensor = scales_by_tensor(scales)
        (producer,), (consumer,) = group.producers, group.consumers
        made = self._scaled(producer.name, producer.inputs[0], producer.output, of_tensor).max(axis=2).reshape(-1)
        read = self._scaled(consumer.name, consumer.inputs[0], consumer.output, of_tensor).max(axis=1).reshape(-1)
        return made, read

    def _scaled(self, name: str, source: str, target: str, scales: dict[str, Float64]) -> Float64:
        """Return the magnitudes of a layer's weights as (groups, outputs, inputs), each the greatest of its taps."""
        if name not in self._peaks:
            node = next(node for node in self._graph.nodes if node.name == name)
            self._peaks[name] = np.abs(weights_by_channel(self._graph, node)).max(axis=3)
        peaks = self._peaks[name]
        groups, outputs, inputs = peaks.shape
        if source in scales:
            peaks = peaks * scales[source].reshape(groups, 1, inputs)
        if target in scales:
            peaks = peaks / scales[target].reshape(groups, outputs, 1)
        return peaks
