"""Second moments of a layer's inputs without data: what batch norms and the weights between them tell.

A batch norm holds the deviation of every channel that it makes; how channels go together follows from the weights that
made them, layer by layer from photographs on: docs/ptq.md (120) to (122). Rounding (`accelsim.ptq.qubo`) asks for no
more.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from accelsim.graph.graph import Graph, Node
from accelsim.graph.operators import ACTIVATIONS, CLAMPS, LINEAR
from accelsim.program.activations import activation_function
from accelsim.ptq.moments import QUADRATURE_NODES, Moments, weights_by_channel
from accelsim.ptq.qubo import SecondMoments
from accelsim.ptq.scaling import clip_bounds

Float64 = npt.NDArray[np.float64]

TAP_CORRELATION = 0.8
"""Correlation of a channel at two neighbouring positions, the same everywhere in a network.

Measured with 4-bit weights, 8-bit activations, SQNR of the logits on the calibration images (which quantization did not
see), dB, for 0, 0.3, 0.5, 0.7, 0.85 and 0.95. MobileNetV1-0.25 per tensor: 0.0, 2.6, 3.3, 3.2, 3.1, 3.2; per channel:
2.9, 4.3, 4.7, 5.1, 5.4, 5.4. ResNet8 per tensor: 15.6, 17.1, 18.1, 18.2, 18.9, 17.0; per channel: 15.9, 19.8, 20.5,
21.2, 20.8, 21.0.
"""

COLOUR_CORRELATION = 0.9
"""Correlation of the channels of an input, as red, green and blue of photographs have."""

LONGEST_REDUCTION = 8192
"""Second moments of more weights to an output than this, half a gigabyte, are not formed: those round to nearest."""

_LEAST_VARIANCE = 1e-30
_MOVING = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze", "MaxPool", "AveragePool", "GlobalAveragePool",
                     "ReduceMean", "Pad"})  # fmt: skip


def propagate_covariances(graph: Graph, moments: Mapping[str, Moments]) -> dict[str, Float64]:
    """Carry the covariance of channels at one position through a network.

    Parameters
    ----------
    graph : Graph
        The float network with batch norms folded.
    moments : mapping of tensor name to Moments
        As `accelsim.ptq.moments.propagate_moments` tells them; the diagonals are their variances.

    Returns
    -------
    dict of tensor name to float64 array, shape (channels, channels)
        Every tensor of ``moments`` up to `LONGEST_REDUCTION` channels; diagonal where nothing more is known.
    """
    found: dict[str, Float64] = {}
    for tensor in graph.inputs:
        if tensor.name in moments and moments[tensor.name].deviation.size <= LONGEST_REDUCTION:
            deviation = moments[tensor.name].deviation
            correlation = np.full((deviation.size, deviation.size), COLOUR_CORRELATION)
            np.fill_diagonal(correlation, 1.0)
            found[tensor.name] = correlation * np.outer(deviation, deviation)
    for node in graph.nodes:
        if node.output not in moments or moments[node.output].deviation.size > LONGEST_REDUCTION:
            continue
        deviation = moments[node.output].deviation
        covariance = _covariance(graph, node, moments, found)
        if covariance is None or covariance.shape[0] != deviation.size:
            found[node.output] = np.diag(deviation**2)
        elif node.op in LINEAR:  # correlations of the weights, deviations of the batch norm
            share = deviation / np.sqrt(np.maximum(np.diagonal(covariance), _LEAST_VARIANCE))
            found[node.output] = covariance * np.outer(share, share)
        else:
            rest = np.maximum(deviation**2 - np.diagonal(covariance), 0.0)
            found[node.output] = covariance + np.diag(rest)
    return found


def expected_second_moments(
    graph: Graph, node: Node, moments: Moments, covariance: Float64, centred: bool
) -> SecondMoments | None:
    """Return the second moments of a layer's inputs and outputs.

    Parameters
    ----------
    graph : Graph
        The float network.
    node : Node
        A Conv, Gemm or MatMul of it.
    moments : Moments
        Of what it reads.
    covariance : float64 array, shape (channels, channels)
        Likewise, from `propagate_covariances`.
    centred : bool
        A bias correction follows, so the error of the mean does not count.

    Returns
    -------
    SecondMoments or None
        None where the channels are not those that the weights read, or the weights of an output are too many.
    """
    weights = weights_by_channel(graph, node)
    groups, _, inputs, taps = weights.shape
    if covariance.shape[0] != groups * inputs or inputs * taps > LONGEST_REDUCTION:
        return None
    near = _tap_correlation(graph, node)
    grams = []
    for group in range(groups):
        part = slice(group * inputs, (group + 1) * inputs)
        gram = np.kron(covariance[part, part], near)
        if not centred:
            mean = np.repeat(moments.mean[part], taps)
            gram += np.outer(mean, mean)
        grams.append(gram)
    rows = weights.reshape(groups, -1, inputs * taps)
    cross = np.concatenate([row @ gram for row, gram in zip(rows, grams, strict=True)])
    return SecondMoments(np.stack(grams), cross, (cross * rows.reshape(cross.shape)).sum(axis=1))


def _covariance(
    graph: Graph, node: Node, moments: Mapping[str, Moments], found: Mapping[str, Float64]
) -> Float64 | None:
    """Return what follows for a node's output, None where nothing does."""
    if node.op in ("Add", "Sub"):
        parts = [found.get(name) for name in node.inputs if name not in graph.constants]
        known = [part for part in parts if part is not None]
        return sum(known[1:], known[0]) if len(known) == len(parts) else None
    source = found.get(node.inputs[0])
    if source is None:
        return None
    if node.op in LINEAR:
        return _through_layer(graph, node, source)
    if node.op in ACTIVATIONS:
        gain = _mean_slope(graph, node, moments[node.inputs[0]])
        return source * np.outer(gain, gain)
    return source if node.op in _MOVING else None


