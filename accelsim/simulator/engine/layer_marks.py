"""Which outputs of a layer may overflow: bounds of every output, then proofs by parts of its reduction.

docs/numerics.md (103), (104), (106) and (107).
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
from accelsim.simulator.engine.dots import PackedWeights
from accelsim.simulator.engine.extreme_proofs import ExtremeProofs
from accelsim.simulator.engine.layer_blocks import taps_of_window
from accelsim.simulator.engine.layer_operands import Codes
from accelsim.simulator.engine.part_proofs import PartProofs
from accelsim.simulator.engine.safe import Int64, SafeLayer
from accelsim.simulator.engine.windows import pieces_per_window
from accelsim_kernels.marks import count_marked, keep_marked, mark_at_risk
from accelsim_kernels.processor import has_dot_instructions
from accelsim_kernels.vectors.code import LANES

Int32 = npt.NDArray[np.int32]
Prove = Callable[[Int64, Int32], Int32]
"""Takes marks off: ``(bases of the positions, masks) -> masks``."""

_WIDEST = 1 << 61
"""Limit of a partial sum that has no register of its own, and greatest magnitude of a start value."""

_SAMPLE = 192
"""Positions whose marks are asked first whether proofs are worth their time."""

_PROOF_COSTS = 2, 5
"""What the proof of a block of channels at a position costs, as a fraction of what it costs to step it."""


_FEW = 6
"""Of so many blocks at a position, one may be safe for sums and bounds to cost more than to step it."""


@dataclass(frozen=True, eq=False)
class LayerMarks:
    """Bounds of the outputs of a layer on a machine.

    Parameters
    ----------
    safe : SafeLayer
        The layer.
    machine : Machine
        Dataflow, widths, overflow mode.
    """

    safe: SafeLayer
    machine: Machine

    @property
    def offset(self) -> int:
        """What the kernels' operands are less than the activations as the PEs multiply them."""
        return self.safe.shift - self.safe.layer.input_offset

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
        return [self._of_lanes(limits, group) for group in range(len(self.blocks))]

    def _of_lanes(self, limits: list[Int64], group: int) -> tuple[Int32, Int32]:
        """Return low and high limits of the channels of a group's blocks; where there is no channel, no limits."""
        ends = np.iinfo(np.int32)
        low, high = (self.of_blocks(np.clip(limit, ends.min, ends.max), group).astype(np.int32) for limit in limits)
        nobody = self.of_blocks(np.ones(len(self._risky)), group) == 0
        low[nobody], high[nobody] = ends.min, ends.max
        return low, high

    @cached_property
    def _risky(self) -> npt.NDArray[np.bool_]:
        """The channels that the range of the format leaves at risk."""
        risky: npt.NDArray[np.bool_] = ~self.safe.bounds.safe(self.machine, *fed_range(self.safe))
        return risky

    @cached_property
    def blocks(self) -> list[Int64]:
        """Of every group the blocks of channels with one at risk; of a depthwise layer all, as its sums are of all."""
        if self.safe.depthwise:
            return [np.arange(-(-len(self._risky) // LANES))]
        per_group = self.safe.layer.num_outputs
        return [
            np.unique(np.flatnonzero(self._risky[begin : begin + per_group]) // LANES)
            for begin in range(0, len(self._risky), per_group)
        ]

    def of_blocks(self, values: npt.NDArray[Any], group: int) -> npt.NDArray[Any]:
        """Take the channels of a group's blocks, with zeros where there are none."""
        per_group = len(self._risky) if self.safe.depthwise else self.safe.layer.num_outputs
        padded = np.zeros((-(-per_group // LANES) * LANES, *values.shape[1:]), dtype=values.dtype)
        padded[:per_group] = values[group * per_group : (group + 1) * per_group]
        channels = (self.blocks[group][:, None] * LANES + np.arange(LANES)).reshape(-1)
        chosen: npt.NDArray[Any] = padded[channels]
        return chosen

    @cached_property
    def packed_magnitudes(self) -> list[PackedWeights | None]:
        """``-|W|`` of every group's blocks for the dot products; None where there are none."""
        pieces, packed = pieces_per_window(self.safe.layer.geometry), []
        magnitudes = -np.abs(self.safe.by_tap)
        for group, blocks in enumerate(self.blocks):
            part = self.of_blocks(magnitudes, group).reshape(LANES * blocks.size, pieces, -1 if blocks.size else 0)
            packed.append(PackedWeights(part, self.safe.words) if blocks.size else None)
        return packed

    @cached_property
    def _parts_fit(self) -> bool:
        """Whether what (107) and (114) compare fits 32 bits."""
        most = max(map(abs, fed_range(self.safe))) + 2 * max(map(abs, self.safe.shifted_range))
        widest = int(np.abs(self.safe.layer.weights.astype(np.int64)).sum(axis=1).max(initial=0)) * most
        return widest < (1 << 31) - 1

    @cached_property
    def extremes(self) -> list[ExtremeProofs | None]:
        """Proofs by the extremes of windows of every group; None where there are none."""
        groups, inner, per_group = len(self.blocks), self._inner_room, self.safe.layer.num_outputs
        none: list[ExtremeProofs | None] = [None] * groups
        if self.safe.depthwise or not self._parts_fit:
            return none
        if inner is not None:  # the registers inside tiles must be safe whatever the activations
            least, greatest = self.safe.bounds.of_products(*fed_range(self.safe))
            if (least < inner[0]).any() or (greatest > inner[1]).any():
                return none
        low, high = self._room
        parts = [slice(begin, begin + per_group) for begin in range(0, groups * per_group, per_group)]
        return [
            ExtremeProofs.of(self.safe, group, self.offset, (low[part], high[part])) if some.size else None
            for group, (part, some) in enumerate(zip(parts, self.blocks, strict=True))
        ]

    @cached_property
    def proofs(self) -> list[PartProofs | None]:
        """Proofs by parts of every group's blocks; None where there are none."""
        safe, geometry, blocks = self.safe, self.safe.layer.geometry, self.blocks
        if not self._parts_fit or not has_dot_instructions():
            return [None] * len(blocks)
        taps = np.zeros((1, 1), dtype=np.int64) if geometry is None else taps_of_window(geometry)
        proofs: list[PartProofs | None] = [None] * len(blocks)
        for group in (number for number, some in enumerate(blocks) if some.size):
            nobody = self.of_blocks(np.ones(len(self._risky)), group) == 0
            low, high = (self.of_blocks(limit, group) for limit in self._room)
            low[nobody], high[nobody] = -_WIDEST, _WIDEST
            proofs[group] = PartProofs.of(
                self.of_blocks(safe.by_tap, group), taps, safe.spatial_first, safe.words, int(self._sign),
                self.offset, (low, high),
            )  # fmt: skip
        return proofs

    @cached_property
    def depthwise_magnitudes(self) -> npt.NDArray[np.int16]:
        """``-|W|``, shape (taps, repeats * channels)."""
        return less_than_nothing(self.safe.depthwise_weights)

    def mark(self, group: int, sums: Int32, reached: Int32, bases: Int64, prove: Prove | None) -> tuple[Int64, Int32]:
        """Return the positions with an output at risk, and a bit per channel of a block of each.

        Parameters
        ----------
        group : int
            Of channels.
        sums, reached : int32 arrays, shape (positions, channels)
            ``S'``, and A of the blocks of channels with one at risk, times the sign.
        bases : int64 array
            Where the windows begin.
        prove : callable, optional
            See `Prove`.
        """
        blocks, places = self.blocks[group], np.arange(len(sums))
        masks = np.empty((len(sums), blocks.size), dtype=np.int32)
        mark_at_risk(sums, reached, self._sign, blocks, *self._limits[group], masks)
        places = places[: keep_marked(masks, places)]
        masks = masks[: places.size]
        if places.size == 0 or prove is None:
            return places, masks
        always = None
        if self._inner_limits is not None:
            always = np.empty((len(sums), blocks.size), dtype=np.int32)
            mark_at_risk(sums, reached, self._sign, blocks, *self._inner_limits[group], always)
            always = always[places]
        first = _SAMPLE if places.size > 4 * _SAMPLE else places.size
        for part in (slice(first), slice(first, places.size)):
            marked = int(count_marked(masks[part]))
            masks[part] = prove(bases[places[part]], masks[part]) | (0 if always is None else always[part])
            if part.stop == places.size or _too_few(marked - int(count_marked(masks[part])), marked):
                break
        places = places[: keep_marked(masks, places)]
        return places, masks[: places.size]

    def everything(self, group: int, num_positions: int) -> tuple[Int64, Int32]:
        """Return what `mark` would return of positions where every block is at risk."""
        masks = np.full((num_positions, self.blocks[group].size), (1 << LANES) - 1, dtype=np.int32)
        return np.arange(num_positions), masks

    def are_most(self, group: int, marks: tuple[Int64, Int32], num_positions: int) -> bool:
        """Whether so many blocks are marked that to step all of them costs less than sums and bounds do."""
        blocks, per_group = self.blocks[group].size, self.safe.layer.num_outputs
        if self.safe.depthwise or blocks * LANES < per_group:  # others have exact sums alone
            return False
        return _FEW * (num_positions * blocks - int(count_marked(marks[1]))) <= num_positions * blocks


def _too_few(proven: int, marked: int) -> bool:
    """Whether the proofs of all these blocks cost more than it does to step those that are proven safe."""
    return _PROOF_COSTS[1] * proven < _PROOF_COSTS[0] * marked


def fed_range(safe: SafeLayer) -> tuple[int, int]:
    """Return the range of activations as the PEs multiply them, padding among them."""
    least, greatest = safe.fed_range
    pad = () if safe.layer.geometry is None else (safe.layer.pad_value,)
    return min(least, *pad, least), max(greatest, *pad, greatest)


def less_than_nothing(values: Codes) -> Codes:
    """Return ``-|v|`` of int16 values, which all fit."""
    lesser: Codes = np.minimum(values, -np.maximum(values, np.int16(-(1 << 15) + 1)))
    return lesser
