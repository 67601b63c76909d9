"""Blocks of sixteen channels of a layer in the form in which all of them are stepped together, window by window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.program.geometry import Geometry
from accelsim.simulator.engine.dots import aligned_empty
from accelsim.simulator.engine.tracked import Layout
from accelsim_kernels.vectors.code import LANES

Int64 = npt.NDArray[np.int64]
Integers = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class LayerBlocks:
    """Weights of some blocks as vectors, and where windows have the numbers that meet them.

    Parameters
    ----------
    vectors : int16 or int32 array, shape (blocks, size)
        By number, then by channel; of 16 bits two terms, or one beside a 0.
    places : int64 array
        Where each number of a window is, after its base.
    tile : int
        Numbers of a tile.
    row_shift : int
        By how much activations are shifted to the left.
    doubled : bool
        Whether a number is a term and the same one again.
    """

    vectors: Integers
    places: Int64
    tile: int
    row_shift: int
    doubled: bool

    @staticmethod
    def of(layout: Layout, weights: Integers, terms: Int64) -> LayerBlocks:
        """Lay weights out.

        Parameters
        ----------
        layout : Layout
            Lanes are channels, rows are windows.
        weights : integer array, shape (LANES * blocks, k)
            In the machine's order.
        terms : int64 array, shape (k,)
            Where each term of a window is, after its base.

        Notes
        -----
        Of 16 bits a number is a term of a window with what follows it in memory. The lanes have 0 there, but where that
        is the next term of the same tile, everywhere, and only tiles' sums count.
        """
        number, tile = np.arange(terms.size), layout.terms
        second = number % tile % 2 == 1
        pairs = layout.paired and not layout.halves and bool((np.diff(terms)[second[1:]] == 1).all())
        first = np.flatnonzero(~second) if pairs else number
        values = np.zeros((len(weights), first.size, 2 if layout.paired else 1), dtype=layout.dtype)
        shifted = weights.astype(np.int32) << layout.lane_shift
        values[..., 0] = shifted[:, first]
        if layout.doubled:
            values[..., 1] = values[..., 0]
        if pairs:
            follows = (first + 1 < terms.size) & ((first + 1) % tile != 0)
            values[:, follows, 1] = shifted[:, first[follows] + 1]
        blocks, (_, *numbers) = len(weights) // LANES, values.shape
        by_block = values.reshape(blocks, LANES, *numbers).transpose(0, 2, 1, 3)
        vectors = aligned_empty((blocks, LANES * numbers[0] * numbers[1]), layout.dtype)
        vectors[...] = by_block.reshape(vectors.shape)
        places = terms[first] * (2 if layout.doubled else 1)
        return LayerBlocks(vectors, places, -(-tile // 2) if pairs else tile, layout.row_shift, layout.doubled)

    def bases(self, bases: Int64) -> Int64:
        """Return where windows begin in `image`, from where they begin among the operands."""
        return bases * 2 if self.doubled else bases

    def image(self, operands: Integers) -> Integers:
        """Return activations as the kernels read them, scaled; see `image_of`. Doubled, each one is there twice."""
        if self.doubled:
            twice = np.zeros(operands.size + 1, dtype=np.int32)
            np.left_shift(operands, 16 + self.row_shift, out=twice[:-1], dtype=np.int32)
            low = twice >> 16
            low &= 0xFFFF
            twice |= low
            return twice.view(np.int16)
        image = image_of(operands, self.vectors.dtype)
        if self.row_shift:
            image <<= self.row_shift
        return image


def image_of(operands: Integers, dtype: Any, offset: int = 0) -> Integers:
    """Return activations, flat, in another type and all more by an offset, with another number behind the last one.

    What is returned fits the type; operands and offset are added modulo its values.
    """
    image, bits = np.empty(operands.size + 1, dtype=dtype), 8 * np.dtype(dtype).itemsize
    image[:-1], image[-1] = operands, 0
    if offset:
        half = 1 << (bits - 1)
        image += image.dtype.type((offset + half) % (2 * half) - half)
    return image


def terms_of_window(geometry: Geometry | None, reduction: int, spatial_first: bool) -> Int64:
    """Return where each term of a window is after its base, in the machine's order.

    Parameters
    ----------
    geometry : Geometry or None
        None for a matrix product.
    reduction : int
        K.
    spatial_first : bool
        All input channels of a tap before the next tap; else all taps of a channel.
    """
    if geometry is None:
        return np.arange(reduction)
    taps, inner = taps_of_window(geometry).reshape(-1), np.arange(geometry.group_channels)
    if spatial_first:
        return np.add.outer(taps, inner).reshape(-1)
    return np.add.outer(inner, taps).reshape(-1)


def taps_of_window(geometry: Geometry) -> Int64:
    """Return where the operands of each tap begin in a window; int64 array, shape (kernel rows, kernel columns)."""
    channels, _, width = geometry.input_shape
    line = (width + geometry.pads[1] + geometry.pads[3]) * channels
    rows = np.arange(geometry.kernel_shape[0]) * geometry.dilations[0] * line
    return np.add.outer(rows, np.arange(geometry.kernel_shape[1]) * geometry.dilations[1] * channels)
