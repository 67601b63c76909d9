"""AdaRound by gradient descent on the relaxed problem: white paper equations (31) to (35); Nagel et al. 2020.

What is optimized is the squared error *behind* the layer's activation function f, on the calibration data:

    min over V of  ‖f(W x + b) − f(W̃ x̂ + b)‖²_F + λ · Σ 1 − |2 h(V) − 1|^β                                 (35), (34)
    W̃ = s · clamp(⌊W / s⌋ + h(V); n, p),     h(V) = clamp(σ(V) · (ζ − γ) + γ; 0, 1)                        (33)

x̂ is the input with everything before the layer quantized. The rectified sigmoid h is 1.2 wide, from γ = −0.1 to
ζ = 1.1, so that it reaches 0 and 1. β is annealed: high, so that only values near 0 or 1 are pulled, then low, which
pulls all.
`accelsim.ptq.qubo` solves equation (31) without f and without relaxation, in far less time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

Function = Callable[[Float32], Float32]

UPPER, LOWER = 1.1, -0.1
"""ζ and γ of the rectified sigmoid."""

KEPT_BYTES = 64 << 20
"""Columns of one layer's inputs and outputs that are kept."""

_FIRST_MOMENT, _SECOND_MOMENT, _TINY = 0.9, 0.999, 1e-8  # Adam


@dataclass(frozen=True)
class Annealing:
    """The course of an optimization.

    Parameters
    ----------
    iterations : int
        Steps of Adam.
    columns : int
        Output positions in one step.
    learning_rate : float
        Of Adam, for V.
    regularization : float
        λ, relative: with it as 1 the regularizer of a weight half way counts as much as its rounding error would.
    warm_up : float
        Share of the steps before the regularizer is switched on.
    first_beta, last_beta : float
        β falls linearly from one to the other after the warm-up.
    """

    iterations: int = 2000
    columns: int = 256
    learning_rate: float = 2e-2
    regularization: float = 20.0
    warm_up: float = 0.2
    first_beta: float = 20.0
    last_beta: float = 2.0

    def beta(self, iteration: int) -> float | None:
        """Return β of a step, None while the regularizer is off."""
        start = self.warm_up * self.iterations
        if iteration < start:
            return None
        return self.first_beta + (self.last_beta - self.first_beta) * (iteration - start) / (self.iterations - start)


@dataclass(frozen=True)
class Layer:
    """A linear layer as AdaRound sees it.

    Parameters
    ----------
    steps : float64 array, shape (n, k)
        ``W / s``, the weights in units of their scale.
    scale : float64 array, shape (n, 1)
        Scale of each channel.
    least, most : int64 array, shape (n, 1)
        Limits of the stored integers, less the zero point.
    bias : float64 array, shape (n,)
        Bias.
    function, slope : callable
        The activation function behind the layer and its derivative, on arrays of shape (n, p).
    """

    steps: Float64
    scale: Float64
    least: Int64
    most: Int64
    bias: Float64
    function: Function
    slope: Function

    def outputs(self, steps: npt.NDArray[Any], X: Float32) -> Float32:
        """Return ``s · steps · X + b``, before the activation function: shape (n, p)."""
        weights: Float32 = (self.scale * steps).astype(np.float32)
        sums: Float32 = weights.reshape(X.shape[0], -1, X.shape[1]) @ X
        sums = sums.reshape(-1, X.shape[2])
        sums += self.bias.astype(np.float32)[:, np.newaxis]
        return sums


def rectified_sigmoid(V: Float32) -> Float32:
    """Return h(V)."""
    return np.clip(_wide_sigmoid(expit(V)), 0, 1)


def _wide_sigmoid(sigmoid: Float32) -> Float32:
    """Return ``σ(V) · (ζ − γ) + γ``."""
    return sigmoid * np.float32(UPPER - LOWER) + np.float32(LOWER)


def inverse_rectified_sigmoid(h: npt.NDArray[np.floating]) -> Float32:
    """Return V with ``h(V) = h``, for h in 0..1."""
    return np.asarray(logit((h - LOWER) / (UPPER - LOWER)), dtype=np.float32)


def keep_columns(columns: Iterable[tuple[Float32, Float32]], budget: int = KEPT_BYTES) -> tuple[Float32, Float32]:
    """Collect columns in bounded memory: where they exceed the budget, every second one is dropped, again and again.

    Parameters
    ----------
    columns : iterable of (X, Y)
        As `accelsim.ptq.columns.sampled_columns` gives them.
    budget : int
        Bytes.

    Returns
    -------
    X : float32 array, shape (groups, k, p)
    Y : float32 array, shape (n, p)
        At most the budget together.
    """
    kept: list[tuple[Float32, Float32]] = []
    stride, taken = 1, 0
    for X, Y in columns:
        part = slice(-taken % stride, None, stride)
        taken += Y.shape[1]
        kept.append((X[:, :, part], Y[:, part]))
        while sum(x.nbytes + y.nbytes for x, y in kept) > budget and sum(y.shape[1] for _, y in kept) > 1:
            X, Y = _joined(kept)
            kept = [(X[:, :, ::2].copy(), Y[:, ::2].copy())]
            stride *= 2
    return _joined(kept)


