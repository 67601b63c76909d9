"""From a path or bytes to a parsed ONNX model that stands alone."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from onnx import ModelProto

from accelsim.errors import ModelError
from accelsim.graph.limits import MAX_FILE_BYTES
from accelsim.graph.onnx_tensors import embed_external_data

ModelSource = str | PathLike[str] | bytes | ModelProto
"""What `accelsim.graph.reader.load_onnx` takes."""


def read_model(model: ModelSource) -> tuple[ModelProto, bytes, str]:
    """Read and parse a model, with external data embedded.

    Parameters
    ----------
    model : path, bytes or ModelProto
        Where the model is. External data is only looked for beside a path.

    Returns
    -------
    model : ModelProto
        The parsed model, not shared with the caller.
    source : bytes
        The same, serialized; the file's own bytes where it has no external data.
    label : str
        A name for it: the file's name without suffix, or ``model``.

    Raises
    ------
    ModelError
        When the file is missing, too large, or not an ONNX model.
    """
    folder, label = None, "model"
    match model:
        case ModelProto():
            try:
                source = model.SerializeToString()
            except (EncodeError, ValueError) as error:
                raise ModelError(f"the model cannot be serialized: {_one_line(error)}") from None
            where = "the model"
        case bytes() | bytearray() | memoryview():
            source, where = bytes(model), "the bytes"
        case str() | os.PathLike():
            path = Path(model)
            source, where = _read_file(path), f"model file {str(path)!r}"
            folder, label = path.parent, path.stem
        case _:
            raise ModelError(f"a model must be a path, bytes or an onnx.ModelProto, got {type(model).__name__}")
    parsed = _parse(source, where)
    if embed_external_data(parsed, folder, len(source)):
        source = parsed.SerializeToString()
    return parsed, source, label


def _read_file(path: Path) -> bytes:
    """Read a whole file of reasonable size."""
    try:
        if not path.exists():
            raise ModelError(f"model file {str(path)!r} does not exist")
        if not path.is_file():
            raise ModelError(f"model file {str(path)!r} is not a regular file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ModelError(
                f"model file {str(path)!r} has {path.stat().st_size} bytes; at most {MAX_FILE_BYTES} are supported"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"model file {str(path)!r} cannot be read: {_one_line(error)}") from None


def _parse(source: bytes, where: str) -> ModelProto:
    """Parse the bytes and check that they hold a model at all."""
    if not source:
        raise ModelError(f"{where} is empty; an ONNX model was expected")
    try:
        model: ModelProto = ModelProto.FromString(source)
    except (DecodeError, RuntimeError) as error:
        raise ModelError(f"{where} is not an ONNX model, or is truncated: {_one_line(error)}") from None
    if not model.HasField("graph"):
        raise ModelError(f"{where} is not an ONNX model: it holds no graph")
    return model


def _one_line(error: Exception) -> str:
    """Squeeze an error's text to one line."""
    return " ".join(str(error).split())
