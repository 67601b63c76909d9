"""The shape of a two-dimensional window: convolutions and pooling. One dimension is a window of height 1."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """A window that slides over channels x height x width.

    Parameters
    ----------
    input_shape : tuple of int
        (channels, height, width).
    kernel_shape, strides, dilations : pair of int
        (rows, columns).
    pads : tuple of four int
        Padding at the top, left, bottom, right.
    output_shape : pair of int
        (rows, columns) of positions.
    groups : int
        Groups of channels that are convolved apart.
    """

    input_shape: tuple[int, int, int]
    kernel_shape: Pair
    strides: Pair
    pads: tuple[int, int, int, int]
    dilations: Pair
    output_shape: Pair
    groups: int = 1

    @classmethod
    def of(
        cls,
        input_shape: tuple[int, ...],
        kernel_shape: tuple[int, ...],
        strides: tuple[int, ...],
        pads: tuple[int, ...],
        dilations: tuple[int, ...],
        output_shape: tuple[int, ...],
        groups: int = 1,
    ) -> Geometry:
        """Make the geometry of a 1-D or 2-D window.

        Parameters
        ----------
        input_shape : tuple of int
            (channels, width) or (channels, height, width).
        kernel_shape, strides, dilations, output_shape : tuple of one or two int
            Spatial.
        pads : tuple of two or four int
            ONNX order: before every axis, then after every axis.
        groups : int
            Groups of channels.
        """
        if len(kernel_shape) == 1:
            channels, width = input_shape
            return cls(
                (channels, 1, width),
                (1, kernel_shape[0]),
                (1, strides[0]),
                (0, pads[0], 0, pads[1]),
                (1, dilations[0]),
                (1, output_shape[0]),
                groups,
            )
        channels, height, width = input_shape
        return cls(
            (channels, height, width),
            (kernel_shape[0], kernel_shape[1]),
            (strides[0], strides[1]),
            (pads[0], pads[1], pads[2], pads[3]),
            (dilations[0], dilations[1]),
            (output_shape[0], output_shape[1]),
            groups,
        )

    @staticmethod
    def convolved(length: int, kernel: int, stride: int, before: int, after: int, dilation: int) -> int:
        """Return how many positions a window has along one axis (not positive where it does not fit)."""
        return (length + before + after - dilation * (kernel - 1) - 1) // stride + 1

    @cached_property
    def num_positions(self) -> int:
        """Output positions of one sample."""
        return prod(self.output_shape)

    @property
    def group_channels(self) -> int:
        """Input channels of one group."""
        return self.input_shape[0] // self.groups

    @property
    def reduction(self) -> int:
        """Length K of the reduction of one group."""
        return self.group_channels * prod(self.kernel_shape)

    @property
    def is_pointwise(self) -> bool:
        """Whether each position reads the channels of one place, and each place is read once."""
        return self.kernel_shape == (1, 1) and self.strides == (1, 1) and not any(self.pads)


@dataclass(frozen=True)
class DepthWindow:
    """The window of a three-dimensional convolution along its first spatial axis, the depth.

    The taps along the depth become channels of a plane: channel c and tap t are channel ``c * kernel + t``. What is
    left is a two-dimensional convolution of one plane per position along the depth, docs/numerics.md (70).

    Parameters
    ----------
    length, kernel, stride, before, dilation : int
        Along the depth; ``before`` is the padding at its start.
    num_positions : int
        Positions along the depth.
    """

    length: int
    kernel: int
    stride: int
    before: int
    dilation: int
    num_positions: int

    def taps(self) -> list[list[int | None]]:
        """Return for every position the index of each of its taps, None for padding."""
        starts = [position * self.stride - self.before for position in range(self.num_positions)]
        rows = [[start + tap * self.dilation for tap in range(self.kernel)] for start in starts]
        return [[index if 0 <= index < self.length else None for index in row] for row in rows]
