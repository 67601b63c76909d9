"""The kernel calls of safe layers whose requantization has 32-bit lanes: made once for all batches of one length.

Between the kernels of a small batch there is as much Python as there is arithmetic; what does not depend on the codes
is not worked out again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.simulator.engine.dots import PackedWeights, near_sums, unsigned
from accelsim.simulator.engine.lanes import LaneConstants
from accelsim.simulator.engine.layer_operands import LayerOperands, Padding
from accelsim.simulator.engine.steps import Bound, Step
from accelsim.simulator.engine.tap_weights import TapWeights
from accelsim.simulator.engine.windows import Windows
from accelsim.simulator.engine.zeros import ByPlace, bits_of_code, count_by_place
from accelsim_kernels.layer_rows import Source, depthwise_layer, depthwise_layer_dots, dot_layer
from accelsim_kernels.vectors.code import LANES

Codes = npt.NDArray[Any]
Int32 = npt.NDArray[np.int32]
Call = Callable[[Codes, ByPlace], Codes]
"""Takes stored codes, contiguous and channels last, and where to count zeros; returns codes (positions, channels)."""

NEAR_SUM_BYTES = 16 << 10
"""Sums that are held at a time where they are requantized in 32-bit lanes: they stay in the first-level cache."""


_NOWHERE: ByPlace = np.zeros(1, dtype=np.int64), np.zeros((0, 0), dtype=np.int32)
"""Where nothing is counted."""


@dataclass(frozen=True, eq=False)
class Intake:
    """How the stored codes of batches of one length become operands.

    Parameters
    ----------
    form : LayerOperands
        Of the layer.
    zero : int
        The code that the PEs see as 0.
    length : int
        Images or vectors of a batch.
    """

    form: LayerOperands
    zero: int
    length: int

    @cached_property
    def _padding(self) -> tuple[Padding, int]:
        """How codes are padded, and elements of the operands; 0 where codes are taken as they lie."""
        return self.form.padding(self.length)

    @cached_property
    def _nothing(self) -> Codes:
        """No operands."""
        return np.empty(0, dtype=self.form.bits)

    @cached_property
    def _zero_bits(self) -> np.int64:
        """Bits of `zero` where codes are as wide as operands."""
        return bits_of_code(self._nothing, self.zero)

    def take(self, rows: Codes, by_place: ByPlace) -> tuple[Source, Codes]:
        """Return what a layer's kernel takes of stored codes, and the operands that it makes of them, as bits."""
        stored, (padding, size) = self.form.flat(rows), self._padding
        if rows.size != stored.size or rows.itemsize != stored.itemsize:
            count_by_place(rows, self.zero, by_place)
            by_place = _NOWHERE
        operands = np.empty(size, dtype=self.form.bits) if size else self._nothing
        return (stored, (self._zero_bits, *by_place), padding, operands), operands if size else stored

    @property
    def nothing_left(self) -> Source:
        """What a further kernel takes that reads the same operands."""
        return self._nothing, (self._zero_bits, *_NOWHERE), self._padding[0], self._nothing


@dataclass(frozen=True, eq=False)
class LayerCall:
    """A `Call` for batches of one length, of which all is known but the arrays.

    Parameters
    ----------
    room : tuple of int
        Shape of the sums that are held at a time.
    bind : callable
        Takes stored codes, contiguous and channels last, where zeros are counted, and room for sums; returns a kernel
        call for each group, and codes of shape (positions, channels).
    """

    room: tuple[int, ...]
    bind: Callable[[Codes, ByPlace, Int32], Bound]

    def __call__(self, rows: Codes, by_place: ByPlace) -> Codes:
        """Run the layer."""
        bound = self.bind(rows, by_place, near_sums(self.room))
        for step in bound.steps:
            step()
        return bound.codes


def dot_call(
    intake: Intake, groups: list[PackedWeights], lanes: list[LaneConstants], windows: Windows, dtype: np.dtype[Any]
) -> LayerCall:
    """Return the call that multiplies windows with all channels, group by group.

    Parameters
    ----------
    intake : Intake
        How codes become operands.
    groups : list of PackedWeights
        Weights of every group.
    lanes : list of LaneConstants
        Requantization of every group, filled up as its weights are.
    windows : Windows
        Where the windows of a batch lie.
    dtype : numpy dtype
        Of the codes.
    """
    packed, words = groups[0], groups[0].words
    size, per_group, num_windows = 2 if words else 1, len(groups[0].weights), windows.num_windows
    channels = per_group * len(groups)
    places, segments = windows.in_bytes(size)
    bits = unsigned(dtype.itemsize)
    at_a_time = packed.whole_tiles(min(packed.positions_at_a_time(NEAR_SUM_BYTES), num_windows))
    room = at_a_time, packed.width
    calls = [
        (
            group * windows.group_offset * size,
            (places, segments, np.int64(weights.groups), weights.packed, words, weights.lost),
            (constants.constants, constants.two),
            (channels, group * per_group, per_group),
        )
        for group, (weights, constants) in enumerate(zip(groups, lanes, strict=True))
    ]
    nothing_left = intake.nothing_left

    def bind(rows: Codes, by_place: ByPlace, sums: Int32) -> Bound:
        stored, steps = np.empty(num_windows * channels, dtype=bits), list[Step]()
        source, operands = intake.take(rows, by_place)
        flat = operands.view(np.uint8) if words else operands
        for begin, factors, requantization, part in calls:
            own = flat[begin:] if begin else flat
            steps.append(partial(dot_layer, source, own, *factors, sums, *requantization, stored, part))
            source = nothing_left
        return Bound(steps, stored.view(dtype).reshape(num_windows, channels), stored.nbytes + operands.nbytes)

    return LayerCall(room, bind)


def depthwise_call(
    intake: Intake, taps: TapWeights, lanes: LaneConstants, windows: Windows, dtype: np.dtype[Any]
) -> LayerCall:
    """Return the call that convolves every channel with its own kernel; parameters as of `dot_call`."""
    run, channels, num_windows, by_dots = windows.run, len(taps.weights), windows.num_windows, taps.by_dots
    bits = unsigned(dtype.itemsize)
    at_a_time = min(max(1, NEAR_SUM_BYTES // (4 * run)), num_windows)
    room = (at_a_time * run + LANES,)
    where = windows.in_bytes(1)[0], run, windows.segments, taps.repeated
    for_dots = taps.for_dots(windows.segments) if by_dots else None
    requantization, words = (lanes.constants, lanes.two), intake.form.words

    def bind(rows: Codes, by_place: ByPlace, sums: Int32) -> Bound:
        stored, room_left = np.empty(num_windows * run, dtype=bits), sums[:-LANES]
        source, taken = intake.take(rows, by_place)
        operands: Codes = taken.view(np.int16) if words else taken
        if for_dots is not None:
            last = room_left, *requantization, stored
            step = partial(depthwise_layer_dots, source, operands, *where, for_dots, *last)
        else:
            step = partial(depthwise_layer, source, operands, *where, room_left, *requantization, stored)
        return Bound([step], stored.view(dtype).reshape(-1, channels), stored.nbytes + taken.nbytes)

    return LayerCall(room, bind)
