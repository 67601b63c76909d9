"""Stored codes as the operands that the kernels of layers read: padded, shifted, channels repeated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.program.geometry import Geometry
from accelsim_kernels.layer_rows import pad_rows

Codes = npt.NDArray[Any]

_SLACK_BYTES = 64
"""Bytes behind an image that a vector may reach into; what is there is multiplied with 0, or not stored."""


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
        rows = self._repeated(rows)
        bits = 8 * self._item_bytes
        target, unsigned = np.dtype(np.int16 if self.words else np.uint8), np.dtype(f"uint{bits}")
        padded, narrow = self.geometry is not None and any(self.geometry.pads), rows.itemsize == unsigned.itemsize
        if narrow and not padded and not self.copies(whole):
            return rows.reshape(-1).view(target)
        stored = rows.view(unsigned) if narrow else rows.astype(unsigned)
        shape, border = (1, 1, rows.size), (0, 0, 0, 0)
        if self.geometry is not None and padded:
            top, left, bottom, right = self.geometry.pads
            images, height, width, channels = rows.shape
            shape = images, height, width * channels
            border = top, bottom, left * channels, right * channels
        size = shape[0] * (shape[1] + border[0] + border[1]) * (shape[2] + border[2] + border[3])
        flat = np.empty(size + _SLACK_BYTES, dtype=unsigned)
        flat[size:] = 0
        flipped, value = 1 << (bits - 1) if self.shift else 0, self.pad_operand % (1 << bits)
        pad_rows(stored.reshape(-1), shape, border, np.int64(flipped), np.int64(value), flat)
        return flat.view(target)

    def _repeated(self, rows: Codes) -> Codes:
        """Return codes with every channel as often as it is there."""
        if self.times == 1:
            return rows
        repeated = np.empty((rows.size, self.times), dtype=rows.dtype)
        for column in range(self.times):
            repeated[:, column] = rows.reshape(-1)
        return repeated.reshape(*rows.shape[:-1], -1)
