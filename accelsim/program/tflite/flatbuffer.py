"""Read a .tflite flatbuffer. Nothing in the file is believed: every length, offset, index and code is checked."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import tflite

from accelsim.errors import ModelError
from accelsim.program.tflite.model import ABSENT, TfliteModel, TfliteOperator, TfliteTensor

MAX_FILE_BYTES = 128 << 20
"""Largest file that is read."""

MAX_TENSOR_ELEMENTS = 1 << 26
"""Largest tensor, and most elements of all computed tensors together."""

_MOST_AXES = 8
_MOST_ENTRIES = 1 << 16
"""Tensors, operators, buffers or operator codes of a file."""

_TYPES: Mapping[int, str] = {value: name for name, value in vars(tflite.TensorType).items() if name.isupper()}
_OPS: Mapping[int, str] = {value: name for name, value in vars(tflite.BuiltinOperator).items() if name.isupper()}
_PLAIN: Mapping[str, np.dtype[Any]] = {
    "FLOAT32": np.dtype("<f4"),
    "FLOAT64": np.dtype("<f8"),
    "INT8": np.dtype("<i1"),
    "UINT8": np.dtype("<u1"),
    "BOOL": np.dtype("<u1"),
    "INT16": np.dtype("<i2"),
    "UINT16": np.dtype("<u2"),
    "INT32": np.dtype("<i4"),
    "UINT32": np.dtype("<u4"),
    "INT64": np.dtype("<i8"),
    "UINT64": np.dtype("<u8"),
}

_WINDOW = ("Padding", "StrideW", "StrideH", "FusedActivationFunction")
_OPTIONS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "ADD": ("AddOptions", ("FusedActivationFunction", "PotScaleInt16")),
    "SUB": ("SubOptions", ("FusedActivationFunction", "PotScaleInt16")),
    "MUL": ("MulOptions", ("FusedActivationFunction",)),
    "CONV_2D": ("Conv2DOptions", (*_WINDOW, "DilationWFactor", "DilationHFactor", "QuantizedBiasType")),
    "DEPTHWISE_CONV_2D": (
        "DepthwiseConv2DOptions",
        (*_WINDOW, "DepthMultiplier", "DilationWFactor", "DilationHFactor"),
    ),
    "AVERAGE_POOL_2D": ("Pool2DOptions", (*_WINDOW, "FilterWidth", "FilterHeight")),
    "MAX_POOL_2D": ("Pool2DOptions", (*_WINDOW, "FilterWidth", "FilterHeight")),
    "FULLY_CONNECTED": (
        "FullyConnectedOptions",
        ("FusedActivationFunction", "WeightsFormat", "KeepNumDims", "QuantizedBiasType"),
    ),
    "CONCATENATION": ("ConcatenationOptions", ("Axis", "FusedActivationFunction")),
    "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
    "MEAN": ("ReducerOptions", ("KeepDims",)),
    "LEAKY_RELU": ("LeakyReluOptions", ("Alpha",)),
    "PACK": ("PackOptions", ("ValuesCount", "Axis")),
    "STRIDED_SLICE": (
        "StridedSliceOptions",
        ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask", "Offset"),
    ),
}
"""The options table of each operator that has one, and the fields that are read."""


def parse(data: bytes, name: str) -> TfliteModel:
    """Read a model.

    Parameters
    ----------
    data : bytes
        The file.
    name : str
        Of the model, for messages.

    Returns
    -------
    TfliteModel
        Indices, shapes and the sizes of constants fit each other.

    Raises
    ------
    ModelError
        When the bytes are not a TFLite model, or one that is damaged or too large.
    """
    if len(data) > MAX_FILE_BYTES:
        raise ModelError(f"model {name!r} has {len(data):,} bytes, at most {MAX_FILE_BYTES:,} are read")
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise ModelError(f"model {name!r} is not a TFLite model: it must have the identifier 'TFL3' at byte 4")
    try:
        return _Reader(data, name).model()
    except ModelError:
        raise
    # What the schema's accessors raise where an offset or a length points outside, or nowhere.
    except (struct.error, ValueError, TypeError, IndexError, AssertionError, OverflowError, KeyError) as problem:
        reason = f"{type(problem).__name__} {' '.join(str(problem).split())}".strip()
        raise ModelError(f"model {name!r} is damaged, its flatbuffer cannot be followed: {reason[:160]}") from None


class _Reader:
    """One pass over a file.

    Several tables of a flatbuffer may point to the same bytes, so a small file can unfold to a huge model. What is read
    is charged to a budget that a file without such tricks cannot exceed.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name = data, name
        self.budget = 16 * len(data) + (1 << 16)

    def model(self) -> TfliteModel:
        """Read the first subgraph."""
        model = tflite.Model.GetRootAs(self.data, 0)
        count = self._length("operator codes", model.OperatorCodesLength())
        codes = [self._code(model.OperatorCodes(index)) for index in range(count)]
        if self._length("subgraphs", model.SubgraphsLength()) == 0:
            raise ModelError(f"model {self.name!r} has no subgraph")
        graph = model.Subgraphs(0)
        self._length("buffers", model.BuffersLength())
        count = self._length("tensors", graph.TensorsLength())
        taken: set[str] = set()
        tensors = tuple(self._tensor(model, graph.Tensors(index), index, taken) for index in range(count))
        if sum(tensor.size for tensor in tensors if tensor.data is None) > MAX_TENSOR_ELEMENTS:
            raise ModelError(
                f"model {self.name!r}: its tensors have more than {MAX_TENSOR_ELEMENTS:,} elements together"
            )
        count = self._length("operators", graph.OperatorsLength())
        names: set[str] = set()
        operators = tuple(self._operator(graph.Operators(index), codes, tensors, names) for index in range(count))
        ends = [
            self._indices(vector(), missing(), len(tensors), f"model {self.name!r}: its {what}")
            for what, vector, missing in (
                ("inputs", graph.InputsAsNumpy, graph.InputsIsNone),
                ("outputs", graph.OutputsAsNumpy, graph.OutputsIsNone),
            )
        ]
        if not ends[0] or not ends[1] or ABSENT in (*ends[0], *ends[1]):
            raise ModelError(f"model {self.name!r} must have at least one input and one output")
        return TfliteModel(self.name, tensors, operators, *ends)

    def _length(self, what: str, length: int) -> int:
        """Check the number of tables in a vector."""
        if length > _MOST_ENTRIES or 4 * length > len(self.data):
            raise ModelError(f"model {self.name!r} is damaged: it claims {length:,} {what}")
        self._charge(4 * length)
        return length

    def _charge(self, num_bytes: int) -> None:
        self.budget -= num_bytes
        if self.budget < 0:
            raise ModelError(f"model {self.name!r} is damaged: its tables unfold to far more than the file holds")

    def _vector(self, values: Any, missing: bool) -> npt.NDArray[Any]:
        """Return a vector of numbers, empty where it is missing."""
        if missing or not isinstance(values, np.ndarray):
            return np.empty(0, dtype=np.int64)
        self._charge(values.nbytes)
        return values

    def _indices(self, values: Any, missing: bool, count: int, where: str) -> tuple[int, ...]:
        """Return indices of tensors."""
        indices = self._vector(values, missing)
        if indices.size and (indices.min() < ABSENT or indices.max() >= count):
            raise ModelError(f"{where} must be tensors 0..{count - 1}, got {indices.min()}..{indices.max()}")
        return tuple(indices.tolist())

    def _text(self, read: Callable[[], Any]) -> str:
        """Return a string of the file."""
        text = read()
        if not isinstance(text, bytes):
            return ""
        self._charge(len(text))
        name: str = text[:512].decode("utf-8", errors="replace")
        return name

    def _code(self, code: Any) -> str:
        """Return the name of an operator; old files keep it in the narrow, deprecated field."""
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if number == tflite.BuiltinOperator.CUSTOM:
            return f"CUSTOM {self._text(code.CustomCode)!r}"
        return _OPS.get(number, f"builtin {number}")

    def _tensor(self, model: Any, tensor: Any, index: int, taken: set[str]) -> TfliteTensor:
        """Read one tensor with its constant."""
        name = _unique(self._text(tensor.Name) or f"tensor_{index}", taken)
        where = f"model {self.name!r}, tensor {name!r}"
        lengths = self._vector(tensor.ShapeAsNumpy(), tensor.ShapeIsNone())
        shape = tuple(int(length) for length in lengths[: _MOST_AXES + 1])
        if len(shape) > _MOST_AXES or min(shape, default=1) < 1 or prod(shape) > MAX_TENSOR_ELEMENTS:
            raise ModelError(
                f"{where}: its shape must have at most {_MOST_AXES} axes of at least 1 and {MAX_TENSOR_ELEMENTS:,} "
                f"elements, got {shape}"
            )
        dtype = _TYPES.get(tensor.Type(), f"type {tensor.Type()}")
        if tensor.Sparsity() is not None:
            raise ModelError(f"{where} is sparse; convert the model with dense tensors")
        scale, zero_point = self._quantization(tensor.Quantization(), where)
        data = self._constant(model, tensor.Buffer(), dtype, shape, where)
        if data is not None and tensor.IsVariable():
            raise ModelError(f"{where} is a variable; models with state are not supported")
        return TfliteTensor(name, dtype, shape, scale, zero_point, data)

    def _quantization(self, table: Any, where: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Read scales and zero points."""
        nothing = np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
        if table is None or table.ScaleLength() == 0:
            return nothing
        scale = self._vector(table.ScaleAsNumpy(), table.ScaleIsNone()).astype(np.float32)
        zero_point = self._vector(table.ZeroPointAsNumpy(), table.ZeroPointIsNone()).astype(np.int64)
        if zero_point.size == 0:
            zero_point = np.zeros(scale.size, dtype=np.int64)
        if zero_point.size == 1:
            zero_point = np.repeat(zero_point, scale.size)
        if zero_point.size != scale.size:
            raise ModelError(f"{where}: {scale.size} scales and {zero_point.size} zero points; must be as many")
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise ModelError(f"{where}: scales must be positive numbers, got {scale.min()}..{scale.max()}")
        return scale, zero_point

    def _constant(
        self, model: Any, index: int, dtype: str, shape: tuple[int, ...], where: str
    ) -> npt.NDArray[Any] | None:
        """Return a constant's values, a view of the file but for 4-bit ones; None where the buffer is empty."""
        if index >= model.BuffersLength():
            raise ModelError(f"{where}: buffer {index} does not exist")
        buffer = model.Buffers(index)
        if buffer.Offset() > 1 or buffer.Size() > 1:
            raise ModelError(f"{where}: its buffer lies outside the flatbuffer; models above 2 GiB are not read")
        if buffer.DataLength() == 0:
            return None
        stored = np.asarray(buffer.DataAsNumpy())
        if dtype == "INT4":
            needed = (prod(shape) + 1) // 2
        elif dtype in _PLAIN:
            needed = prod(shape) * _PLAIN[dtype].itemsize
        else:
            return None  # an operator that reads it refuses the type
        if stored.dtype != np.uint8 or stored.size != needed:
            raise ModelError(
                f"{where}: {dtype} of shape {shape} needs {needed:,} bytes, its buffer has {stored.size:,}"
            )
        if dtype == "INT4":
            self._charge(prod(shape))
            return _unpacked(stored, prod(shape)).reshape(shape)
        values: npt.NDArray[Any] = stored.view(_PLAIN[dtype]).reshape(shape)
        return values

    def _operator(
        self, operator: Any, codes: Sequence[str], tensors: Sequence[TfliteTensor], names: set[str]
    ) -> TfliteOperator:
        """Read one operator with its options."""
        code = operator.OpcodeIndex()
        if code >= len(codes):
            raise ModelError(f"model {self.name!r}: an operator has code {code}, there are {len(codes)}")
        op, count = codes[code], len(tensors)
        where = f"model {self.name!r}: an operator {op}: its"
        inputs = self._indices(operator.InputsAsNumpy(), operator.InputsIsNone(), count, f"{where} inputs")
        outputs = self._indices(operator.OutputsAsNumpy(), operator.OutputsIsNone(), count, f"{where} outputs")
        if not outputs or ABSENT in outputs:
            raise ModelError(f"{where} outputs must be tensors, got {outputs}")
        name = _unique(tensors[outputs[0]].name.partition(";")[0], names)  # fused names are joined by semicolons
        return TfliteOperator(name, op, inputs, outputs, self._options(operator, op))

    def _options(self, operator: Any, op: str) -> dict[str, Any]:
        """Read the fields of an operator's options."""
        if op not in _OPTIONS:
            return {}
        kind, fields = _OPTIONS[op]
        table = getattr(tflite, kind)()
        found = operator.BuiltinOptionsType()
        if found not in (tflite.BuiltinOptions.NONE, getattr(tflite.BuiltinOptions, kind)):
            raise ModelError(f"model {self.name!r}: an operator {op} has options of another kind, number {found}")
        options = operator.BuiltinOptions()
        if found == tflite.BuiltinOptions.NONE or options is None:
            raise ModelError(f"model {self.name!r}: an operator {op} has no options")
        table.Init(options.Bytes, options.Pos)
        self._charge(4 * len(fields))
        return {field: getattr(table, field)() for field in fields}


def _unique(name: str, taken: set[str]) -> str:
    """Return the name, with a number behind it where it is taken."""
    number, free = 0, name
    while free in taken:
        number += 1
        free = f"{name}_{number}" if number < 64 else f"{name}_{len(taken)}_{number}"
    taken.add(free)
    return free


def _unpacked(stored: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.int8]:
    """Return 4-bit integers, two in a byte, the low half first."""
    halves = np.empty(2 * stored.size, dtype=np.int8)
    halves[0::2] = (stored << 4).view(np.int8) >> 4
    halves[1::2] = stored.view(np.int8) >> 4
    return halves[:count]
