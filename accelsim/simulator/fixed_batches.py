"""Small batches that run again and again: their arrays stay where they are, so that kernels get the same arguments.

Between the kernels of a single image there is more Python than arithmetic: arrays are made, seen in other shapes, and
looked up. Where each of them is known from an earlier batch, a layer is one call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.program import layers as kinds
from accelsim.program.storage import StoredTensor
from accelsim.simulator.engine.dots import Room
from accelsim.simulator.engine.steps import Bound, Step
from accelsim.simulator.layers.grid import Grid
from accelsim.simulator.layers.registry import Codes
from accelsim_kernels.processor import has_dot_instructions

FIXED_BYTES = 8 << 20
"""Arrays of a batch that stay, at most: in larger ones kernels take most of the time."""

MOST_KINDS = 2
"""Kinds of batches that are remembered: the last one of a run is often smaller."""

_BYTES_OF_CODE = 3
"""What a byte that is stored takes at most, mostly: as codes, and padded."""

RUNS_BEFORE = 2
"""Batches of a kind that run as others do."""

_Kind = tuple[object, ...]


class FixedBatch:
    """A batch of a program on a grid whose arrays stay.

    Parameters
    ----------
    layers, constants, tensors
        Of the program.
    grid : Grid
        What runs layers that multiply, and tallies what it meets.
    codes : dict of str to array
        Stored inputs; the batch is run with them.
    """

    def __init__(
        self,
        layers: Sequence[kinds.Layer],
        constants: Mapping[str, npt.NDArray[Any]],
        tensors: Mapping[str, StoredTensor],
        grid: Grid,
        codes: Mapping[str, Codes],
    ) -> None:
        self.stored = {name: array.copy(order="K") for name, array in codes.items()}
        self.num_bytes = sum(array.nbytes for array in self.stored.values())
        self._inputs, self._steps, room = dict(self.stored), list[Step](), Room()
        for layer in layers:
            inputs = [self.stored[name] if name in self.stored else constants[name] for name in layer.inputs]
            bound = grid.bind(layer, inputs, room)
            if bound is None:
                bound = _executed(layer, inputs, tensors[layer.output], grid)
            else:
                for step in bound.steps:
                    step()
            self.stored[layer.output] = bound.codes
            self.num_bytes += bound.num_bytes
            self._steps += bound.steps

    def run(self, codes: Mapping[str, Codes]) -> None:
        """Run other codes of the same shapes and types; `stored` holds what is stored of them."""
        for name, array in self._inputs.items():
            np.copyto(array, codes[name])
        for step in self._steps:
            step()


def _executed(layer: kinds.Layer, inputs: Sequence[Codes], stored: StoredTensor, grid: Grid) -> Bound:
    """Execute a layer that has no steps of its own, and return how it is executed again: codes are kept as stored."""
    made = grid.execute(layer, inputs)
    if any(np.may_share_memory(made, array) for array in inputs):  # the same codes in another shape
        return Bound([], made, 0)
    kept = made.astype(stored.format.dtype, order="K", copy=True)

    def step() -> None:
        np.copyto(kept, grid.execute(layer, inputs), casting="unsafe")

    return Bound([step], kept, kept.nbytes)


class AlikeBatches:
    """Batches of a program on a grid, of which one after the other is mostly alike; parameters as of `FixedBatch`."""

    def __init__(
        self,
        layers: Sequence[kinds.Layer],
        constants: Mapping[str, npt.NDArray[Any]],
        tensors: Mapping[str, StoredTensor],
        grid: Grid,
    ) -> None:
        self._bind = partial(FixedBatch, layers, constants, tensors, grid)
        self._stored_bytes = sum(
            prod(layer.output_shape) * tensors[layer.output].format.dtype.itemsize for layer in layers
        )  # of a sample
        self._runs: dict[_Kind, int] = {}  # as others
        self._fixed: dict[_Kind, FixedBatch] = {}

    @property
    def num_bytes(self) -> int:
        """Bytes of the arrays that stay."""
        return sum(batch.num_bytes for batch in self._fixed.values())

    def clear(self) -> None:
        """Forget all batches, and drop their arrays."""
        self._runs.clear()
        self._fixed.clear()

    def run(self, codes: Mapping[str, Codes]) -> Mapping[str, Codes] | None:
        """Run a batch that is small, and of which there were enough alike.

        Parameters
        ----------
        codes : mapping of str to array
            Stored inputs.

        Returns
        -------
        mapping or None
            Everything that is stored, until the next batch; None where the batch is to be run as others are.
        """
        kind = has_dot_instructions(), *((array.shape, array.dtype) for array in codes.values())
        fixed = self._fixed.get(kind)
        if fixed is not None:
            fixed.run(codes)
            return fixed.stored
        runs = self._runs.get(kind, 0)
        if not runs and len(self._runs) == MOST_KINDS:
            self.clear()
        self._runs[kind] = runs + 1
        if runs < RUNS_BEFORE or self._num_samples(codes) * self._stored_bytes * _BYTES_OF_CODE > FIXED_BYTES:
            return None
        fixed = self._fixed[kind] = self._bind(codes)
        return fixed.stored

    @staticmethod
    def _num_samples(codes: Mapping[str, Codes]) -> int:
        """Return how many samples a batch has."""
        return len(next(iter(codes.values())))
