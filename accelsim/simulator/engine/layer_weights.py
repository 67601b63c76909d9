"""A layer's weights in the orders in which the kernels read them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from accelsim.program.geometry import Geometry
from accelsim.simulator.engine.digits import Digits, WideTapWeights, WideWeights
from accelsim.simulator.engine.dots import Int32, PackedWeights
from accelsim.simulator.engine.tap_weights import TapWeights
from accelsim.simulator.engine.windows import pieces_per_window


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """Weights of a convolution or matrix product.

    Parameters
    ----------
    weights : int32 array, shape (groups * n, k)
        As they are multiplied.
    geometry : Geometry or None
        Of the convolution.
    per_group : int
        Output channels of a group.
    spatial_first : bool
        Order of the reduction.
    words : bool
        Operands of 16 bits instead of 8.
    digits : Digits
        How weights are cut.
    """

    weights: Int32
    geometry: Geometry | None
    per_group: int
    spatial_first: bool
    words: bool
    digits: Digits

    @cached_property
    def by_tap(self) -> Int32:
        """Weights of shape (outputs, kernel rows, kernel columns, channels of a group)."""
        return self._by_tap(self.weights)

    def _by_tap(self, weights: Int32) -> Int32:
        """Bring weights to the shape of `by_tap`."""
        if self.geometry is None:
            return weights.reshape(len(weights), 1, 1, -1)
        if self.spatial_first:
            return weights.reshape(len(weights), *self.geometry.kernel_shape, -1)
        return weights.reshape(len(weights), -1, *self.geometry.kernel_shape).transpose(0, 2, 3, 1)

    @property
    def _digits_by_tap(self) -> list[Int32]:
        """Each of the weights' digits as `by_tap`, the highest first."""
        return [self._by_tap(digit) for digit in self.digits.cut(self.weights)]

    @cached_property
    def packed(self) -> list[PackedWeights]:
        """Weights of every group for the dot products."""
        return self._packed(self.by_tap)

    def _packed(self, by_tap: Int32) -> list[PackedWeights]:
        """Pack weights of the shape of `by_tap`."""
        pieces, per_group = pieces_per_window(self.geometry), self.per_group
        return [
            PackedWeights(by_tap[begin : begin + per_group].reshape(per_group, pieces, -1), self.words)
            for begin in range(0, len(by_tap), per_group)
        ]

    @cached_property
    def of_groups(self) -> list[PackedWeights] | list[WideWeights]:
        """`packed`, in digits where sums take more than 32 bits."""
        if self.digits.count == 1:
            return self.packed
        groups = zip(*(self._packed(digit) for digit in self._digits_by_tap), strict=True)
        return [WideWeights(list(digits), self.digits.bits) for digits in groups]

    @cached_property
    def taps(self) -> TapWeights:
        """Weights of a depthwise layer."""
        return self._taps(self.by_tap)

    def _taps(self, by_tap: npt.NDArray[np.int32]) -> TapWeights:
        """Lay weights of the shape of `by_tap` out."""
        return TapWeights(by_tap.reshape(len(by_tap), -1), self.words)

    @cached_property
    def of_channels(self) -> TapWeights | WideTapWeights:
        """`taps`, in digits where sums take more than 32 bits."""
        if self.digits.count == 1:
            return self.taps
        return WideTapWeights([self._taps(digit) for digit in self._digits_by_tap], self.digits.bits)
