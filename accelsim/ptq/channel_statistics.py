"""What every channel of a tensor does: measured on calibration data in bounded memory, or expected from batch norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from accelsim.errors import CalibrationError, DataError
from accelsim.graph.feeds import Feeds
from accelsim.graph.graph import Graph, Node
from accelsim.graph.operators import CLAMPS
from accelsim.ptq.moments import Moments
from accelsim.ptq.scaling import clip_bounds
from accelsim.reference.batches import Progress, samples_per_batch
from accelsim.reference.runner import OnnxRunner

Float64 = npt.NDArray[np.float64]

ALPHA = 6.0
"""Expected values are taken to lie within so many deviations of the mean: white paper equations (18) and (19)."""


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """A tensor's channels, axis 1, over samples and positions.

    Parameters
    ----------
    minimum, maximum : float64 array, shape (channels,)
        Least and greatest value.
    mean, variance : float64 array, shape (channels,)
        Moments.
    active : float64 array, shape (channels,)
        Share of values, 0..1, at which a Relu, Clip or ChannelClip that makes the tensor lets changes through; 1 for
        any other tensor.
    """

    minimum: Float64
    maximum: Float64
    mean: Float64
    variance: Float64
    active: Float64

    def without(self, channels: npt.NDArray[np.bool_]) -> ChannelStatistics:
        """Return the statistics with some channels 0 throughout."""
        fields = (self.minimum, self.maximum, self.mean, self.variance, self.active)
        return ChannelStatistics(*(np.where(channels, 0.0, field) for field in fields))

    def lowered(self, shift: Float64) -> ChannelStatistics:
        """Return the statistics of ``x - shift``."""
        return ChannelStatistics(
            self.minimum - shift, self.maximum - shift, self.mean - shift, self.variance, self.active
        )

    def divided(self, scale: Float64) -> ChannelStatistics:
        """Return the statistics of ``x / scale``, positive scales per channel."""
        return ChannelStatistics(
            self.minimum / scale, self.maximum / scale, self.mean / scale, self.variance / scale**2, self.active
        )


def measure_channels(
    graph: Graph, tensors: Sequence[str], feeds: Feeds, progress: Progress | None = None
) -> dict[str, ChannelStatistics]:
    """Measure tensors on calibration data.

    Parameters
    ----------
    graph : Graph
        The float network.
    tensors : sequence of str
        Tensors with at least two axes.
    feeds : Feeds
        The calibration data; it is run once, batch by batch.
    progress : callable, optional
        Told ``("channel statistics", samples done, samples in all)``.

    Raises
    ------
    CalibrationError
        When an input or a tensor is not finite.
    """
    clamps = {node.output: node for node in graph.nodes if node.op in CLAMPS and node.output in tensors}
    before = {node.inputs[0] for node in clamps.values()}
    made = [name for name in dict.fromkeys((*tensors, *before)) if graph.producer(name)]
    runner = OnnxRunner.of_normalised(graph, made) if made else None
    sums = {name: _Sums(graph, clamps.get(name)) for name in tensors}
    size = samples_per_batch(graph)
    for start in range(0, feeds.num_samples, size):
        stop = min(start + size, feeds.num_samples)
        try:
            batch = feeds.slice(start, stop)
        except DataError as problem:
            raise CalibrationError(f"calibration data: {problem}") from None
        values = {**batch, **(runner.run(batch) if runner else {})}
        for name, total in sums.items():
            if not np.isfinite(values[name]).all():
                raise CalibrationError(
                    f"tensor {name!r} must be finite on the calibration data, but has values that are not; "
                    "check the scaling of the images and the network"
                )
            total.add(values[name], values[clamps[name].inputs[0]] if name in clamps else None)
        if progress is not None:
            progress("channel statistics", stop, feeds.num_samples)
    return {name: total.statistics() for name, total in sums.items()}


def expect_channels(
    graph: Graph, moments: Mapping[str, Moments], tensors: Sequence[str], alpha: float = ALPHA
) -> dict[str, ChannelStatistics]:
    """Tell from moments what tensors will do.

    Parameters
    ----------
    graph : Graph
        The float network.
    moments : mapping of tensor name to Moments
        As `propagate_moments` tells them.
    tensors : sequence of str
        Tensors of the graph.
    alpha : float
        Values are expected within so many deviations of the mean.

    Returns
    -------
    dict of str to ChannelStatistics
        Those tensors of which something is known.
    """
    found = {}
    for name in tensors:
        if name not in moments:
            continue
        here = moments[name]
        low, high = here.mean - alpha * here.deviation, here.mean + alpha * here.deviation
        active = np.ones_like(here.mean)
        node = graph.producer(name)
        if node is not None and node.op in CLAMPS and node.inputs[0] in moments:
            before = moments[node.inputs[0]]
            least, most = clip_bounds(graph, node)
            low, high = (
                np.minimum(np.maximum(before.mean + sign * alpha * before.deviation, least), most) for sign in (-1, 1)
            )
            spread = np.where(before.deviation > 0, before.deviation, 1.0)
            active = np.maximum(ndtr((most - before.mean) / spread) - ndtr((least - before.mean) / spread), 0.0)
        found[name] = ChannelStatistics(low, high, here.mean, here.deviation**2, active)
    return found


class _Sums:
    """Running statistics of one tensor."""

    def __init__(self, graph: Graph, clamp: Node | None) -> None:
        self._bounds = None if clamp is None else clip_bounds(graph, clamp)
        self._count = 0
        self._minimum = self._maximum = self._mean = self._squares = self._active = np.zeros(0)

    def add(self, values: npt.NDArray[np.float32], before: npt.NDArray[np.float32] | None) -> None:
        """Take in a batch, with the clamp's input where there is one."""
        rows = _by_channel(values)
        size = rows.shape[1]
        low, high = rows.min(axis=1).astype(np.float64), rows.max(axis=1).astype(np.float64)
        mean = rows.mean(axis=1, dtype=np.float64)
        squares = np.square(rows - mean.astype(np.float32)[:, None]).sum(axis=1, dtype=np.float64)
        active = np.full(len(rows), float(size))
        if before is not None and self._bounds is not None:
            least, most = (bound.astype(np.float32)[:, None] for bound in self._bounds)
            unclipped = _by_channel(before)
            active = np.count_nonzero((unclipped > least) & (unclipped < most), axis=1).astype(np.float64)
        if self._count == 0:
            self._minimum, self._maximum, self._mean, self._squares, self._active = low, high, mean, squares, active
        else:
            total = self._count + size
            self._minimum, self._maximum = np.minimum(self._minimum, low), np.maximum(self._maximum, high)
            apart = mean - self._mean
            # Chan's update: no difference of large sums.
            self._squares = self._squares + squares + apart**2 * (self._count * size / total)
            self._mean = self._mean + apart * (size / total)
            self._active = self._active + active
        self._count += size

    def statistics(self) -> ChannelStatistics:
        """Return what was found."""
        return ChannelStatistics(
            self._minimum, self._maximum, self._mean, self._squares / self._count, self._active / self._count
        )


def _by_channel(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a tensor as (channels, samples times positions)."""
    return np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
