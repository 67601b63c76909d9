"""Outputs proven safe by parts of their reduction, each after what came before it: docs/numerics.md (107)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels.parts import unmark_by_parts
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES
from accelsim_kernels.vectors.dots import ROWS_OF_NARROW_TILE

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Integers = npt.NDArray[Any]

MOST_PARTS = 4
"""Parts of a reduction, where it has as many channels or kernel rows."""


@dataclass(frozen=True, eq=False)
class PartProofs:
    """Weights of some channels, cut along the reduction.

    Parameters
    ----------
    segments : int64 array, shape (parts, pieces)
        Where each contiguous piece of a part begins in a window, in operands.
    words : bool
        Operands of 16 bits instead of 8.
    sign : int
        What sums of magnitudes are multiplied with.
    packed, packed_magnitudes : uint8 arrays
        Bytes of the weights and of their magnitudes with a minus sign, by block of channels, part, piece and group.
    num_groups : int
        Groups of bytes in a piece.
    low, high : int32 arrays, shape (blocks * parts, LANES)
        Limits of twice the sum before a part, plus the part's sum, less or plus its magnitudes.
    """

    segments: Int64
    words: bool
    sign: int
    packed: npt.NDArray[np.uint8]
    packed_magnitudes: npt.NDArray[np.uint8]
    num_groups: int
    low: Int32
    high: Int32

    @staticmethod
    def of(
        by_tap: Integers,
        taps: Int64,
        spatial_first: bool,
        words: bool,
        sign: int,
        offset: int,
        room: tuple[Int64, Int64],
    ) -> PartProofs | None:
        """Cut the weights of some channels; None where the reduction has but one part.

        Parameters
        ----------
        by_tap : integer array, shape (channels, kernel rows, kernel columns, input channels)
            Weights.
        taps : int64 array, shape (kernel rows, kernel columns)
            Where each tap's operands begin in a window.
        spatial_first : bool
            Order of the additions: all input channels of a tap before the next tap; else all taps of a channel.
        words, sign
            As in the class.
        offset : int
            What the kernels' operands are less than the activations as the PEs multiply them.
        room : tuple of int64 arrays, shape (channels,)
            Least and greatest value that the products may add up to; where there is no channel, anything.
        """
        pieces = _by_taps(by_tap, taps) if spatial_first and taps.size > 1 else _by_channels(by_tap, taps)
        weights, segments = pieces
        if len(weights) < 2:
            return None
        added = offset * weights.sum(axis=(2, 3), dtype=np.int64)
        before = np.cumsum(added, axis=0) - added
        ends = np.iinfo(np.int32)
        low, high = (
            np.clip(2 * limit - 2 * before - added, ends.min, ends.max)
            .astype(np.int32)
            .reshape(len(weights), -1, LANES)
            for limit in room
        )
        kind = np.int16 if words else np.int8
        per_group = GROUP_BYTES // np.dtype(kind).itemsize
        num_parts, channels, num_pieces, length = weights.shape
        num_groups = -(-length // per_group)

        def pack(values: Integers) -> npt.NDArray[np.uint8]:
            padded = np.zeros((num_parts, channels, num_pieces, num_groups * per_group), dtype=kind)
            padded[..., :length] = values
            apart = padded.reshape(num_parts, -1, LANES, num_pieces * num_groups, per_group).transpose(1, 0, 3, 2, 4)
            return np.ascontiguousarray(apart).reshape(-1).view(np.uint8)

        by_block = [np.ascontiguousarray(limit.transpose(1, 0, 2)).reshape(-1, LANES) for limit in (low, high)]
        return PartProofs(
            np.ascontiguousarray(segments), words, sign, pack(weights), pack(-np.abs(weights)), num_groups, *by_block
        )  # fmt: skip

    def unmark(self, operands: Integers, magnitudes: Integers, bases: Int64, masks: Int32) -> Int32:
        """Return the marks that are left.

        Parameters
        ----------
        operands, magnitudes : uint8 or int16 arrays
            x' and the magnitudes of x, as the kernels take them.
        bases : int64 array, shape (positions,)
            Where the windows begin.
        masks : int32 array, shape (positions, blocks)
            A bit per channel.
        """
        size, tiles = operands.itemsize, -(-bases.size // ROWS_OF_NARROW_TILE) * ROWS_OF_NARROW_TILE
        whole, marks = np.full(tiles, bases[-1] * size), np.zeros((tiles, masks.shape[1]), dtype=np.int32)
        whole[: bases.size], marks[: bases.size] = bases * size, masks
        unmark_by_parts(
            operands.view(np.uint8), magnitudes.view(np.uint8), whole, self.segments * size, np.int64(self.num_groups),
            self.packed, self.packed_magnitudes, self.words, np.int64(self.sign), self.low, self.high, marks,
        )  # fmt: skip
        return marks[: bases.size]


def _by_taps(by_tap: Integers, taps: Int64) -> tuple[Integers, Int64]:
    """Cut by kernel rows, or a single one by columns: weights (parts, channels, pieces, length), (parts, pieces)."""
    return (by_tap.transpose(2, 0, 1, 3), taps.T) if len(taps) == 1 else (by_tap.transpose(1, 0, 2, 3), taps)


def _by_channels(by_tap: Integers, taps: Int64) -> tuple[Integers, Int64]:
    """Cut by input channels, of which the last part may have fewer."""
    channels, rows, columns, depth = by_tap.shape
    length = -(-depth // MOST_PARTS)
    num_parts = -(-depth // length)
    filled = np.zeros((channels, rows * columns, num_parts * length), dtype=by_tap.dtype)
    filled[..., :depth] = by_tap.reshape(channels, -1, depth)
    weights = filled.reshape(channels, -1, num_parts, length).transpose(2, 0, 1, 3)
    return weights, np.add.outer(np.arange(num_parts) * length, taps.reshape(-1))
