"""A quantized graph in one file: a zip of arrays (so numpy reads it as .npz too), JSON and the original model.

Nothing in the file is executed or unpickled when it is read. All members are stored without compression, and the
reader insists on it: a file can then not unfold into more memory than its own size.

==================  ==================================================================================================
member              content
==================  ==================================================================================================
``metadata.json``   format version, both graphs, quantizers, log; arrays and sources by number
``array_<i>.npy``   a constant or integer weights; equal arrays are stored once
``source_<i>.onnx`` a model as it came
==================  ==================================================================================================
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError, DataError
from accelsim.files import write_whole
from accelsim.formats import IntegerFormat, QuantizationParameters
from accelsim.graph.graph import AttributeValue, Graph, Node, Tensor
from accelsim.graph.operators import OPERATORS
from accelsim.graph.quantized import QuantizedGraph, QuantizedWeights

FORMAT = "accelsim quantized graph"
VERSION = 2

_METADATA = "metadata.json"
_DTYPES = ("float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "int64")
# Zip members carry a date; a fixed one makes equal graphs equal files.
_DATE = (1980, 1, 1, 0, 0, 0)


def save_quantized(quantized: QuantizedGraph, path: str | PathLike[str]) -> None:
    """Write a quantized graph to one file, which appears whole or not at all.

    Parameters
    ----------
    quantized : QuantizedGraph
        What to save.
    path : path
        The file to make or replace; ``.npz`` is the usual suffix.

    Raises
    ------
    DataError
        When the file cannot be written.
    """
    write_whole(path, quantized_bytes(quantized))


def quantized_bytes(quantized: QuantizedGraph) -> bytes:
    """Return what `save_quantized` writes; equal graphs give equal bytes."""
    members = _Members()
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "graph": graph_record(quantized.graph, members),
        "original": graph_record(quantized.original, members),
        "activations": {name: parameters_record(value) for name, value in quantized.activations.items()},
        "weights": {
            name: {"integers": members.array(value.integers), "parameters": parameters_record(value.parameters)}
            for name, value in quantized.weights.items()
        },
        "log": list(quantized.log),
        "biases": {name: members.array(value) for name, value in quantized.biases.items()},
    }
    members.content[_METADATA] = json.dumps(metadata, allow_nan=False).encode("utf-8")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.content.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), content)
    return buffer.getvalue()


def load_quantized(path: str | PathLike[str]) -> QuantizedGraph:
    """Read a quantized graph that `save_quantized` wrote.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    QuantizedGraph
        Equal to the one that was saved.

    Raises
    ------
    DataError
        When the file is missing, damaged, of another kind, or of a newer version.
    """
    where = f"file {str(Path(path))!r}"
    try:
        # The whole file is read once, so that nothing else can change it between a check and its use.
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{where} cannot be read: {reason}") from None
    return quantized_from_bytes(data, where)


def quantized_from_bytes(data: bytes, where: str) -> QuantizedGraph:
    """Return the graph that `quantized_bytes` packed; errors, which name ``where``, are those of `load_quantized`."""
    content = _read_members(data, where)
    try:
        metadata = json.loads(content[_METADATA])
        if metadata["format"] != FORMAT:
            raise DataError(f"{where} is not a quantized graph of accelsim")
        if metadata["version"] != VERSION:
            raise DataError(
                f"{where} has format version {metadata['version']!r}, this accelsim reads {VERSION}; quantize again"
            )
        return _quantized(metadata, _Contents(content))
    except DataError:
        raise
    except AccelsimError as error:
        raise DataError(f"{where} does not hold a valid quantized graph: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise DataError(f"{where} is damaged: {type(error).__name__} {' '.join(str(error).split())[:200]}") from None


class ArrayStore(Protocol):
    """Where a description puts its arrays."""

    def array(self, value: npt.NDArray[Any]) -> str:
        """Add an array; return its name."""

    def source(self, value: bytes | None) -> str | None:
        """Add a model; return its name."""


class ArraySource(Protocol):
    """Where a description has its arrays."""

    def array(self, name: str) -> npt.NDArray[Any]:
        """Return an array."""

    def source(self, name: str | None) -> bytes | None:
        """Return a model."""


class _Members:
    """Members of the file to be, each different content once."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self._names: dict[bytes, str] = {}

    def array(self, value: npt.NDArray[Any]) -> str:
        """Add an array; return the member's name."""
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.asarray(value), allow_pickle=False)
        return self._add("array_{}.npy", buffer.getvalue())

    def source(self, value: bytes | None) -> str | None:
        """Add a model; return the member's name."""
        return None if value is None else self._add("source_{}.onnx", value)

    def _add(self, pattern: str, content: bytes) -> str:
        key = hashlib.sha256(pattern.encode() + content).digest()
        if key not in self._names:
            self._names[key] = pattern.format(len(self._names))
            self.content[self._names[key]] = content
        return self._names[key]


def graph_record(graph: Graph, members: ArrayStore) -> dict[str, Any]:
    """Describe a graph in JSON's types."""
    return {
        "name": graph.name,
        "opset": graph.opset,
        "inputs": [{"name": tensor.name, "shape": list(tensor.shape)} for tensor in graph.inputs],
        "outputs": list(graph.outputs),
        "nodes": [
            {
                "name": node.name,
                "op": node.op,
                "inputs": list(node.inputs),
                "output": node.output,
                "attributes": {key: _attribute_record(value) for key, value in node.attributes.items()},
            }
            for node in graph.nodes
        ],
        "constants": {name: members.array(value) for name, value in graph.constants.items()},
        "shapes": {name: list(shape) for name, shape in graph.shapes.items()},
        "source": members.source(graph.source),
        "batch_size": graph.batch_size,
    }


