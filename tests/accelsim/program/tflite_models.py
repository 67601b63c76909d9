"""Small .tflite files, written with the schema's own builders."""

from dataclasses import dataclass

import flatbuffers
import numpy as np
import tflite

OPTIONS = {
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "MUL": "MulOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "CONCATENATION": "ConcatenationOptions",
    "SOFTMAX": "SoftmaxOptions",
    "MEAN": "ReducerOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "PACK": "PackOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SPLIT": "SplitOptions",
    "SHAPE": "ShapeOptions",
}
DTYPES = {
    "INT8": np.int8, "UINT8": np.uint8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FLOAT32": np.float32,
}  # fmt: skip


@dataclass(frozen=True)
class T:
    """A tensor of a model to be written."""

    name: str
    shape: tuple
    dtype: str = "INT8"
    scale: float | list | None = 1.0
    zero: int | list = 0
    axis: int = 0
    data: object = None
    signature: tuple | None = None


def indices(name, values):
    """A constant of indices."""
    values = np.array(values, dtype=np.int32)
    return T(name, values.shape, "INT32", scale=None, data=values)


def packed(values):
    """4-bit integers, two in a byte, the low half first."""
    flat = np.array(values, dtype=np.int64).reshape(-1) & 15
    flat = np.append(flat, np.zeros(flat.size % 2, dtype=np.int64))
    return (flat[0::2] | (flat[1::2] << 4)).astype(np.uint8)


def write(tensors, operators, inputs, outputs):
    """Return a model's bytes.

    ``operators`` are (op, names of inputs or None, names of outputs, options).
    """
    builder = flatbuffers.Builder(1024)
    places = {tensor.name: index for index, tensor in enumerate(tensors)}
    ops = list(dict.fromkeys(op for op, *_ in operators))
    blobs = [b"", *(_bytes_of(tensor) for tensor in tensors)]
    buffers = [_buffer(builder, blob) for blob in blobs]
    written = [_tensor(builder, tensor, index + 1) for index, tensor in enumerate(tensors)]
    nodes = [
        _operator(
            builder,
            op,
            ops.index(op),
            [-1 if name is None else places[name] for name in names],
            [places[name] for name in made],
            options,
        )
        for op, names, made, options in operators
    ]
    codes = [_code(builder, op) for op in ops]
    vectors = {
        "Tensors": _tables(builder, written),
        "Operators": _tables(builder, nodes),
        "Inputs": _numbers(builder, [places[name] for name in inputs], np.int32),
        "Outputs": _numbers(builder, [places[name] for name in outputs], np.int32),
    }
    subgraph = _table(builder, "SubGraph", vectors)
    fields = {
        "OperatorCodes": _tables(builder, codes),
        "Subgraphs": _tables(builder, [subgraph]),
        "Buffers": _tables(builder, buffers),
    }
    root = _table(builder, "Model", {"Version": 3, **fields})
    builder.Finish(root, b"TFL3")
    return bytes(builder.Output())


def _bytes_of(tensor):
    if tensor.data is None:
        return b""
    if tensor.dtype == "INT4":
        return packed(tensor.data).tobytes()
    return np.array(tensor.data, dtype=DTYPES[tensor.dtype]).tobytes()


def _table(builder, kind, fields):
    getattr(tflite, f"{kind}Start")(builder)
    for name, value in fields.items():
        getattr(tflite, f"{kind}Add{name}")(builder, value)
    return getattr(tflite, f"{kind}End")(builder)


def _numbers(builder, values, dtype):
    return builder.CreateNumpyVector(np.array(values, dtype=dtype))


def _tables(builder, offsets):
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _buffer(builder, blob):
    if not blob:
        return _table(builder, "Buffer", {})
    builder.StartVector(1, len(blob), 16)
    builder.head -= len(blob)
    builder.Bytes[builder.head : builder.head + len(blob)] = blob
    return _table(builder, "Buffer", {"Data": builder.EndVector()})


def _tensor(builder, tensor, buffer):
    fields = {
        "Name": builder.CreateString(tensor.name),
        "Shape": _numbers(builder, tensor.shape, np.int32),
        "Type": getattr(tflite.TensorType, tensor.dtype),
        "Buffer": buffer,
    }
    if tensor.signature is not None:
        fields["ShapeSignature"] = _numbers(builder, tensor.signature, np.int32)
    if tensor.scale is not None:
        scale = np.atleast_1d(np.array(tensor.scale, dtype=np.float32))
        zero = np.broadcast_to(np.array(tensor.zero, dtype=np.int64), scale.shape)
        quantization = {
            "Scale": _numbers(builder, scale, np.float32),
            "ZeroPoint": _numbers(builder, zero, np.int64),
            "QuantizedDimension": tensor.axis,
        }
        fields["Quantization"] = _table(builder, "QuantizationParameters", quantization)
    return _table(builder, "Tensor", fields)


def _operator(builder, op, code, inputs, outputs, options):
    fields = {
        "OpcodeIndex": code,
        "Inputs": _numbers(builder, inputs, np.int32),
        "Outputs": _numbers(builder, outputs, np.int32),
    }
    if op in OPTIONS:
        fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, OPTIONS[op])
        fields["BuiltinOptions"] = _table(builder, OPTIONS[op], options)
    return _table(builder, "Operator", fields)


def _code(builder, op):
    number = getattr(tflite.BuiltinOperator, op)
    return _table(
        builder, "OperatorCode", {"DeprecatedBuiltinCode": min(number, 127), "BuiltinCode": number, "Version": 1}
    )


def one_op(op, tensors, inputs, outputs, options=None, feeds=None):
    """Return a model of one operator; ``feeds`` are the model's inputs, the operator's computed ones if left out."""
    by_name = {tensor.name: tensor for tensor in tensors}
    fed = feeds or [name for name in inputs if name is not None and by_name[name].data is None]
    return write(tensors, [(op, inputs, outputs, options or {})], list(dict.fromkeys(fed)), outputs)
