"""Convolutions and matrix products: docs/numerics.md (68) to (71)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import FormatError, LoweringError, ModelError
from accelsim.formats import IntegerFormat, QuantizationParameters
from accelsim.machine import Machine
from accelsim.program.geometry import DepthWindow, Geometry
from accelsim.program.layers import MacLayer
from accelsim.program.lowering import WIDEST_START
from accelsim.program.onnx.tensors import Array
from accelsim.program.rescale import Rescale

Int64 = npt.NDArray[np.int64]

ROLES = ("x", "w", "x_scale", "x_zero", "w_scale", "w_zero", "y_scale", "y_zero", "bias")
"""What the operands of a product are; all but x and w may be missing."""


@dataclass(frozen=True)
class Bounds:
    """An activation function that clamps: ``min(max(x, low), high)``."""

    low: float
    high: float


@dataclass(frozen=True)
class Product:
    """A convolution or matrix product as a model has it.

    Parameters
    ----------
    label : str
        What messages call it.
    name, op, output : str
        Of the layer.
    x_shape, w_shape, y_shape : tuple of int
        Of input, weights and output.
    x_format, w_format : IntegerFormat
        Of the stored operands.
    y_format : IntegerFormat or None
        Of the output; None stores accumulators.
    window : Window or None
        Of a convolution.
    alpha : float
        Factor of the product.
    bounds : tuple of Bounds
        Activation functions before the output is stored.
    """

    label: str
    name: str
    op: str
    output: str
    x_shape: tuple[int, ...]
    w_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    x_format: IntegerFormat
    w_format: IntegerFormat
    y_format: IntegerFormat | None
    window: Window | None
    alpha: float = 1.0
    bounds: tuple[Bounds, ...] = ()

    @property
    def is_single(self) -> bool:
        """Whether it is one product or one convolution; else one per entry of the leading axes."""
        return self.window is not None or prod(self.w_shape[:-2]) == 1

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Return groups, N, K and P of one run."""
        if self.window is not None:
            groups = self.window.groups
            per_group = self.w_shape[0] // groups
            return groups, per_group, prod(self.w_shape[1:]), prod(self.y_shape) // self.w_shape[0]
        columns = 1 if len(self.w_shape) == 1 else self.w_shape[-1]
        reduction = self.x_shape[-1]
        if self.is_single:
            return 1, columns, reduction, prod(self.y_shape) // columns
        rows = 1 if len(self.x_shape) == 1 else self.x_shape[-2]
        return prod(self.y_shape) // (rows * columns), columns, reduction, rows


