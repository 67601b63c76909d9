"""Dot products of channels with windows of activations, modulo 2**32, by whatever the processor does best.

Two paths give the same bits: the processor's dot-product instructions, docs/numerics.md (100), and floating-point
matrix products of integers that are proven exact, (101).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim_kernels.exact import dot_rows, to_next_line
from accelsim_kernels.layer_rows import Lost, add_row_sums
from accelsim_kernels.processor import has_dot_instructions
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES
from accelsim_kernels.vectors.dots import ROWS_OF_NARROW_TILE
from accelsim_kernels.vectors.row_sums import ONES

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

_LINE_BYTES = 64
"""A line of the cache; vectors that begin with one are read at once."""


GATHERED_BYTES, BYTES_GATHERED = 4 << 20, 18
"""Windows that are copied at a time where there are no dot-product instructions; of each operand, its place as well."""


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
    """Return an uninitialised array that begins with a line of the cache."""
    size = -(-prod(shape) * np.dtype(dtype).itemsize // 8)
    memory = np.empty(size + _LINE_BYTES // 8, dtype=np.int64)
    begin = to_next_line(memory)
    array: npt.NDArray[Any] = memory[begin : begin + size].view(dtype)[: prod(shape)].reshape(shape)
    return array


_MOST_SHAPES = 64
"""Shapes of a room that are remembered."""


class Room:
    """Room for a few sums: what is there lasts until more is asked for."""

    def __init__(self) -> None:
        self._sums: Int32 = aligned_empty((0,), np.int32)
        self._shaped: dict[tuple[int, ...], Int32] = {}

    def sums_of(self, shape: tuple[int, ...]) -> Int32:
        """Return the room in some shape."""
        made = self._shaped.get(shape)
        if made is None:
            size = prod(shape)
            if self._sums.size < size or len(self._shaped) >= _MOST_SHAPES:
                self._shaped.clear()
                self._sums = aligned_empty((max(size, self._sums.size),), np.int32)
            made = self._shaped[shape] = self._sums[:size].reshape(shape)
        return made


class _ThreadRoom(threading.local, Room):
    """Room that each thread keeps from call to call."""


_ROOM = _ThreadRoom()


def near_sums(shape: tuple[int, ...]) -> Int32:
    """Return the thread's own room in some shape."""
    return _ROOM.sums_of(shape)


def unsigned(num_bytes: int) -> Any:
    """Return the type of unsigned integers of 1 or 2 bytes, as which kernels read and store codes."""
    return np.uint8 if num_bytes == 1 else np.uint16


