"""One tiny model per use of an operator: the table that the round-trip test walks through."""

import numpy as np
from onnx import helper
from onnx_models import make_model, random_array

_IMAGE = {"x": ["N", 4, 7, 6]}
_SIGNAL = {"x": ["N", 4, 9]}
_ROW = {"x": ["N", 6]}


def _one(op, opset, inputs=_IMAGE, constants=None, operands=None, **attributes):
    """Build a model of a single node that reads the graph inputs first and then the constants."""
    names = operands if operands is not None else [*inputs, *(constants or {})]
    return make_model([helper.make_node(op, names, ["y"], **attributes)], inputs, ["y"], constants, opset)


def _ints(*values):
    return np.array(values, dtype=np.int64)


def _axes(op, axes, opset, inputs, since=13, **attributes):
    """Build an operator whose axes became an input in opset ``since``."""
    if opset >= since:
        return _one(op, opset, inputs, {"axes": _ints(*axes)}, **attributes)
    return _one(op, opset, inputs, axes=list(axes), **attributes)


def _conv(shape, inputs=_IMAGE, bias=False, **attributes):
    def build(opset):
        constants = {"w": random_array(shape, 1)}
        if bias:
            constants["b"] = random_array(shape[:1], 2)
        return _one("Conv", opset, inputs, constants, **attributes)

    return build


def _gemm(transposed=True, bias=None, **attributes):
    def build(opset):
        constants = {"w": random_array((5, 6) if transposed else (6, 5), 1)}
        if bias is not None:
            constants["b"] = random_array(bias, 2)
        return _one("Gemm", opset, _ROW, constants, transB=int(transposed), **attributes)

    return build


def _unary(op, inputs=_IMAGE, **attributes):
    return lambda opset: _one(op, opset, inputs, **attributes)


def _with_constant(op, shape, inputs=_IMAGE, first=False):
    def build(opset):
        operands = ["c", "x"] if first else ["x", "c"]
        return _one(op, opset, inputs, {"c": random_array(shape, 3)}, operands)

    return build


def _clip(low, high):
    def build(opset):
        constants = {key: np.float32(value) for key, value in (("low", low), ("high", high)) if value is not None}
        operands = ["x", "low" if low is not None else "", *(["high"] if high is not None else [])]
        return _one("Clip", opset, _IMAGE, constants, operands if low is not None or high is not None else ["x"])

    return build


def _batch_norm(inputs, channels):
    def build(opset):
        constants = {
            "scale": random_array(channels, 1),
            "shift": random_array(channels, 2),
            "mean": random_array(channels, 3),
            "var": np.abs(random_array(channels, 4)) + np.float32(0.1),
        }
        return _one("BatchNormalization", opset, inputs, constants, epsilon=1e-3)

    return build


def _gate(gate, swapped=False, **attributes):
    def build(opset):
        operands = ["g", "x"] if swapped else ["x", "g"]
        nodes = [helper.make_node(gate, ["x"], ["g"], **attributes), helper.make_node("Mul", operands, ["y"])]
        return make_model(nodes, _IMAGE, ["y"], opset=opset)

    return build


def _reshape(*target, inputs=_IMAGE, **attributes):
    return lambda opset: _one("Reshape", opset, inputs, {"shape": _ints(*target)}, **attributes)


def _pad(pads, value=None, axes=None):
    def build(opset):
        constants = {"pads": _ints(*pads)}
        operands = ["x", "pads"]
        if value is not None:
            constants["value"] = np.float32(value)
        if value is not None or axes is not None:
            operands.append("value" if value is not None else "")
        if axes is not None:
            constants["axes"] = _ints(*axes)
            operands.append("axes")
        return _one("Pad", opset, _IMAGE, constants, operands)

    return build


def _concat(axis):
    def build(opset):
        return _one("Concat", opset, {"x": ["N", 4, 5], "z": ["N", 4, 5]}, axis=axis)

    return build


def _softmax(inputs, **attributes):
    return lambda opset: _one("Softmax", opset, inputs, **attributes)


def _dissolving(opset):
    """Identity and Dropout in the middle and at the end, a Constant node, and arithmetic on constants."""
    nodes = [
        helper.make_node("Constant", [], ["c"], value_float=0.5),
        helper.make_node("Identity", ["c"], ["c2"]),
        helper.make_node("Add", ["c2", "d"], ["e"]),
        helper.make_node("Identity", ["x"], ["x2"]),
        helper.make_node("Mul", ["x2", "e"], ["m"]),
        helper.make_node("Dropout", ["m"], ["m2"]),
        helper.make_node("Relu", ["m2"], ["r"]),
        helper.make_node("Identity", ["r"], ["y"]),
    ]
    return make_model(nodes, _IMAGE, ["y"], {"d": random_array((4, 1, 1), 3)}, max(opset, 12))


