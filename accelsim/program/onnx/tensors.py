"""Types, shapes and constants of a quantized ONNX model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from accelsim.errors import ModelError
from accelsim.formats import IntegerFormat
from accelsim.graph.limits import num_elements
from accelsim.graph.onnx_tensors import type_name
from accelsim.program.storage import PlainFormat, PlainTensor

Array = npt.NDArray[Any]

FLOAT = TensorProto.FLOAT
INT2, UINT2 = getattr(TensorProto, "INT2", 26), getattr(TensorProto, "UINT2", 25)  # since onnx 1.20

FORMATS: dict[int, IntegerFormat] = {
    TensorProto.INT8: IntegerFormat(8, True),
    TensorProto.UINT8: IntegerFormat(8, False),
    TensorProto.INT16: IntegerFormat(16, True),
    TensorProto.UINT16: IntegerFormat(16, False),
    TensorProto.INT4: IntegerFormat(4, True),
    TensorProto.UINT4: IntegerFormat(4, False),
    INT2: IntegerFormat(2, True),
    UINT2: IntegerFormat(2, False),
}
"""Types of codes."""

_PLAIN: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.BOOL: "bool",
}
_PACKED = {TensorProto.INT4: 4, TensorProto.UINT4: 4, INT2: 2, UINT2: 2}
_SIGNED_PACKED = (TensorProto.INT4, INT2)


@dataclass(frozen=True)
class TensorType:
    """The type and shape of a tensor.

    Parameters
    ----------
    type : int
        ONNX data type.
    shape : tuple of int
        Of one run of the model.
    """

    type: int
    shape: tuple[int, ...]

    @property
    def is_code(self) -> bool:
        """Whether it holds codes."""
        return self.type in FORMATS

    @property
    def plain(self) -> PlainTensor:
        """How it lies in memory where no quantizer is known."""
        if self.type in FORMATS:
            stored = FORMATS[self.type]
            return PlainTensor(PlainFormat(stored.dtype, stored.bits))
        dtype = np.dtype(_PLAIN[self.type])
        return PlainTensor(PlainFormat(dtype, 8 * dtype.itemsize))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Numpy type of its arrays outside of a program."""
        return self.plain.format.dtype


def check_type(data_type: int, what: str) -> int:
    """Return a data type that programs can hold; raise ModelError for others."""
    if data_type not in FORMATS and data_type not in _PLAIN:
        raise ModelError(
            f"{what} has the data type {type_name(data_type)}; integers of 2 to 16 bits, int32, int64, bool and "
            f"floating point are supported"
        )
    return data_type


def constant_array(tensor: TensorProto, what: str) -> Array:
    """Return the values of a stored tensor: int8 or uint8 for narrower codes.

    Parameters
    ----------
    tensor : TensorProto
        Initializer or attribute with its data inside.
    what : str
        What error messages call it.

    Raises
    ------
    ModelError
        When the type is not supported, or the data does not have the declared size.
    """
    data_type = check_type(tensor.data_type, what)
    if tensor.HasField("segment"):
        raise ModelError(f"{what} is stored in segments, which is not supported")
    count = num_elements(what, tensor.dims)
    shape = tuple(tensor.dims)
    if data_type in _PACKED:
        return _unpacked(tensor, data_type, count, what).reshape(shape)
    dtype = np.dtype(FORMATS[data_type].dtype if data_type in FORMATS else _PLAIN[data_type]).newbyteorder("<")
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != count * dtype.itemsize:
            raise _wrong_size(what, shape, f"{count * dtype.itemsize} bytes", len(tensor.raw_data))
        return np.frombuffer(tensor.raw_data, dtype=dtype).astype(dtype.newbyteorder("=")).reshape(shape)
    stored: Any = getattr(tensor, helper.tensor_dtype_to_field(data_type))
    if len(stored) != count:
        raise _wrong_size(what, shape, f"{count} values", len(stored))
    if data_type == TensorProto.FLOAT16:  # held as bit patterns
        return np.array(stored, dtype=np.int64).astype(np.uint16).view(np.float16).reshape(shape)
    values = np.array(stored, dtype=dtype if dtype.kind == "f" else np.int64)
    return values.astype(dtype.newbyteorder("=")).reshape(shape)


def _unpacked(tensor: TensorProto, data_type: int, count: int, what: str) -> Array:
    """Return codes of 2 or 4 bits, several of which lie in a byte, the first one lowest."""
    bits = _PACKED[data_type]
    num_bytes = -(-count * bits // 8)
    packed = np.frombuffer(tensor.raw_data, dtype=np.uint8) if tensor.HasField("raw_data") else tensor.int32_data
    if len(packed) != num_bytes:
        raise _wrong_size(what, tuple(tensor.dims), f"{num_bytes} bytes", len(packed))
    octets = np.array(packed, dtype=np.int64).astype(np.uint8)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = ((octets[:, np.newaxis] >> shifts) & np.uint8((1 << bits) - 1)).reshape(-1)[:count].astype(np.int8)
    if data_type in _SIGNED_PACKED:
        half = 1 << (bits - 1)
        return ((codes ^ half) - half).astype(np.int8)
    return codes.astype(np.uint8)


def _wrong_size(what: str, shape: tuple[int, ...], needed: str, held: int) -> ModelError:
    return ModelError(f"{what} has shape {shape}, which takes {needed}, but holds {held}")
