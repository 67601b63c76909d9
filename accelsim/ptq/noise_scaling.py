"""Channel scales that minimise the predicted quantization noise: an alternative to cross-layer equalization.

Equalization evens out the ranges of weights and ignores what it does to activations, and how much a channel matters.
The freedom that it uses can be used on the predicted noise itself. Of every layer's weights and of every stored
activation it is step² / 12 times the importance of what is rounded, docs/ptq.md (82) to (84). As the step is set
by the largest element and every term is a sum or maximum of exponentials, all of it is convex in the logarithms of the
scales: one minimum, found by a quasi-Newton method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from accelsim.graph.graph import Graph, Node
from accelsim.graph.operators import ACTIVATIONS, LINEAR
from accelsim.ptq.channel_statistics import ChannelStatistics
from accelsim.ptq.moments import weights_by_channel
from accelsim.ptq.scaling import ScaleGroup, rescale, scale_groups, scales_by_tensor

Float64 = npt.NDArray[np.float64]

LARGEST_SCALE = 100.0
"""No channel is scaled by more than this, up or down."""

SHARPNESS = (8.0, 64.0)
"""Exponents of the norms that stand for a maximum, one after the other, so that the minimum is smooth to reach."""

ITERATIONS = 200
"""Of the quasi-Newton method for each sharpness."""

_LEAST_VARIANCE = 1e-30


@dataclass(frozen=True)
class Widths:
    """Bits of what is rounded.

    Parameters
    ----------
    weights : mapping of node name to int
        Of linear layers.
    activations : mapping of tensor name to int
        Of stored tensors with a quantizer of their own.
    per_channel : bool
        Whether each output channel of a layer has a weight scale of its own.
    """

    weights: Mapping[str, int]
    activations: Mapping[str, int]
    per_channel: bool


class _WeightNoise:
    """Noise of one layer's rounded weights as a function of the scales on both sides.

    Notes
    -----
    With x = log of the scale of what is read, y = of what is made, P the greatest magnitudes of weights and A their
    importances: ``max(P e^(x-y))² Σ A e^(2(y-x))``, the maximum as a p-norm. All of it is matrix-vector products.
    """

    def __init__(self, node: Node, peaks: Float64, importance: Float64, levels: float, per_channel: bool) -> None:
        self.source, self.target = node.inputs[0], node.output
        self._peaks = peaks / max(float(peaks.max()), _LEAST_VARIANCE)  # (groups, outputs, inputs)
        self._importance = importance * (peaks.max() ** 2 / (12.0 * levels**2))
        self._per_channel = per_channel
        self._powers: tuple[float, Float64] = (1.0, self._peaks)

    def value(self, read: Float64, made: Float64, sharpness: float) -> tuple[float, Float64, Float64]:
        """Return the noise and its slopes by the logarithms of the scales of what is read and of what is made."""
        groups, outputs, inputs = self._peaks.shape
        x, y = read.reshape(groups, inputs), made.reshape(groups, outputs)
        if self._powers[0] != sharpness:
            self._powers = (sharpness, self._peaks**sharpness)
        powers = self._powers[1]
        top, bottom = float(x.max()), float(y.min())
        rising, falling = np.exp(sharpness * (x - top)), np.exp(-2.0 * x)
        row_powers, row_noise = _times(powers, rising), _times(self._importance, falling)
        if self._per_channel:  # y cancels
            filled = np.where(row_powers > 0, row_powers, 1.0)
            step = np.where(row_powers > 0, filled ** (2.0 / sharpness), 0.0) * np.exp(2.0 * top)
            by_x = rising * _times_transposed(powers, step * row_noise / filled)
            by_x -= falling * _times_transposed(self._importance, step)
            return float((step * row_noise).sum()), 2.0 * by_x.reshape(-1), np.zeros(made.size)
        sinking, lifting = np.exp(-sharpness * (y - bottom)), np.exp(2.0 * y)
        power = float((sinking * row_powers).sum())
        if power == 0.0:
            return 0.0, np.zeros(read.size), np.zeros(made.size)
        squared_step = float(power ** (2.0 / sharpness) * np.exp(2.0 * (top - bottom)))
        total = squared_step * float((lifting * row_noise).sum())
        by_x = rising * _times_transposed(powers, sinking) * (total / power)
        by_x -= falling * _times_transposed(self._importance, lifting) * squared_step
        by_y = squared_step * lifting * row_noise - (total / power) * sinking * row_powers
        return total, 2.0 * by_x.reshape(-1), 2.0 * by_y.reshape(-1)


def _times(matrices: Float64, vectors: Float64) -> Float64:
    """Return the product of each group's matrix and vector."""
    product: Float64 = np.matmul(matrices, vectors[:, :, np.newaxis])[:, :, 0]
    return product


