"""Weights of depthwise layers in the orders in which the kernels read them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.simulator.engine.dots import Int32, Int64, aligned_empty
from accelsim_kernels.depthwise import depthwise_rows
from accelsim_kernels.processor import has_dot_instructions
from accelsim_kernels.vectors.code import GROUP_BYTES, LANES
from accelsim_kernels.vectors.windows import TAPS_AT_A_TIME

_DOT_WEIGHTS = np.dtype(f"int{8 * GROUP_BYTES // TAPS_AT_A_TIME}")
"""Weights of which an instruction takes `TAPS_AT_A_TIME`."""


@dataclass(frozen=True, eq=False)
class TapWeights:
    """Weights of channels with a kernel each.

    Parameters
    ----------
    weights : integer array, shape (channels, taps)
        Of 16 bits.
    words : bool
        Activations of 16 bits instead of 8.
    """

    weights: npt.NDArray[Any]
    words: bool

    @cached_property
    def repeated(self) -> npt.NDArray[np.int16]:
        """Weights of shape (taps, repeats * channels)."""
        weights = self.weights.T.astype(np.int16)
        return np.ascontiguousarray(np.tile(weights, (1, max(1, 512 // len(self.weights)))))

    @staticmethod
    def room_for(num_runs: int, run: int) -> Int32:
        """Return room for sums of so many runs."""
        room: Int32 = aligned_empty((num_runs, run), np.int32)
        return room

    def sums(self, operands: npt.NDArray[Any], bases: Int64, segments: Int64, room: Int32) -> Int32:
        """Convolve each channel with its own kernel.

        Parameters
        ----------
        operands, bases, segments
            As in `accelsim_kernels.depthwise.depthwise_rows`.
        room : int32 array, shape (runs, run)
            For at least as many runs.

        Returns
        -------
        int32 array, shape (runs, run)
            Sums modulo 2**32, in ``room``.
        """
        sums = room[: bases.size]
        depthwise_rows(operands, bases, np.int64(room.shape[1]), segments, self.repeated, sums.reshape(-1))
        return sums

    @property
    def by_dots(self) -> bool:
        """Whether several taps are multiplied in one instruction."""
        return has_dot_instructions() and not self.words and self._fit

    @cached_property
    def _fit(self) -> bool:
        """Whether weights have few enough bits for that; those of asymmetric layers less their zero points take 9."""
        limits = np.iinfo(_DOT_WEIGHTS)
        return bool(self.weights.min() >= limits.min and self.weights.max() <= limits.max)

    @cached_property
    def _packed(self) -> npt.NDArray[np.uint8]:
        """Bytes of the weights, filled up to a multiple of `TAPS_AT_A_TIME` taps, in the order of `window_dots`."""
        taps, width = self.repeated.shape
        whole = width // (4 * LANES)
        filled = np.zeros((-(-taps // TAPS_AT_A_TIME) * TAPS_AT_A_TIME, whole, 4, 4, 4), dtype=_DOT_WEIGHTS)
        filled[:taps] = self.repeated[:, : whole * 4 * LANES].reshape(taps, whole, 4, 4, 4)
        by_group = filled.reshape(-1, TAPS_AT_A_TIME, whole, 4, 4, 4).transpose(2, 0, 4, 3, 5, 1)
        return np.ascontiguousarray(by_group).reshape(-1).view(np.uint8)

    def for_dots(self, segments: Int64) -> tuple[Int64, npt.NDArray[np.uint8]]:
        """Return the places of taps, filled up as `window_dots` wants them, and the bytes that they meet; kept."""
        given = segments.tobytes()
        if given not in self._filled_up:
            more = np.repeat(segments[-1:], -segments.size % TAPS_AT_A_TIME)
            self._filled_up[given] = np.concatenate([segments, more])
        return self._filled_up[given], self._packed

    @cached_property
    def _filled_up(self) -> dict[bytes, Int64]:
        """The places that `for_dots` keeps."""
        return {}
