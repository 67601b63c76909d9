"""How a tensor of a program lies in memory: on a quantizer's grid, or as plain numbers of a type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from accelsim.errors import DataError
from accelsim.formats import QuantizationParameters


@dataclass(frozen=True)
class PlainFormat:
    """A type without a quantizer: accumulators, codes whose scale the model does not say, float32.

    Parameters
    ----------
    dtype : numpy dtype
        Of arrays that leave the program.
    bits : int
        Width in memory; less than the dtype's for 4-bit codes.
    """

    dtype: np.dtype[Any]
    bits: int

    @property
    def is_float(self) -> bool:
        """Whether it holds real numbers."""
        return self.dtype.kind == "f"

    @property
    def minimum(self) -> int:
        """Least integer of an integer type."""
        return 0 if self.dtype.kind == "u" else -(1 << (self.bits - 1))

    @property
    def maximum(self) -> int:
        """Greatest integer of an integer type."""
        return (1 << (self.bits if self.dtype.kind == "u" else self.bits - 1)) - 1

    def __str__(self) -> str:
        return f"{self.dtype.name.rstrip('0123456789')}{self.bits}"


@dataclass(frozen=True)
class PlainTensor:
    """A stored tensor without a quantizer, with the interface of `QuantizationParameters`.

    Parameters
    ----------
    format : PlainFormat
        Its type.
    """

    format: PlainFormat
    zero_point: ClassVar[int] = 0

    def quantize(self, values: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return real numbers as they are stored: float32 unchanged.

        Raises
        ------
        DataError
            When the tensor holds integers, for which the program knows no scale.
        """
        if not self.format.is_float:
            raise DataError(f"it is stored as {self.format} without a scale: pass integers, got real numbers")
        return np.asarray(values, dtype=self.format.dtype)

    def dequantize(self, codes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return the numbers as float32."""
        return np.asarray(codes).astype(np.float32)


StoredTensor = QuantizationParameters | PlainTensor
"""What a program says of a tensor."""
