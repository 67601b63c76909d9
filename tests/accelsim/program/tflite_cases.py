"""TFLite models of every operator, small; also the seeds of tools/fuzz_tflite.py."""

import numpy as np

from tests.accelsim.program.tflite_models import T, indices, one_op, write

WINDOW = {"Padding": 0, "StrideH": 1, "StrideW": 1, "FusedActivationFunction": 0}
DILATION = {"DilationHFactor": 1, "DilationWFactor": 1}
IMAGE = (1, 4, 4, 2)


def filters(name, shape, axis, dtype="INT8", channels=None):
    """Weights of a convolution with one scale per channel."""
    count = channels or shape[axis]
    values = np.arange(np.prod(shape)).reshape(shape) % 15 - 7
    return T(name, shape, dtype, [0.01 * (1 + channel) for channel in range(count)], [0] * count, axis, values)


def bias(count, dtype="INT32"):
    return T("b", (count,), dtype, [0.01] * count, [0] * count, 0, np.arange(count) * 10)


def moved(op, shape, constants=(), options=None, source=IMAGE, dtype="INT8"):
    """A model of one operator that moves codes."""
    tensors = [T("x", source, dtype), *constants, T("y", shape, dtype)]
    return one_op(op, tensors, ["x", *(tensor.name for tensor in constants)], ["y"], options)


def unary(op, options=None, dtype="INT8", output=None):
    """A model of one operator with one input."""
    tensors = [T("x", IMAGE, dtype, 0.5, 3 if dtype == "INT8" else 0), output or T("y", IMAGE, dtype, 0.75)]
    return one_op(op, tensors, ["x"], ["y"], options)


def binary(op, dtype="INT8", options=None):
    """A model of one operator with two inputs, one of which has fewer axes."""
    tensors = [T("a", IMAGE, dtype, 0.5), T("b", (2,), dtype, 0.25), T("y", IMAGE, dtype, 1.0)]
    return one_op(op, tensors, ["a", "b"], ["y"], {"FusedActivationFunction": 1, **(options or {})})


def network():
    """From real images to real probabilities, with the shape of a reshape computed."""
    tensors = [
        T("image", IMAGE, "FLOAT32", None, signature=(-1, *IMAGE[1:])), T("x", IMAGE, scale=0.02, zero=-10),
        filters("w", (3, 3, 3, 2), 0), bias(3), T("features", (1, 4, 4, 3), scale=0.05, zero=-128),
        T("pooled", (1, 2, 2, 3), scale=0.05, zero=-128), T("shape", (4,), "INT32", None), indices("zero", [0]),
        indices("one", [1]), T("batch", (), "INT32", None), T("rest", (), "INT32", None, data=12),
        T("wanted", (2,), "INT32", None), T("flat", (1, 12), scale=0.05, zero=-128),
        T("matrix", (4, 12), scale=0.02, data=np.arange(48).reshape(4, 12) - 24), T("scores", (1, 4), scale=0.1),
        T("soft", (1, 4), scale=2.0**-8, zero=-128), T("probabilities", (1, 4), "FLOAT32", None),
    ]  # fmt: skip
    pool = {**WINDOW, "StrideH": 2, "StrideW": 2, "FilterHeight": 2, "FilterWidth": 2}
    operators = [
        ("QUANTIZE", ["image"], ["x"], {}),
        ("CONV_2D", ["x", "w", "b"], ["features"], {**WINDOW, **DILATION}),
        ("AVERAGE_POOL_2D", ["features"], ["pooled"], pool),
        ("SHAPE", ["pooled"], ["shape"], {"OutType": 2}),
        ("STRIDED_SLICE", ["shape", "zero", "one", "one"], ["batch"], {"ShrinkAxisMask": 1}),
        ("PACK", ["batch", "rest"], ["wanted"], {"ValuesCount": 2, "Axis": 0}),
        ("RESHAPE", ["pooled", "wanted"], ["flat"], {}),
        ("FULLY_CONNECTED", ["flat", "matrix", None], ["scores"], {"FusedActivationFunction": 0}),
        ("SOFTMAX", ["scores"], ["soft"], {"Beta": 1.0}),
        ("DEQUANTIZE", ["soft"], ["probabilities"], {}),
    ]
    return write(tensors, operators, ["image"], ["probabilities", "scores"])


