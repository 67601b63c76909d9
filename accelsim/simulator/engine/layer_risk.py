"""Layers with channels at risk: sums as of safe layers, and only outputs that their own products leave at risk stepped.

docs/numerics.md (103), (104) and (106) prove an output safe; what they leave is stepped in the order of the dataflow
and put in the place of its exact sum, before the sums are requantized.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine
from accelsim.program.geometry import Geometry
from accelsim.simulator.engine.bounds import register
from accelsim.simulator.engine.dots import PackedWeights, aligned_empty
from accelsim.simulator.engine.gemm import terms_per_addition
from accelsim.simulator.engine.lanes import LaneConstants
from accelsim.simulator.engine.part_proofs import MOST_PARTS, PartProofs
from accelsim.simulator.engine.safe import SUM_BYTES, Codes, Int64, SafeLayer
from accelsim.simulator.engine.tracked import order_in_lanes
from accelsim.simulator.engine.windows import Windows, pieces_per_window
from accelsim_kernels.depthwise import depthwise_rows
from accelsim_kernels.layer_rows import requantize_lanes
from accelsim_kernels.scattered import Order, keep_marked, list_marked, mark_at_risk, step_windows
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES, has_dot_instructions

Int32 = npt.NDArray[np.int32]
Pair = tuple[int, int]

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
        Besides (102), ``|S'| + A`` must fit 32 bits for every output, and so must what an accumulator holds less what
        the kernels' sums are less than it.
        """
        made = safe.on_machines.get("last")
        if made is None or made[0] != machine:  # another thread may replace what is kept, but not what is returned
            made = safe.on_machines["last"] = machine, LayerAtRisk._prepared(safe, machine)
        found: LayerAtRisk | None = made[1]
        return found

    @staticmethod
    def _prepared(safe: SafeLayer, machine: Machine) -> LayerAtRisk | None:
        """Return the layer in this form, see `of`."""
        weights, (least, greatest) = safe.layer.weights, _fed_range(safe)
        most, magnitudes = max(abs(least), abs(greatest)), np.abs(weights.astype(np.int64))
        widest = most * int(magnitudes.max(initial=0))
        order = order_in_lanes(machine, weights.shape[1], terms_per_addition(machine), widest)
        if order is None or most > 1 << 15 or greatest >= 1 << 15:
            return None
        shifted = max(map(abs, safe.shifted_range))
        if int(magnitudes.sum(axis=1).max(initial=0)) * (shifted + most) >= (1 << 31) - 1:
            return None
        if int(np.abs(safe.start).max(initial=0)) >= _ROOM:
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
    def _room(self) -> tuple[Int64, Int64]:
        """What the products of every channel may add up to in its accumulator."""
        low, high, _ = register(self.machine.accumulator_bits, self.machine.overflow)
        return low - self.safe.layer.start, high - self.safe.layer.start

    @cached_property
    def _inner_room(self) -> tuple[Int64, Int64] | None:
        """The same in the partial sum or at the adder tree's output; None where it has no width."""
        machine = self.machine
        bits = machine.adder_tree_bits if machine.dataflow == "broadcast" else machine.partial_sum_bits
        if bits is None or machine.dataflow == "output_stationary":
            return None
        low, high, _ = register(bits, machine.overflow)
        return np.full(len(self._risky), low), np.full(len(self._risky), high)

    @cached_property
    def _limits(self) -> list[tuple[Int32, Int32]]:
        """Limits of ``S' - A`` and ``S' + A`` of every group's blocks, (106)."""
        low, high = self._room
        if self._inner_room is not None:
            low, high = np.maximum(low, self._inner_room[0]), np.minimum(high, self._inner_room[1])
        return self._of_sums(low, high)

    @cached_property
    def _inner_limits(self) -> list[tuple[Int32, Int32]] | None:
        """The limits (104) alone."""
        return None if self._inner_room is None else self._of_sums(*self._inner_room)

    def _of_sums(self, low: Int64, high: Int64) -> list[tuple[Int32, Int32]]:
        """Return limits of ``S' - A`` and ``S' + A`` from those of the products' sums."""
        shifted = self.safe.start - self.safe.layer.start
        limits = [2 * low - shifted, 2 * high - shifted]
        return [self._of_lanes(limits, group) for group in range(len(self._blocks))]

    def _of_lanes(self, limits: list[Int64], group: int) -> tuple[Int32, Int32]:
        """Return low and high limits of the channels of a group's blocks; where there is no channel, no limits."""
        ends = np.iinfo(np.int32)
        low, high = (self._of_blocks(np.clip(limit, ends.min, ends.max), group).astype(np.int32) for limit in limits)
        nobody = self._of_blocks(np.ones(len(self._risky)), group) == 0
        low[nobody], high[nobody] = ends.min, ends.max
        return low, high

    @cached_property
    def _risky(self) -> npt.NDArray[np.bool_]:
        """The channels that the range of the format leaves at risk."""
        risky: npt.NDArray[np.bool_] = ~self.safe.bounds.safe(self.machine, *_fed_range(self.safe))
        return risky

    @cached_property
    def _blocks(self) -> list[Int64]:
        """Of every group the blocks of channels with one at risk; of a depthwise layer all, as its sums are of all."""
        if self.safe.depthwise:
            return [np.arange(-(-len(self._risky) // LANES))]
        per_group = self.safe.layer.num_outputs
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
        pieces, packed = pieces_per_window(self.safe.layer.geometry), []
        magnitudes = -np.abs(self.safe.by_tap)
        for group, blocks in enumerate(self._blocks):
            part = self._of_blocks(magnitudes, group).reshape(LANES * blocks.size, pieces, -1 if blocks.size else 0)
            packed.append(PackedWeights(part, self.safe.words) if blocks.size else None)
        return packed

    @cached_property
    def _proofs(self) -> list[PartProofs | None]:
        """Proofs by parts of every group's blocks; None where there are none."""
        safe, geometry, blocks = self.safe, self.safe.layer.geometry, self._blocks
        most = max(map(abs, _fed_range(safe))) + 2 * max(map(abs, safe.shifted_range))
        widest = int(np.abs(safe.layer.weights.astype(np.int64)).sum(axis=1).max(initial=0)) * most
        if widest >= (1 << 31) - 1 or not has_dot_instructions():
            return [None] * len(blocks)
        taps = np.zeros((1, 1), dtype=np.int64) if geometry is None else _taps(geometry)
        proofs: list[PartProofs | None] = [None] * len(blocks)
        for group in (number for number, some in enumerate(blocks) if some.size):
            nobody = self._of_blocks(np.ones(len(self._risky)), group) == 0
            low, high = (self._of_blocks(limit, group) for limit in self._room)
            low[nobody], high[nobody] = -_WIDEST, _WIDEST
            proofs[group] = PartProofs.of(
                self._of_blocks(safe.by_tap, group), taps, safe.spatial_first, safe.words, int(self._sign),
                self._offset, (low, high),
            )  # fmt: skip
        return proofs

    @cached_property
    def _depthwise_magnitudes(self) -> npt.NDArray[np.int16]:
        """``-|W|``, shape (taps, repeats * channels)."""
        return _less_than_nothing(self.safe.depthwise_weights)

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
        taps = _taps(geometry).reshape(-1)
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
        operands = self.safe.operands(rows, MOST_PARTS * GROUP_BYTES)
        if geometry is None:
            windows = Windows.of_vectors(len(rows), self.safe.layer.reduction)
        else:
            windows = Windows.of(geometry, len(rows), depthwise)
        codes, events = (self._depthwise if depthwise else self._dot)(operands, windows)
        return (codes if geometry is None else codes.reshape(len(rows), *geometry.output_shape, -1)), events

    def _dot(self, operands: Codes, windows: Windows) -> tuple[Codes, LayerEvents]:
        """Multiply windows with all channels; returns (positions, channels)."""
        safe, per_group = self.safe, self.safe.layer.num_outputs
        outputs = np.empty((windows.num_windows, len(safe.layer.weights)), dtype=safe.requantizers[0].dtype)
        step = min(safe.packed[0].positions_at_a_time(SUM_BYTES), windows.num_windows)
        room, events, fed = safe.packed[0].room_for(step), LayerEvents(), self._fed(operands)
        magnitudes, first_bases = self._magnitudes(fed), windows.bases
        for group, packed in enumerate(safe.packed):
            part = slice(group * per_group, (group + 1) * per_group)
            bases, reach = first_bases + group * windows.group_offset, self._packed_magnitudes[group]
            reaching, proofs = (None if reach is None else reach.room_for(step)), self._proofs[group]
            prove = None if proofs is None else partial(proofs.unmark, operands, magnitudes)
            for begin in range(0, bases.size, step):
                some = bases[begin : begin + step]
                sums = packed.sums(operands, some, windows.segments, room)
                if reach is not None and reaching is not None:
                    reached = reach.sums(magnitudes, some, windows.segments, reaching)
                    events += self._repair(sums, reached, group, part, fed, some, (1, 0), prove)
                if not safe.group_lanes:
                    safe.requantizers[group].store(sums, outputs[begin : begin + step, part])
                    continue
                lanes, stride = safe.group_lanes[group], outputs.shape[1]
                place = begin * stride + part.start
                _requantize(sums, some.size, per_group, lanes, outputs, place, stride)
        return outputs, events

    def _depthwise(self, operands: Codes, windows: Windows) -> tuple[Codes, LayerEvents]:
        """Convolve every channel with its own kernel; returns (positions, channels)."""
        safe, run, channels = self.safe, windows.run, len(self.safe.layer.weights)
        requantizer, fed, events = safe.requantizers[0], self._fed(operands), LayerEvents()
        outputs = np.empty((windows.num_windows, run), dtype=requantizer.dtype)
        step = min(max(1, SUM_BYTES // (4 * run)), windows.num_windows)
        room, reaching = (aligned_empty((step * run + LANES,), np.int32)[:-LANES].reshape(step, run) for _ in range(2))
        magnitudes, all_bases = self._magnitudes(fed), windows.bases
        for begin in range(0, all_bases.size, step):
            bases = all_bases[begin : begin + step]
            sums, reached = room[: bases.size], reaching[: bases.size]
            for rows, weights, target in (
                (operands, safe.depthwise_weights, sums), (magnitudes, self._depthwise_magnitudes, reached)
            ):  # fmt: skip
                depthwise_rows(rows, bases, np.int64(run), windows.segments, weights, target.reshape(-1))
            by_position = sums.reshape(-1, channels), reached.reshape(-1, channels)
            events += self._repair(*by_position, 0, slice(0, channels), fed, bases, (run // channels, channels))
            if not safe.group_lanes:
                requantizer.store(sums, outputs[begin : begin + step])
                continue
            lanes, place, flat = safe.group_lanes[0], begin * run, sums.reshape(-1)
            width = lanes.constants.shape[1]
            whole, done = flat.size // width, flat.size // width * width
            _requantize(flat, whole, width, lanes, outputs, place, width)
            _requantize(flat[done:], 1, flat.size - done, lanes, outputs, place + done, width)
        return outputs.reshape(-1, channels), events

    def _repair(
        self, sums: Int32, reached: Int32, group: int, part: slice, fed: Codes, bases: Int64, positions: Pair,
        prove: Callable[[Int64, Int32], Int32] | None = None,
    ) -> LayerEvents:  # fmt: skip
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
        prove : callable, optional
            Takes marks off: ``(bases of the positions, masks) -> masks``.
        """
        blocks, places = self._blocks[group], np.arange(len(sums))
        masks = np.empty((len(sums), blocks.size), dtype=np.int32)
        mark_at_risk(sums, reached, self._sign, blocks, *self._limits[group], masks)
        places = places[: keep_marked(masks, places)]
        if places.size and prove is not None:
            masks = prove(bases[places], masks[: places.size])
            if self._inner_limits is not None:
                always = np.empty((len(sums), blocks.size), dtype=np.int32)
                mark_at_risk(sums, reached, self._sign, blocks, *self._inner_limits[group], always)
                masks |= always[places]
            places = places[: keep_marked(masks, places)]
        if places.size == 0:
            return LayerEvents()
        listed = np.empty((2, places.size * LANES * blocks.size), dtype=np.int32)
        count = list_marked(masks[: places.size], blocks, places, listed)
        accumulator = register(self.machine.accumulator_bits, self.machine.overflow)
        per_base, between = np.int64(positions[0]), np.int64(positions[1])
        start, offsets = self.safe.layer.start[part], self.safe.start[part]
        counts = step_windows(
            fed, bases, per_base, between, self._terms, self.safe.depthwise, self._ordered_weights[part], start,
            offsets, accumulator, self.order, listed, np.int64(count), sums,
        )  # fmt: skip
        return LayerEvents(*map(int, counts))

    @property
    def bytes_per_operand(self) -> int:
        """What `_fed` and `_magnitudes` take at once for an operand, with what they hold on the way."""
        if self._bytes:
            return 0
        return (0 if self._offset == 0 else 2) + (6 if self.safe.words else 3)

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


def _requantize(
    sums: Int32, count: int, valid: int, lanes: LaneConstants, outputs: Codes, place: int, stride: int
) -> None:
    """Bring sums to codes in 32-bit lanes; see `accelsim_kernels.layer_rows.requantize_lanes`."""
    stored = outputs.reshape(-1).view(f"uint{8 * outputs.itemsize}")
    requantize_lanes(
        sums.reshape(-1), np.int64(count), np.int64(valid), lanes.constants, lanes.two, stored, np.int64(place),
        np.int64(stride),
    )  # fmt: skip


def _taps(geometry: Geometry) -> Int64:
    """Return where the operands of each tap begin in a window; int64 array, shape (kernel rows, kernel columns)."""
    channels, _, width = geometry.input_shape
    line = (width + geometry.pads[1] + geometry.pads[3]) * channels
    rows = np.arange(geometry.kernel_shape[0]) * geometry.dilations[0] * line
    return np.add.outer(rows, np.arange(geometry.kernel_shape[1]) * geometry.dilations[1] * channels)


def _less_than_nothing(values: Codes) -> Codes:
    """Return ``-|v|`` of int16 values, which all fit."""
    lesser: Codes = np.minimum(values, -np.maximum(values, np.int16(-(1 << 15) + 1)))
    return lesser
