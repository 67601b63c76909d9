"""Tensors stored in an ONNX model: checked against their own declaration, then turned into arrays."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto

from accelsim.errors import ModelError
from accelsim.graph.limits import MAX_FILE_BYTES, num_elements

_DTYPES: dict[int, str] = {
    TensorProto.FLOAT: "<f4",
    TensorProto.INT64: "<i8",
    TensorProto.INT32: "<i4",
    TensorProto.BOOL: "?",
}

_BITS = {
    **{data_type: 8 * np.dtype(name).itemsize for data_type, name in _DTYPES.items()},
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.INT16: 16,
    TensorProto.UINT16: 16,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.FLOAT16: 16,
    TensorProto.DOUBLE: 64,
}
"""Width of the types that may lie in files of their own."""


def type_name(data_type: int) -> str:
    """Return the name of an ONNX data type, also of one that does not exist."""
    try:
        return str(TensorProto.DataType.Name(data_type)).lower()
    except ValueError:
        return f"number {data_type}"


def tensor_array(tensor: TensorProto, what: str) -> npt.NDArray[Any]:
    """Turn a stored tensor into an array.

    Parameters
    ----------
    tensor : TensorProto
        Initializer or attribute with its data inside.
    what : str
        What error messages call it.

    Returns
    -------
    array of float32, int64, int32 or bool
        Its values.

    Raises
    ------
    ModelError
        When the type is another one, or the data does not have the declared size.
    """
    if tensor.HasField("segment"):
        raise ModelError(f"{what} is stored in segments, which is not supported")
    count = num_elements(what, tensor.dims)
    dtype = _dtype(tensor, what)
    if tensor.HasField("raw_data"):
        if len(tensor.raw_data) != count * dtype.itemsize:
            raise ModelError(
                f"{what} has shape {tuple(tensor.dims)}, which takes {count * dtype.itemsize} bytes, "
                f"but holds {len(tensor.raw_data)}"
            )
        values = np.frombuffer(tensor.raw_data, dtype=dtype)
    else:
        stored: Any
        match tensor.data_type:
            case TensorProto.FLOAT:
                stored = tensor.float_data
            case TensorProto.INT64:
                stored = tensor.int64_data
            case _:
                stored = tensor.int32_data
        if len(stored) != count:
            raise ModelError(
                f"{what} has shape {tuple(tensor.dims)}, which takes {count} values, but holds {len(stored)}"
            )
        values = np.array(stored, dtype=dtype)
    return values.astype(dtype.newbyteorder("=")).reshape(tuple(tensor.dims))


def _dtype(tensor: TensorProto, what: str) -> np.dtype[Any]:
    """Return the numpy type of a stored tensor."""
    if tensor.data_type not in _DTYPES:
        raise ModelError(
            f"{what} has the data type {type_name(tensor.data_type)}; only float32 weights are supported, "
            "export the model in float32"
        )
    return np.dtype(_DTYPES[tensor.data_type])


def num_bytes(tensor: TensorProto, what: str) -> int:
    """Return how many bytes the data of a stored tensor takes; raise ModelError for a type without a known width."""
    if tensor.data_type not in _BITS:
        raise ModelError(f"{what} has the data type {type_name(tensor.data_type)}, which is not supported")
    return -(-num_elements(what, tensor.dims) * _BITS[tensor.data_type] // 8)


def stored_tensors(model: ModelProto) -> Iterable[TensorProto]:
    """Yield initializers and tensors in attributes of the top-level graph."""
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def embed_external_data(model: ModelProto, folder: Path | None, size: int) -> bool:
    """Replace references to other files by the data itself.

    Parameters
    ----------
    model : ModelProto
        Changed in place.
    folder : Path or None
        Folder of the model file; None for a model that did not come from a file.
    size : int
        Bytes of the model so far.

    Returns
    -------
    bool
        Whether there was anything to embed.

    Raises
    ------
    ModelError
        When a file lies outside the folder, is missing or too short, or the whole grows beyond protobuf's limit.
    """
    external = [tensor for tensor in stored_tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    lengths = []
    for tensor in external:
        what = f"constant {tensor.name!r}"
        if folder is None:
            raise ModelError(f"{what} is stored in another file; pass the path of the model instead of its bytes")
        lengths.append(num_bytes(tensor, what))
    # Added up before anything is read: many tensors may point to the same large file.
    if external and size + sum(lengths) > MAX_FILE_BYTES:
        raise ModelError(
            f"the model has {size + sum(lengths)} bytes with its external data; at most {MAX_FILE_BYTES} are supported"
        )
    for tensor, length in zip(external, lengths, strict=True):
        if folder is not None:
            data = _read_external(tensor, f"constant {tensor.name!r}", folder, length)
            del tensor.external_data[:]
            tensor.data_location = TensorProto.DEFAULT
            tensor.raw_data = data
    return bool(external)


def _read_external(tensor: TensorProto, what: str, folder: Path, length: int) -> bytes:
    """Read one tensor's bytes from its file, which must lie in the model's folder."""
    # Protobuf hands out text that is not UTF-8 as bytes.
    entries = {str(entry.key): str(entry.value) for entry in tensor.external_data}
    location = entries.get("location", "")
    path = _external_path(location, what, folder)
    offset = _whole_number(entries.get("offset", "0"), f"{what}: external data offset")
    declared = _whole_number(entries.get("length", str(length)), f"{what}: external data length")
    if declared != length:
        raise ModelError(
            f"{what} has shape {tuple(tensor.dims)}, which takes {length} bytes, but declares {declared} in "
            f"{location!r}"
        )
    try:
        available = path.stat().st_size
        if offset + length > available:
            raise ModelError(
                f"{what} wants bytes {offset}..{offset + length} of {location!r}, which has {available}; "
                "the file is truncated or not the one that belongs to the model"
            )
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
    except OSError as error:
        raise ModelError(f"{what}: external data file {location!r} cannot be read: {error.strerror}") from None
    if len(data) != length:
        raise ModelError(f"{what}: external data file {location!r} ended after {len(data)} of {length} bytes")
    return data


def _external_path(location: str, what: str, folder: Path) -> Path:
    """Resolve the location of external data, refusing whatever leaves the folder."""
    outside = f"{what} is stored in {location!r}, outside the model's folder, which is refused"
    windows = PureWindowsPath(location)
    if not location or "\0" in location:
        raise ModelError(f"{what} names no valid file for its external data: {location!r}")
    if PurePosixPath(location).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise ModelError(outside)
    try:
        home = folder.resolve(strict=True)
        path = (folder / location).resolve(strict=True)
    except (OSError, RuntimeError):
        raise ModelError(f"{what}: external data file {location!r} is missing from the model's folder") from None
    if not path.is_relative_to(home):
        raise ModelError(outside)
    if not path.is_file():
        raise ModelError(f"{what}: external data {location!r} is not a regular file")
    return path


def _whole_number(text: str, what: str) -> int:
    """Parse a non-negative decimal number."""
    # The length keeps Python's own limit on digits, and its error, out of the way.
    if not (text.isascii() and text.isdigit()) or len(text) > 20:
        raise ModelError(f"{what} must be a whole number, got {text[:40]!r}")
    return int(text)
