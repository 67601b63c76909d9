"""Mean and deviation of every channel, carried through a network without data: white paper sections 3.1 to 3.3.

A batch norm's output has mean β and deviation |γ| per channel. Activation functions make clipped normals of them, and
layers without a batch norm add up what they read, as if its elements were independent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from accelsim.graph.graph import Graph, Node
from accelsim.graph.operators import ACTIVATIONS, LINEAR, RESHAPES
from accelsim.program.activations import activation_function

Float64 = npt.NDArray[np.float64]

QUADRATURE_NODES = 64
"""Points of the Gauss-Hermite rule for functions that are not piece-wise linear."""

_KEEPING = RESHAPES | {"AveragePool", "GlobalAveragePool", "MaxPool", "Pad", "ReduceMean"}


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and standard deviation of a tensor's channels.

    Parameters
    ----------
    mean, deviation : float64 array, shape (channels,)
        Over samples and positions; deviations are not negative.
    """

    mean: Float64
    deviation: Float64

    def divided(self, scale: Float64) -> Moments:
        """Return the moments of ``x / scale``, positive scales per channel."""
        return Moments(self.mean / scale, self.deviation / scale)

    def mapped(self, factor: Float64, shift: Float64) -> Moments:
        """Return the moments of ``factor * x + shift``."""
        return Moments(factor * self.mean + shift, np.abs(factor) * self.deviation)


def clipped_normal(moments: Moments, low: npt.ArrayLike, high: npt.ArrayLike) -> Moments:
    """Return the moments of ``clip(x, low, high)`` for a normal x: docs/ptq.md (85), (86).

    Parameters
    ----------
    moments : Moments
        Of x.
    low, high : float or float64 array, shape (channels,)
        Bounds; infinite where there is none.

    Notes
    -----
    ReLU is the case low = 0, high = ∞, where the mean is white paper's ``γ φ(−β/γ) + β (1 − Φ(−β/γ))``.
    """
    mean, deviation = moments.mean, moments.deviation
    least = np.broadcast_to(np.asarray(low, dtype=np.float64), mean.shape)
    most = np.broadcast_to(np.asarray(high, dtype=np.float64), mean.shape)
    spread = np.where(deviation > 0, deviation, 1.0)
    below, above = (least - mean) / spread, (most - mean) / spread
    share_below, share_above = ndtr(below), ndtr(-above)
    inside = np.maximum(1.0 - share_below - share_above, 0.0)
    density_below, density_above = _density(below), _density(above)
    bounded_low = np.where(np.isfinite(least), least, 0.0)
    bounded_high = np.where(np.isfinite(most), most, 0.0)
    # Moments of the distance to the mean: numbers of one size, so that no digits cancel.
    from_low, from_high = bounded_low - mean, bounded_high - mean
    first = from_low * share_below + from_high * share_above + spread * (density_below - density_above)
    second = (
        from_low**2 * share_below
        + from_high**2 * share_above
        + spread**2 * inside
        + spread * (np.where(np.isfinite(least), from_low, 0.0) * density_below)
        - spread * (np.where(np.isfinite(most), from_high, 0.0) * density_above)
    )
    certain = deviation <= 0
    mean_out = np.where(certain, np.minimum(np.maximum(mean, least), most), mean + first)
    variance = np.where(certain, 0.0, np.maximum(second - first**2, 0.0))
    return Moments(mean_out, np.sqrt(variance))


def propagate_moments(
    graph: Graph, norms: Mapping[str, Moments], inputs: Mapping[str, Moments] | None = None
) -> dict[str, Moments]:
    """Carry moments from batch norms, and from the inputs where they are known, through the network.

    Parameters
    ----------
    graph : Graph
        The network with batch norms folded.
    norms : mapping of tensor name to Moments
        Tensors that a batch norm made: their moments are taken as they are.
    inputs : mapping of tensor name to Moments, optional
        Of graph inputs.

    Returns
    -------
    dict of tensor name to Moments
        Every tensor for which they can be told.

    Notes
    -----
    Pooling keeps the moments of its input, which is exact for the mean of an average. A sum has the sum of means and
    of variances. Padding is not taken into account.
    """
    known: dict[str, Moments] = dict(inputs or {})
    for node in graph.nodes:
        found = norms.get(node.output) or _moments_of(graph, node, known)
        if found is not None:
            known[node.output] = found
    return known


def activation_moments(graph: Graph, node: Node, before: Moments) -> Moments:
    """Return the moments of an activation function's output for a normal input."""
    attributes: dict[str, Any] = dict(node.attributes)
    match node.op:
        case "Relu":
            return clipped_normal(before, 0.0, np.inf)
        case "Clip":
            return clipped_normal(before, attributes["min"], attributes["max"])
        case "ChannelClip":
            low, high = (graph.constants[name].astype(np.float64) for name in node.inputs[1:])
            return clipped_normal(before, low, high)
    function, _ = activation_function(node, graph)
    points, weights = np.polynomial.hermite_e.hermegauss(QUADRATURE_NODES)
    weights = weights / weights.sum()
    values = function(before.mean[:, None] + before.deviation[:, None] * points)
    mean = values @ weights
    return Moments(mean, np.sqrt(np.maximum((values - mean[:, None]) ** 2 @ weights, 0.0)))


