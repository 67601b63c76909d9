"""Ranges and histograms of activations, measured on the float network in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accelsim.errors import CalibrationError, DataError
from accelsim.graph.feeds import Feeds
from accelsim.graph.graph import Graph
from accelsim.ptq.distribution import Distribution
from accelsim.reference.batches import Progress, samples_per_batch
from accelsim.reference.runner import OnnxRunner

HISTOGRAM_BINS = 2048
"""Bins between a tensor's least and greatest value."""


@dataclass(frozen=True, eq=False)
class TensorStatistics:
    """What calibration found out about a tensor.

    Parameters
    ----------
    low, high : float
        Least and greatest value.
    histogram : Distribution or None
        One row: occupied bins with mean, count and variance. Exact zeros are left out, as every quantizer represents
        them without error. None where only the range was asked for, or all values are the same.
    """

    low: float
    high: float
    histogram: Distribution | None = None

    def widened(self, values: Sequence[float]) -> TensorStatistics:
        """Return the range with some values included, without a histogram, as these values must not be cut off."""
        return TensorStatistics(min(self.low, *values), max(self.high, *values)) if values else self


def calibrate(
    graph: Graph,
    tensors: Sequence[str],
    feeds: Feeds,
    histograms: bool,
    progress: Progress | None = None,
    batch_size: int | None = None,
) -> dict[str, TensorStatistics]:
    """Measure activations on calibration data.

    Parameters
    ----------
    graph : Graph
        The float network with batch norms folded.
    tensors : sequence of str
        The activations to measure.
    feeds : Feeds
        The calibration data.
    histograms : bool
        Whether to run the data a second time and count values in 2048 equal bins between least and greatest.
    progress : callable, optional
        Told ``("calibration", samples done, samples in all)``; a second pass counts as as many samples again.
    batch_size : int, optional
        Samples at a time, instead of `samples_per_batch`.

    Returns
    -------
    dict of str to TensorStatistics
        One entry per tensor.

    Raises
    ------
    CalibrationError
        When an input or an activation is not finite.

    Notes
    -----
    Memory is that of one batch and of the histograms, whatever the number of samples. The order of samples and their
    split into batches matter only as far as float32 kernels give another last bit for another batch size.
    """
    size = batch_size or samples_per_batch(graph)
    # Inputs are measured as they are fed. A model needs an output even if nothing but its inputs is measured.
    runner = OnnxRunner.of_normalised(graph, [name for name in tensors if graph.producer(name)] or None)
    rounds = 2 if histograms else 1
    done = 0

    def run_all(visit: Callable[[str, npt.NDArray[np.float32]], None]) -> None:
        nonlocal done
        for start in range(0, feeds.num_samples, size):
            stop = min(start + size, feeds.num_samples)
            try:
                batch = feeds.slice(start, stop)
            except DataError as problem:
                raise CalibrationError(f"calibration data: {problem}") from None
            activations = {**batch, **runner.run(batch)}
            for name in tensors:
                visit(name, activations[name])
            done += stop - start
            if progress is not None:
                progress("calibration", done, rounds * feeds.num_samples)

    extremes = _Extremes()
    run_all(extremes.visit)
    if not histograms:
        return {name: TensorStatistics(*extremes.ranges[name]) for name in tensors}
    counters = {name: _Counter(*extremes.ranges[name]) for name in tensors if np.ptp(extremes.ranges[name]) > 0}
    run_all(lambda name, values: counters[name].visit(values) if name in counters else None)
    return {
        name: TensorStatistics(*extremes.ranges[name], counters[name].distribution() if name in counters else None)
        for name in tensors
    }


class _Extremes:
    """Running least and greatest value per tensor."""

    def __init__(self) -> None:
        self.ranges: dict[str, tuple[float, float]] = {}

    def visit(self, name: str, values: npt.NDArray[np.float32]) -> None:
        low, high = float(values.min()), float(values.max())  # nan if any value is
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CalibrationError(
                f"tensor {name!r} must be finite on the calibration data, but has values {low} .. {high}; "
                "check the scaling of the images and the network"
            )
        known = self.ranges.get(name, (low, high))
        self.ranges[name] = (min(low, known[0]), max(high, known[1]))


class _Counter:
    """Running histogram of a tensor with mean and variance of each bin."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high
        self._width = (high - low) / HISTOGRAM_BINS
        self._counts = np.zeros(HISTOGRAM_BINS)
        self._sums = np.zeros(HISTOGRAM_BINS)  # of positions within the bin, 0..1, so that no digits cancel
        self._squares = np.zeros(HISTOGRAM_BINS)

    def visit(self, values: npt.NDArray[np.float32]) -> None:
        flat = values.reshape(-1)
        positions = (flat[flat != 0].astype(np.float64) - self._low) / self._width
        # The greatest value belongs to the last bin. Another batch size may give a last bit beyond the range.
        bins = np.clip(positions, 0, HISTOGRAM_BINS - 1).astype(np.intp)
        positions -= bins
        self._counts += np.bincount(bins, minlength=HISTOGRAM_BINS)
        self._sums += np.bincount(bins, weights=positions, minlength=HISTOGRAM_BINS)
        np.square(positions, out=positions)
        self._squares += np.bincount(bins, weights=positions, minlength=HISTOGRAM_BINS)

    def distribution(self) -> Distribution:
        filled = np.flatnonzero(self._counts)
        counts = self._counts[filled]
        within = self._sums[filled] / counts
        variances = np.maximum(self._squares[filled] / counts - within**2, 0.0) * self._width**2
        means = self._low + (filled + within) * self._width
        return Distribution(
            means.astype(np.float32)[np.newaxis],
            np.array([self._low]),
            np.array([self._high]),
            counts[np.newaxis],
            variances[np.newaxis],
        )
