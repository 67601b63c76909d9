"""What ONNX Runtime's operators compute in float32 on x86, step by step: docs/numerics.md (62) to (67)."""

from __future__ import annotations

from itertools import product
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Bounds = tuple[int, int]


class Operands(NamedTuple):
    """Two tensors of codes that broadcast, with the numbers that belong to them."""

    a: Array
    b: Array
    scale_a: Any
    zero_a: Any
    scale_b: Any
    zero_b: Any
    scale: Any
    zero: Any


class Quantizers(NamedTuple):
    """Scale and zero point of a layer's input and output."""

    scale_x: Any
    zero_x: Any
    scale_y: Any
    zero_y: Any


class PoolWindow(NamedTuple):
    """A pool's window over the spatial axes; pads in ONNX's order."""

    kernel_shape: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    output_shape: tuple[int, ...]
    count_padding: bool


def add(operands: Operands, bounds: Bounds) -> npt.NDArray[np.int32]:
    """Return QLinearAdd: ``rint(fma(a, r_a, fma(b, r_b, F)))``, (64)."""
    with np.errstate(all="ignore"):
        scale = np.float32(operands.scale)
        ratio_a, ratio_b = np.float32(operands.scale_a) / scale, np.float32(operands.scale_b) / scale
        zero_a, zero_b = np.float32(operands.zero_a), np.float32(operands.zero_b)
        moved = np.float32(zero_b * ratio_b)
        offset = np.float32(np.float32(operands.zero) - fused_multiply_add(ratio_a, zero_a, moved))
    total = fused_multiply_add(operands.a, ratio_a, fused_multiply_add(operands.b, ratio_b, offset))
    return _clamped(total, 0, bounds)


def multiply(operands: Operands, bounds: Bounds) -> npt.NDArray[np.int32]:
    """Return QLinearMul: ``rint(f32((a - z_a)(b - z_b)) * M32 + z)``, (65)."""
    with np.errstate(all="ignore"):
        multiplier = np.float32(np.float32(operands.scale_a) * np.float32(operands.scale_b)) / np.float32(
            operands.scale
        )
        left = operands.a.astype(np.int64) - np.int64(operands.zero_a)
        right = operands.b.astype(np.int64) - np.int64(operands.zero_b)
        scaled = (left * right).astype(np.float32) * multiplier + np.float32(operands.zero)
    return _clamped(scaled, 0, bounds)


def float_binary(function: Literal["Add", "Sub", "Mul"], operands: Operands, bounds: Bounds) -> npt.NDArray[np.int32]:
    """Return ``clamp(rint(f(s_a(a - z_a), s_b(b - z_b)) / s) + z)``, every step in float32, (63)."""
    a = _real(operands.a, operands.scale_a, operands.zero_a)
    b = _real(operands.b, operands.scale_b, operands.zero_b)
    with np.errstate(all="ignore"):
        match function:
            case "Add":
                value = a + b
            case "Sub":
                value = a - b
            case _:
                value = a * b
        return _clamped(value / np.float32(operands.scale), int(operands.zero), bounds)


def average_pool(codes: Array, quantizers: Quantizers, window: PoolWindow, bounds: Bounds) -> npt.NDArray[np.int32]:
    """Return QLinearAveragePool of (batch, channels, ...): the mean of dequantized taps in float32, (66)."""
    real = _real(codes, quantizers.scale_x, quantizers.zero_x)
    space, axes = codes.shape[2:], len(window.kernel_shape)
    shape = (*codes.shape[:2], *window.output_shape)
    total, taps = np.zeros(shape, dtype=np.float32), np.zeros(window.output_shape, dtype=np.int64)
    starts = [np.arange(window.output_shape[axis]) * window.strides[axis] - window.pads[axis] for axis in range(axes)]
    for tap in product(*(range(length) for length in window.kernel_shape)):
        places = [start + offset for start, offset in zip(starts, tap, strict=True)]
        inside = [(place >= 0) & (place < length) for place, length in zip(places, space, strict=True)]
        where: Any = np.ix_(*inside_indices(inside))
        chosen: Any = np.ix_(*(place[known] for place, known in zip(places, inside, strict=True)))
        with np.errstate(all="ignore"):
            total[:, :, *where] += real[:, :, *chosen]
        taps[where] += 1
    if window.count_padding:  # also where the window reaches beyond the padding
        taps[:] = np.prod(window.kernel_shape)
    with np.errstate(all="ignore"):
        mean = total / taps.astype(np.float32)
        scaled = mean / np.float32(quantizers.scale_y) + np.float32(quantizers.zero_y)
    return _clamped(scaled, 0, bounds)