def _joined(kept: list[tuple[Float32, Float32]]) -> tuple[Float32, Float32]:
    return np.concatenate([x for x, _ in kept], axis=2), np.concatenate([y for _, y in kept], axis=1)


def adaround(
    layer: Layer,
    X: Float32,
    Y: Float32,
    seed: int,
    annealing: Annealing | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Int64:
    """Choose the rounding of a layer's weights.

    Parameters
    ----------
    layer : Layer
        The layer.
    X : float32 array, shape (groups, k, p)
        x̂: inputs as the quantized network has them.
    Y : float32 array, shape (n, p)
        ``W x + b`` of the float network at the same positions.
    seed : int
        Of the order in which positions are drawn. The same seed gives the same integers.
    annealing : Annealing, optional
        The course of the optimization.
    progress : callable, optional
        Told ``(steps done, steps in all)`` now and then.

    Returns
    -------
    int64 array, shape (n, k)
        Integers less the zero point.

    Notes
    -----
    The squared error is divided by that of rounding to nearest and multiplied by the number of weights, so that one λ
    serves every layer. Where h has not reached 0 or 1 at the end, it is rounded. A channel that has not become
    better by all that is rounded to nearest.
    """
    annealing = annealing or Annealing()
    rng = np.random.default_rng(seed)
    num_positions = Y.shape[1]
    floor = np.floor(layer.steps).astype(np.float32)
    V = inverse_rectified_sigmoid(layer.steps - floor)
    wanted = layer.function(Y)
    nearest = np.clip(np.rint(layer.steps), layer.least, layer.most)
    reference = float(np.square(layer.function(layer.outputs(nearest, X)) - wanted).mean())
    gain = V.size / max(reference * Y.shape[0], float(np.finfo(np.float32).tiny))
    first, second = np.zeros_like(V), np.zeros_like(V)
    for iteration in range(annealing.iterations):
        chosen = rng.integers(num_positions, size=min(annealing.columns, num_positions))
        gradient = _gradient(layer, floor, V, X[:, :, chosen], wanted[:, chosen], gain)
        beta = annealing.beta(iteration)
        if beta is not None:
            gradient += np.float32(annealing.regularization) * _regularizer_slope(V, beta)
        first += np.float32(1 - _FIRST_MOMENT) * (gradient - first)
        second += np.float32(1 - _SECOND_MOMENT) * (gradient * gradient - second)
        size = annealing.learning_rate / (1 - _FIRST_MOMENT ** (iteration + 1))
        unbiased = second / np.float32(1 - _SECOND_MOMENT ** (iteration + 1))
        V -= np.float32(size) * first / (np.sqrt(unbiased) + np.float32(_TINY))
        if progress is not None and iteration % 100 == 99:
            progress(iteration + 1, annealing.iterations)
    found = np.clip(floor + (rectified_sigmoid(V) >= 0.5), layer.least, layer.most)
    errors = [np.square(layer.function(layer.outputs(codes, X)) - wanted).sum(axis=1) for codes in (found, nearest)]
    return np.where((errors[0] < errors[1])[:, np.newaxis], found, nearest).astype(np.int64)


def _gradient(layer: Layer, floor: Float32, V: Float32, X: Float32, wanted: Float32, gain: float) -> Float32:
    """Return the derivative of the scaled squared error of some positions with respect to V."""
    sigmoid = expit(V)
    wide = _wide_sigmoid(sigmoid)
    h = np.clip(wide, 0, 1)
    soft = floor + h
    inside = (wide > 0) & (wide < 1) & (soft >= layer.least) & (soft <= layer.most)
    sums = layer.outputs(np.clip(soft, layer.least, layer.most), X)
    errors = (layer.function(sums) - wanted) * layer.slope(sums)
    groups = X.shape[0]
    product = errors.reshape(groups, -1, X.shape[2]) @ X.transpose(0, 2, 1)
    factor = (2 * gain / X.shape[2]) * layer.scale
    slope = sigmoid * (1 - sigmoid) * np.float32(UPPER - LOWER)
    gradient: Float32 = factor.astype(np.float32) * product.reshape(V.shape) * slope * inside
    return gradient


def _regularizer_slope(V: Float32, beta: float) -> Float32:
    """Return the derivative of ``Σ 1 − |2 h(V) − 1|^β`` with respect to V: equation (34)."""
    sigmoid = expit(V)
    wide = _wide_sigmoid(sigmoid)
    middle = 2 * np.clip(wide, 0, 1) - 1
    slope = sigmoid * (1 - sigmoid) * np.float32(UPPER - LOWER) * ((wide > 0) & (wide < 1))
    pull: Float32 = -2 * np.float32(beta) * np.sign(middle) * np.abs(middle) ** np.float32(beta - 1) * slope
    return pull