def weights_by_channel(graph: Graph, node: Node) -> Float64:
    """Return a linear layer's weights as (groups, outputs of a group, inputs of a group, taps), in float64."""
    weights = graph.constants[node.inputs[1]].astype(np.float64)
    return shape_by_channel(node, weights)


def shape_by_channel(node: Node, weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array of the shape of a layer's weights as (groups, outputs of a group, inputs of a group, taps)."""
    if node.op == "MatMul":
        weights = weights.T
    groups = node.attributes["group"] if node.op == "Conv" else 1
    assert isinstance(groups, int)
    return weights.reshape(groups, weights.shape[0] // groups, weights.shape[1], -1)


def linear_map(weights: Float64, values: Float64) -> Float64:
    """Return ``Σ w · v`` per output channel, for weights as `weights_by_channel` has them and one value per input."""
    groups, outputs = weights.shape[:2]
    per_group = values.reshape(groups, -1)
    total: Float64 = np.einsum("goi,gi->go", weights.sum(axis=3), per_group).reshape(groups * outputs)
    return total


def _density(x: Float64) -> Float64:
    """Return the standard normal density, 0 at infinity."""
    density: Float64 = np.exp(-0.5 * np.square(x)) / np.sqrt(2 * np.pi)
    return density


def _moments_of(graph: Graph, node: Node, known: Mapping[str, Moments]) -> Moments | None:
    """Return the moments of a node's output, None where they cannot be told."""
    if node.op in ("Add", "Sub"):
        return _sum(graph, node, known)
    if node.op == "Mul":
        return _product(graph, node, known)
    if node.op == "Concat":
        parts = [known.get(name) for name in node.inputs]
        if node.attributes["axis"] != 1 or any(part is None for part in parts):
            return None
        whole = [part for part in parts if part is not None]
        return Moments(np.concatenate([p.mean for p in whole]), np.concatenate([p.deviation for p in whole]))
    before = known.get(node.inputs[0])
    if before is None:
        return None
    if node.op in ACTIVATIONS:
        return activation_moments(graph, node, before)
    if node.op in LINEAR:
        if node.op == "MatMul" and len(graph.shapes[node.output]) != 2:
            return None
        weights = weights_by_channel(graph, node)
        if weights.shape[0] * weights.shape[2] != before.mean.size:
            return None
        bias = graph.constants[node.inputs[2]].astype(np.float64) if len(node.inputs) > 2 else 0.0
        return Moments(
            linear_map(weights, before.mean) + bias, np.sqrt(linear_map(np.square(weights), before.deviation**2))
        )
    if node.op in _KEEPING:
        return _kept(graph, node, before)
    return None


def _kept(graph: Graph, node: Node, before: Moments) -> Moments | None:
    """Return the moments under the output's shape: a flattened channel becomes several channels."""
    channels = graph.channels(node.output) if len(graph.shapes[node.output]) > 1 else 0
    if channels == 0 or channels % before.mean.size:
        return None
    times = channels // before.mean.size
    return Moments(np.repeat(before.mean, times), np.repeat(before.deviation, times))


def _constant(graph: Graph, name: str, output: str) -> Float64 | None:
    """Return a constant operand's values, one per channel of the output, None where it is another kind of constant."""
    values = graph.constants[name].astype(np.float64)
    shape = graph.shapes[output]
    aligned = (1,) * (len(shape) - values.ndim) + values.shape
    if any(length != 1 for axis, length in enumerate(aligned) if axis != 1):
        return None
    return np.broadcast_to(values.reshape(-1), (graph.channels(output),))


def _sum(graph: Graph, node: Node, known: Mapping[str, Moments]) -> Moments | None:
    """Return the moments of a sum or difference."""
    sign = -1.0 if node.op == "Sub" else 1.0
    parts: list[Moments] = []
    for name in node.inputs:
        if name in graph.constants:
            values = _constant(graph, name, node.output)
            part = None if values is None else Moments(values, np.zeros_like(values))
        else:
            part = known.get(name)
        if part is None:
            return None
        parts.append(part)
    a, b = parts
    return Moments(a.mean + sign * b.mean, np.hypot(a.deviation, b.deviation))


def _product(graph: Graph, node: Node, known: Mapping[str, Moments]) -> Moments | None:
    """Return the moments of a product; those of two tensors as if they were independent."""
    a_name, b_name = node.inputs
    if a_name in graph.constants:
        a_name, b_name = b_name, a_name
    a = known.get(a_name)
    if a is None:
        return None
    if b_name in graph.constants:
        values = _constant(graph, b_name, node.output)
        return None if values is None else a.mapped(values, np.zeros_like(values))
    b = known.get(b_name)
    if b is None:
        return None
    second = (a.mean**2 + a.deviation**2) * (b.mean**2 + b.deviation**2)
    mean = a.mean * b.mean
    return Moments(mean, np.sqrt(np.maximum(second - mean**2, 0.0)))
