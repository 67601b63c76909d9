"""Layers with channels at risk: sums as of safe layers, and only outputs that their own products leave at risk stepped.

docs/numerics.md (103), (104) and (106) prove an output safe; what they leave is stepped in the order of the dataflow
and put in the place of its exact sum, before the sums are requantized.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine
from accelsim.simulator.engine.bounds import register
from accelsim.simulator.engine.dots import PackedWeights, aligned_empty
from accelsim.simulator.engine.gemm import terms_per_addition
from accelsim.simulator.engine.safe import _SUM_BYTES, Codes, Int64, SafeLayer, _pieces_per_window, _Windows
from accelsim.simulator.engine.tracked import order_in_lanes
from accelsim_kernels.depthwise import depthwise_rows
from accelsim_kernels.scattered import Order, list_at_risk, step_windows
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES

Int32 = npt.NDArray[np.int32]

_WIDEST = 1 << 61
"""Limit of a partial sum that has no register of its own, and greatest magnitude of a start value."""

_ROOM = 1 << 30
"""Greatest magnitude of what the kernels' sums are less than the accumulators: a register's value less it fits 32."""


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
class LayerAtRisk:
    """A layer in the form that the fast kernels take, on a machine on which its outputs may overflow.

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
    def of(safe: SafeLayer, machine: Machine) -> LayerAtRisk | None:
        """Return the layer in this form, made once for runs on one machine; None where it has none.

        Parameters
        ----------
        safe : SafeLayer
            The layer.
        machine : Machine
            Without truncated products.

        Notes
        -----
        Besides (102), ``Σ_k |w·x|`` must fit 32 bits for every output, and so must what an accumulator holds less what
        the kernels' sums are less than it.
        """
        if safe.on_machines.get("machine") != machine:
            safe.on_machines.update(machine=machine, layer=LayerAtRisk._prepared(safe, machine))
        made: LayerAtRisk | None = safe.on_machines["layer"]
        return made

    @staticmethod
    def _prepared(safe: SafeLayer, machine: Machine) -> LayerAtRisk | None:
        """Return the layer in this form, see `of`."""
        weights, (least, greatest) = safe.layer.weights, _fed_range(safe)
        most, magnitudes = max(abs(least), abs(greatest)), np.abs(weights.astype(np.int64))
        widest = most * int(magnitudes.max(initial=0))
        order = order_in_lanes(machine, weights.shape[1], terms_per_addition(machine), widest)
        if order is None or most > 1 << 15 or greatest >= 1 << 15:
            return None
        if int(magnitudes.sum(axis=1).max(initial=0)) * most >= 1 << 31:
            return None
        if int(np.abs(safe._start).max(initial=0)) >= _ROOM:
            return None
        return LayerAtRisk(safe, machine, order)

    @cached_property
    def _offset(self) -> int:
        """What the kernels' operands are less than the activations as the PEs multiply them."""
        return self.safe.shift - self.safe.layer.input_offset

    @cached_property
    def _bytes(self) -> bool:
        """Whether the kernels' operands are the activations themselves, unsigned and of 8 bits."""
        return not self.safe.words and self._offset == 0

    @cached_property
    def _sign(self) -> np.int64:
        """What sums of magnitudes are multiplied with.

        Magnitudes of 8 signed bits reach 128 and those of 16 bits 32768: they fit with a minus sign. Of 16 bits both
        factors have one, and of 8 bits the weights alone, as the other factor is unsigned.
        """
        return np.int64(1 if self.safe.words else -1)

    @cached_property
    def _limits(self) -> list[tuple[Int64, Int64]]:
        """Limits of ``S' - A`` and ``S' + A`` of every group's blocks, (106)."""
        machine, layer, inner = self.machine, self.safe.layer, None
        if machine.dataflow != "output_stationary":
            inner = machine.adder_tree_bits if machine.dataflow == "broadcast" else machine.partial_sum_bits
        low, high, _ = register(machine.accumulator_bits, machine.overflow)
        inner_low, inner_high = (-_WIDEST, _WIDEST) if inner is None else register(inner, machine.overflow)[:2]
        shifted = self.safe._start - layer.start
        least, most = np.maximum(low - layer.start, inner_low), np.minimum(high - layer.start, inner_high)
        low, high = 2 * least - shifted, 2 * most - shifted
        return [(self._of_blocks(low, group), self._of_blocks(high, group)) for group in range(len(self._blocks))]

    @cached_property
    def _risky(self) -> npt.NDArray[np.bool_]:
        """The channels that the range of the format leaves at risk."""
        risky: npt.NDArray[np.bool_] = ~self.safe.bounds.safe(self.machine, *_fed_range(self.safe))
        return risky

    @cached_property
    def _blocks(self) -> list[Int64]:
        """Of every group, or of a depthwise layer as a whole, the blocks of channels with one at risk."""
        per_group = len(self._risky) if self.safe.depthwise else self.safe.layer.num_outputs
        return [
            np.unique(np.flatnonzero(self._risky[begin : begin + per_group]) // LANES)
            for begin in range(0, len(self._risky), per_group)
        ]

    def _of_blocks(self, values: npt.NDArray[Any], group: int) -> npt.NDArray[Any]:
        """Take the channels of a group's blocks, with zeros where there are none."""
        per_group = len(self._risky) if self.safe.depthwise else self.safe.layer.num_outputs
        padded = np.zeros((-(-per_group // LANES) * LANES, *values.shape[1:]), dtype=values.dtype)
        padded[:per_group] = values[group * per_group : (group + 1) * per_group]
        channels = (self._blocks[group][:, None] * LANES + np.arange(LANES)).reshape(-1)
        chosen: npt.NDArray[Any] = padded[channels]
        return chosen

    @cached_property
    def _packed_magnitudes(self) -> list[PackedWeights | None]:
        """``-|W|`` of every group's blocks for the dot products; None where there are none."""
        pieces, packed = _pieces_per_window(self.safe.layer.geometry), []
        magnitudes = -np.abs(self.safe._by_tap)
        for group, blocks in enumerate(self._blocks):
            part = self._of_blocks(magnitudes, group).reshape(LANES * blocks.size, pieces, -1 if blocks.size else 0)
            packed.append(PackedWeights(part, self.safe.words) if blocks.size else None)
        return packed

    @cached_property
    def _depthwise_magnitudes(self) -> npt.NDArray[np.int16]:
        """``-|W|``, shape (taps, repeats * channels)."""
        return _less_than_nothing(self.safe._depthwise_weights)

    @cached_property
    def _ordered_weights(self) -> npt.NDArray[Any]:
        """Weights in the machine's order, filled up with 0 to whole groups of bytes."""
        weights, kind = self.safe.layer.weights, np.dtype(np.int8 if self._bytes else np.int16)
        per_group = GROUP_BYTES // kind.itemsize
        ordered = np.zeros((len(weights), -(-weights.shape[1] // per_group) * per_group), dtype=kind)
        ordered[:, : weights.shape[1]] = weights
        return ordered

    @cached_property
    def _terms(self) -> Int64:
        """Where each term of a window is after its base, in the machine's order."""
        geometry = self.safe.layer.geometry
        if geometry is None:
            return np.arange(self.safe.layer.reduction)
        channels, _, width = geometry.input_shape
        line = (width + geometry.pads[1] + geometry.pads[3]) * channels
        rows = np.arange(geometry.kernel_shape[0]) * geometry.dilations[0] * line
        columns = np.arange(geometry.kernel_shape[1]) * geometry.dilations[1] * channels
        taps = np.add.outer(rows, columns).reshape(-1)
        inner = np.arange(geometry.group_channels)
        if self.safe.spatial_first:
            return np.add.outer(taps, inner).reshape(-1)
        return np.add.outer(inner, taps).reshape(-1)

    def run(self, rows: Codes) -> tuple[Codes, LayerEvents]:
        """Run the layer.

        Parameters
        ----------
        rows : integer array
            As in `SafeLayer.run`.

        Returns
        -------
        tuple
            Codes as of `SafeLayer.run`, and the events that were counted.
        """
        geometry, depthwise = self.safe.layer.geometry, self.safe.depthwise
        operands = self.safe._operands(rows)
        if geometry is None:
            windows = _Windows.of_vectors(len(rows), self.safe.layer.reduction)
        else:
            windows = _Windows.of(geometry, len(rows), depthwise)
        codes, events = (self._depthwise if depthwise else self._dot)(operands, windows)
        return (codes if geometry is None else codes.reshape(len(rows), *geometry.output_shape, -1)), events

    def _dot(self, operands: Codes, windows: _Windows) -> tuple[Codes, LayerEvents]:
        """Multiply windows with all channels; returns (positions, channels)."""
        safe, per_group = self.safe, self.safe.layer.num_outputs
        outputs = np.empty((windows.bases.size, len(safe.layer.weights)), dtype=safe._requantizers[0].dtype)
        step = min(safe._packed[0].positions_at_a_time(_SUM_BYTES), windows.bases.size)
        room, events, fed = safe._packed[0].room_for(step), LayerEvents(), self._fed(operands)
        magnitudes = self._magnitudes(fed)
        for group, (packed, requantizer) in enumerate(zip(safe._packed, safe._requantizers, strict=True)):
            part = slice(group * per_group, (group + 1) * per_group)
            bases, reach = windows.bases + group * windows.group_offset, self._packed_magnitudes[group]
            reaching = None if reach is None else reach.room_for(step)
            for begin in range(0, bases.size, step):
                some = bases[begin : begin + step]
                sums = packed.sums(operands, some, windows.segments, room)
                if reach is not None and reaching is not None:
                    reached = reach.sums(magnitudes, some, windows.segments, reaching)
                    events += self._repair(sums, reached, group, part, fed, some, (1, 0))
                requantizer.store(sums, outputs[begin : begin + step, part])
        return outputs, events

    def _depthwise(self, operands: Codes, windows: _Windows) -> tuple[Codes, LayerEvents]:
        """Convolve every channel with its own kernel; returns (positions, channels)."""
        safe, run, channels = self.safe, windows.run, len(self.safe.layer.weights)
        requantizer, fed, events = safe._requantizers[0], self._fed(operands), LayerEvents()
        outputs = np.empty((windows.bases.size, run), dtype=requantizer.dtype)
        step = min(max(1, _SUM_BYTES // (4 * run)), windows.bases.size)
        room, reaching = (aligned_empty((step, run), np.int32) for _ in range(2))
        magnitudes, between = self._magnitudes(fed), channels
        for begin in range(0, windows.bases.size, step):
            bases = windows.bases[begin : begin + step]
            sums, reached = room[: bases.size], reaching[: bases.size]
            for rows, weights, target in (
                (operands, safe._depthwise_weights, sums), (magnitudes, self._depthwise_magnitudes, reached)
            ):  # fmt: skip
                depthwise_rows(rows, bases, np.int64(run), windows.segments, weights, target.reshape(-1))
            by_position = sums.reshape(-1, channels), reached.reshape(-1, channels)
            events += self._repair(*by_position, 0, slice(None), fed, bases, (run // channels, between))
            requantizer.store(sums, outputs[begin : begin + step])
        return outputs.reshape(-1, channels), events

    def _repair(
        self, sums: Int32, reached: Int32, group: int, part: slice, fed: Codes, bases: Int64, positions: tuple[int, int]
    ) -> LayerEvents:
        """Step what is at risk of some positions, and put it in the place of its exact sum.

        Parameters
        ----------
        sums, reached : int32 arrays, shape (positions, channels)
            ``S'``, and A of the blocks of channels with one at risk, times the sign.
        group : int
            Of channels.
        part : slice
            The group's channels among all.
        fed : uint8 or int16 array
            Activations as the PEs multiply them.
        bases : int64 array
            Where the windows begin.
        positions : tuple of int
            How many positions there are to each base, and what is between their windows.
        """
        blocks = self._blocks[group]
        listed = np.empty((2, len(sums) * min(LANES * blocks.size, sums.shape[1])), dtype=np.int32)
        count = list_at_risk(sums, reached, self._sign, blocks, *self._limits[group], listed)
        if count == 0:
            return LayerEvents()
        accumulator = register(self.machine.accumulator_bits, self.machine.overflow)
        per_base, between = np.int64(positions[0]), np.int64(positions[1])
        start, offsets = self.safe.layer.start[part], self.safe._start[part]
        counts = step_windows(
            fed, bases, per_base, between, self._terms, self.safe.depthwise, self._ordered_weights[part], start,
            offsets, accumulator, self.order, listed, np.int64(count), sums,
        )  # fmt: skip
        return LayerEvents(*map(int, counts))

    def _fed(self, operands: Codes) -> Codes:
        """Return the kernels' operands as the PEs multiply them, int16 where they differ."""
        if self._offset == 0:
            return operands
        fed = operands.astype(np.int16)
        fed += np.int16(self._offset)
        return fed

    def _magnitudes(self, fed: Codes) -> Codes:
        """Return ``|x|``, of 16 bits ``-|x|``, in the kernels' type."""
        if self._bytes:
            return fed
        if self.safe.words:
            return _less_than_nothing(fed)
        return np.abs(fed).astype(np.uint8)


def _fed_range(safe: SafeLayer) -> tuple[int, int]:
    """Return the range of activations as the PEs multiply them, padding among them."""
    least, greatest = safe.fed_range
    pad = () if safe.layer.geometry is None else (safe.layer.pad_value,)
    return min(least, *pad, least), max(greatest, *pad, greatest)


def _less_than_nothing(values: Codes) -> Codes:
    """Return ``-|v|`` of int16 values, which all fit."""
    lesser: Codes = np.minimum(values, -np.maximum(values, np.int16(-(1 << 15) + 1)))
    return lesser
