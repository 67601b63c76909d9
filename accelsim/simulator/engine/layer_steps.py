"""Marked outputs of a layer stepped in the order of the dataflow, and put in the place of their exact sums.

Of a block of sixteen channels with a mark all channels are stepped, by vectors of their weights. Depthwise layers have
operands of their own in each channel: there every marked output is a lane of its own, and its operands are gathered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine
from accelsim.simulator.engine.bounds import register
from accelsim.simulator.engine.gemm import terms_per_addition
from accelsim.simulator.engine.layer_blocks import LayerBlocks, terms_of_window
from accelsim.simulator.engine.layer_marks import LayerMarks, fed_range
from accelsim.simulator.engine.layer_operands import Codes
from accelsim.simulator.engine.safe import Int64, SafeLayer
from accelsim.simulator.engine.tracked import Layout, layout_in_place, order_in_lanes
from accelsim_kernels.block_steps import Lanes, step_blocks
from accelsim_kernels.marks import list_marked
from accelsim_kernels.scattered import Order, step_channels
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES

Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class LayerEvents:
    """Overflow of some outputs of a layer.

    Parameters
    ----------
    events, outputs, partial : int
        Events of the accumulators, outputs with one, events of partial sums or adder trees.
    """

    events: int = 0
    outputs: int = 0
    partial: int = 0

    def __add__(self, other: LayerEvents) -> LayerEvents:
        return LayerEvents(
            self.events + other.events, self.outputs + other.outputs, self.partial + other.partial
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Marked:
    """Outputs to step among some positions of a group of channels.

    Parameters
    ----------
    group : int
        Of channels.
    places : int64 array
        Positions with a mark, ascending.
    masks : int32 array, shape (positions, blocks)
        A bit per channel of each block.
    bases : int64 array
        Where the windows begin.
    per_base : int
        How many positions there are to each base.
    """

    group: int
    places: Int64
    masks: Int32
    bases: Int64
    per_base: int


@dataclass(frozen=True, eq=False)
class LayerSteps:
    """A layer whose outputs are stepped on a machine.

    Parameters
    ----------
    safe : SafeLayer
        The layer.
    machine : Machine
        Dataflow, widths, overflow mode.
    order : Order
        How terms are added.
    """

    safe: SafeLayer
    machine: Machine
    order: Order

    @staticmethod
    def of(safe: SafeLayer, machine: Machine) -> LayerSteps | None:
        """Return the layer in this form; None where (102) or (112) does not hold or activations do not fit 16 bits."""
        weights, (least, greatest) = safe.layer.weights, fed_range(safe)
        most = max(abs(least), abs(greatest))
        widest = most * int(np.abs(weights.astype(np.int64)).max(initial=0))
        order = order_in_lanes(machine, weights.shape[1], terms_per_addition(machine), widest)
        if order is None or most > 1 << 15 or greatest >= 1 << 15:
            return None
        steps = LayerSteps(safe, machine, order)
        return steps if safe.depthwise or steps._layout is not None else None

    @cached_property
    def marks(self) -> LayerMarks:
        """Bounds of the layer's outputs."""
        return LayerMarks(self.safe, self.machine)

    @cached_property
    def _layout(self) -> Layout | None:
        """How blocks are stepped; None for depthwise layers, whose channels have operands of their own."""
        weights = self.safe.layer.weights
        if self.safe.depthwise:
            return None
        ends = (int(weights.min()), int(weights.max())), fed_range(self.safe)
        return layout_in_place(self.machine, weights.shape[1], terms_per_addition(self.machine), *ends)

    @cached_property
    def _blocks(self) -> list[tuple[LayerBlocks, Lanes]]:
        """Of every group the weights of its blocks, and these with their accumulators before the first product."""
        if self._layout is None:
            return []
        low, high, saturate = register(self.machine.accumulator_bits, self.machine.overflow)
        start = self.safe.layer.start
        blocks: list[tuple[LayerBlocks, Lanes]] = []
        held = np.clip(start, low, high) if saturate else (start - low) % (high - low + 1) + low
        outside = (start < low) | (start > high)
        for group in range(len(self.marks.blocks)):
            own = LayerBlocks.of(self._layout, self.marks.of_blocks(self.safe.layer.weights, group), self._terms)
            loads = [
                self.marks.of_blocks(values, group).astype(np.int32) for values in (held, outside, self.safe.start)
            ]
            blocks.append((own, (own.vectors, loads[0], loads[1], loads[2])))
        return blocks

    @cached_property
    def _ordered_weights(self) -> npt.NDArray[Any]:
        """Weights in the machine's order, filled up with 0 to whole groups of bytes."""
        weights, words = self.safe.layer.weights, self.safe.words or self.marks.offset != 0
        kind = np.dtype(np.int16 if words else np.int8)
        per_group = GROUP_BYTES // kind.itemsize
        ordered = np.zeros((len(weights), -(-weights.shape[1] // per_group) * per_group), dtype=kind)
        ordered[:, : weights.shape[1]] = weights
        return ordered

    @cached_property
    def _terms(self) -> Int64:
        """Where each term of a window is after its base, in the machine's order."""
        layer = self.safe.layer
        return terms_of_window(layer.geometry, layer.reduction, self.safe.spatial_first)

    def image(self, fed: Codes) -> npt.NDArray[Any]:
        """Return activations as the steps of blocks read them."""
        return self._blocks[0][0].image(fed)

    @property
    def bytes_of_image(self) -> int:
        """What `image` takes for an operand, with what it holds on the way."""
        if self._layout is None:
            return 0
        return 8 if self._layout.doubled else np.dtype(self._layout.dtype).itemsize

    def step(self, marked: Marked, fed: Codes, image: Callable[[], npt.NDArray[Any]], sums: Int32) -> LayerEvents:
        """Step what is marked.

        Parameters
        ----------
        marked : Marked
            What to step.
        fed : uint8 or int16 array
            Activations as the PEs multiply them.
        image : callable
            Returns `image` of them.
        sums : int32 array, shape (positions, channels)
            Updated.
        """
        if marked.places.size == 0:
            return LayerEvents()
        return (
            self._step_channels(marked, fed, sums) if self.safe.depthwise else self._step_blocks(marked, image(), sums)
        )

    def _step_channels(self, marked: Marked, fed: Codes, sums: Int32) -> LayerEvents:
        """Step outputs of a depthwise layer."""
        blocks = self.marks.blocks[0]
        listed = np.empty((2, marked.places.size * LANES * blocks.size), dtype=np.int32)
        count = list_marked(marked.masks, blocks, marked.places, listed)
        counts = step_channels(
            fed, marked.bases, np.int64(marked.per_base), self._terms, self._ordered_weights, self.safe.layer.start,
            self.safe.start, register(self.machine.accumulator_bits, self.machine.overflow), self.order, listed,
            np.int64(count), sums,
        )  # fmt: skip
        return LayerEvents(*map(int, counts))

    def _step_blocks(self, marked: Marked, image: npt.NDArray[Any], sums: Int32) -> LayerEvents:
        """Step blocks of channels."""
        assert self._layout is not None
        own, lanes = self._blocks[marked.group]
        (kind, _, *ends), saturate = self._layout.stepping(self.machine)
        stepping: Any = (kind, np.int64(own.tile), *ends)
        counts = step_blocks(
            image, own.bases(marked.bases), own.places, lanes, stepping, saturate, marked.masks, marked.places,
            self.marks.blocks[marked.group], sums,
        )  # fmt: skip
        return LayerEvents(*map(int, counts))
