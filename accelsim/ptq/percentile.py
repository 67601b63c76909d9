"""Ranges by percentile: a share of the values is cut off at either end.

A percentile is that of all values, zeros included, interpolated linearly between two of them as `numpy.percentile`
does. For activations only the tails are kept in memory, so that it is exact however many values there are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from accelsim.formats import Scheme
from accelsim.graph.feeds import Feeds
from accelsim.graph.graph import Graph
from accelsim.ptq.distribution import Distribution
from accelsim.reference.batches import Progress, samples_per_batch
from accelsim.reference.runner import OnnxRunner

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

TAIL_BYTES = 256 << 20
"""All tails together stay under this; where they would not, fewer samples are looked at, evenly over the data."""


def percentile_range(distribution: Distribution, percentile: float, scheme: Scheme) -> tuple[Float64, Float64]:
    """Return the range of each row of exact values.

    Parameters
    ----------
    distribution : Distribution
        Exact values, not a histogram.
    percentile : float
        In per cent, 50 to 100.
    scheme : {"affine", "symmetric"}
        ``affine``: between the percentiles ``100 - percentile`` and ``percentile``. ``symmetric``: that of magnitudes.

    Returns
    -------
    low, high : float64 array, shape (rows,)
    """
    values = distribution.values.astype(np.float64)
    if scheme == "symmetric":
        reach = np.percentile(np.abs(values), percentile, axis=1)
        return np.maximum(distribution.low, -reach), np.minimum(distribution.high, reach)
    low, high = np.percentile(values, [100.0 - percentile, percentile], axis=1)
    return low, high


def measure_percentiles(
    graph: Graph,
    tensors: Sequence[str],
    feeds: Feeds,
    percentile: float,
    scheme: Scheme,
    progress: Progress | None = None,
) -> dict[str, tuple[float, float]]:
    """Measure the ranges of activations on calibration data.

    Parameters
    ----------
    graph : Graph
        The float network.
    tensors : sequence of str
        The activations.
    feeds : Feeds
        The calibration data.
    percentile, scheme
        As in `percentile_range`.
    progress : callable, optional
        Told ``("percentiles", samples done, samples in all)``.

    Returns
    -------
    dict of str to pair of float
        Least and greatest value that is kept.
    """
    share = 1.0 - percentile / 100.0
    elements = {name: math.prod(length or 1 for length in graph.shapes[name][1:]) for name in tensors}
    sides = 1 if scheme == "symmetric" else 2
    tail_bytes = sum(4 * sides * (count * share + 2) for count in elements.values())
    num_samples = max(1, min(feeds.num_samples, int(TAIL_BYTES / tail_bytes)))
    chosen = np.linspace(0, feeds.num_samples, num_samples, endpoint=False).astype(np.intp)
    highs = {name: _Tail(elements[name] * num_samples, percentile) for name in tensors}
    lows = {name: _Tail(elements[name] * num_samples, percentile) for name in tensors}
    made = [name for name in tensors if graph.producer(name)]
    runner = OnnxRunner.of_normalised(graph, made) if made else None
    size = samples_per_batch(graph)
    for start in range(0, num_samples, size):
        batch = feeds.take(chosen[start : start + size])
        values = {**batch, **(runner.run(batch) if runner else {})}
        for name in tensors:
            flat = values[name].reshape(-1)
            if scheme == "symmetric":
                highs[name].add(np.abs(flat))
            else:
                highs[name].add(flat)
                lows[name].add(-flat)
        if progress is not None:
            progress("percentiles", min(start + size, num_samples), num_samples)
    ranges = {}
    for name in tensors:
        high = highs[name].value()
        ranges[name] = (-high, high) if scheme == "symmetric" else (-lows[name].value(), high)
    return ranges


class _Tail:
    """The greatest of a known number of values, as many as a percentile needs."""

    def __init__(self, total: int, percentile: float) -> None:
        self._position = (total - 1) * percentile / 100.0  # between which two sorted values it lies
        self._kept = total - math.floor(self._position)
        self._values = np.empty(0, dtype=np.float32)

    def add(self, values: Float32) -> None:
        """Take in a batch."""
        joined = np.concatenate([self._values, values])
        if joined.size > self._kept:
            joined = np.partition(joined, joined.size - self._kept)[-self._kept :]
        self._values = joined

    def value(self) -> float:
        """Return the percentile."""
        ordered = np.sort(self._values).astype(np.float64)
        fraction = self._position - math.floor(self._position)
        after = ordered[min(1, ordered.size - 1)]
        return float(ordered[0] + fraction * (after - ordered[0]))
