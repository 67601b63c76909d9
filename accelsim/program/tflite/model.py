"""What a .tflite file says, as plain objects: docs/numerics.md section 7."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import ModelError
from accelsim.formats import IntegerFormat, QuantizationParameters

FORMATS: Mapping[str, IntegerFormat] = {
    "INT4": IntegerFormat(4, True),
    "INT8": IntegerFormat(8, True),
    "UINT8": IntegerFormat(8, False),
    "INT16": IntegerFormat(16, True),
}
"""Types of tensors that are stored integers."""

ABSENT = -1
"""Index of an input that an operator does not have."""


@dataclass(frozen=True, eq=False)
class TfliteTensor:
    """One tensor.

    Parameters
    ----------
    name : str
        As in the file; made unique, and made up where the file has none.
    dtype : str
        The schema's name of the type: ``INT8``.
    shape : tuple of int
        All axes; a length that the file leaves open is 1.
    scale : float32 array, shape (channels,)
        Empty for a tensor that is not quantized. The file's channel axis is not kept: kernels take several scales for
        those of their output channels, and old files name another axis.
    zero_point : int64 array, shape (channels,)
        Likewise.
    data : array or None
        A constant's values in ``shape``, 4-bit ones unpacked; None for a tensor that is computed.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int64]
    data: npt.NDArray[Any] | None

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def where(self) -> str:
        """How messages call it."""
        return f"tensor {self.name!r}"

    def parameters(self) -> QuantizationParameters:
        """Return the quantizer of a stored tensor with one scale.

        Raises
        ------
        ModelError
            When the type is no stored integer, or the scale is missing, not positive, or one of several.
        """
        if self.dtype not in FORMATS:
            raise ModelError(f"{self.where}: type {self.dtype} is not computed in integers; use INT8 or INT16")
        if self.scale.size != 1:
            raise ModelError(f"{self.where}: must have one scale and zero point, got {self.scale.size}")
        return QuantizationParameters(self.scale[0], self.zero_point[0], FORMATS[self.dtype])

    def integers(self) -> tuple[int, ...]:
        """Return the values of a constant of indices.

        Raises
        ------
        ModelError
            When the tensor is computed, or has another type.
        """
        if self.data is None or self.dtype not in ("INT32", "INT64") or self.size > 1 << 16:
            raise ModelError(f"{self.where}: must be a constant of INT32 or INT64 indices, got {self.dtype}")
        return tuple(int(value) for value in self.data.reshape(-1))


@dataclass(frozen=True, eq=False)
class TfliteOperator:
    """One operator.

    Parameters
    ----------
    name : str
        Unique: that of its first output up to a semicolon.
    op : str
        The schema's name: ``CONV_2D``.
    inputs, outputs : tuple of int
        Indices of tensors; `ABSENT` for an input that is left out.
    options : mapping of str to int, float or bool
        The fields of its options table; the schema's defaults where the file has none.
    """

    name: str
    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]

    @property
    def where(self) -> str:
        """How messages call it."""
        return f"operator {self.name!r} ({self.op})"


@dataclass(frozen=True, eq=False)
class TfliteModel:
    """A whole file: its first subgraph.

    Parameters
    ----------
    name : str
        Of the file, or ``tflite``.
    tensors, operators : tuple
        In the file's order, which is the order of execution.
    inputs, outputs : tuple of int
        Indices of tensors.
    """

    name: str
    tensors: tuple[TfliteTensor, ...]
    operators: tuple[TfliteOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
