"""Layers proven safe by extremes and norms of their windows while they run: docs/numerics.md (114), (118)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.program.geometry import Geometry
from accelsim.simulator.engine.dots import PackedWeights, aligned_empty
from accelsim.simulator.engine.lanes import LaneConstants
from accelsim.simulator.engine.layer_blocks import taps_of_window
from accelsim.simulator.engine.layer_calls import NEAR_SUM_BYTES
from accelsim.simulator.engine.layer_operands import Codes
from accelsim.simulator.engine.safe import Int64, SafeLayer
from accelsim.simulator.engine.windows import Windows
from accelsim_kernels.extremes import REACH_ITEMS, Terms, bound_layer
from accelsim_kernels.processor import has_dot_instructions
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES
from accelsim_kernels.vectors.extreme_tiles import DOWN, HIGH, LOW, NORM_DOWN, NORM_UP, NUM_CONSTANTS, UP

Int32 = npt.NDArray[np.int32]
Room = tuple[Int64, Int64]

_GROUPS = 8
"""Groups of bytes that a part has at least, where there are so many, for the products to outweigh looks at the sums."""

_CUTS = 4, 2, 1
"""Parts are as many times as long, where that proves enough."""

_MOST_TERMS = 1 << 15
"""Terms of a part, so that the squares of its activations add up to less than ``2**31``."""

_SAMPLE, _SAMPLED = 256, 16
"""Positions that tell which cut of the reduction is worth its time: so many, of so many one."""

_WORTH, _WORTH_AT_ONCE = 4, 128
"""Of so many positions one may be left for the shortest parts to be worth their time, and for longer ones."""


@dataclass(frozen=True, eq=False)
class Cut:
    """A group of channels whose reduction is cut in parts.

    Parameters
    ----------
    packed : PackedWeights
        By part, tap and channel.
    terms, image, where, extremes : tuple
        As `accelsim_kernels.extremes.bound_layer` takes them.
    """

    packed: PackedWeights
    terms: Terms
    image: Any
    where: Any
    extremes: Any

    @staticmethod
    def of(weights: Int32, channels: int, offset: int, room: Room, geometry: Geometry, group: int) -> Cut | None:
        """Cut the weights of a group; None where sums of a part's weights or squares do not fit what the kernel has.

        Parameters
        ----------
        weights : int32 array, shape (channels, kernel rows, kernel columns, input channels)
            Weights.
        channels : int
            Input channels of a part, a power of two.
        offset, room
            As in `ExtremeProofs.of`.
        geometry : Geometry
            Where they lie.
        group : int
            Of channels.
        """
        num_channels, rows, columns, _ = weights.shape
        parts = weights.reshape(num_channels, rows * columns, -1, channels).transpose(0, 2, 1, 3).astype(np.int64)
        num_parts, planes = parts.shape[1], 1
        sums = (np.maximum(side, 0).sum(axis=(2, 3)).max() for side in (parts, -parts))
        if parts[0, 0].size > _MOST_TERMS or max(sums) >= 1 << 15:
            return None
        if channels == 1:
            planes = geometry.input_shape[0]
            geometry = replace(geometry, input_shape=(1, *geometry.input_shape[1:]), groups=1)
        windows, taps = Windows.of(geometry, 1, False), taps_of_window(geometry)
        # Where a part has one channel, its taps lie side by side in a plane; else the channels of a tap do.
        pieces, between = (windows.segments, windows.image_step) if channels == 1 else (taps.reshape(-1), channels)
        packed = PackedWeights(parts.reshape(num_channels, num_parts * pieces.size, -1), False)
        by_part, in_piece = np.arange(num_parts) * between, np.arange(packed.groups * GROUP_BYTES)
        places = np.add.outer(by_part, np.add.outer(pieces, in_piece[::GROUP_BYTES])).reshape(-1)
        taken = (in_piece < packed.weights.shape[2]).reshape(-1, GROUP_BYTES) * np.uint8(255)
        taken = np.tile(taken, (num_parts * pieces.size, 1))
        halvings = channels.bit_length() - 1
        item = max(halvings - 1, 0) if offset == 0 else halvings
        counts, last = np.array([columns, rows]), np.array([taps[0, -1], taps[-1, 0]])
        steps = np.stack([counts, last // np.maximum(counts - 1, 1) >> item], axis=1)
        size, begin = windows.image_step * planes, group * num_parts * between
        return Cut(
            packed,
            (places, taken, by_part >> halvings, packed.packed, _constants(parts, offset, room, packed.width)),
            tuple(np.int64(number) for number in (size, planes, begin, begin >> halvings)),
            tuple(_places(windows, size, by) for by in (0, halvings)),
            (np.int64(offset), np.int64(halvings), steps),
        )


@dataclass(frozen=True, eq=False)
class ExtremeProofs:
    """A group of channels with what proves its outputs safe.

    Parameters
    ----------
    cuts : tuple
        The reduction in parts, the longest first.
    lanes : LaneConstants
        How sums become codes.
    part : tuple of int64
        The channels of all groups, the first of the group, how many it has.
    last : dict
        Which cut proved enough of the last run, as "cut"; any other would leave other positions, but the same results.
    """

    cuts: tuple[Cut, ...]
    lanes: LaneConstants
    part: Any
    last: dict[str, Cut] = field(default_factory=dict)

    @staticmethod
    def of(safe: SafeLayer, group: int, offset: int, room: Room) -> ExtremeProofs | None:
        """Return the proofs of a group; None where there are none.

        Parameters
        ----------
        safe : SafeLayer
            The layer.
        group : int
            Of channels.
        offset : int
            What the kernels' operands are less than the activations as the PEs multiply them.
        room : tuple of int64 arrays, shape (channels,)
            Least and greatest value that the products may add up to.

        Notes
        -----
        There are some of operands and codes of 8 bits whose terms are added channel by channel, where codes are made in
        32-bit lanes. Parts have a channel each where there are less than four, else equal powers of two from four on.
        """
        if safe.words or not safe.group_lanes or not has_dot_instructions():
            return None
        if not -255 <= offset <= 0:  # no activation is more than 8 bits from 0
            return None
        if safe.requantizers[group].dtype.itemsize > 1:
            return None
        per_group, geometry = safe.layer.num_outputs, safe.layer.geometry
        weights = safe.by_tap[group * per_group : (group + 1) * per_group]
        taps, depth = weights[0, :, :, 0].size, weights.shape[3]
        if safe.spatial_first and taps > 1:
            return None
        if geometry is None:  # a vector is an image of one position
            geometry = Geometry((depth, 1, 1), (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), (1, 1))
        cuts = [
            Cut.of(weights, channels, offset, room, geometry, group) for channels in _channels_of_parts(depth, taps)
        ]  # fmt: skip
        part = tuple(np.int64(number) for number in (len(safe.layer.weights), group * per_group, per_group))
        made = tuple(cut for cut in cuts if cut is not None)
        return ExtremeProofs(made, safe.group_lanes[group], part) if made else None

    @property
    def scratch_bytes(self) -> int:
        """What the kernel holds besides the sums, of as many images at a time as have few extremes, or of one."""
        cut = self.cuts[-1]
        image, planes, halvings = int(cut.image[0]), int(cut.image[1]), int(cut.extremes[1])
        return (6 + (planes > 1)) * max(REACH_ITEMS, image >> min(halvings, 1))

    def run(self, operands: Codes, outputs: Codes) -> Int64 | None:
        """Store the codes of exact sums, and return the positions that are not proven safe.

        Parameters
        ----------
        operands : uint8 array
            From `SafeLayer.operands`.
        outputs : int8 or uint8 array, shape (positions, channels)
            Output.

        Returns
        -------
        int64 array or None
            None where so many of the first positions are left that no others were looked at.
        """
        cut = self.last.get("cut") or self._asked(operands, outputs)
        if cut is None:
            return None
        left = np.flatnonzero(self.positions_left(cut, operands, outputs))
        if _WORTH * left.size > len(outputs):
            self.last.clear()  # another thread may put one there at once, which is as good
        else:
            self.last["cut"] = cut
        return left

    def _asked(self, operands: Codes, outputs: Codes) -> Cut | None:
        """Return the cut that some of the positions tell to be worth its time."""
        sample = min(_SAMPLE, max(len(outputs) // _SAMPLED, 1))
        *longer, cut = self.cuts
        if _WORTH * np.count_nonzero(self.positions_left(cut, operands, outputs[:sample])) > sample:
            return None
        for other in longer:
            if _WORTH_AT_ONCE * np.count_nonzero(self.positions_left(other, operands, outputs[:sample])) <= sample:
                return other
        return cut

    def positions_left(self, cut: Cut, operands: Codes, outputs: Codes) -> npt.NDArray[np.uint8]:
        """Return 1 for each of the first positions that a cut does not prove safe; codes of all are stored.

        Parameters
        ----------
        cut : Cut
            One of the proofs'.
        operands, outputs
            As of `run`; as many positions as there are outputs.
        """
        found = np.empty(len(outputs), dtype=np.uint8)
        room = cut.packed.room_for(min(cut.packed.positions_at_a_time(NEAR_SUM_BYTES), len(outputs)))
        bound_layer(
            operands, cut.image, cut.where, cut.extremes, cut.terms, room, (self.lanes.constants, self.lanes.two),
            outputs.reshape(-1).view(np.uint8), self.part, found,
        )  # fmt: skip
        return found


def _channels_of_parts(depth: int, taps: int) -> list[int]:
    """Return how many of a window's channels make a part, the most first; none where the kernels take none."""
    if depth < GROUP_BYTES:
        return [1]
    if depth % GROUP_BYTES != 0:
        return []
    fewest = GROUP_BYTES
    while fewest * taps < GROUP_BYTES * _GROUPS and depth % (2 * fewest) == 0:
        fewest *= 2
    return [times * fewest for times in _CUTS if depth % (times * fewest) == 0]


