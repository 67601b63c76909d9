"""The layers of an integer program: everything a machine needs to know of each, and nothing else.

Codes travel between layers under the names of the tensors of the model. Shapes leave the batch out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.formats import IntegerFormat
from accelsim.machine import Requantizer
from accelsim.program.geometry import DepthWindow, Geometry
from accelsim.program.rescale import Rescale, bound_within

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """What all layers have.

    Parameters
    ----------
    name, op : str
        Name and operator of the model's node, with the activation function that is fused into it: ``Conv+Relu``.
    inputs : tuple of str
        Tensors that it reads; constants of the program among them.
    output : str
        Tensor that it stores.
    output_shape : tuple of int
        Without the batch.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    output: str
    output_shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class MacLayer(Layer):
    """A convolution or matrix product on the grid, requantized.

    Parameters
    ----------
    weights : int32 array, shape (groups * n, k)
        Operands as the PEs multiply them, the reduction in the machine's order.
    start : int64 array, shape (groups * n,)
        What the accumulators are loaded with: bias and zero-point terms, docs/numerics.md (7).
    weight_zero_points : int64 array, shape (groups * n,)
        z_w of (8); zeros where nothing is added at the end.
    input_offset : int
        Subtracted from stored activations before the PEs multiply: z_x with ``at_input``, else 0.
    pad_value : int
        What a padded tap holds after that subtraction.
    geometry : Geometry or None
        Of a convolution; None for a matrix product over the last axis.
    weight_format, input_format : IntegerFormat
        Of the stored operands.
    rescale : Rescale or None
        s_x * s_w / s_y; None stores the accumulators.
    zero_point : int
        z_y.
    output_format : IntegerFormat or None
        Of the stored output; None where accumulators are stored.
    clamp : pair of int
        The output's format, narrowed by a fused activation function.
    channel_clamps : int32 array, shape (2, channels), or None
        Least and greatest code of each channel within ``clamp``, where a fused function has bounds per channel.
    channels_last : bool
        Input and output of a convolution are (..., height, width, channels), else (..., channels, height, width).
    depth : DepthWindow or None
        Third spatial axis of a convolution, docs/numerics.md (70).
    """

    weights: Int32
    start: Int64
    weight_zero_points: Int64
    input_offset: int
    pad_value: int
    geometry: Geometry | None
    weight_format: IntegerFormat
    input_format: IntegerFormat
    rescale: Rescale | None
    zero_point: int
    output_format: IntegerFormat | None
    clamp: tuple[int, int]
    channel_clamps: Int32 | None = None
    channels_last: bool = False
    depth: DepthWindow | None = None

    @property
    def multipliers(self) -> Rescale:
        """The rescale of a layer that stores codes."""
        if self.rescale is None:
            raise AssertionError(f"layer {self.name!r} stores accumulators")
        return self.rescale

    @property
    def stored_format(self) -> IntegerFormat:
        """The output's format of a layer that stores codes."""
        if self.output_format is None:
            raise AssertionError(f"layer {self.name!r} stores accumulators")
        return self.output_format

    def bounds(self, channels: slice) -> tuple[npt.ArrayLike, npt.ArrayLike]:
        """Return least and greatest code of some output channels, as the requantizer has them."""
        low, high = self.clamp if self.channel_clamps is None else self.channel_clamps[:, channels]
        requantizer, stored = self.multipliers.requantizer, self.stored_format
        return bound_within(requantizer, low, stored), bound_within(requantizer, high, stored)

    @property
    def groups(self) -> int:
        """Number of GEMMs that run one after the other."""
        return 1 if self.geometry is None else self.geometry.groups

    @property
    def num_outputs(self) -> int:
        """Output channels N of one group."""
        return int(self.weights.shape[0]) // self.groups

    @property
    def reduction(self) -> int:
        """Length K of the reduction."""
        return int(self.weights.shape[1])

    @property
    def num_positions(self) -> int:
        """Output positions P of one sample."""
        return prod(self.output_shape) // int(self.weights.shape[0])

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample."""
        return self.weights.size * self.num_positions

    @property
    def input_elements(self) -> int | None:
        """Stored inputs of one group and sample; None for a matrix product, where they are K * P."""
        if self.geometry is None:
            return None
        planes = self.num_positions // self.geometry.num_positions
        elements = prod(self.geometry.input_shape) // self.groups * planes
        if self.depth is None:
            return elements
        # a plane for each position along the depth, whose channels are those of all its taps
        return elements // (self.depth.kernel * self.depth.num_positions) * self.depth.length


@dataclass(frozen=True, kw_only=True, eq=False)
class RuntimeMacLayer(Layer):
    """A convolution or matrix product with operands that a run computes: weights, scales or zero points.

    Parameters
    ----------
    bind : callable
        From the inputs of one run to products with known operands, each with the codes that it reads; their outputs,
        one after the other, are the layer's.
    groups, num_outputs, reduction, num_positions : int
        Sizes of the products.
    weight_format, input_format : IntegerFormat
        Of the stored operands.
    requantizes : bool
        Accumulators become codes; else they are stored as they are.
    """

    bind: Callable[[Sequence[npt.NDArray[Any]]], list[tuple[MacLayer, npt.NDArray[Any]]]]
    groups: int
    num_outputs: int
    reduction: int
    num_positions: int
    weight_format: IntegerFormat
    input_format: IntegerFormat
    requantizes: bool

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample."""
        return prod((self.groups, self.num_outputs, self.reduction, self.num_positions))

    @property
    def input_elements(self) -> int | None:
        """Stored inputs of one group; None where they are K * P."""
        return None