def _through_layer(graph: Graph, node: Node, source: Float64) -> Float64 | None:
    """Return the covariance of a layer's outputs at one position, (120)."""
    weights, near = weights_by_channel(graph, node), _tap_correlation(graph, node)
    groups, outputs, inputs, taps = weights.shape
    if source.shape[0] != groups * inputs:
        return None
    spread = weights @ near
    if groups == 1:
        mixed = np.einsum("oit,ij->ojt", spread[0], source, optimize=True).reshape(outputs, -1)
        total: Float64 = mixed @ weights.reshape(outputs, -1).T
        return total
    covariance: Float64
    if inputs == 1:
        owner = np.repeat(np.arange(groups), outputs)
        covariance = spread.reshape(-1, taps) @ weights.reshape(-1, taps).T
        covariance *= source[np.ix_(owner, owner)]
        return covariance
    covariance = np.zeros((groups * outputs, groups * outputs))
    for group in range(groups):  # between groups nothing is kept
        read, made = slice(group * inputs, (group + 1) * inputs), slice(group * outputs, (group + 1) * outputs)
        mixed = np.einsum("oit,ij->ojt", spread[group], source[read, read], optimize=True).reshape(outputs, -1)
        covariance[made, made] = mixed @ weights[group].reshape(outputs, -1).T
    return covariance


def _tap_correlation(graph: Graph, node: Node) -> Float64:
    """Return the correlation of the taps of a window, shape (taps, taps): (121)."""
    if node.op != "Conv":
        return np.ones((1, 1))
    dilations = node.attributes["dilations"]
    assert isinstance(dilations, tuple)
    shape = graph.constants[node.inputs[1]].shape[2:]
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).reshape(len(shape), -1)
    steps = np.asarray(dilations).reshape(-1, 1, 1) * np.abs(places[:, :, np.newaxis] - places[:, np.newaxis, :])
    correlation: Float64 = TAP_CORRELATION ** steps.sum(axis=0).astype(np.float64)
    return correlation


def _mean_slope(graph: Graph, node: Node, before: Moments) -> Float64:
    """Return the mean slope of an activation function for a normal input: the factor of small correlations, (122)."""
    spread = np.where(before.deviation > 0, before.deviation, 1.0)
    if node.op in CLAMPS:
        least, most = clip_bounds(graph, node)
        inside: Float64 = np.maximum(ndtr((most - before.mean) / spread) - ndtr((least - before.mean) / spread), 0.0)
        return inside
    function, _ = activation_function(node, graph)
    points, weights = np.polynomial.hermite_e.hermegauss(QUADRATURE_NODES)
    values = function(before.mean[:, np.newaxis] + spread[:, np.newaxis] * points)
    slope: Float64 = values @ (points * weights / weights.sum()) / spread
    return slope
