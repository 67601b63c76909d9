"""Rounding as a quadratic unconstrained binary optimization (QUBO): white paper equation (31), docs/ptq.md (95).

For one output channel, in units of its weight scale, with c the stored integers less their zero point:

    f(c) = cᵀ G c − 2 tᵀ c,      c_k one of two neighbouring integers, low_k and high_k

G (k, k) is symmetric and positive definite, t (k,) the linear term. These are the only float kernels that do not model
a float in hardware: they optimize, and what they give out are integers. Sums are taken in a fixed order, so the same
inputs give the same integers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim_kernels._jit import callee, kernel

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@kernel
def round_sequentially(
    solutions: Float64, factor: Float64, low: Int64, high: Int64, order: Int64, codes: Int64
) -> None:
    """Round one weight after the other, each time moving the rest to where they make up for its error.

    Parameters
    ----------
    solutions : float64 array, shape (n, k)
        Unconstrained minimum of f for each channel, its columns in the order of rounding. Overwritten.
    factor : float64 array, shape (k, k)
        Upper triangular U with ``UᵀU = G⁻¹``, rows and columns of G in the order of rounding.
    low, high : int64 array, shape (n, k)
        The two integers of each weight, in the weights' own order.
    order : int64 array, shape (k,)
        ``order[i]`` is the weight that is rounded i-th.
    codes : int64 array, shape (n, k)
        Output, in the weights' own order.

    Notes
    -----
    The nearest of the two is taken, ties go to ``low``. With e the error of weight i, f is least over the weights still
    open at ``solutions − e · U[i, i:] / U[i, i]``: the recurrence of GPTQ (Frantar et al. 2022), or of Babai's nearest
    plane.
    """
    num_weights = factor.shape[0]
    for n in range(solutions.shape[0]):
        for i in range(num_weights):
            k = order[i]
            value = solutions[n, i]
            chosen = low[n, k]
            if value - np.float64(low[n, k]) > np.float64(high[n, k]) - value:
                chosen = high[n, k]
            codes[n, k] = chosen
            share = (value - np.float64(chosen)) / factor[i, i]
            for j in range(i + 1, num_weights):
                solutions[n, j] -= share * factor[i, j]


@kernel
def descend(
    gram: Float64, linear: Float64, low: Int64, high: Int64, codes: Int64, slack: np.float64, pairs: bool
) -> int:
    """Flip single weights, then pairs of weights, between their two integers until no flip lowers f.

    Parameters
    ----------
    gram : float64 array, shape (k, k)
        G.
    linear : float64 array, shape (n, k)
        t of each channel.
    low, high : int64 array, shape (n, k)
        The two integers of each weight; equal where there is no choice.
    codes : int64 array, shape (n, k)
        In: where to start, each ``low`` or ``high``. Out: where no flip lowers f by more than ``slack``.
    slack : float64
        At least the rounding error of a change of f, so that the descent ends.
    pairs : bool
        Whether pairs are tried.

    Returns
    -------
    int
        Flips made, a pair counts two.

    Notes
    -----
    With the half gradient ``r = G c − t`` and d = ±1 the way a weight can go, one flip changes f by
    ``2 d_i r_i + G_ii`` and two by the sum of both and ``2 d_i d_j G_ij``; each then costs one pass over a row of G.
    Every flip lowers f by more than ``slack`` and there are finitely many roundings, so the descent ends.
    """
    num_weights = gram.shape[0]
    residual = np.empty(num_weights)
    step = np.empty(num_weights, dtype=np.int64)
    change = np.empty(num_weights)
    flips = 0
    for n in range(codes.shape[0]):
        for k in range(num_weights):
            total = -linear[n, k]
            for j in range(num_weights):
                total += gram[k, j] * np.float64(codes[n, j])
            residual[k] = total
            step[k] = high[n, k] - low[n, k] if codes[n, k] == low[n, k] else low[n, k] - high[n, k]
        searching = True
        while searching:
            flips += _flip_singles(gram, residual, step, codes[n], slack)
            searching = False
            if pairs:
                made = _flip_pairs(gram, residual, step, codes[n], slack, change)
                flips += made
                searching = made > 0
    return flips


@callee
def _flip(gram: Float64, residual: Float64, step: Int64, codes: Int64, k: int) -> None:
    """Move weight k to its other integer."""
    moved = np.float64(step[k])
    codes[k] += step[k]
    step[k] = -step[k]
    for j in range(residual.shape[0]):
        residual[j] += moved * gram[k, j]


@callee
def _flip_singles(gram: Float64, residual: Float64, step: Int64, codes: Int64, slack: np.float64) -> int:
    """Go round the weights until a whole round flips none; return the flips."""
    num_weights = codes.shape[0]
    flips = 0
    since = 0  # weights looked at since the last flip
    k = 0
    while since < num_weights:
        if step[k] != 0 and 2.0 * np.float64(step[k]) * residual[k] + gram[k, k] < -slack:
            _flip(gram, residual, step, codes, k)
            flips += 1
            since = 0
        since += 1
        k = k + 1 if k + 1 < num_weights else 0
    return flips


@callee
def _flip_pairs(gram: Float64, residual: Float64, step: Int64, codes: Int64, slack: np.float64, change: Float64) -> int:
    """Go once over all pairs and flip those that lower f; return the flips."""
    num_weights = codes.shape[0]
    for k in range(num_weights):
        change[k] = 2.0 * np.float64(step[k]) * residual[k] + gram[k, k]
    flips = 0
    for i in range(num_weights):
        if step[i] == 0:
            continue
        for j in range(i + 1, num_weights):
            both = change[i] + change[j] + 2.0 * np.float64(step[i] * step[j]) * gram[i, j]
            if step[j] != 0 and both < -slack:
                _flip(gram, residual, step, codes, i)
                _flip(gram, residual, step, codes, j)
                flips += 2
                for k in range(num_weights):
                    change[k] = 2.0 * np.float64(step[k]) * residual[k] + gram[k, k]
    return flips