SEEDS = {
    "conv": one_op(
        "CONV_2D",
        [T("x", IMAGE, scale=0.1, zero=3), filters("w", (3, 3, 3, 2), 0), bias(3), T("y", (1, 4, 4, 3), scale=0.2)],
        ["x", "w", "b"], ["y"], {**WINDOW, **DILATION},
    ),
    "conv int16": one_op(
        "CONV_2D",
        [T("x", IMAGE, "INT16", 0.1), filters("w", (3, 3, 3, 2), 0), bias(3, "INT64"), T("y", (1, 4, 4, 3), "INT16")],
        ["x", "w", "b"], ["y"], {**WINDOW, **DILATION, "QuantizedBiasType": 4},
    ),
    "depthwise int4": one_op(
        "DEPTHWISE_CONV_2D",
        [T("x", IMAGE), filters("w", (1, 3, 3, 4), 3, "INT4"), T("y", (1, 2, 2, 4), scale=0.2)],
        ["x", "w"], ["y"], {**WINDOW, **DILATION, "Padding": 1, "DepthMultiplier": 2},
    ),
    "fully connected": one_op(
        "FULLY_CONNECTED",
        [T("x", (3, 2, 4)), T("w", (5, 4), data=np.ones((5, 4)), zero=2), bias(5), T("y", (3, 2, 5), scale=9.0)],
        ["x", "w", "b"], ["y"], {"FusedActivationFunction": 3, "KeepNumDims": True},
    ),
    "max pool": one_op(
        "MAX_POOL_2D", [T("x", IMAGE), T("y", (1, 2, 2, 2))], ["x"], ["y"],
        {**WINDOW, "StrideH": 2, "StrideW": 2, "FilterHeight": 2, "FilterWidth": 2},
    ),
    "average pool": one_op(
        "AVERAGE_POOL_2D", [T("x", IMAGE), T("y", IMAGE)], ["x"], ["y"],
        {**WINDOW, "FilterHeight": 3, "FilterWidth": 3},
    ),
    "mean": one_op(
        "MEAN", [T("x", IMAGE), indices("axes", [1, -2]), T("y", (1, 1, 1, 2), scale=0.5)], ["x", "axes"], ["y"],
        {"KeepDims": True},
    ),
    "add": binary("ADD"),
    "sub int16": binary("SUB", "INT16", {"PotScaleInt16": False}),
    "mul": binary("MUL"),
    "leaky relu": unary("LEAKY_RELU", {"Alpha": 0.2}),
    "relu6": unary("RELU6"),
    "logistic": unary("LOGISTIC", output=T("y", IMAGE, scale=2.0**-8, zero=-128)),
    "quantize": unary("QUANTIZE", output=T("y", IMAGE, "INT16")),
    "softmax": unary("SOFTMAX", {"Beta": 1.0}, output=T("y", IMAGE, scale=2.0**-8, zero=-128)),
    "reshape": moved("RESHAPE", (2, 16), [indices("s", [2, 16])]),
    "transpose": moved("TRANSPOSE", (2, 4, 1, 4), [indices("p", [3, 1, 0, 2])]),
    "pad": moved("PAD", (1, 6, 4, 5), [indices("p", [[0, 0], [1, 1], [0, 0], [0, 3]])]),
    "slice": moved("SLICE", (1, 2, 4, 1), [indices("b", [0, 1, 0, 1]), indices("z", [1, 2, -1, 1])]),
    "strided slice": moved(
        "STRIDED_SLICE", (4, 2, 2),
        [indices("b", [0, 3, 0, 0]), indices("e", [1, -5, 4, 2]), indices("s", [1, -1, 2, 1])], {"ShrinkAxisMask": 1},
    ),
    "concatenation": one_op(
        "CONCATENATION", [T("a", IMAGE), T("b", IMAGE, scale=0.5), T("y", (1, 4, 4, 4))], ["a", "b"], ["y"],
        {"Axis": -1, "FusedActivationFunction": 0},
    ),
    "pack": one_op("PACK", [T("a", (2,)), T("b", (2,)), T("y", (2, 2))], ["a", "b"], ["y"], {"Axis": 1}),
    "split": one_op(
        "SPLIT", [T("axis", (), "INT32", None, data=3), T("x", IMAGE), T("y", (1, 4, 4, 1)), T("z", (1, 4, 4, 1))],
        ["axis", "x"], ["y", "z"], {"NumSplits": 2},
    ),
    "network": network(),
}  # fmt: skip
"""A model for every operator."""
