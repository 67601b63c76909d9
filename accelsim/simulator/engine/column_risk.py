"""Matrix products with channels at risk: all sums and their bounds in one pass, then what those leave is stepped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine
from accelsim.simulator.engine.bounds import ChannelBounds, register
from accelsim.simulator.engine.exact import ColumnSurvey
from accelsim.simulator.engine.tracked import order_in_lanes
from accelsim_kernels.column_risk import step_marked, sum_and_mark, sum_parts
from accelsim_kernels.scattered import Order
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES, has_dot_instructions
from accelsim_kernels.vectors.columns import POSITIONS

Integers = npt.NDArray[Any]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_PARTS = 4
"""Parts of a reduction."""

_MOST = 8
"""Of 16 outputs, how many at risk are stepped one by one; where more are, it is faster to step all."""


@dataclass(frozen=True, eq=False)
class ColumnsAtRisk:
    """A matrix product in the form that the fast kernels take, on a machine on which its outputs may overflow.

    Parameters
    ----------
    weights : int8 or int16 array, shape (n, length)
        In whole groups of `GROUP_BYTES`.
    columns : uint8 or uint16 array, shape (k, p)
        Activations of 8 bits, or the bits of signed ones of 16.
    start : int64 array, shape (n,)
        What the accumulators are loaded with.
    parts, inner : tuple
        See `accelsim_kernels.column_risk`.
    register : tuple
        Of the accumulators.
    order : Order
        How terms are added.
    """

    weights: Integers
    columns: Integers
    start: Int64
    parts: tuple[Any, ...]
    inner: tuple[Any, ...]
    register: tuple[Any, Any, bool]
    order: Order

    @staticmethod
    def of(
        bounds: ChannelBounds, columns: Integers, ends: tuple[int, int], machine: Machine, tile: int
    ) -> ColumnsAtRisk | None:
        """Return the product in this form; None where a value may leave its 32 bits.

        Parameters
        ----------
        bounds : ChannelBounds
            With weights and start values, in units of the accumulator.
        columns : integer array, shape (k, p)
            Activations.
        ends : tuple of int
            Their range.
        machine : Machine
            Dataflow, widths, overflow mode.
        tile : int
            Products that reach the accumulator in one addition.

        Notes
        -----
        Twice the sum of the magnitudes of a channel's weights, times the greatest activation, fits 32 bits.
        """
        narrow, most = bounds.narrow, max(map(abs, ends))
        if narrow is None or machine.product_shift_bits > 0 or not has_dot_instructions():
            return None
        words = narrow.itemsize > 1 or ends[0] < 0 or ends[1] > 255
        if words and (most > 1 << 15 or ends[1] >= 1 << 15):
            return None
        weights, per_group = _in_groups(narrow, words)
        order = order_in_lanes(machine, narrow.shape[1], tile, most * max(-int(weights.min()), int(weights.max())))
        part_groups, positive, negative = _parts(weights, per_group)
        if order is None or int((positive.sum(axis=1) - negative.sum(axis=1)).max()) * most >= 1 << 30:
            return None
        kind: Any = np.int16 if words else np.uint8
        if columns.dtype != kind:
            columns = columns.astype(kind)
        columns = np.require(columns, requirements=("C", "W")).view(np.uint16 if words else np.uint8)
        low, high, saturate = register(machine.accumulator_bits, machine.overflow)
        int32 = np.iinfo(np.int32)
        limits = (np.clip(limit - bounds.start, int32.min, int32.max).astype(np.int32) for limit in (low, high))
        return ColumnsAtRisk(
            weights, columns, np.require(bounds.start, requirements=("C", "W")),
            (part_groups, positive, negative, *limits), _inner(narrow, tile, machine), (low, high, saturate), order,
        )  # fmt: skip

    @property
    def inner_events(self) -> bool:
        """Whether a register inside a tile may have events."""
        return len(self.inner[0]) > 0

    def sums(self, accumulators: Int64) -> tuple[Int32, ColumnSurvey] | None:
        """Compute all sums.

        Parameters
        ----------
        accumulators : int64 array, shape (n, p)
            Output.

        Returns
        -------
        tuple or None
            Marks of the outputs that must be stepped, and what was seen of the activations; None where so many must be
            that it is faster to step all of them.
        """
        panels = -(-self.columns.shape[1] // POSITIONS)
        masks = np.empty((len(self.weights), panels * (POSITIONS // LANES)), dtype=np.int32)
        nonzero = np.zeros(self.weights.shape[1], dtype=np.int64)
        least, greatest, done = sum_and_mark(
            self.weights, self.columns, self.start, self.parts, self.inner, nonzero, np.int64(_MOST), accumulators,
            masks,
        )  # fmt: skip
        if not done:
            return None
        left = self.columns.shape[1] - np.arange(masks.shape[1]) * LANES
        masks &= (1 << np.clip(left, 0, LANES)) - 1
        return masks, ColumnSurvey(nonzero[: self.columns.shape[0]], int(least), int(greatest))

    def step(self, masks: Int32, outputs: tuple[Int64, Int64, Int64, Int64]) -> None:
        """Step the marked outputs.

        Parameters
        ----------
        masks : int32 array
            Of `sums`.
        outputs : tuple of int64 arrays, shape (n, p)
            Accumulators, events, numbers of the first event, events of partial registers; others are left alone.
        """
        room = np.empty(self.weights.shape[1] * POSITIONS, np.uint8 if self.weights.itemsize == 1 else np.int16)
        step_marked(self.weights, self.columns, self.start, masks, room, self.register, self.order, outputs)


def _in_groups(weights: Integers, words: bool) -> tuple[Integers, int]:
    """Return weights of 8 or 16 bits in whole groups of bytes, and how many are in one."""
    kind = np.dtype(np.int16 if words else np.int8)
    per_group = GROUP_BYTES // kind.itemsize
    length = -(-weights.shape[1] // per_group) * per_group
    if length == weights.shape[1] and weights.dtype == kind:
        return np.require(weights, requirements=("C", "W")), per_group
    filled = np.zeros((len(weights), length), dtype=kind)
    filled[:, : weights.shape[1]] = weights
    return filled, per_group


def _parts(weights: Integers, per_group: int) -> tuple[np.int64, Int32, Int32]:
    """Return the groups of a part, and the sums of the positive and of the negative weights of every part."""
    num_groups = weights.shape[1] // per_group
    part_groups = -(-num_groups // _PARTS)
    size = part_groups * per_group
    positive, negative = (np.empty((len(weights), -(-weights.shape[1] // size)), dtype=np.int32) for _ in range(2))
    sum_parts(weights, np.int64(size), positive, negative)
    return np.int64(part_groups), positive, negative


def _inner(weights: Integers, tile: int, machine: Machine) -> tuple[Any, ...]:
    """Return the kernels' tuple of the registers inside a tile; of no channels where they have no width."""
    bits = machine.adder_tree_bits if machine.dataflow == "broadcast" else machine.partial_sum_bits
    if bits is None or machine.dataflow == "output_stationary":
        nobody = np.zeros(0, dtype=np.int32)
        return nobody, nobody, np.int64(0), np.int64(0)
    begins = np.arange(0, weights.shape[1], tile)
    weights = weights.astype(np.int64)
    positive = np.add.reduceat(np.maximum(weights, 0), begins, axis=1, dtype=np.int64).max(axis=1)
    negative = np.add.reduceat(np.minimum(weights, 0), begins, axis=1, dtype=np.int64).min(axis=1)
    low, high, _ = register(bits, machine.overflow)
    return positive.astype(np.int32), negative.astype(np.int32), low, high