def inside_indices(masks: list[npt.NDArray[np.bool_]]) -> list[npt.NDArray[np.intp]]:
    """Return the positions where each mask holds."""
    return [np.flatnonzero(mask) for mask in masks]


def global_average_pool(
    codes: Array, axes: tuple[int, ...], quantizers: Quantizers, bounds: Bounds
) -> npt.NDArray[np.int32]:
    """Return QLinearGlobalAveragePool: an integer sum, one float32 multiplication, (67)."""
    count = int(np.prod([codes.shape[axis] for axis in axes]))
    total = codes.sum(axis=axes, keepdims=True, dtype=np.int64) - count * np.int64(quantizers.zero_x)
    with np.errstate(all="ignore"):
        multiplier = np.float32(quantizers.scale_x) / np.float32(np.float32(quantizers.scale_y) * np.float32(count))
        return _clamped(total.astype(np.float32) * multiplier, int(quantizers.zero_y), bounds)


def dynamic_quantization(values: Array, part: Literal["codes", "scale", "zero_point"]) -> Array:
    """Return a result of DynamicQuantizeLinear, (62)."""
    real = values.astype(np.float32)
    low, high = np.minimum(real.min(), np.float32(0)), np.maximum(real.max(), np.float32(0))
    span = np.float32(high - low)
    scale = np.float32(1) if span == 0 else np.float32(span / np.float32(255))
    zero = np.int32(np.clip(np.rint(np.float32(np.float32(0) - low) / scale), 0, 255))
    if part == "scale":
        return np.asarray(scale, dtype=np.float32)
    if part == "zero_point":
        return np.asarray(zero, dtype=np.int32)
    with np.errstate(all="ignore"):
        return _clamped(real / scale, int(zero), (0, 255))


def fused_multiply_add(a: Any, b: Any, c: Any) -> Float32:
    """Return ``f32(a * b + c)`` with one rounding.

    Parameters
    ----------
    a, b, c : array or number
        Of float32 numbers; the product has at most 48 bits and is exact in float64.

    Notes
    -----
    The float64 sum s of product and c has an error e, which is exact, too (two-sum). Rounding s again is wrong only
    where s lies half-way between two float32 numbers; there the sign of e decides.
    """
    with np.errstate(all="ignore"):
        left = np.asarray(a, dtype=np.float64) * np.asarray(b, dtype=np.float64)
        right = np.asarray(c, dtype=np.float64)
        total = left + right
        back = total - left
        error = (left - (total - back)) + (right - back)
        rounded = total.astype(np.float32).astype(np.float64)
        beyond = total + (total - rounded)
        tie = (rounded != total) & (beyond == beyond.astype(np.float32))
        nudged = np.where(tie & (error != 0), np.nextafter(total, np.copysign(np.inf, error)), total)
        return np.asarray(nudged, dtype=np.float64).astype(np.float32)


def _real(codes: Array, scale: Any, zero: Any) -> Float32:
    with np.errstate(all="ignore"):
        return (codes.astype(np.int64) - np.int64(zero)).astype(np.float32) * np.float32(scale)


def _clamped(values: Array, zero: int, bounds: Bounds) -> npt.NDArray[np.int32]:
    """Round half to even, add a zero point and clamp; a NaN becomes the zero point."""
    rounded = np.rint(values).astype(np.float64) + zero
    return np.clip(np.where(np.isnan(rounded), zero, rounded), *bounds).astype(np.int32)