def _attribute_record(value: AttributeValue) -> int | list[int] | dict[str, str]:
    """Describe an attribute; floats in hexadecimal, which is exact and knows infinity."""
    if isinstance(value, tuple):
        return [int(item) for item in value]
    return {"float": float(value).hex()} if isinstance(value, float) else int(value)


def parameters_record(parameters: QuantizationParameters) -> dict[str, Any]:
    """Describe a quantizer in JSON's types."""
    return {
        "bits": parameters.format.bits,
        "signed": parameters.format.signed,
        "axis": parameters.axis,
        "scale": [float(value).hex() for value in parameters.scale.reshape(-1)],
        "zero_point": [int(value) for value in parameters.zero_point.reshape(-1)],
    }


def _read_members(data: bytes, where: str) -> Mapping[str, bytes]:
    """Return all members of a zip file, none of them compressed."""
    foreign = DataError(f"{where} is not a quantized graph of accelsim, or is damaged")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            names = [info.filename for info in infos]
            # Stored members cannot be larger than the file, unless several share the same bytes of it.
            if (
                _METADATA not in names
                or len(set(names)) != len(names)
                or any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 for info in infos)
                or sum(info.file_size for info in infos) > len(data)
            ):
                raise foreign
            return {info.filename: archive.read(info) for info in infos}
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, KeyError, NotImplementedError) as error:
        # ValueError covers the DataError raised just above.
        raise (error if error is foreign else foreign) from None


class _Contents:
    """Members of a file that was read."""

    def __init__(self, content: Mapping[str, bytes]) -> None:
        self._content = content

    def array(self, name: str) -> npt.NDArray[Any]:
        """Return an array, checking its declared size against the data before anything is allocated."""
        data = self._content[name]
        stream = io.BytesIO(data)
        if np.lib.format.read_magic(stream) != (1, 0):
            raise DataError(f"array {name!r} has an unknown header")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        if dtype.name not in _DTYPES or not dtype.isnative or fortran or any(length < 0 for length in shape):
            raise DataError(f"array {name!r} has an unsupported layout: {dtype}{shape}")
        count = 1
        for length in shape:
            count *= length
        if count * dtype.itemsize != len(data) - stream.tell():
            raise DataError(f"array {name!r} of shape {shape} does not have the size that it declares")
        return np.frombuffer(data, dtype=dtype, offset=stream.tell()).reshape(shape)

    def source(self, name: str | None) -> bytes | None:
        """Return a model."""
        return None if name is None else self._content[name]


def _quantized(metadata: Any, contents: _Contents) -> QuantizedGraph:
    """Build the quantized graph; its own checks are the last ones."""
    return QuantizedGraph(
        graph=graph_of(metadata["graph"], contents),
        activations={_text(name): parameters_of(record) for name, record in metadata["activations"].items()},
        weights={
            _text(name): QuantizedWeights(contents.array(record["integers"]), parameters_of(record["parameters"]))
            for name, record in metadata["weights"].items()
        },
        original=graph_of(metadata["original"], contents),
        log=tuple(_text(line) for line in metadata["log"]),
        biases={name: contents.array(member) for name, member in metadata["biases"].items()},
    )


def graph_of(record: Any, contents: ArraySource) -> Graph:
    """Build a graph from its description."""
    return Graph(
        name=_text(record["name"]),
        opset=int(record["opset"]),
        inputs=tuple(Tensor(_text(item["name"]), _shape(item["shape"])) for item in record["inputs"]),
        outputs=tuple(_text(name) for name in record["outputs"]),
        nodes=tuple(_node(item) for item in record["nodes"]),
        constants={name: contents.array(member) for name, member in record["constants"].items()},
        shapes={name: _shape(shape) for name, shape in record["shapes"].items()},
        source=contents.source(record["source"]),
        batch_size=None if record["batch_size"] is None else int(record["batch_size"]),
    )


def _node(record: Any) -> Node:
    """Build a node from its description; its operator must be one of a Graph's, with all its attributes."""
    op = _text(record["op"])
    attributes = {key: _attribute(value) for key, value in record["attributes"].items()}
    if op not in OPERATORS or set(attributes) != set(OPERATORS[op].attributes):
        raise DataError(f"the file holds an unknown operator {op!r} with the attributes {sorted(attributes)}")
    inputs = tuple(_text(name) for name in record["inputs"])
    return Node(_text(record["name"]), op, inputs, _text(record["output"]), attributes)


def _attribute(value: Any) -> AttributeValue:
    """Return an attribute from its description."""
    if isinstance(value, dict):
        return float.fromhex(value["float"])
    return tuple(int(item) for item in value) if isinstance(value, list) else int(value)


def parameters_of(record: Any) -> QuantizationParameters:
    """Build a quantizer from its description."""
    shape = () if record["axis"] is None else (-1,)
    return QuantizationParameters(
        np.array([float.fromhex(value) for value in record["scale"]], dtype=np.float32).reshape(shape),
        np.array(record["zero_point"], dtype=np.int64).reshape(shape),
        IntegerFormat(record["bits"], bool(record["signed"])),
        record["axis"],
    )


def _shape(record: Any) -> tuple[int | None, ...]:
    """Return a shape from its description."""
    return tuple(None if length is None else int(length) for length in record)


def _text(value: Any) -> str:
    """Return a string, refusing anything else in its place."""
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {value!r}")
    return value
