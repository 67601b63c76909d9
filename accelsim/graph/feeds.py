"""Input data checked against a graph once, then handed out batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import DataError
from accelsim.graph.graph import Graph

Images = npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]
"""What a user passes: one array for a graph with one input, else an array per input name."""


class Feeds:
    """The inputs of a graph for a number of samples.

    Parameters
    ----------
    graph : Graph
        The network to be fed.
    images : array or mapping of input name to array
        Real values of any numeric type, samples along axis 0. A single array serves a graph with one input.

    Raises
    ------
    DataError
        When an input is missing, unknown, of the wrong shape, not numeric, not finite, or the counts differ.
    """

    def __init__(self, graph: Graph, images: Images) -> None:
        names = [tensor.name for tensor in graph.inputs]
        if isinstance(images, Mapping):
            given = {name: np.asarray(value) for name, value in images.items()}
        elif len(names) == 1:
            given = {names[0]: np.asarray(images)}
        else:
            raise DataError(f"the graph has the inputs {', '.join(names)}; pass a mapping of input name to array")
        if set(given) != set(names):
            raise DataError(f"the graph has the inputs {', '.join(names)}, got {', '.join(given) or 'none'}")
        for tensor in graph.inputs:
            _check(tensor.name, tensor.shape, given[tensor.name])
        counts = {name: value.shape[0] for name, value in given.items()}
        if len(set(counts.values())) != 1:
            raise DataError(f"all inputs must have the same number of samples, got {counts}")
        self._arrays = {name: given[name] for name in names}
        self.num_samples: int = next(iter(counts.values()))
        if self.num_samples == 0:
            raise DataError("at least one sample is needed, got 0")

    def slice(self, start: int, stop: int) -> dict[str, npt.NDArray[np.float32]]:
        """Return samples ``start .. stop-1`` of every input as contiguous float32.

        Raises
        ------
        DataError
            When a value is not finite in float32.
        """
        part = {}
        for name, array in self._arrays.items():
            with np.errstate(over="ignore"):
                values = np.ascontiguousarray(array[start:stop], dtype=np.float32)
            if not np.isfinite(values).all():
                raise DataError(f"input {name!r} must be finite, but samples {start}..{stop - 1} hold inf or nan")
            part[name] = values
        return part

    def batches(self, size: int) -> Iterator[dict[str, npt.NDArray[np.float32]]]:
        """Yield all samples in order, ``size`` at a time (the last batch may be smaller)."""
        for start in range(0, self.num_samples, size):
            yield self.slice(start, min(start + size, self.num_samples))


def _check(name: str, shape: tuple[int | None, ...], array: npt.NDArray[Any]) -> None:
    """Raise a DataError unless the array fits the input."""
    if array.dtype.kind not in "fiub":
        raise DataError(f"input {name!r} must be numeric, got dtype {array.dtype}")
    wanted = ("samples", *shape[1:])
    if array.ndim != len(shape) or tuple(array.shape[1:]) != tuple(shape[1:]):
        hint = ""
        if array.ndim == len(shape) and (array.shape[-1], *array.shape[1:-1]) == tuple(shape[1:]):
            hint = "; the data has its channels last: transpose it (command line: --layout channels-last)"
        elif array.ndim + 1 == len(shape):
            hint = "; add a leading axis for the samples"
        raise DataError(f"input {name!r} must have shape ({', '.join(map(str, wanted))}), got {array.shape}{hint}")