def _transposed_weights(opset):
    """A weight that is transposed, squeezed and reshaped before it is used."""
    constants = {"w": random_array((1, 5, 6), 1), "shape": _ints(-1, 5)}
    squeeze = (
        helper.make_node("Squeeze", ["t", "zero"], ["s"])
        if opset >= 13
        else helper.make_node("Squeeze", ["t"], ["s"], axes=[0])
    )
    if opset >= 13:
        constants["zero"] = _ints(0)
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"], perm=[0, 2, 1]),
        squeeze,
        helper.make_node("Reshape", ["s", "shape"], ["v"]),
        helper.make_node("MatMul", ["x", "v"], ["y"]),
    ]
    return make_model(nodes, _ROW, ["y"], constants, opset)


def _dilated_then_mean(opset):
    """A dilated average pool needs opset 19, in which ReduceMean has its axes as an input."""
    nodes = [
        helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[2, 2], dilations=[2, 1]),
        helper.make_node("ReduceMean", ["p", "axes"], ["y"], keepdims=0),
    ]
    return make_model(nodes, _IMAGE, ["y"], {"axes": _ints(2, 3)}, opset)


def _fixed_batch(opset):
    """A batch fixed to 2, which Reshape repeats as a number."""
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Reshape", ["r", "shape"], ["y"])]
    return make_model(nodes, {"x": [2, 4, 3]}, ["y"], {"shape": _ints(2, -1)}, opset)


