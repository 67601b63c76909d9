"""The range of logits by cross-entropy: white paper section 3.1, equation (17).

Most logits are small and do not matter; the few large ones decide. So the range is the one under which the
probabilities of the quantized logits are nearest to those of the logits themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, softmax

from accelsim.formats import IntegerFormat, QuantizationParameters, Scheme
from accelsim.graph.feeds import Feeds
from accelsim.graph.graph import Graph
from accelsim.ptq.distribution import Distribution
from accelsim.ptq.mse_range import search_grid
from accelsim.reference.batches import samples_per_batch
from accelsim.reference.runner import OnnxRunner

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

MOST_VALUES = 1 << 17
"""So many logits are looked at; of more samples, some, evenly over the data."""


@dataclass(frozen=True)
class LogitDistribution(Distribution):
    """Logits of several samples, whose error is a cross-entropy.

    Parameters
    ----------
    probabilities : float64 array, shape (samples, classes)
        What the logits stand for.
    """

    probabilities: Float64 = field(default_factory=lambda: np.zeros((0, 0)))

    def error(self, parameters: QuantizationParameters) -> Float64:
        """Return ``H(softmax(v), softmax(v^))``, the mean over samples."""
        logits = self.values.reshape(self.probabilities.shape)
        scale, zero_point = parameters.scale[0], parameters.zero_point[0]
        low, high = parameters.format.minimum - zero_point, parameters.format.maximum - zero_point
        with np.errstate(over="ignore"):  # a quotient beyond float32 is an infinity, and clamps
            quantized = np.clip(np.rint(logits / scale), low, high).astype(np.float64) * float(scale)
        return np.array([-(self.probabilities * log_softmax(quantized, axis=1)).sum(axis=1).mean()])


def cross_entropy_range(
    logits: npt.ArrayLike, format: IntegerFormat, scheme: Scheme, power_of_two: bool = False
) -> QuantizationParameters:
    """Choose the quantizer of logits.

    Parameters
    ----------
    logits : float array, shape (samples, classes)
        Of the float network.
    format, scheme, power_of_two
        As in `accelsim.ptq.ranges.set_range`.

    Returns
    -------
    QuantizationParameters
        Per channel on axis 0, with one channel; the candidates are those of the grid search for the least squared
        error.
    """
    values = np.asarray(logits, dtype=np.float32)
    row = values.reshape(1, -1)
    low, high = row.min(axis=1).astype(np.float64), row.max(axis=1).astype(np.float64)
    probabilities = softmax(values.astype(np.float64), axis=1)
    return search_grid(LogitDistribution(row, low, high, probabilities=probabilities), format, scheme, power_of_two)


def measure_logits(graph: Graph, output: str, feeds: Feeds) -> Float32:
    """Return the logits of calibration data: float32 (samples, classes).

    Parameters
    ----------
    graph : Graph
        The float network.
    output : str
        A tensor of it; what is behind axis 0 counts as classes.
    feeds : Feeds
        The calibration data.
    """
    runner = OnnxRunner.of_normalised(graph, [output])
    size = samples_per_batch(graph)
    classes = int(np.prod([length or 1 for length in graph.shapes[output][1:]]))
    num_samples = max(1, min(feeds.num_samples, MOST_VALUES // classes))
    chosen = np.linspace(0, feeds.num_samples, num_samples, endpoint=False).astype(np.intp)
    parts = [
        runner.run(feeds.take(chosen[start : start + size]))[output].reshape(-1, classes)
        for start in range(0, num_samples, size)
    ]
    return np.concatenate(parts)