GridLayer = MacLayer | RuntimeMacLayer
"""What runs on the grid."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AddLayer(Layer):
    """``a + b`` or ``a - b`` on stored integers, docs/numerics.md (25) to (27).

    Parameters
    ----------
    sign : int
        1 adds, -1 subtracts.
    zero_points : pair of int
        Of the inputs.
    rescales : pair of Rescale
        From each input to the common grid.
    left_shift : int
        L of (25).
    rescale : Rescale or None
        From the common grid to the output; None for float multipliers, whose common grid is the output's.
    zero_point, output_format, clamp, channel_clamps
        As in `MacLayer`.
    """

    sign: int
    zero_points: tuple[int, int]
    rescales: tuple[Rescale, Rescale]
    left_shift: int
    rescale: Rescale | None
    zero_point: int
    output_format: IntegerFormat
    clamp: tuple[int, int]
    channel_clamps: Int32 | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class MultiplyLayer(Layer):
    """``a * b`` on stored integers, (28); parameters as in `AddLayer`."""

    zero_points: tuple[int, int]
    rescale: Rescale
    zero_point: int
    output_format: IntegerFormat
    clamp: tuple[int, int]
    channel_clamps: Int32 | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ConcatLayer(Layer):
    """Concatenation, (29).

    Parameters
    ----------
    axis : int
        With the batch as axis 0.
    zero_points : tuple of int
        Of the inputs.
    rescales : tuple of Rescale or None
        Of each input; None copies.
    sizes : tuple of int
        Elements of each input, without the batch.
    zero_point, output_format, clamp
        As in `MacLayer`.
    """

    axis: int
    zero_points: tuple[int, ...]
    rescales: tuple[Rescale | None, ...]
    sizes: tuple[int, ...]
    zero_point: int
    output_format: IntegerFormat
    clamp: tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class MaxPoolLayer(Layer):
    """Max pooling on stored integers, (30).

    Parameters
    ----------
    geometry : Geometry
        The window.
    clamp : pair of int or None
        Of a fused activation function.
    channels_last : bool
        As in `MacLayer`.
    """

    geometry: Geometry
    clamp: tuple[int, int] | None = None
    channels_last: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class AveragePoolLayer(Layer):
    """Average pooling with one rounding, (31).

    Parameters
    ----------
    geometry : Geometry
        The window; for global pooling the whole image.
    count_padding : bool
        Padded taps count.
    zero_point : int
        Of input and output.
    requantizer : Requantizer
        Whose last tie rule rounds.
    clamp, channels_last
        As in `MaxPoolLayer`.
    """

    geometry: Geometry
    count_padding: bool
    zero_point: int
    requantizer: Requantizer
    clamp: tuple[int, int] | None = None
    channels_last: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class MeanLayer(Layer):
    """Mean over some axes with a multiplier, (36) and (45).

    Parameters
    ----------
    axes : tuple of int
        With the samples as axis 0.
    count : int
        Elements of one mean.
    source_zero_point : int
        Of the input.
    rescale : Rescale
        Takes the sum to the mean on the output's grid.
    zero_point : int
        Of the output.
    output_format : IntegerFormat
        Of its codes.
    clamp : pair of int
        Bounds of the output.
    """

    axes: tuple[int, ...]
    count: int
    source_zero_point: int
    rescale: Rescale
    zero_point: int
    output_format: IntegerFormat
    clamp: tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class TableLayer(Layer):
    """A function of one element as a table over the input's codes, (32).

    Parameters
    ----------
    tables : int32 array, shape (1 or channels, entries)
        One for all channels, or one for each.
    lowest : int
        Code of the first entry.
    """

    tables: Int32
    lowest: int


@dataclass(frozen=True, kw_only=True, eq=False)
class SoftmaxLayer(Layer):
    """Softmax over an axis, (33).

    Parameters
    ----------
    axis : int
        With the batch as axis 0.
    exponentials : int64 array
        ``E[d]``.
    bits : int
        Width of the output.
    """

    axis: int
    exponentials: Int64
    bits: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ReshapeLayer(Layer):
    """The same codes in the output's shape."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TransposeLayer(Layer):
    """Codes with their axes exchanged; ``permutation`` includes the batch, which stays first."""

    permutation: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class PadLayer(Layer):
    """Codes with a border of one code; ``pads`` in ONNX order for all axes, the batch among them."""

    pads: tuple[int, ...]
    code: int