def _times_transposed(matrices: Float64, vectors: Float64) -> Float64:
    """Return the product of each group's transposed matrix and vector."""
    product: Float64 = np.matmul(vectors[:, np.newaxis, :], matrices)[:, 0, :]
    return product


class _ActivationNoise:
    """Noise of one stored tensor as a function of its scales."""

    def __init__(self, name: str, found: ChannelStatistics, importance: Float64, levels: float) -> None:
        self.name = name
        with np.errstate(divide="ignore"):
            self._log_high = np.log(np.maximum(found.maximum, 0.0))
            self._log_low = np.log(np.maximum(-found.minimum, 0.0))
        self._importance = importance / (12.0 * levels**2)

    def value(self, scale: Float64, sharpness: float) -> tuple[float, Float64]:
        """Return the noise and its slopes by the logarithms of the scales."""
        power = self._importance * np.exp(2.0 * scale)
        total = power.sum()
        log_high, share_high = _soft_maximum(self._log_high - scale, sharpness)
        log_low, share_low = _soft_maximum(self._log_low - scale, sharpness)
        high, low = np.exp(log_high), np.exp(log_low)
        step = float(high + low)
        slope = 2.0 * step**2 * power - 2.0 * step * total * (high * share_high + low * share_low)
        return float(step**2 * total), slope


def _soft_maximum(values: Float64, sharpness: float) -> tuple[float, Float64]:
    """Return the logarithm of the p-norm of ``exp(values)``, and the share of each in it; -inf where all are."""
    peak = float(values.max())
    if not np.isfinite(peak):
        return -np.inf, np.zeros_like(values)
    powers = np.exp(sharpness * (values - peak))
    total = float(powers.sum())
    return peak + np.log(total) / sharpness, powers / total


def importances(graph: Graph, statistics: Mapping[str, ChannelStatistics]) -> dict[str, Float64]:
    """Return how much a unit of noise in a channel of a tensor counts at the outputs.

    Parameters
    ----------
    graph : Graph
        The float network.
    statistics : mapping of tensor name to ChannelStatistics
        Of the outputs, and of what clamps make.

    Returns
    -------
    dict of tensor name to float64 array, shape (channels,)
        Every tensor with a channel axis.

    Notes
    -----
    docs/ptq.md (84): an output counts ``1 / Var(y)``; backwards, a layer passes on ``Σ w²``, a clamp the share of
    values that it lets through, and everything else what it gets. So it is the mean square of a gradient whose
    elements are taken to be independent.
    """
    found = {name: np.zeros(_channels(graph, name)) for name in graph.shapes}
    for name in graph.outputs:
        if name in statistics:
            found[name] = found[name] + 1.0 / max(float(statistics[name].variance.mean()), _LEAST_VARIANCE)
    for node in reversed(graph.nodes):
        here = found[node.output]
        if node.op in LINEAR:
            squares = np.square(weights_by_channel(graph, node)).sum(axis=3)
            groups, outputs, _ = squares.shape
            back = np.zeros(1)
            if here.size == groups * outputs:
                back = np.einsum("goi,go->gi", squares, here.reshape(groups, outputs)).reshape(-1)
        elif node.op in ACTIVATIONS and node.output in statistics:
            back = here * statistics[node.output].active
        else:
            back = here
        start = 0
        for name in node.inputs:
            if name in graph.constants:
                continue
            channels = found[name].size
            part = back
            if node.op == "Concat" and node.attributes["axis"] == 1:
                part = back[start : start + channels]
                start += channels
            found[name] = found[name] + _spread(part, channels)
    return found