@dataclass(frozen=True)
class Window:
    """The window of a convolution over any number of spatial axes, explicit.

    Parameters
    ----------
    strides, dilations, before, after : tuple of int
        Per spatial axis; padding before and after.
    groups : int
        Groups of channels.
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    groups: int


def layers_of(product: Product, roles: Mapping[str, Array], machine: Machine) -> list[tuple[MacLayer, Array]]:
    """Make the layers of a product whose operands are known.

    Parameters
    ----------
    product : Product
        What it is.
    roles : mapping of role to array
        Operands without the axis of the samples; x may be missing where there is one layer, which then is to be fed.
    machine : Machine
        For which.

    Returns
    -------
    list of (MacLayer, array)
        Layers whose outputs, one after the other, are the product's, and the codes that each reads.

    Raises
    ------
    ModelError
        When scales or zero points do not fit.
    LoweringError
        When the machine has no such layer.
    """
    x = roles.get("x", np.zeros(0, dtype=np.int32))
    weights = roles["w"].astype(np.int64)
    if product.window is not None:
        return [(_convolution(product, weights, roles, machine), x)]
    if weights.ndim == 1:
        weights = weights[:, np.newaxis]
    if product.is_single:
        flat = weights.reshape(weights.shape[-2:])
        return [(_matrix_product(product, flat, roles, (), product.y_shape, machine), x)]
    rows = x.reshape((1,) * (2 - x.ndim) + x.shape)
    batch = np.broadcast_shapes(rows.shape[:-2], weights.shape[:-2])
    wide_x = np.broadcast_to(rows, (*batch, *rows.shape[-2:]))
    wide_w = np.broadcast_to(weights, (*batch, *weights.shape[-2:]))
    shape = (rows.shape[-2], weights.shape[-1])
    return [
        (_matrix_product(product, wide_w[index], roles, index, shape, machine), wide_x[index])
        for index in np.ndindex(*batch)
    ]


def _convolution(product: Product, weights: Int64, roles: Mapping[str, Array], machine: Machine) -> MacLayer:
    """Make the layer of a convolution."""
    window = product.window
    assert window is not None
    space, kernel = product.x_shape[2:], product.w_shape[2:]
    output, depth = product.y_shape[2:], None
    channels = product.x_shape[1]
    pads = window.before + window.after
    strides, dilations = window.strides, window.dilations
    if len(kernel) == 3:
        depth = DepthWindow(space[0], kernel[0], strides[0], window.before[0], dilations[0], output[0])
        weights = weights.reshape(weights.shape[0], -1, *kernel[1:])
        channels *= kernel[0]
        space, kernel, strides, dilations, output = space[1:], kernel[1:], strides[1:], dilations[1:], output[1:]
        pads = window.before[1:] + window.after[1:]
    geometry = Geometry.of((channels, *space), kernel, strides, pads, dilations, output, window.groups)
    if machine.reduction_order == "spatial_first":
        weights = np.moveaxis(weights, 1, -1)
    matrix = np.ascontiguousarray(weights).reshape(weights.shape[0], -1)
    return _layer(product, matrix, roles, (), machine, geometry, depth, product.y_shape)


def _matrix_product(
    product: Product,
    weights: Int64,
    roles: Mapping[str, Array],
    index: tuple[int, ...],
    shape: tuple[int, ...],
    machine: Machine,
) -> MacLayer:
    """Make the layer of a product with one matrix (K, N)."""
    return _layer(product, np.ascontiguousarray(weights.T), roles, index, machine, None, None, shape)


def _layer(
    product: Product,
    weights: Int64,
    roles: Mapping[str, Array],
    index: tuple[int, ...],
    machine: Machine,
    geometry: Geometry | None,
    depth: DepthWindow | None,
    shape: tuple[int, ...],
) -> MacLayer:
    """Make a layer of weights (N, K): zero points as docs/numerics.md (7) and (8) have them, and the requantizer."""
    where, channels = f"layer {product.name!r}", weights.shape[0]
    for role in ("x_zero", "w_zero", "bias"):
        if role in roles and roles[role].dtype.kind not in "iu":
            raise ModelError(f"{product.label}: {role.replace('_', ' ')} must be integers, got {roles[role].dtype}")
    x_zero = int(_scalar(product, roles, "x_zero", np.int64(0)))
    w_zeros = _per_channel(product, roles, "w_zero", channels, index, np.int64(0)).astype(np.int64)
    bias = _per_channel(product, roles, "bias", channels, (), np.int64(0)).astype(np.int64)
    at_input = machine.zero_point == "at_input"
    if at_input:
        start, last = bias, np.zeros_like(w_zeros)
        weights = weights - w_zeros[:, np.newaxis]
    else:
        start = bias - x_zero * weights.sum(axis=1) + weights.shape[1] * x_zero * w_zeros
        last = w_zeros
    if (np.abs(start) > WIDEST_START).any():
        raise LoweringError(f"{where}: bias and zero-point terms must stay within +-2^61")
    rescale, zero_point, clamp = _requantizer(product, roles, channels, index, machine, where)
    return MacLayer(
        name=product.name,
        op=product.op,
        inputs=(),
        output=product.output,
        output_shape=shape,
        weights=np.ascontiguousarray(weights.astype(np.int32)),
        start=start,
        weight_zero_points=last,
        input_offset=x_zero if at_input else 0,
        pad_value=0 if at_input else x_zero,
        geometry=geometry,
        weight_format=product.w_format,
        input_format=product.x_format,
        rescale=rescale,
        zero_point=zero_point,
        output_format=product.y_format,
        clamp=clamp,
        depth=depth,
    )


def _requantizer(
    product: Product, roles: Mapping[str, Array], channels: int, index: tuple[int, ...], machine: Machine, where: str
) -> tuple[Rescale | None, int, tuple[int, int]]:
    """Return multiplier, zero point and clamp of the output."""
    if product.y_format is None:
        return None, 0, (-(1 << 31), (1 << 31) - 1)
    target = output_parameters(product, roles)
    factors: list[npt.ArrayLike] = [] if product.alpha == 1 else [np.float32(product.alpha)]
    factors += [
        np.float32(_scalar(product, roles, "x_scale", np.float32(1))),
        _per_channel(product, roles, "w_scale", channels, index, np.float32(1)).astype(np.float32),
    ]
    if machine.product_shift_bits > 0:  # an accumulator counts in units of 2^h products, (13a)
        factors.append(np.float32(2.0**machine.product_shift_bits))
    rescale = Rescale.of(machine.requantizer, factors, target.scale, where)
    return rescale, int(target.zero_point), clamp_of(target, product.bounds)


def output_parameters(product: Product, roles: Mapping[str, Array]) -> QuantizationParameters:
    """Return the quantizer of a product's output."""
    assert product.y_format is not None
    scale, zero = (_scalar(product, roles, role, one) for role, one in (("y_scale", 1.0), ("y_zero", 0)))
    try:
        return QuantizationParameters(np.asarray(scale, np.float32), np.asarray(zero, np.int64), product.y_format)
    except FormatError as error:
        raise ModelError(f"{product.label}: {error}") from None


def clamp_of(target: QuantizationParameters, bounds: Sequence[Bounds]) -> tuple[int, int]:
    """Return the codes between which an output is clamped: quantization is monotone."""
    low, high = -np.inf, np.inf
    for bound in bounds:  # ONNX's Clip is min(max(x, low), high)
        low, high = min(max(low, bound.low), bound.high), min(max(high, bound.low), bound.high)
    codes = target.quantize(np.array([low, high], dtype=np.float32))
    return int(codes[0]), int(codes[1])


def _scalar(product: Product, roles: Mapping[str, Array], role: str, missing: Any) -> Any:
    """Return an operand of one element."""
    value = roles.get(role)
    if value is None:
        return missing
    if value.size != 1:
        raise ModelError(f"{product.label}: {role.replace('_', ' ')} must be one number, got shape {value.shape}")
    return value.reshape(-1)[0]


def _per_channel(
    product: Product, roles: Mapping[str, Array], role: str, channels: int, index: tuple[int, ...], missing: Any
) -> Array:
    """Return an operand with one element per output channel."""
    value = roles.get(role, np.array(missing))
    if value.size not in (1, channels):
        if value.ndim < 2 or value.shape[-2:] != (1, channels):
            raise ModelError(
                f"{product.label}: {role.replace('_', ' ')} must be one number or {channels}, got shape {value.shape}"
            )
        # one row per entry of the leading axes
        leading = value.shape[:-2]
        own = index[len(index) - len(leading) :]
        value = value[tuple(0 if length == 1 else i for length, i in zip(leading, own, strict=True))]
    flat = value.reshape(-1)
    if role.endswith("scale") and not (np.isfinite(flat).all() and (flat > 0).all()):
        raise ModelError(f"{product.label}: scales must be finite and above 0, got {flat.min()} .. {flat.max()}")
    return np.broadcast_to(flat, (channels,))
