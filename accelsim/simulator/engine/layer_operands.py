"""Stored codes as the operands that the kernels of layers read: padded, shifted, channels repeated."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.program.geometry import Geometry
from accelsim.simulator.engine.dots import unsigned
from accelsim_kernels.layer_rows import pad_rows

Codes = npt.NDArray[Any]

_SLACK_BYTES = 64
"""Bytes behind an image that a vector may reach into; what is there is multiplied with 0, or not stored."""

_NO_BORDER = 0, 0, 0, 0


@dataclass(frozen=True)
class _Border:
    """What is put around images.

    Parameters
    ----------
    lines : tuple of int
        Rows of an image, and codes in each.
    around : tuple of int
        Rows above and below an image, codes before and behind each row.
    padded_size : int
        Codes of an image with its border.
    """

    lines: tuple[int, int]
    around: tuple[int, int, int, int]
    padded_size: int


Padding = tuple[tuple[int, int, int], tuple[int, int, int, int], np.int64, np.int64]
"""Shape, border, flipped bit and value, as `accelsim_kernels.layer_rows.pad_rows` takes them."""


@dataclass(frozen=True, eq=False)
class LayerOperands:
    """How a layer's codes become operands.

    Parameters
    ----------
    geometry : Geometry or None
        Of the convolution that runs.
    times : int
        How often every channel is there, side by side.
    words : bool
        Operands of 16 bits instead of 8.
    shift, pad_operand : int
        What operands are less than codes, docs/numerics.md (100), and what a padded tap holds.
    piece, whole : int
        Operands of a tap that lie side by side. Where they take a multiple of so many bytes, no kernel reads behind
        the last one.
    """

    geometry: Geometry | None
    times: int
    words: bool
    shift: int
    pad_operand: int
    piece: int
    whole: int

    @property
    def _item_bytes(self) -> int:
        """Bytes of an operand."""
        return 2 if self.words else 1

    def copies(self, whole: int = 0) -> bool:
        """Whether codes of an operand's size are copied even without padding; ``whole`` as in `of`."""
        return self.shift != 0 or self.piece * self._item_bytes % max(whole, self.whole) != 0

    def of(self, rows: Codes, whole: int = 0) -> Codes:
        """Return codes padded and shifted, as uint8 or int16, flat, with some slack behind them.

        Parameters
        ----------
        rows : integer array, shape (images, height, width, channels) or (positions, k)
            Stored codes, contiguous.
        whole : int
            For kernels that read further than `whole` says.

        Notes
        -----
        Codes that need nothing done to them are taken as they lie, without slack. Both shifts that there are flip the
        highest bit.
        """
        stored, (padding, size) = self.flat(rows), self.padding(len(rows), whole)
        if size > 0:
            padded: Codes = np.empty(size, dtype=self.bits)
            pad_rows(stored, *padding, padded)
            stored = padded
        return stored.view(np.int16) if self.words else stored

    @cached_property
    def bits(self) -> Any:
        """Unsigned type of an operand's size."""
        return unsigned(self._item_bytes)

    def takes_as_stored(self, rows: Codes) -> bool:
        """Whether `flat` copies nothing."""
        return self.times == 1 and rows.itemsize == self._item_bytes

    def flat(self, rows: Codes) -> Codes:
        """Return codes as flat `bits`, every channel as often as it is there."""
        flat = (self._repeated(rows) if self.times > 1 else rows).reshape(-1)
        return flat.view(self.bits) if flat.itemsize == self._item_bytes else flat.astype(self.bits)

    def padding(self, length: int, whole: int = 0) -> tuple[Padding, int]:
        """Return how as many images or vectors are padded, and elements of the operands with slack; see `of`.

        The size is 0 where codes are taken as they lie.
        """
        if self._border is None:
            elements = length * (self.piece if self.geometry is None else prod(self.geometry.input_shape))
            size = elements + _SLACK_BYTES if self.copies(whole) else 0
            return ((1, 1, elements), _NO_BORDER, *self._changes), size
        size = length * self._border.padded_size + _SLACK_BYTES
        return ((length, *self._border.lines), self._border.around, *self._changes), size

    @cached_property
    def _border(self) -> _Border | None:
        """The border that images get; None where they get none."""
        if self.geometry is None or not any(self.geometry.pads):
            return None
        channels, height, width = self.geometry.input_shape
        top, left, bottom, right = self.geometry.pads
        around = top, bottom, left * channels, right * channels
        return _Border((height, width * channels), around, (top + height + bottom) * (left + width + right) * channels)

    @cached_property
    def _changes(self) -> tuple[np.int64, np.int64]:
        """The bit that the shift flips, and the bits of a padded tap."""
        bits = 8 * self._item_bytes
        return np.int64(1 << (bits - 1) if self.shift else 0), np.int64(self.pad_operand % (1 << bits))

    def _repeated(self, rows: Codes) -> Codes:
        """Return codes with every channel as often as it is there."""
        repeated = np.empty((rows.size, self.times), dtype=rows.dtype)
        for column in range(self.times):
            repeated[:, column] = rows.reshape(-1)
        return repeated.reshape(*rows.shape[:-1], -1)
