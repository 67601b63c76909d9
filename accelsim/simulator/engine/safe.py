"""Layers whose outputs are all proven safe: dot products in 32 bits, channels last, requantized while in the cache.

Convolutions are not lowered to columns. A window is a few contiguous pieces of the padded image, one per kernel row (or
per tap where taps are apart), and the kernels read the pieces where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine
from accelsim.program.layers import MacLayer
from accelsim.simulator.engine.bounds import ChannelBounds
from accelsim.simulator.engine.codes import RowRequantizer
from accelsim.simulator.engine.digits import Digits
from accelsim.simulator.engine.dots import PackedWeights, Room
from accelsim.simulator.engine.lanes import LaneConstants
from accelsim.simulator.engine.layer_calls import Call, Intake, LayerCall, depthwise_call, dot_call
from accelsim.simulator.engine.layer_operands import Codes, LayerOperands
from accelsim.simulator.engine.layer_weights import LayerWeights
from accelsim.simulator.engine.steps import Bound
from accelsim.simulator.engine.windows import Windows
from accelsim.simulator.engine.zeros import ByPlace, count_by_place
from accelsim_kernels.processor import has_dot_instructions
from accelsim_kernels.vectors.code import GROUP_BYTES
from accelsim_kernels.vectors.row_sums import ONES

Int64 = npt.NDArray[np.int64]
Sums = npt.NDArray[np.int32] | Int64

SUM_BYTES = 512 << 10
"""Sums that are held at a time: they should stay in the second-level cache."""

_MOST_ANSWERS = 64
"""Ranges of which a layer remembers whether they are safe."""

_MOST_LENGTHS = 3
"""Lengths of batches that a layer remembers, besides the last."""

_MADE: WeakKeyDictionary[MacLayer, tuple[bool, SafeLayer | None]] = WeakKeyDictionary()
"""Layers that ran before, with the order of their reduction."""


@dataclass(frozen=True, eq=False)
class SafeLayer:
    """A convolution or matrix product in the form that the fast kernels take.

    Parameters
    ----------
    reference : callable
        Returns what runs: a weak reference to a layer that ran, as a strong one would keep it for ever, being the key
        and the value of `_MADE`.
    spatial_first : bool
        Order of the reduction in its weights.
    times : int
        Kernels of each channel of a depthwise layer. Where it has several, what runs is the layer whose input has each
        channel so many times, side by side.
    """

    reference: Callable[[], MacLayer | None]
    spatial_first: bool
    times: int = 1

    @property
    def layer(self) -> MacLayer:
        """What runs; whoever runs it holds it."""
        layer = self.reference()
        if layer is None:
            raise AssertionError("the layer is gone")
        return layer

    @staticmethod
    def of(layer: MacLayer, machine: Machine) -> SafeLayer | None:
        """Return the layer in this form, made once for all runs; None where it has none.

        Notes
        -----
        Refused are operands that do not fit 16 x 16 bits, layers that store accumulators or whose codes do not
        saturate, sums of more than 32 bits of 8-bit operands, (100), or of more than (117) brings down to them, and a
        padded depth whose padding is no code. Asymmetric weights are taken less their zero points, (116); planes of a
        depth are laid out by the caller, (70).
        """
        if machine.product_shift_bits > 0:
            return None
        spatial_first = machine.reduction_order == "spatial_first"
        made = _MADE.get(layer)
        if made is None or made[0] != spatial_first:
            made = _MADE[layer] = spatial_first, SafeLayer._prepared(layer, spatial_first)
        return made[1]

    @staticmethod
    def _prepared(layer: MacLayer, spatial_first: bool) -> SafeLayer | None:
        """Return the layer in this form, see `of`."""
        prepared = SafeLayer._in_channels(layer, spatial_first)
        if layer.rescale is None or not layer.rescale.requantizer.saturates:
            return None
        stored, pad = layer.input_format, layer.pad_value + layer.input_offset
        if layer.depth is not None and not stored.minimum <= pad <= stored.maximum:
            return None
        low, high = int(prepared.weights.min()), int(prepared.weights.max())
        if low < -(1 << 15) or high >= 1 << 15:
            return None
        digits = prepared.digits
        return prepared if digits is not None and (digits.count == 1 or prepared.words) else None

    @staticmethod
    def _in_channels(layer: MacLayer, spatial_first: bool) -> SafeLayer:
        """Return the layer, of a depthwise one with several kernels per channel the one that `times` says."""
        geometry, times = layer.geometry, layer.num_outputs
        if geometry is None or geometry.groups == 1 or geometry.group_channels > 1 or times == 1:
            return SafeLayer(ref(layer), spatial_first)
        channels, *image = geometry.input_shape
        shape = channels * times, image[0], image[1]
        alike = replace(layer, geometry=replace(geometry, input_shape=shape, groups=channels * times))
        return SafeLayer(lambda: alike, spatial_first, times)

    @cached_property
    def on_machines(self) -> dict[str, Any]:
        """What was made of the layer for the last machine on which it may overflow; see `LayerAtRisk`."""
        return {}

    @cached_property
    def digits(self) -> Digits | None:
        """How weights are cut for their sums to fit 32 bits; None where that takes too many digits."""
        return Digits.of(self.weights, *self.shifted_range)

    @property
    def wide(self) -> bool:
        """Whether sums take more than 32 bits."""
        return self.digits is None or self.digits.count > 1

    @cached_property
    def asymmetric(self) -> bool:
        """Whether the last addition depends on the data, (8)."""
        return bool(self.layer.weight_zero_points.any())

    @cached_property
    def weights(self) -> npt.NDArray[np.int32]:
        """Weights less their zero points, whose products with the activations add up to (8) as well: (116)."""
        layer = self.layer
        return layer.weights - layer.weight_zero_points.astype(np.int32)[:, None] if self.asymmetric else layer.weights

    @cached_property
    def bounds(self) -> ChannelBounds:
        """Bounds of what the layer's registers hold."""
        return ChannelBounds(self.layer.weights, self.layer.start, self.layer.weight_zero_points)

    @cached_property
    def bounds_of_sums(self) -> ChannelBounds:
        """Bounds of the sums of products with `weights`, and of what accumulators hold at last."""
        if not self.asymmetric:
            return self.bounds
        return ChannelBounds(self.weights, self.layer.start, np.zeros_like(self.layer.weight_zero_points))

    @cached_property
    def depthwise(self) -> bool:
        """Whether every input channel has one kernel of its own."""
        geometry = self.layer.geometry
        return geometry is not None and geometry.groups == len(self.layer.weights) > 1 and geometry.group_channels == 1

    @cached_property
    def words(self) -> bool:
        """Whether activations take 16 bits instead of 8; so do all weights but those of depthwise layers then."""
        weights = self.weights
        if self.asymmetric:
            apart = (weights.max(axis=1) - weights.min(axis=1)).max()
            return self.layer.input_format.bits > 8 or not (self.depthwise or apart < 1 << 8)
        return self.layer.input_format.bits > 8 or int(weights.min()) < -128 or int(weights.max()) > 127

    @cached_property
    def shift(self) -> int:
        """What the kernels' operands are less than the stored codes, docs/numerics.md (100)."""
        stored = self.layer.input_format
        if not self.words:
            return -128 if stored.signed else 0
        return 0 if stored.signed or stored.bits < 16 else 1 << 15

    @property
    def shifted_range(self) -> tuple[int, int]:
        """Least and greatest operand of the kernels, padding among them."""
        stored, pad = self.layer.input_format, self._pad_operand
        return min(stored.minimum - self.shift, pad), max(stored.maximum - self.shift, pad)

    @cached_property
    def fed_range(self) -> tuple[int, int]:
        """Least and greatest activation as the PEs multiply them."""
        stored, offset = self.layer.input_format, self.layer.input_offset
        return stored.minimum - offset, stored.maximum - offset

    def is_safe(self, machine: Machine, codes: Codes) -> bool:
        """Whether no register can overflow: by the format's range, else by the range of these codes, samples first."""
        if self.is_safe_always(machine):
            return True
        offset = self.layer.input_offset
        for some in (codes[:1], codes):  # mostly one sample has the codes that put the layer at risk
            if not self._is_safe_between(machine, int(some.min()) - offset, int(some.max()) - offset):
                return False
        return True

    def is_safe_always(self, machine: Machine) -> bool:
        """Whether no register can overflow with any codes of the format."""
        return self._is_safe_between(machine, *self.fed_range)

    @cached_property
    def _safe_between(self) -> dict[tuple[object, ...], bool]:
        """What `_is_safe_between` found, by the registers of the machines that the layer ran on."""
        return {}

    def _is_safe_between(self, machine: Machine, least: int, greatest: int) -> bool:
        """Whether no register can overflow with activations of ``least .. greatest``, and padding."""
        registers = machine.dataflow, machine.accumulator_bits, machine.partial_sum_bits, machine.adder_tree_bits
        asked = *registers, least, greatest
        found = self._safe_between.get(asked)
        if found is None:
            if len(self._safe_between) >= _MOST_ANSWERS:
                self._safe_between.clear()
            pad = () if self.layer.geometry is None else (self.layer.pad_value,)
            found = bool(self.bounds.safe(machine, min(least, *pad, least), max(greatest, *pad, greatest)).all())
            self._safe_between[asked] = found
        return found

    def run(self, rows: Codes, by_place: ByPlace) -> Codes:
        """Run the layer.

        Parameters
        ----------
        rows : integer array, shape (images, height, width, channels) or (positions, k)
            Stored codes, contiguous, channels last.
        by_place : tuple
            Where zeros are counted, see `accelsim.simulator.engine.zeros.count_by_place`.

        Returns
        -------
        integer array, shape (images, height, width, channels) or (positions, n)
            Codes, in the narrowest type that holds the clamp's range.
        """
        return self._shaped(self._call_for(len(rows))(rows, by_place), len(rows))

    def bind(self, rows: Codes, by_place: ByPlace, room: Room) -> Bound | None:
        """Return steps that run the layer on what the same array holds later, and the codes that they leave.

        Parameters
        ----------
        rows, by_place
            As in `run`.
        room : Room
            Whose sums they overwrite.

        Returns
        -------
        Bound or None
            None where codes are copied before a kernel reads them, or the layer is more than kernel calls.
        """
        call = self._call_for(len(rows))
        if not isinstance(call, LayerCall) or not self.operand_form.takes_as_stored(rows):
            return None
        bound = call.bind(rows, by_place, room.sums_of(call.room))
        return bound._replace(codes=self._shaped(bound.codes, len(rows)))

    def _shaped(self, codes: Codes, length: int) -> Codes:
        """Return codes (positions, channels) as images, where they are."""
        geometry = self.operand_form.geometry
        return codes if geometry is None else codes.reshape(length, *geometry.output_shape, -1)

    def _call_for(self, length: int) -> Call:
        """Return what runs as many images or vectors; kept as `windows` are."""
        which = length, has_dot_instructions()
        made = self._made_calls.get(which)
        if made is None:
            if len(self._made_calls) > _MOST_LENGTHS:
                self._made_calls.clear()
            made = self._made_calls[which] = self._make_call(length)
        return made

    @cached_property
    def _made_calls(self) -> dict[tuple[int, bool], Call]:
        """What `_call_for` keeps."""
        return {}

    def _make_call(self, length: int) -> Call:
        """Return what runs as many images or vectors."""
        if not self.in_lanes:
            return self._pieces
        windows, dtype = self.windows(length), self.requantizers[0].dtype
        intake = Intake(self.operand_form, self.layer.input_offset, length)
        if self.depthwise:
            return depthwise_call(intake, self.for_kernels.taps, self.group_lanes[0], windows, dtype)
        return dot_call(intake, self.packed, self.group_lanes, windows, dtype)

    def windows(self, length: int) -> Windows:
        """Return the windows of as many images or vectors; kept, as batches have one length or two."""
        made = self._made_windows.get(length)
        if made is None:
            geometry = self.layer.geometry
            if geometry is None:
                made = Windows.of_vectors(length, self.layer.reduction)
            else:
                made = Windows.of(geometry, length, self.depthwise)
            if len(self._made_windows) > _MOST_LENGTHS:
                self._made_windows.clear()
            self._made_windows[length] = made
        return made

    @cached_property
    def _made_windows(self) -> dict[int, Windows]:
        """What `windows` keeps."""
        return {}

    @property
    def _pad_operand(self) -> int:
        """What a padded tap holds in the kernels' form."""
        return self.layer.pad_value + self.layer.input_offset - self.shift

    @cached_property
    def operand_form(self) -> LayerOperands:
        """How codes become operands."""
        geometry = self.layer.geometry
        if geometry is None:
            piece = self.layer.reduction
        else:
            piece = geometry.input_shape[0] if self.depthwise else geometry.group_channels
        whole = ONES if self.asymmetric and not self.depthwise else GROUP_BYTES
        return LayerOperands(geometry, self.times, self.words, self.shift, self._pad_operand, piece, whole)

    def operands(self, rows: Codes, whole: int = 0) -> Codes:
        """Return codes as the kernels read them; see `LayerOperands.of`."""
        return self.operand_form.of(rows, whole)

    @cached_property
    def start(self) -> Int64:
        """What the sums of the kernels are added to, (100)."""
        weights_sums = self.bounds_of_sums.positive + self.bounds_of_sums.negative
        return self.layer.start + (self.shift - self.layer.input_offset) * weights_sums

    @cached_property
    def for_kernels(self) -> LayerWeights:
        """Weights in the kernels' orders."""
        layer = self.layer
        assert self.digits is not None
        return LayerWeights(
            self.weights, layer.geometry, layer.num_outputs, self.spatial_first, self.words, self.digits
        )  # fmt: skip

    @property
    def by_tap(self) -> npt.NDArray[np.int32]:
        """Weights of shape (outputs, kernel rows, kernel columns, channels of a group)."""
        return self.for_kernels.by_tap

    @property
    def packed(self) -> list[PackedWeights]:
        """Weights of every group for the dot products, where sums fit 32 bits."""
        return self.for_kernels.packed

    @property
    def depthwise_weights(self) -> npt.NDArray[np.int16]:
        """Weights of shape (taps, repeats * channels)."""
        return self.for_kernels.taps.repeated

    @cached_property
    def requantizers(self) -> list[RowRequantizer]:
        """Requantization of every group; of a depthwise layer, of all channels at once."""
        per_group = len(self.layer.weights) if self.depthwise else self.layer.num_outputs
        parts = (slice(begin, begin + per_group) for begin in range(0, len(self.layer.weights), per_group))
        width = None if self.depthwise else self.packed[0].width
        return [RowRequantizer.of(self.layer, self.start, part, width) for part in parts]

    @cached_property
    def _lanes(self) -> LaneConstants | None:
        """Requantization of all channels in 32-bit lanes, where it has that form."""
        least, greatest = self.fed_range
        if self.layer.geometry is not None:
            least, greatest = min(least, self.layer.pad_value), max(greatest, self.layer.pad_value)
        low, high = self.bounds_of_sums.of_sums(least, greatest)
        return LaneConstants.of(self.layer, self.start, (int(low.min()), int(high.max())))

    @cached_property
    def group_lanes(self) -> list[LaneConstants]:
        """Requantization in 32-bit lanes of every group; of a depthwise layer, of all channels at once."""
        lanes, per_group = self._lanes, self.layer.num_outputs
        if lanes is None:
            return []
        if self.depthwise:
            return [lanes.repeated()]
        parts = (slice(begin, begin + per_group) for begin in range(0, len(self.layer.weights), per_group))
        return [lanes.padded(part, self.packed[0].width) for part in parts]

    @property
    def in_lanes(self) -> bool:
        """Whether a layer without risk runs in one kernel call per group, and holds few sums at a time."""
        return not self.wide and bool(self.group_lanes) and (self.depthwise or has_dot_instructions())

    def sums(self, operands: Codes, windows: Windows) -> Iterator[tuple[int, slice, Sums]]:
        """Multiply windows with all channels, piece by piece.

        Yields
        ------
        tuple
            Group; windows; their sums, an array (windows, channels of the group, filled up), of a depthwise layer
            (windows, run), which the next one may overwrite.
        """
        count, first_bases = windows.num_windows, windows.make_bases()
        weights: list[Any]
        if self.depthwise:
            step, weights = max(1, SUM_BYTES // ((8 if self.wide else 4) * windows.run)), [self.for_kernels.of_channels]
            room = weights[0].room_for(min(step, count), windows.run)
        else:
            weights = list(self.for_kernels.of_groups)
            step = weights[0].positions_at_a_time(SUM_BYTES)
            room = weights[0].room_for(min(step, count))
        for group, multiplied in enumerate(weights):
            bases = first_bases + group * windows.group_offset
            for begin in range(0, bases.size, step):
                some = slice(begin, min(begin + step, bases.size))
                yield group, some, multiplied.sums(operands, bases[some], windows.segments, room)

    def _pieces(self, rows: Codes, by_place: ByPlace) -> Codes:
        """Run the layer with sums that are requantized by themselves; returns (positions, channels)."""
        count_by_place(rows, self.layer.input_offset, by_place)
        operands, windows = self.operands(rows), self.windows(len(rows))
        channels, per_group = len(self.layer.weights), self.layer.num_outputs
        length, width = (windows.run, windows.run) if self.depthwise else (channels, per_group)
        outputs = np.empty((windows.num_windows, length), dtype=self.requantizers[0].dtype)
        for group, some, sums in self.sums(operands, windows):
            self.requantizers[group].store(sums, outputs[some, group * width : (group + 1) * width])
        return outputs.reshape(-1, channels)