def bits_of(codes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return codes of 8 or 16 bits as the unsigned integers that kernels store, in one line."""
    return codes.reshape(-1).view(unsigned(codes.itemsize))


def exact_float(weights: npt.NDArray[Any], greatest: int) -> Any:
    """Return the floating-point type in which sums of products are exact, docs/numerics.md (101).

    Parameters
    ----------
    weights : integer array, shape (n, k)
        One factor of each product.
    greatest : int
        Greatest magnitude of the other.

    Returns
    -------
    type or None
        float32, float64, or None where neither is.

    Notes
    -----
    Integers up to ``2**24`` (``2**53``) are float32 (float64) numbers. Where ``Σ_k |w| * greatest`` is at most that, so
    is every product and every partial sum, in any order and with or without fused multiplication: nothing is rounded.
    """
    return float_up_to(int(np.abs(weights.astype(np.int64)).sum(axis=1).max(initial=0)) * greatest)


def float_up_to(most: int) -> Any:
    """Return the narrowest floating-point type that has all integers up to a magnitude, None where none has."""
    if most <= 1 << 24:
        return np.float32
    return np.float64 if most <= 1 << 53 else None


@dataclass(frozen=True, eq=False)
class PackedWeights:
    """Weights of some channels in the order in which the dot products read them.

    Parameters
    ----------
    weights : integer array, shape (n, pieces, length)
        Of every contiguous piece of a window.
    words : bool
        Operands of 16 bits instead of 8; then of 8 bits are the differences of a channel's weights.
    """

    weights: npt.NDArray[Any]
    words: bool

    @property
    def width(self) -> int:
        """Channels, rounded up to whole vectors."""
        return -(-len(self.weights) // LANES) * LANES

    def positions_at_a_time(self, num_bytes: int) -> int:
        """Return how many positions' sums fit so many bytes; at least a tile, and whole tiles."""
        tile = ROWS_OF_NARROW_TILE
        return max(1, num_bytes // (4 * self.width * tile)) * tile

    @staticmethod
    def whole_tiles(num_positions: int) -> int:
        """Return a number of positions rounded up to whole tiles."""
        return -(-num_positions // ROWS_OF_NARROW_TILE) * ROWS_OF_NARROW_TILE

    def room_for(self, num_positions: int) -> Int32:
        """Return an array (positions, width) for sums, with room for whole tiles."""
        return aligned_empty((self.whole_tiles(num_positions), self.width), np.int32)

    def sums(self, operands: npt.NDArray[Any], bases: Int64, segments: Int64, room: Int32) -> Int32:
        """Multiply the windows of some positions with all channels.

        Parameters
        ----------
        operands : uint8 array, or int16 with ``words``
            Activations, with some slack behind the last window: `ONES` where weights lost something.
        bases : int64 array, shape (positions,)
            Where each window begins.
        segments : int64 array, shape (pieces,)
            Where each piece begins, after its base.
        room : int32 array
            From `room_for` at least as many positions; overwritten.

        Returns
        -------
        int32 array, shape (positions, width)
            Sums modulo 2**32; mostly a part of ``room``.
        """
        if not has_dot_instructions():
            return self._float_sums(operands, bases, segments, room)
        tiles = self.whole_tiles(bases.size)
        size = operands.itemsize
        whole = np.empty(tiles, dtype=np.int64)
        np.multiply(bases, size, out=whole[: bases.size])
        whole[bases.size :] = whole[bases.size - 1]
        groups = np.int64(self.groups)
        dot_rows(operands.view(np.uint8), whole, segments * size, groups, self.packed, self.words, room[:tiles])
        if self.loses:
            add_row_sums(operands, whole[: bases.size], segments, self.lost, room)
        return room[: bases.size]

    @cached_property
    def _lost(self) -> npt.NDArray[np.int32]:
        """What each channel's weights lose to fit 8 bits, (116)."""
        flat = self.weights.reshape(len(self.weights), -1)
        least, greatest = (ends.astype(np.int32) for ends in (flat.min(axis=1), flat.max(axis=1)))
        fits = (least >= -128) & (greatest < 128)
        lost: npt.NDArray[np.int32] = np.where(fits | self.words, 0, least + 128).astype(np.int32)
        return lost

    @cached_property
    def loses(self) -> bool:
        """Whether a channel's weights lose something, so that windows are summed, too."""
        return bool(self._lost.any())

    @cached_property
    def lost(self) -> Lost:
        """What the weights lose, for the kernels."""
        if not self.loses:
            return np.empty(0, dtype=np.uint8), np.empty(0, dtype=np.int32)
        length = self.weights.shape[2]
        ones, lost = np.zeros(-(-length // ONES) * ONES, dtype=np.uint8), np.zeros(self.width, dtype=np.int32)
        ones[:length], lost[: len(self.weights)] = 1, self._lost
        return ones, lost

    @cached_property
    def groups(self) -> int:
        """Groups of operands in a piece."""
        return -(-int(self.weights.shape[2]) * (2 if self.words else 1) // GROUP_BYTES)

    @cached_property
    def packed(self) -> npt.NDArray[np.uint8]:
        """Bytes by tile of channels, then by piece, group and channel; 0 where a piece ends within a group."""
        channels, pieces, length = self.weights.shape
        per_group = GROUP_BYTES // (2 if self.words else 1)
        padded = np.zeros((self.width, pieces, self.groups * per_group), dtype=np.int16 if self.words else np.int8)
        padded[:channels, :, :length] = self.weights - self._lost[:, None, None]
        packed = aligned_empty((padded.size,), padded.dtype)
        begin = 0
        while begin < self.width:
            left = self.width - begin
            tile = 4 * LANES if left >= 4 * LANES else 2 * LANES if left >= 2 * LANES and not self.words else LANES
            part = padded[begin : begin + tile].reshape(tile, -1, per_group).transpose(1, 0, 2)
            place = begin * pieces * self.groups * per_group
            packed[place : place + part.size] = part.reshape(-1)
            begin += tile
        return packed.view(np.uint8)

    @cached_property
    def _float_weights(self) -> npt.NDArray[Any]:
        """Weights (pieces * length, width) as floating-point numbers whose sums of products are exact."""
        flat = self.weights.reshape(len(self.weights), -1)
        kind = exact_float(flat, 1 << (15 if self.words else 8))
        floats = np.zeros((flat.shape[1], self.width), dtype=kind or np.float64)
        floats[:, : len(flat)] = flat.T
        return floats

    def _float_sums(self, operands: npt.NDArray[Any], bases: Int64, segments: Int64, room: Int32) -> Int32:
        """Multiply as `sums` does, by floating-point matrix products of as many windows as `GATHERED_BYTES` hold."""
        weights = self._float_weights
        places = (segments[:, None] + np.arange(self.weights.shape[2])).reshape(-1)
        step = max(1, GATHERED_BYTES // (BYTES_GATHERED * places.size))
        for begin in range(0, bases.size, step):
            some = bases[begin : begin + step]
            room[begin : begin + some.size] = operands[some[:, None] + places].astype(weights.dtype) @ weights
        return room[: bases.size]
