"""Rounding of weights as a quadratic binary problem on the Gram matrix of the inputs: white paper equation (31).

What is optimized, for each output channel on its own, is the squared error of the layer's output *before* its
activation function, on the calibration data, over rounding each weight down or up:

    E[(W x − Ŵ x̂)²] = Ŵ G Ŵᵀ − 2 H Ŵᵀ + const,      G = E[x̂ x̂ᵀ],  H = E[y x̂ᵀ] with y = W x                  (95)

x̂ is the input with everything before the layer quantized. With C = E[x x̂ᵀ], H is W C, collected without forming C. One
pass over the data collects G and H; no step of the search looks at data again, which makes it some hundred times
faster than AdaRound (`accelsim.ptq.adaround`). What it leaves out is the activation function of equation (35).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

DAMPING = 0.1
"""Weight of the distance to the float weights in the objective, as a share of the mean of G's diagonal.

Measured on a 64 -> 64 3x3 convolution of ResNet8, 4 bits per tensor, calibrated on 16 / 64 / 256 images, held-out
error in per cent (nearest 1.12): 0.001 gives 0.75 / 0.55 / 0.505, 0.1 gives 0.66 / 0.53 / 0.497, 0.5 gives 0.60 / 0.53
/ 0.504.
"""

MOST_PAIRED = 1152
"""Longest reduction for which pairs of weights are flipped; the number of pairs grows with its square."""

_SLACK = 1e-7  # of G's greatest diagonal element: far above the rounding errors of a descent, far below a flip's worth


@dataclass(frozen=True)
class SecondMoments:
    """Second moments of a layer's inputs and outputs.

    Parameters
    ----------
    gram : float64 array, shape (groups, k, k)
        ``E[x̂ x̂ᵀ]`` of each group, or the covariance.
    cross : float64 array, shape (n, k)
        ``E[y x̂ᵀ]`` of each output channel with the inputs of its group, or the covariance.
    power : float64 array, shape (n,)
        ``E[y²]``, or the variance.
    """

    gram: Float64
    cross: Float64
    power: Float64

    @classmethod
    def collect(cls, columns: Iterable[tuple[Float32, Float32]], bias: Float64, centred: bool) -> SecondMoments:
        """Collect the moments in one pass and in the memory of one batch and one Gram matrix.

        Parameters
        ----------
        columns : iterable of (X, Y)
            As `accelsim.ptq.columns.sampled_columns` gives them.
        bias : float64 array, shape (n,)
            The layer's bias, which is no part of y.
        centred : bool
            Take covariances: right where a bias correction follows, which removes any error of the mean.
        """
        count = 0
        sums: list[Float64] = []
        for X32, Y32 in columns:
            X, Y = X32.astype(np.float64), Y32.astype(np.float64) - bias[:, np.newaxis]
            groups, k, _ = X.shape
            apart = Y.reshape(groups, -1, Y.shape[1])
            count += Y.shape[1]
            parts = [
                X @ X.transpose(0, 2, 1),
                (apart @ X.transpose(0, 2, 1)).reshape(-1, k),
                (Y * Y).sum(axis=1),
                X.sum(axis=2),
                Y.sum(axis=1),
            ]
            sums = [total + part for total, part in zip(sums, parts, strict=True)] if sums else parts
        gram, cross, power, input_mean, output_mean = (total / count for total in sums)
        if centred:
            per_channel = np.repeat(input_mean, output_mean.size // input_mean.shape[0], axis=0)
            gram = gram - input_mean[:, :, np.newaxis] * input_mean[:, np.newaxis, :]
            cross = cross - output_mean[:, np.newaxis] * per_channel
            power = power - output_mean**2
        return cls(gram, cross, power)

    def error(self, rows: Float64) -> Float64:
        """Return ``E[(y − Ŵ x̂)²]`` of each channel, equation (95), for real weights of shape (n, k): shape (n,)."""
        groups = self.gram.shape[0]
        apart = rows.reshape(groups, -1, rows.shape[1])
        squares = ((apart @ self.gram) * apart).sum(axis=2).reshape(-1)
        total: Float64 = squares - 2 * (self.cross * rows).sum(axis=1) + self.power
        return total


def candidates(rows: Float64, scale: Float64, least: Int64, most: Int64) -> tuple[Int64, Int64]:
    """Return the two integers that each weight may become, less the zero point: equation (33) with h = 0 and h = 1.

    Parameters
    ----------
    rows : float64 array, shape (n, k)
        The weights.
    scale : float64 array, shape (n, 1)
        Scale of each channel.
    least, most : int64 array, shape (n, 1)
        Limits of the stored integers, less the zero point.

    Returns
    -------
    low, high : int64 array, shape (n, k)
        Equal where both are clamped to the same limit.
    """
    floor = np.floor(rows / scale)
    return np.clip(floor, least, most).astype(np.int64), np.clip(floor + 1, least, most).astype(np.int64)


def search(
    moments: SecondMoments,
    rows: Float64,
    scale: Float64,
    low: Int64,
    high: Int64,
    nearest: Int64,
    damping: float = DAMPING,
) -> Int64:
    """Look for the rounding with the least output error.

    Parameters
    ----------
    moments : SecondMoments
        Of the layer.
    rows : float64 array, shape (n, k)
        The weights.
    scale : float64 array, shape (n, 1)
        Scale of each channel.
    low, high : int64 array, shape (n, k)
        From `candidates`.
    nearest : int64 array, shape (n, k)
        Rounding to nearest, a second start of the search.
    damping : float
        See `DAMPING`. It stands in for data where there is little: the objective is equation (95) plus
        ``damping · mean(diag G) · |Ŵ − W|²``.

    Returns
    -------
    int64 array, shape (n, k)
        Chosen integers less the zero point. Never worse than rounding to nearest in the damped objective, which no
        flip of one weight (of two, up to `MOST_PAIRED` weights) lowers any more.

    Notes
    -----
    Weights are rounded one after the other, those with the largest inputs first, each time moving the rest to where
    they make up for it (GPTQ, Frantar et al. 2022); then single weights and pairs are flipped while that helps. The
    descent is also started from rounding to nearest, and each channel keeps the better of both ends.
    """
    groups = moments.gram.shape[0]
    codes = np.empty_like(low)
    per_group = rows.shape[0] // groups
    for group in range(groups):
        part = slice(group * per_group, (group + 1) * per_group)
        codes[part] = _search_group(
            moments.gram[group],
            moments.cross[part] / scale[part],
            rows[part] / scale[part],
            low[part],
            high[part],
            nearest[part],
            damping,
        )
    return codes


def _search_group(
    gram: Float64, cross: Float64, wanted: Float64, low: Int64, high: Int64, nearest: Int64, damping: float
) -> Int64:
    """Search in units of the scale, all channels of one group."""
    from accelsim_kernels.binary_quadratic import descend, round_sequentially

    power = float(np.diagonal(gram).mean())
    ridge = damping * power if power > 0 else 1.0  # inputs that are always 0 leave rounding to nearest
    damped = gram + ridge * np.eye(gram.shape[0])
    linear = cross + ridge * wanted
    order = np.argsort(-np.diagonal(damped), kind="stable")
    inverse = np.linalg.inv(damped)
    factor = np.linalg.cholesky(inverse[np.ix_(order, order)]).T
    sequential = np.empty_like(low)
    round_sequentially((linear @ inverse)[:, order].copy(), factor.copy(), low, high, order, sequential)
    slack = np.float64(_SLACK * np.diagonal(damped).max())
    ends = []
    for codes in (sequential, nearest.copy()):
        descend(damped, linear, low, high, codes, slack, gram.shape[0] <= MOST_PAIRED)
        ends.append((codes, ((codes @ damped) * codes).sum(axis=1) - 2 * (linear * codes).sum(axis=1)))
    better = ends[1][1] < ends[0][1]
    return np.where(better[:, np.newaxis], ends[1][0], ends[0][0])