def _constants(parts: Int64, offset: int, room: Room, width: int) -> Int32:
    """Return the constants of every part, as the kernel takes them.

    Parameters
    ----------
    parts : int64 array, shape (channels, parts, taps, channels of a part)
        Weights.
    offset, room
        As in `ExtremeProofs.of`.
    width : int
        Channels with those that fill up the last block, which no limit holds.
    """
    sides = np.maximum(parts, 0), np.minimum(parts, 0)
    up, down = (side.sum(axis=(2, 3)).T for side in sides)
    half = parts.shape[3] // 2
    if offset == 0 and half > 0:  # the greatest activations of either half of a part's channels, (114)
        extremes = [
            _pair(*(some.sum(axis=(2, 3)).T for some in (side[..., :half], side[..., half:]))) for side in sides
        ]
    else:
        extremes = [_pair(up, -down), _pair(down, -up)]
    norms = [_norm(side) for side in (sides if offset == 0 else (parts, parts))]
    before = np.cumsum(offset * (up + down), axis=0) - offset * (up + down)
    ends = np.iinfo(np.int32)
    limits = [np.clip(limit - before, ends.min, ends.max) for limit in room]
    constants = np.zeros((len(up), NUM_CONSTANTS, width), dtype=np.int32)
    constants[:, LOW], constants[:, HIGH] = ends.min, ends.max
    for kind, values in zip((UP, DOWN, NORM_UP, NORM_DOWN, LOW, HIGH), (*extremes, *norms, *limits), strict=True):
        constants[:, kind, : len(parts)] = values
    by_block = constants.reshape(len(up), NUM_CONSTANTS, -1, LANES).transpose(0, 2, 1, 3)
    aligned = aligned_empty(by_block.shape, np.int32)
    aligned[:] = by_block
    return aligned


def _norm(weights: Int64) -> Int64:
    """Return the norms of the weights of every part and channel, rounded up."""
    norms: Int64 = np.ceil(np.sqrt((weights * weights).sum(axis=(2, 3)).T)).astype(np.int64)
    return norms


def _places(windows: Windows, size: int, halvings: int) -> Any:
    """Return where the windows of images of so many bytes begin, counted in items of ``2**halvings`` bytes."""
    steps = (np.int64(step >> halvings) for step in (size, windows.row_step, windows.column_step))
    return windows.columns, windows.rows, *steps


def _pair(low: Any, high: Any) -> Any:
    """Return two numbers of 16 bits as one of 32."""
    return (low & 0xFFFF) | (high << 16)
