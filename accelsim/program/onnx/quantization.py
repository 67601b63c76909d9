"""QuantizeLinear and DequantizeLinear: per tensor, per axis, blocked. docs/numerics.md (60) and (61)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import ModelError
from accelsim.formats import IntegerFormat

if TYPE_CHECKING:
    from accelsim.program.onnx.structure import Step
    from accelsim.program.onnx.tensors import TensorType


Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """How scales and zero points lie over a tensor.

    Parameters
    ----------
    axis : int or None
        The axis along which they differ; None for one scale.
    block : int
        Elements along the axis that share a scale; 0 for one scale per index of the axis.
    """

    axis: int | None = None
    block: int = 0

    def spread(self, values: Array, shape: tuple[int, ...]) -> Array:
        """Return scales or zero points so that they broadcast against a tensor of some shape."""
        if self.axis is None:
            return values.reshape(())
        if self.block:
            return np.repeat(values, self.block, axis=self.axis)[tuple(slice(0, length) for length in shape)]
        return values.reshape((-1,) + (1,) * (len(shape) - self.axis - 1))


def layout_of(step: Step, types: Mapping[str, TensorType]) -> Layout:
    """Return how the scales of a QuantizeLinear or DequantizeLinear node lie.

    Raises
    ------
    ModelError
        When scale and zero point do not fit the tensor.
    """
    shape = types[step.inputs[0]].shape
    scale = types[step.inputs[1]].shape
    zero = step.input(2)
    if zero is not None and types[zero].shape != scale and np.prod(types[zero].shape) != np.prod(scale):
        raise ModelError(f"{step.label}: scale and zero point must have one shape, got {scale} and {types[zero].shape}")
    block = step.attribute("block_size", 0)
    axis = step.attribute("axis", 1)
    if block:
        axis = _axis(step, axis, len(shape))
        fits = len(scale) == len(shape) and all(
            length == other for index, (length, other) in enumerate(zip(shape, scale, strict=True)) if index != axis
        )
        if block < 0 or not fits or scale[axis] != -(-shape[axis] // block):
            raise ModelError(f"{step.label}: scales of shape {scale} in blocks of {block} do not fit shape {shape}")
        return Layout(axis, block)
    if np.prod(scale) == 1 and len(scale) <= 1:
        return Layout()
    axis = _axis(step, axis, len(shape))
    if len(scale) != 1 or scale[0] != shape[axis]:
        raise ModelError(f"{step.label}: scales of shape {scale} do not fit axis {axis} of shape {shape}")
    return Layout(axis)


def _axis(step: Step, axis: Any, rank: int) -> int:
    if not isinstance(axis, int) or not -rank <= axis < rank:
        raise ModelError(f"{step.label}: axis must be one of the {rank} axes, got {axis!r}")
    return axis % rank


def quantize(values: Array, scale: Array, zero_point: Array, layout: Layout, stored: IntegerFormat) -> npt.NDArray[Any]:
    """Return codes: ``clamp(round_half_even(x / s) + z)``, the division in float32.

    Parameters
    ----------
    values : float32 array
        Real numbers; a NaN becomes the zero point.
    scale, zero_point : arrays
        As the model has them.
    layout : Layout
        How they lie.
    stored : IntegerFormat
        Of the codes.

    Returns
    -------
    int32 array, same shape
        Codes.
    """
    real = values.astype(np.float32)
    steps = layout.spread(scale.astype(np.float32), real.shape)
    zeros = layout.spread(zero_point.astype(np.float64), real.shape)
    with np.errstate(all="ignore"):
        rounded = np.rint(real / steps).astype(np.float64) + zeros
    codes = np.clip(np.where(np.isnan(rounded), zeros, rounded), stored.minimum, stored.maximum)
    return codes.astype(np.int32)


def dequantize(codes: Array, scale: Array, zero_point: Array, layout: Layout) -> npt.NDArray[np.float32]:
    """Return real numbers: ``f32(q - z) * s`` in float32; parameters as in `quantize`."""
    steps = layout.spread(scale.astype(np.float32), codes.shape)
    zeros = layout.spread(zero_point.astype(np.int64), codes.shape)
    with np.errstate(all="ignore"):
        real: npt.NDArray[np.float32] = (codes.astype(np.int64) - zeros).astype(np.float32) * steps
    return real
