"""Input data checked against a graph once, then handed out batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from accelsim.errors import DataError
from accelsim.graph.graph import Shape, Tensor

Images = npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]
"""What a user passes: one array for a graph with one input, else an array per input name."""


Samples = slice | npt.NDArray[np.intp]
"""Some of the samples."""


class HasInputs(Protocol):
    """A graph or a program."""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What it is fed with."""


class Feeds:
    """The inputs of a graph for a number of samples.

    Parameters
    ----------
    graph : Graph or IntegerProgram
        The network to be fed.
    images : array or mapping of input name to array
        Real values of any numeric type, samples along axis 0; integers of a ``stored`` input are its codes. A single
        array serves a graph with one input.
    whole : bool
        A sample is a whole input of the shape that the graph gives, its leading axis included: arrays hold some of
        them one after the other along that axis, and batches have one more axis in front. A scalar is one sample.

    Raises
    ------
    DataError
        When an input is missing, unknown, of the wrong shape, not numeric, not finite, or the counts differ.
    """

    def __init__(self, graph: HasInputs, images: Images, whole: bool = False) -> None:
        names = [tensor.name for tensor in graph.inputs]
        if isinstance(images, Mapping):
            given = {name: _array(value) for name, value in images.items()}
        elif len(names) == 1:
            given = {names[0]: _array(images)}
        else:
            raise DataError(f"the graph has the inputs {', '.join(names)}; pass a mapping of input name to array")
        if set(given) != set(names):
            raise DataError(f"the graph has the inputs {', '.join(names)}, got {', '.join(given) or 'none'}")
        for tensor in graph.inputs:
            if whole:
                given[tensor.name] = _samples_apart(tensor.name, tensor.shape, given[tensor.name])
            _check(tensor.name, (None, *tensor.shape) if whole else tensor.shape, given[tensor.name])
        counts = {name: value.shape[0] for name, value in given.items()}
        if len(set(counts.values())) != 1:
            raise DataError(f"all inputs must have the same number of samples, got {counts}")
        self._arrays = {name: given[name] for name in names}
        self._stored = {tensor.name for tensor in graph.inputs if tensor.stored}
        self.num_samples: int = next(iter(counts.values()))
        if self.num_samples == 0:
            raise DataError("at least one sample is needed, got 0")

    def slice(self, start: int, stop: int) -> dict[str, npt.NDArray[Any]]:
        """Return samples ``start .. stop-1`` of every input as contiguous float32; codes as they are.

        Raises
        ------
        DataError
            When a value is not finite in float32.
        """
        return self._finite(slice(start, stop), f"samples {start}..{stop - 1}")

    def take(self, samples: npt.NDArray[np.intp]) -> dict[str, npt.NDArray[np.float32]]:
        """Return some samples, by number, of every input as contiguous float32; raise as `slice` does."""
        return self._finite(samples, f"some of {samples.size} samples")

    def _finite(self, which: Samples, what: str) -> dict[str, npt.NDArray[np.float32]]:
        """Return samples as float32; refuse values that are not finite."""
        part = {}
        for name, array in self._arrays.items():
            if name in self._stored and array.dtype.kind in "iu":
                part[name] = np.ascontiguousarray(array[which])
                continue
            values = array[which]
            if values.dtype != np.float32:
                with np.errstate(over="ignore"):
                    values = values.astype(np.float32)
            values = np.ascontiguousarray(values)
            if not np.isfinite(values).all():
                raise DataError(f"input {name!r} must be finite, but {what} hold inf or nan")
            part[name] = values
        return part

    def batches(self, size: int) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """Yield all samples in order, ``size`` at a time (the last batch may be smaller)."""
        for start in range(0, self.num_samples, size):
            yield self.slice(start, min(start + size, self.num_samples))


def _array(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array, of int8 or uint8 where its type is one of the narrower ones that numpy itself does not have."""
    array = np.asarray(values)
    if array.dtype.isbuiltin == 1:
        return array
    narrow = {"int4": np.int8, "int2": np.int8, "uint4": np.uint8, "uint2": np.uint8}
    return array.astype(narrow[array.dtype.name]) if array.dtype.name in narrow else array


def _samples_apart(name: str, shape: Shape, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array of samples one after the other with the samples as an axis of their own."""
    if not shape:
        return array[np.newaxis]
    length = shape[0] or 0
    if array.ndim != len(shape) or array.shape[1:] != shape[1:] or length == 0 or array.shape[0] % length:
        wanted = f"a multiple of {length}, {', '.join(map(str, shape[1:]))}".rstrip(", ")
        raise DataError(f"input {name!r} must have shape ({wanted}), got {array.shape}")
    return array.reshape(-1, *(axis or 0 for axis in shape))


def _check(name: str, shape: Shape, array: npt.NDArray[Any]) -> None:
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
