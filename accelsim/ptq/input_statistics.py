"""What the inputs of a network look like, told from the batch norm behind its first layer.

That norm holds mean and variance of what the first layer made of the training images. The mean of every input channel
follows from it, and their deviation approximately; together they tell which of the usual scalings of images it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from accelsim.graph.graph import Graph, Node
from accelsim.ptq.moments import Moments, weights_by_channel

Float64 = npt.NDArray[np.float64]

CONVENTIONS = {
    "0 .. 1": (0.0, 1.0),
    "-1 .. 1": (-1.0, 1.0),
    "-0.5 .. 0.5": (-0.5, 0.5),
    "0 .. 255": (0.0, 255.0),
    "-128 .. 127": (-128.0, 127.0),
    "standardised": (-2.2, 2.7),
}
"""Ranges of images as networks are fed with them."""

PHOTOGRAPH = (0.46, 0.27)
"""Mean and deviation of photographs as shares of their range."""

DEVIATIONS = 3.0
"""Where no usual scaling fits, inputs are taken to lie within so many deviations of their mean."""

TOLERANCE = 1.0
"""How far, in logarithms and deviations, a usual scaling may be off and still be taken."""


@dataclass(frozen=True)
class InputStatistics:
    """A graph input.

    Parameters
    ----------
    moments : Moments
        Per channel.
    low, high : float
        Its range.
    source : str
        How it was told, for the log.
    """

    moments: Moments
    low: float
    high: float
    source: str


def given_input(channels: int, low: float, high: float) -> InputStatistics:
    """Return the statistics of photographs in a range that the user gave."""
    mean, deviation = (np.full(channels, share * (high - low)) for share in PHOTOGRAPH)
    return InputStatistics(Moments(low + mean, deviation), low, high, f"{low:g} .. {high:g} as given")


def estimate_input(graph: Graph, name: str) -> InputStatistics | None:
    """Tell an input from the batch norm behind its first layer.

    Parameters
    ----------
    graph : Graph
        The network as it was read, batch norms not folded.
    name : str
        The input.

    Returns
    -------
    InputStatistics or None
        None where no layer with a batch norm reads it.

    Notes
    -----
    The norm's mean is ``μ = W m + b``: least squares for m. Its variance is a sum of quadratic forms of the weights,
    for light that all channels and taps of a window share, for colour, and for texture: the share of each by
    non-negative least squares.
    """
    tensor = name
    while True:
        consumers = graph.consumers(tensor)
        if len(consumers) != 1:
            return None
        node = consumers[0]
        if node.op in ("Conv", "Gemm"):
            break
        if node.op != "Pad":
            return None
        tensor = node.output
    norms = [reader for reader in graph.consumers(node.output) if reader.op == "BatchNormalization"]
    weights = weights_by_channel(graph, node)
    if not norms or weights.shape[0] != 1 or weights.shape[2] != graph.channels(name):
        return None
    return _fit(graph, node, norms[0], weights[0])


def _fit(graph: Graph, node: Node, norm: Node, weights: Float64) -> InputStatistics:
    """Solve for the input's moments; weights have the shape (outputs, inputs, taps)."""
    mean, variance = (graph.constants[constant].astype(np.float64) for constant in norm.inputs[3:5])
    if len(node.inputs) > 2:
        mean = mean - graph.constants[node.inputs[2]].astype(np.float64)
    sums = weights.sum(axis=2)
    found, *_ = np.linalg.lstsq(sums, mean, rcond=1e-3)
    forms = np.stack([sums.sum(axis=1) ** 2, (sums**2).sum(axis=1), (weights**2).sum(axis=(1, 2))], axis=1)
    # Each filter counts relatively, or the strongest would decide alone.
    relative = forms / np.maximum(variance, 1e-12)[:, None]
    shares, _ = nnls(relative, np.ones(len(variance)))
    deviation = float(np.sqrt(max(shares.sum(), 1e-12)))
    moments = Moments(found, np.full(found.size, deviation))
    centre = float(found.mean())
    distances = {
        label: abs(np.log(deviation / (PHOTOGRAPH[1] * (high - low))))
        + abs(centre - low - PHOTOGRAPH[0] * (high - low)) / (PHOTOGRAPH[1] * (high - low))
        for label, (low, high) in CONVENTIONS.items()
    }
    label = min(distances, key=lambda key: distances[key])
    if distances[label] <= TOLERANCE:
        low, high = CONVENTIONS[label]
        return InputStatistics(moments, low, high, f"{label}, from the batch norm of {node.name!r}")
    low, high = centre - DEVIATIONS * deviation, centre + DEVIATIONS * deviation
    return InputStatistics(moments, low, high, f"{low:.3g} .. {high:.3g}, from the batch norm of {node.name!r}")