def _sharing_outputs(opset):
    """One tensor under two output names, and an inner tensor that is an output as well."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Identity", ["r"], ["y1"]),
        helper.make_node("Identity", ["r"], ["y2"]),
        helper.make_node("Sigmoid", ["r"], ["y3"]),
    ]
    return make_model(nodes, _IMAGE, ["y1", "y2", "y3"], opset=opset)


_POOL = {"kernel_shape": [3, 2], "strides": [2, 2]}

# name: (builder of a model for an opset, oldest opset, newest opset or None, operators of the graph read)
CASES = {
    "conv": (_conv((8, 4, 3, 3), bias=True, pads=[1, 1, 1, 1]), 11, None, ["Conv"]),
    "conv no bias, asymmetric pads": (_conv((8, 4, 3, 2), pads=[0, 1, 2, 0], strides=[2, 1]), 11, None, ["Conv"]),
    "conv grouped, kernel_shape": (_conv((6, 2, 3, 3), group=2, kernel_shape=[3, 3]), 11, None, ["Conv"]),
    "conv depthwise": (_conv((8, 1, 3, 3), group=4, bias=True), 11, None, ["Conv"]),
    "conv dilated": (_conv((5, 4, 3, 2), dilations=[2, 3], pads=[1, 1, 1, 1]), 11, None, ["Conv"]),
    "conv same upper": (_conv((5, 4, 4, 3), auto_pad="SAME_UPPER", strides=[2, 2]), 11, None, ["Conv"]),
    "conv same lower": (_conv((5, 4, 4, 2), auto_pad="SAME_LOWER", strides=[3, 1]), 11, None, ["Conv"]),
    "conv valid": (_conv((5, 4, 3, 3), auto_pad="VALID"), 11, None, ["Conv"]),
    "conv 1-D": (_conv((6, 4, 3), _SIGNAL, bias=True, pads=[2, 1], strides=[2]), 11, None, ["Conv"]),
    "conv 1-D depthwise same": (_conv((4, 1, 4), _SIGNAL, group=4, auto_pad="SAME_LOWER"), 11, None, ["Conv"]),
    "gemm": (_gemm(bias=(5,)), 11, None, ["Gemm"]),
    "gemm no bias": (_gemm(), 11, None, ["Gemm"]),
    "gemm not transposed": (_gemm(transposed=False, bias=(1, 5)), 11, None, ["Gemm"]),
    "gemm scalar bias": (_gemm(bias=()), 11, None, ["Gemm"]),
    "gemm bias of one": (_gemm(bias=(1, 1)), 11, None, ["Gemm"]),
    "gemm powers of two": (_gemm(bias=(5,), alpha=0.5, beta=2.0), 11, None, ["Gemm"]),
    "gemm beta 0": (_gemm(bias=(5,), beta=0.0), 11, None, ["Gemm"]),
    "matmul": (_with_constant("MatMul", (6, 5), _ROW), 11, None, ["MatMul"]),
    "matmul of many rows": (_with_constant("MatMul", (6, 3)), 11, None, ["MatMul"]),
    "batch norm": (_batch_norm(_IMAGE, 4), 11, None, ["BatchNormalization"]),
    "batch norm of rows": (_batch_norm(_ROW, 6), 11, None, ["BatchNormalization"]),
    "relu": (_unary("Relu"), 11, None, ["Relu"]),
    "sigmoid": (_unary("Sigmoid"), 11, None, ["Sigmoid"]),
    "tanh": (_unary("Tanh"), 11, None, ["Tanh"]),
    "leaky relu": (_unary("LeakyRelu", alpha=0.3), 11, None, ["LeakyRelu"]),
    "leaky relu default": (_unary("LeakyRelu"), 11, None, ["LeakyRelu"]),
    "hard sigmoid": (_unary("HardSigmoid", alpha=0.25, beta=0.4), 11, None, ["HardSigmoid"]),
    "hard sigmoid default": (_unary("HardSigmoid"), 11, None, ["HardSigmoid"]),
    "hard swish": (_unary("HardSwish"), 14, None, ["HardSwish"]),
    "prelu channels": (_with_constant("PRelu", (4, 1, 1)), 11, None, ["PRelu"]),
    "prelu channels with batch axis": (_with_constant("PRelu", (1, 4, 1, 1)), 11, None, ["PRelu"]),
    "prelu one": (_with_constant("PRelu", (1,)), 11, None, ["PRelu"]),
    "prelu scalar": (_with_constant("PRelu", ()), 11, None, ["PRelu"]),
    "prelu rows": (_with_constant("PRelu", (6,), _ROW), 11, None, ["PRelu"]),
    "clip": (_clip(0, 6), 11, None, ["Clip"]),
    "clip below": (_clip(-0.5, None), 11, None, ["Clip"]),
    "clip above": (_clip(None, 0.75), 11, None, ["Clip"]),
    "clip nothing": (_clip(None, None), 11, None, ["Clip"]),
    "clip float32 limits": (_clip(np.finfo(np.float32).min, 1), 11, None, ["Clip"]),
    "swish": (_gate("Sigmoid"), 11, None, ["Swish"]),
    "swish swapped": (_gate("Sigmoid", swapped=True), 11, None, ["Swish"]),
    "hard swish spelled out": (_gate("HardSigmoid", alpha=1 / 6, beta=0.5), 11, None, ["HardSwish"]),
    "another gate": (_gate("HardSigmoid", alpha=0.2, beta=0.5), 11, None, ["HardSigmoid", "Mul"]),
    "add channels": (_with_constant("Add", (4, 1, 1)), 11, None, ["Add"]),
    "sub from a constant": (_with_constant("Sub", (1, 4, 7, 6), first=True), 11, None, ["Sub"]),
    "mul scalar": (_with_constant("Mul", ()), 11, None, ["Mul"]),
    "add two": (lambda opset: _one("Add", opset, {"x": ["N", 4, 3], "z": ["N", 4, 3]}), 11, None, ["Add"]),
    "sub two, broadcast": (lambda opset: _one("Sub", opset, {"x": ["N", 4, 1], "z": ["N", 1, 3]}), 11, None, ["Sub"]),
    "mul by channel gates": (
        lambda opset: _one("Mul", opset, {"x": ["N", 4, 3, 2], "z": ["N", 4, 1, 1]}), 11, None, ["Mul"]),
    "square": (lambda opset: _one("Mul", opset, operands=["x", "x"]), 11, None, ["Mul"]),
    "concat": (_concat(1), 11, None, ["Concat"]),
    "concat from the end": (_concat(-1), 11, None, ["Concat"]),
    "max pool": (_unary("MaxPool", pads=[1, 0, 1, 1], **_POOL), 11, None, ["MaxPool"]),
    "max pool dilated": (_unary("MaxPool", dilations=[2, 3], kernel_shape=[2, 2]), 11, None, ["MaxPool"]),
    "max pool ceil": (_unary("MaxPool", ceil_mode=1, kernel_shape=[2, 2], strides=[2, 4]), 11, None, ["MaxPool"]),
    "max pool ceil, last window in the padding": (
        _unary("MaxPool", ceil_mode=1, kernel_shape=[2, 2], strides=[3, 3], pads=[1, 1, 1, 1]), 11, None, ["MaxPool"]),
    "max pool same": (_unary("MaxPool", auto_pad="SAME_UPPER", **_POOL), 11, None, ["MaxPool"]),
    "max pool 1-D": (_unary("MaxPool", _SIGNAL, kernel_shape=[3], strides=[3], pads=[1, 1]), 11, None, ["MaxPool"]),
    "average pool": (_unary("AveragePool", pads=[1, 0, 1, 1], **_POOL), 11, None, ["AveragePool"]),
    "average pool with padding": (
        _unary("AveragePool", pads=[1, 0, 1, 1], count_include_pad=1, **_POOL), 11, None, ["AveragePool"]),
    "average pool ceil": (
        _unary("AveragePool", ceil_mode=1, kernel_shape=[3, 3], strides=[2, 2]), 11, None, ["AveragePool"]),
    "average pool dilated": (
        _unary("AveragePool", dilations=[2, 1], kernel_shape=[2, 2]), 19, None, ["AveragePool"]),
    "average pool same": (_unary("AveragePool", auto_pad="SAME_LOWER", **_POOL), 11, None, ["AveragePool"]),
    "average pool 1-D": (_unary("AveragePool", _SIGNAL, kernel_shape=[4], strides=[2]), 11, None, ["AveragePool"]),
    "global average pool": (_unary("GlobalAveragePool"), 11, None, ["GlobalAveragePool"]),
    "global average pool 1-D": (_unary("GlobalAveragePool", _SIGNAL), 11, None, ["GlobalAveragePool"]),
    "reduce mean": (
        lambda opset: _axes("ReduceMean", (2, 3), opset, _IMAGE, since=18), 11, None, ["ReduceMean"]),
    "reduce mean, axes dropped": (
        lambda opset: _axes("ReduceMean", (-1, -2), opset, _IMAGE, since=18, keepdims=0), 11, None, ["ReduceMean"]),
    "reduce mean 1-D": (
        lambda opset: _axes("ReduceMean", (2,), opset, _SIGNAL, since=18, keepdims=0), 11, None, ["ReduceMean"]),
    "flatten": (_unary("Flatten"), 11, None, ["Flatten"]),
    "flatten from the end": (_unary("Flatten", axis=-3), 11, None, ["Flatten"]),
    "flatten behind ones": (_unary("Flatten", {"x": ["N", 1, 1, 5]}, axis=3), 11, None, ["Flatten"]),
    "reshape 0": (_reshape(0, -1, 6), 11, None, ["Reshape"]),
    "reshape -1": (_reshape(-1, 4, 42), 11, None, ["Reshape"]),
    "reshape copies": (_reshape(0, 0, -1), 11, None, ["Reshape"]),
    "reshape allowzero": (_reshape(-1, 168, allowzero=1), 14, None, ["Reshape"]),
    "reshape fixed batch": (_fixed_batch, 11, None, ["Relu", "Reshape"]),
    "squeeze": (lambda opset: _axes("Squeeze", (2, -1), opset, {"x": ["N", 5, 1, 1]}), 11, None, ["Squeeze"]),
    "unsqueeze": (lambda opset: _axes("Unsqueeze", (-1, 1), opset, _ROW), 11, None, ["Unsqueeze"]),
    "transpose": (_unary("Transpose", perm=[0, 2, 3, 1]), 11, None, ["Transpose"]),
    "pad": (_pad([0, 0, 1, 2, 0, 1, 0, 3]), 11, None, ["Pad"]),
    "pad value": (_pad([0, 0, 1, 0, 0, 0, 0, 0], value=-1.5), 11, None, ["Pad"]),
    "pad axes": (_pad([1, 0, 0, 2], value=0.5, axes=[-1, 2]), 18, None, ["Pad"]),
    "softmax": (_softmax(_ROW), 11, None, ["Softmax"]),
    "softmax of an axis": (_softmax(_IMAGE, axis=1), 13, None, ["Softmax"]),
    "softmax behind ones": (_softmax({"x": ["N", 5, 1, 1]}, axis=1), 11, None, ["Softmax"]),
    "dissolving": (_dissolving, 13, None, ["Mul", "Relu"]),
    "dilated pool and mean": (_dilated_then_mean, 19, None, ["AveragePool", "ReduceMean"]),
    "transposed weights": (_transposed_weights, 11, None, ["MatMul"]),
    "sharing outputs": (_sharing_outputs, 11, None, ["Relu", "Sigmoid", "Reshape"]),
}  # fmt: skip