def minimise_noise(
    graph: Graph, statistics: Mapping[str, ChannelStatistics], widths: Widths, largest_scale: float = LARGEST_SCALE
) -> tuple[Graph, dict[str, Float64], tuple[str, ...]]:
    """Rescale channels so that the predicted noise at the outputs is least.

    Parameters
    ----------
    graph : Graph
        The float network with batch norms folded.
    statistics : mapping of tensor name to ChannelStatistics
        Of every tensor that a linear layer reads, of stored tensors, of what clamps make, and of the outputs; what is
        missing is left out of the sum.
    widths : Widths
        Bits of what is rounded.
    largest_scale : float
        Bound of the scales, above 1.

    Returns
    -------
    graph : Graph
        The same function.
    scales : dict of tensor name to float64 array
        What the channels of a tensor were divided by.
    log : tuple of str
        The predicted change, and one line per group of tensors.
    """
    groups = scale_groups(graph)
    if not groups:
        return graph, {}, ()
    problem = _Problem(graph, statistics, widths, groups)
    limit = float(np.log(largest_scale))
    point = np.zeros(problem.size)
    before, _ = problem.value(point, SHARPNESS[-1])
    for sharpness in SHARPNESS:
        point = minimize(
            problem.value,
            point,
            args=(sharpness,),
            jac=True,
            method="L-BFGS-B",
            bounds=[(-limit, limit)] * problem.size,
            options={"maxiter": ITERATIONS, "maxcor": 20},
        ).x
    after, _ = problem.value(point, SHARPNESS[-1])
    scales = {group: np.exp(point[problem.place[group.tensors[0]]]) for group in groups}
    by_tensor = scales_by_tensor(scales)
    decibel = (before - after) * 10 / np.log(10)
    log = [f"rescaled {len(groups)} groups of tensors: predicted noise {decibel:.1f} dB less"]
    log += [
        f"rescaled what {', '.join(f'{node.op} {node.name!r}' for node in group.producers)} makes: channels divided "
        f"by {scale.min():.3g} .. {scale.max():.3g}"
        for group, scale in scales.items()
    ]
    return rescale(graph, by_tensor), by_tensor, tuple(log)


class _Problem:
    """The logarithm of the predicted noise as a function of the logarithms of all scales."""

    def __init__(
        self,
        graph: Graph,
        statistics: Mapping[str, ChannelStatistics],
        widths: Widths,
        groups: tuple[ScaleGroup, ...],
    ) -> None:
        important = importances(graph, statistics)
        self._layers: list[_WeightNoise] = []
        for node in graph.nodes:
            if node.name not in widths.weights or node.inputs[0] not in statistics:
                continue
            weights = np.abs(weights_by_channel(graph, node))
            count, outputs, inputs, _ = weights.shape
            variance = statistics[node.inputs[0]].variance
            if variance.size != count * inputs or important[node.output].size != count * outputs:
                continue
            importance = (
                np.count_nonzero(weights, axis=3)
                * variance.reshape(count, 1, inputs)
                * important[node.output].reshape(count, outputs, 1)
            )
            levels = max(2.0 ** (widths.weights[node.name] - 1) - 1.0, 0.5)
            self._layers.append(_WeightNoise(node, weights.max(axis=3), importance, levels, widths.per_channel))
        self._tensors = [
            _ActivationNoise(name, statistics[name], important[name] * statistics[name].active, 2.0**bits - 1.0)
            for name, bits in widths.activations.items()
            if name in statistics
        ]
        self.place: dict[str, slice] = {}
        self.size = 0
        for group in groups:
            for name in group.tensors:
                self.place[name] = slice(self.size, self.size + group.channels)
            self.size += group.channels
        self._zeros = {name: np.zeros(_channels(graph, name)) for name in graph.shapes}

    def value(self, point: Float64, sharpness: float) -> tuple[float, Float64]:
        """Return the logarithm of the noise and its gradient."""
        gradient = np.zeros_like(point)
        total = _LEAST_VARIANCE
        for layer in self._layers:
            value, by_read, by_made = layer.value(
                self._at(point, layer.source), self._at(point, layer.target), sharpness
            )
            total += value
            self._add(gradient, layer.source, by_read)
            self._add(gradient, layer.target, by_made)
        for tensor in self._tensors:
            value, slope = tensor.value(self._at(point, tensor.name), sharpness)
            total += value
            self._add(gradient, tensor.name, slope)
        return float(np.log(total)), gradient / total

    def _at(self, point: Float64, name: str) -> Float64:
        return point[self.place[name]] if name in self.place else self._zeros[name]

    def _add(self, gradient: Float64, name: str, slope: Float64) -> None:
        if name in self.place:
            gradient[self.place[name]] += slope


def _channels(graph: Graph, name: str) -> int:
    """Return the length of axis 1, and 1 where there is none."""
    shape = graph.shapes[name]
    return int(shape[1] or 1) if len(shape) > 1 else 1


def _spread(values: Float64, channels: int) -> Float64:
    """Return one value per channel: of a flattened channel the sum, of channels in another order the mean."""
    if values.size == channels:
        return values
    if values.size % channels == 0:
        total: Float64 = values.reshape(channels, -1).sum(axis=1)
        return total
    return np.full(channels, float(values.mean()))
