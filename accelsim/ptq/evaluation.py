"""The score of a network with some of its quantizers switched on: what the steps of figure 9 compare."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.arrays import count_right
from accelsim.errors import DataError
from accelsim.graph.feeds import Feeds
from accelsim.graph.quantized import QuantizedGraph
from accelsim.reference.batches import samples_per_batch
from accelsim.reference.runner import OnnxRunner

Float32 = npt.NDArray[np.float32]

Metric = Callable[[Any, Any], float]
"""Takes the network's outputs (an array; of several outputs a mapping of name to array) and the labels as they were
given (without labels the float network's outputs, in the same form); returns a number, greater is better."""


@dataclass(frozen=True)
class Score:
    """How well a network does.

    Parameters
    ----------
    value : float
        By the metric.
    sqnr_db : float
        Power of the float network's outputs over that of the difference from them, in dB; infinite where there is none.
    """

    value: float
    sqnr_db: float


def top1(outputs: Any, labels: npt.NDArray[np.int64]) -> float:
    """Return the share of samples whose greatest value of the first output is the one of their label, 0..1."""
    first = next(iter(outputs.values())) if isinstance(outputs, dict) else outputs
    return count_right(first, labels) / len(first)


class Evaluation:
    """A quantized network, images, and what a good answer is.

    Parameters
    ----------
    quantized : QuantizedGraph
        The network; its float original is the reference.
    feeds : Feeds
        The images.
    labels : array or None
        What the metric takes; None for the float network's own answers.
    metric : callable or None
        See `Metric`; top-1 accuracy if left out, or without labels top-1 agreement with the float network.

    Raises
    ------
    DataError
        When the labels do not fit, or the metric does not give a finite number.
    """

    def __init__(self, quantized: QuantizedGraph, feeds: Feeds, labels: Any, metric: Metric | None) -> None:
        self.quantized, self.feeds = quantized, feeds
        self._batch = quantized.graph.batch_size or samples_per_batch(quantized.graph)
        self.metric_name = "metric" if metric else "top-1" if labels is not None else "agreement with float"
        self._metric: Metric = metric or top1
        self._reference = self._run(OnnxRunner.of_original(quantized.original, quantized.graph.outputs))
        if labels is not None and metric is None:
            labels = np.asarray(labels)
            if labels.shape != (feeds.num_samples,) or labels.dtype.kind not in "iu":
                raise DataError(
                    f"labels must be {feeds.num_samples} whole numbers, one per sample, got shape {labels.shape} of "
                    f"{labels.dtype}; a metric of your own may take other labels"
                )
            labels = labels.astype(np.int64)
        elif labels is None:
            given = self._given(self._reference)
            first = next(iter(self._reference.values()))
            labels = first.reshape(len(first), -1).argmax(axis=1) if metric is None else given
        self._labels = labels
        self.reference = self._score(self._reference)

    def score(self, active: Container[str] | None = None) -> Score:
        """Return the score with these tensors and constants quantized and all others float; None for all of them."""
        return self._score(self._run(OnnxRunner.of_simulated(self.quantized, active=active)))

    def _run(self, runner: OnnxRunner) -> dict[str, Float32]:
        parts = [runner.run(batch) for batch in self.feeds.batches(self._batch)]
        return {name: np.concatenate([part[name] for part in parts]) for name in runner.outputs}

    def _score(self, outputs: dict[str, Float32]) -> Score:
        value = float(self._metric(self._given(outputs), self._labels))
        if not np.isfinite(value):
            raise DataError(f"the metric must give a finite number, got {value}")
        power = sum(float(np.square(values, dtype=np.float64).sum()) for values in self._reference.values())
        noise = sum(
            float(np.square(outputs[name] - values, dtype=np.float64).sum()) for name, values in self._reference.items()
        )
        if noise == 0:
            return Score(value, float("inf"))
        return Score(value, float(10 * np.log10(power / noise)) if power > 0 else float("-inf"))

    @staticmethod
    def _given(outputs: dict[str, Float32]) -> Any:
        """Return outputs as a metric takes them."""
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs
