"""What the reader does not support: one line that names node, operator, opset and cause, raised when reading."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import IR_VERSION, make_model, random_array, tensor_info

from accelsim.errors import ModelError
from accelsim.graph.reader import load_onnx

IMAGE = {"x": ["N", 4, 7, 6]}
SIGNAL = {"x": ["N", 4, 9]}
ROW = {"x": ["N", 6]}
VOLUME = {"x": ["N", 2, 4, 4, 4]}


def single(op, operands=("x",), inputs=IMAGE, constants=None, opset=17, outputs=("y",), domain="", **attributes):
    node = helper.make_node(op, list(operands), list(outputs), name="here", domain=domain, **attributes)
    return make_model([node], inputs, ["y"], constants, opset)


def ints(*values):
    return np.array(values, dtype=np.int64)


def chain(*nodes, inputs=IMAGE, outputs=("y",), constants=None, opset=17):
    return make_model(list(nodes), inputs, list(outputs), constants, opset)


W = {"w": random_array((8, 4, 3, 3))}
NORM = {key: np.ones(4, np.float32) for key in ("s", "b", "m", "v")}
NORM_OPERANDS = ("x", "s", "b", "m", "v")
MATRIX = {"w": random_array((5, 6))}

REFUSED = {
    # operators and domains
    "unknown operator": (lambda: single("Selu"), ["Selu is not supported"]),
    "division": (lambda: single("Div", ("x", "w"), constants={"w": np.float32(2)}), ["Div", "Mul"]),
    "quantized already": (
        lambda: single("DequantizeLinear", ("x", "s"), constants={"s": np.float32(1)}, opset=13),
        ["DequantizeLinear", "opset 13", "float models"]),
    "custom domain": (lambda: single("Relu", domain="com.example"), ["com.example", "standard"]),
    "unnamed node": (
        lambda: make_model([helper.make_node("Selu", ["x"], ["y"])], IMAGE, ["y"]), ["node 'y' (Selu, opset 17)"]),
    "unknown attribute": (lambda: single("Relu", slope=2.0), ["malformed", "slope"]),
    "missing operand": (lambda: single("Conv", ("x",)), ["malformed"]),
    # convolution
    "conv 3-D": (
        lambda: single("Conv", ("x", "w"), VOLUME, {"w": random_array((3, 2, 2, 2, 2))}), ["3 spatial axes", "1 or 2"]),
    "conv of rows": (lambda: single("Conv", ("x", "w"), ROW, W), ["0 spatial axes"]),
    "conv with computed weights": (
        lambda: single("Conv", ("x", "w"), {**IMAGE, "w": [8, 4, 3, 3]}), ["weights", "'w'", "must be a constant"]),
    "conv of a constant": (
        lambda: chain(
            helper.make_node("Conv", ["c", "w"], ["k"], name="here"), helper.make_node("Add", ["x", "k"], ["y"]),
            constants={"c": random_array((1, 4, 5, 5)), **W}),
        ["input 0", "'c'", "must not be a constant"]),
    "conv channels": (lambda: single("Conv", ("x", "w"), {"x": ["N", 3, 7, 6]}, W), ["group 1", "3 channels"]),
    "conv groups": (lambda: single("Conv", ("x", "w"), constants=W, group=2), ["group 2", "4 channels"]),
    "conv group 0": (lambda: single("Conv", ("x", "w"), constants=W, group=0), ["group 0"]),
    "conv weights of other rank": (lambda: single("Conv", ("x", "w"), SIGNAL, W), ["(8, 4, 3, 3)", "3 axes"]),
    "conv kernel_shape": (
        lambda: single("Conv", ("x", "w"), constants=W, kernel_shape=[2, 3]), ["kernel_shape (2, 3)", "(3, 3)"]),
    "conv bias": (
        lambda: single("Conv", ("x", "w", "b"), constants={**W, "b": random_array(4)}), ["bias", "(8,)", "(4,)"]),
    "conv strides": (lambda: single("Conv", ("x", "w"), constants=W, strides=[0, 1]), ["strides (0, 1)"]),
    "conv dilations": (lambda: single("Conv", ("x", "w"), constants=W, dilations=[1]), ["dilations (1,)"]),
    "conv pads": (lambda: single("Conv", ("x", "w"), constants=W, pads=[-1, 0, 0, 0]), ["pads (-1, 0, 0, 0)"]),
    "conv too large": (
        lambda: single("Conv", ("x", "w"), constants={"w": random_array((8, 4, 9, 3))}), ["covers 9", "has 7"]),
    "conv auto_pad unknown": (
        lambda: single("Conv", ("x", "w"), constants=W, auto_pad="SAME"), ["auto_pad", "'SAME'"]),
    "conv auto_pad twice": (
        lambda: single("Conv", ("x", "w"), constants=W, auto_pad="SAME_UPPER", pads=[1, 1, 1, 1]), ["contradict"]),
    "conv auto_pad dilated": (
        lambda: single("Conv", ("x", "w"), constants=W, auto_pad="SAME_UPPER", dilations=[2, 1]),
        ["auto_pad", "dilations (2, 1)", "give pads"]),
    "conv double weights": (
        lambda: single("Conv", ("x", "w"), constants={"w": np.ones((8, 4, 3, 3))}), ["'w'", "double", "float32"]),
    "conv half weights": (
        lambda: single("Conv", ("x", "w"), constants={"w": np.ones((8, 4, 3, 3), np.float16)}), ["'w'", "float16"]),
    "conv integer weights": (
        lambda: single("Conv", ("x", "w"), constants={"w": np.ones((8, 4, 3, 3), np.int64)}), ["'w'", "int64"]),
    "conv nan": (
        lambda: single("Conv", ("x", "w"), constants={"w": np.full((8, 4, 3, 3), np.nan, np.float32)}),
        ["'w'", "inf or nan"]),
    "conv inf bias": (
        lambda: single("Conv", ("x", "w", "b"), constants={**W, "b": np.full(8, np.inf, np.float32)}),
        ["'b'", "inf or nan"]),
    "conv no weights at all": (
        lambda: single("Conv", ("x", "w"), constants={"w": np.ones((0, 4, 3, 3), np.float32)}), ["empty"]),
    # matrix products
    "gemm transA": (lambda: single("Gemm", ("x", "w"), {"x": [6, 5]}, MATRIX, transA=1, transB=1), ["transA"]),
    "gemm rank": (lambda: single("Gemm", ("x", "w"), SIGNAL, MATRIX, transB=1), ["2 axes", "(None, 4, 9)"]),
    "gemm shapes": (lambda: single("Gemm", ("x", "w"), {"x": ["N", 7]}, MATRIX, transB=1), ["(5, 6)", "(None, 7)"]),
    "gemm weight rank": (
        lambda: single("Gemm", ("x", "w"), ROW, {"w": random_array((5, 6, 1))}), ["weights", "(5, 6, 1)"]),
    "gemm bias per sample": (
        lambda: single("Gemm", ("x", "w", "b"), ROW, {**MATRIX, "b": random_array((2, 5))}, transB=1),
        ["bias", "one value per output, 5", "(2, 5)"]),
    "gemm computed bias": (
        lambda: single("Gemm", ("x", "w", "b"), {**ROW, "b": ["N", 5]}, MATRIX, transB=1), ["bias", "constant"]),
    "gemm alpha": (
        lambda: single("Gemm", ("x", "w"), ROW, {"w": np.full((5, 6), 1e30, np.float32)}, alpha=1e20, transB=1),
        ["leave float32's range", "e+20"]),
    "matmul of two": (lambda: single("MatMul", ("x", "z"), {"x": ["N", 4], "z": ["N", 4]}), ["both operands"]),
    "matmul constant left": (lambda: single("MatMul", ("w", "x"), ROW, MATRIX), ["'w'", "on the left"]),
    "matmul batch of matrices": (
        lambda: single("MatMul", ("x", "w"), IMAGE, {"w": random_array((4, 6, 2))}), ["2 axes", "(4, 6, 2)"]),
    "matmul shapes": (lambda: single("MatMul", ("x", "w"), ROW, MATRIX), ["(5, 6)", "(None, 6)"]),
    # element by element
    "batch norm training": (
        lambda: single(
            "BatchNormalization", NORM_OPERANDS, constants=NORM, training_mode=1, outputs=("y", "rm", "rv")),
        ["training_mode"]),
    "batch norm statistics used": (
        lambda: single(
            "BatchNormalization", NORM_OPERANDS, constants=NORM, outputs=("y", "m2", "v2", "m3", "v3"), opset=11),
        ["running statistics"]),
    "batch norm channels": (
        lambda: single("BatchNormalization", NORM_OPERANDS, SIGNAL | {"x": ["N", 3, 9]}, NORM), ["scale", "3", "(4,)"]),
    "batch norm variance": (
        lambda: single("BatchNormalization", NORM_OPERANDS, constants={**NORM, "v": -np.ones(4, np.float32)}),
        ["variance + epsilon"]),
    "clip order": (
        lambda: single("Clip", ("x", "a", "b"), constants={"a": np.float32(2), "b": np.float32(1)}), ["2.0", "1.0"]),
    "clip computed": (lambda: single("Clip", ("x", "z"), {**IMAGE, "z": ["N", 1]}), ["lower bound", "constant"]),
    "clip nan": (lambda: single("Clip", ("x", "a"), constants={"a": np.float32(np.nan)}), ["lower bound", "nan"]),
    "clip vector": (lambda: single("Clip", ("x", "a"), constants={"a": random_array(4)}), ["lower bound", "(4,)"]),
    "leaky relu nan": (lambda: single("LeakyRelu", alpha=float("nan")), ["alpha", "finite"]),
    "prelu per column": (lambda: single("PRelu", ("x", "w"), constants={"w": random_array(6)}), ["slope", "(6,)"]),
    "prelu computed": (lambda: single("PRelu", ("x", "z"), {**IMAGE, "z": ["N", 4, 7, 6]}), ["slope", "constant"]),
    "add per sample": (
        lambda: single("Add", ("x", "c"), {"x": [2, 3]}, {"c": random_array((2, 3))}), ["'c'", "batch axis"]),
    "add of higher rank": (lambda: single("Add", ("x", "c"), ROW, {"c": random_array((1, 1, 6))}), ["batch axis"]),
    "add of different ranks": (
        lambda: single("Add", ("x", "z"), {"x": ["N", 4], "z": ["N", 3, 4]}), ["same number of axes"]),
    "mul shapes": (
        lambda: single("Mul", ("x", "z"), {"x": ["N", 4], "z": ["N", 3]}), ["(None, 4)", "(None, 3)", "broadcast"]),
    "sub nan": (lambda: single("Sub", ("x", "c"), constants={"c": np.float32(np.inf)}), ["inf or nan"]),
    # windows over space
    "pool 3-D": (lambda: single("MaxPool", inputs=VOLUME, kernel_shape=[2, 2, 2]), ["3 spatial axes"]),
    "pool indices": (lambda: single("MaxPool", kernel_shape=[2, 2], outputs=("y", "i")), ["indices"]),
    "pool storage order": (lambda: single("MaxPool", kernel_shape=[2, 2], storage_order=1), ["storage_order=1"]),
    "pool kernel missing": (lambda: single("AveragePool"), ["kernel_shape"]),
    "pool kernel rank": (lambda: single("AveragePool", kernel_shape=[2]), ["kernel (2,)", "2 lengths"]),
    "pool kernel 0": (lambda: single("MaxPool", kernel_shape=[0, 2]), ["kernel (0, 2)"]),
    "pool padding": (lambda: single("MaxPool", kernel_shape=[2, 2], pads=[2, 0, 0, 0]), ["pads (2, 0, 0, 0)"]),
    "global pool 3-D": (lambda: single("GlobalAveragePool", inputs=VOLUME), ["3 spatial axes"]),
    "mean over channels": (lambda: single("ReduceMean", axes=[1]), ["axes (1,)", "spatial"]),
    "mean over one axis": (lambda: single("ReduceMean", axes=[3]), ["axes (3,)", "spatial"]),
    "mean over all": (lambda: single("ReduceMean"), ["averages over the batch"]),
    "mean over a missing axis": (lambda: single("ReduceMean", axes=[2, 7]), ["axis 7", "4 axes"]),
    # layout and the batch
    "flatten batch": (lambda: single("Flatten", axis=0), ["axis 0 merges the batch"]),
    "flatten late": (lambda: single("Flatten", axis=2), ["axis 2 merges the batch"]),
    "flatten outside": (lambda: single("Flatten", axis=9), ["axis 9", "4 axes"]),
    "reshape splits": (
        lambda: single("Reshape", ("x", "s"), constants={"s": ints(-1, 84)}), ["(-1, 84)", "(batch, 4, 7, 6)"]),
    "reshape merges": (lambda: single("Reshape", ("x", "s"), constants={"s": ints(-1)}), ["merges"]),
    "reshape moves": (
        lambda: single("Reshape", ("x", "s"), constants={"s": ints(4, -1, 42)}), ["write 0 or -1 for axis 0"]),
    "reshape to one sample": (lambda: single("Reshape", ("x", "s"), constants={"s": ints(1, -1)}), ["(1, -1)"]),
    "reshape twice unknown": (lambda: single("Reshape", ("x", "s"), constants={"s": ints(-1, -1)}), ["(-1, -1)"]),
    "reshape too far": (lambda: single("Reshape", ("x", "s"), ROW, {"s": ints(0, 3, 0)}), ["axis 2"]),
    "reshape does not divide": (lambda: single("Reshape", ("x", "s"), constants={"s": ints(0, -1, 5)}), ["(0, -1, 5)"]),
    "reshape zero": (
        lambda: single("Reshape", ("x", "s"), constants={"s": ints(-1, 0)}, allowzero=1), ["not a valid target"]),
    "reshape computed": (
        lambda: chain(
            helper.make_node("Shape", ["x"], ["s"], name="shape"),
            helper.make_node("Reshape", ["x", "s"], ["y"])), ["'shape'", "Shape", "fix the input shape"]),
    "squeeze batch": (lambda: single("Squeeze", ("x", "a"), {"x": [1, 5]}, {"a": ints(0)}), ["axis 0, the batch"]),
    "squeeze all": (lambda: single("Squeeze"), ["name the axes"]),
    "squeeze long": (lambda: single("Squeeze", ("x", "a"), constants={"a": ints(1)}), ["length 1"]),
    "squeeze everything": (lambda: single("Squeeze", ("x", "a"), {"x": ["N", 1]}, {"a": ints(1)}), ["but the batch"]),
    "unsqueeze batch": (lambda: single("Unsqueeze", ("x", "a"), constants={"a": ints(0)}), ["before the batch"]),
    "unsqueeze nowhere": (lambda: single("Unsqueeze", ("x", "")), ["malformed", "input 1"]),
    "unsqueeze twice": (lambda: single("Unsqueeze", ("x", "a"), constants={"a": ints(2, 2)}), ["repeat"]),
    "unsqueeze many": (
        lambda: single("Unsqueeze", ("x", "a"), constants={"a": ints(*range(1, 7))}), ["here", "9 axes"]),
    "transpose batch": (lambda: single("Transpose", perm=[1, 0, 2, 3]), ["moves the batch"]),
    "transpose default": (lambda: single("Transpose"), ["(3, 2, 1, 0)", "moves the batch"]),
    "transpose twice": (lambda: single("Transpose", perm=[0, 1, 1, 2]), ["(0, 1, 1, 2)"]),
    "concat batch": (lambda: single("Concat", ("x", "x"), axis=0), ["axis 0 is the batch"]),
    "concat shapes": (
        lambda: single("Concat", ("x", "z"), {"x": ["N", 4], "z": ["N", 4, 1]}, axis=1), ["(batch, 4, 1)"]),
    "concat constant": (
        lambda: single("Concat", ("x", "c"), ROW, {"c": random_array((1, 6))}, axis=1), ["must not be a constant"]),
    "pad mode": (
        lambda: single("Pad", ("x", "p"), constants={"p": ints(*[0] * 8)}, mode="reflect"), ["'reflect'"]),
    "pad batch": (lambda: single("Pad", ("x", "p"), ROW, {"p": ints(1, 0, 0, 0)}), ["the batch"]),
    "pad negative": (lambda: single("Pad", ("x", "p"), ROW, {"p": ints(0, -1, 0, 0)}), ["negative"]),
    "pad count": (lambda: single("Pad", ("x", "p"), ROW, {"p": ints(0, 1)}), ["two values"]),
    "pad inf": (
        lambda: single("Pad", ("x", "p", "v"), ROW, {"p": ints(0, 1, 0, 0), "v": np.float32(np.inf)}), ["finite"]),
    "pad float": (lambda: single("Pad", ("x", "p"), ROW, {"p": random_array(4)}), ["whole numbers"]),
    # softmax
    "softmax of all axes": (lambda: single("Softmax", opset=11), ["below opset 13", "flatten"]),
    "softmax batch": (lambda: single("Softmax", axis=0), ["axis 0 is the batch"]),
    "softmax in the middle": (
        lambda: chain(
            helper.make_node("Softmax", ["x"], ["s"], name="attention"),
            helper.make_node("Flatten", ["s"], ["f"]),
            helper.make_node("Relu", ["f"], ["y"], name="after")),
        ["'attention'", "Softmax, opset 17", "'after'", "end of the network"]),
    # what dissolves
    "dropout mask": (lambda: single("Dropout", outputs=("y", "mask"), opset=13), ["mask"]),
    "dropout training": (
        lambda: single("Dropout", ("x", "r", "t"), constants={"r": np.float32(0.5), "t": np.bool_(True)}),
        ["training_mode"]),
    "constant text": (
        lambda: chain(
            helper.make_node("Constant", [], ["c"], name="here", value_string="a"),
            helper.make_node("Add", ["x", "c"], ["y"])), ["Constant", "dense tensors"]),
    "folded shapes": (
        lambda: chain(
            helper.make_node("Add", ["a", "b"], ["c"], name="here"), helper.make_node("Add", ["x", "c"], ["y"]),
            constants={"a": random_array(4), "b": random_array(3)}), ["(4,)", "(3,)", "broadcast"]),
    "folded types": (
        lambda: chain(
            helper.make_node("Add", ["a", "b"], ["c"], name="here"), helper.make_node("Add", ["x", "c"], ["y"]),
            constants={"a": random_array(4), "b": ints(1)}), ["float32", "int64"]),
    "folded size": (
        lambda: chain(
            helper.make_node("Add", ["a", "b"], ["c"], name="here"), helper.make_node("Add", ["x", "c"], ["y"]),
            constants={"a": np.zeros((8192, 1), np.float32), "b": np.zeros((1, 8192), np.float32)}),
        ["(8192, 8192)", "elements"]),
    "folded reshape": (
        lambda: chain(
            helper.make_node("Reshape", ["a", "s"], ["c"], name="here"), helper.make_node("Add", ["x", "c"], ["y"]),
            constants={"a": random_array(4), "s": ints(3, -1)}), ["(4,)", "(3, -1)"]),
    "pool flag": (lambda: single("MaxPool", kernel_shape=[2, 2], ceil_mode=2), ["ceil_mode", "0 or 1", "2"]),
    "auto_pad strides": (
        lambda: single("MaxPool", kernel_shape=[1, 1], strides=[4, 4], inputs={"x": ["N", 1, 8, 8]},
                       auto_pad="SAME_LOWER"), ["auto_pad", "strides (4, 4)", "give pads"]),
    "concat missing operand": (lambda: single("Concat", ("x", ""), axis=1), ["input 1", "missing"]),
    "pool pads count": (lambda: single("MaxPool", kernel_shape=[2, 2], pads=[0, 0]), ["pads (0, 0)", "4 values"]),
    "first output unnamed": (
        lambda: chain(
            helper.make_node("MaxPool", ["x"], ["", "i"], name="here", kernel_shape=[2, 2]),
            helper.make_node("Relu", ["i"], ["y"])), ["malformed", "output 0"]),
    "reshape to nothing": (lambda: single("Reshape", ("x", "s"), ROW, {"s": ints(0, -2)}), ["not a valid target"]),
    # activations
    "activation too large": (
        lambda: single("Pad", ("x", "p"), ROW, {"p": ints(0, 2**40, 0, 0)}), ["here", "elements"]),
    "padded input too large": (
        lambda: single("Conv", ("x", "w"), constants=W, pads=[2**62, 0, 2**62, 0]), ["here", "elements"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_is_one_line_that_names_the_cause(name):
    build, fragments = REFUSED[name]
    with pytest.raises(ModelError) as caught:
        load_onnx(build())
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    for fragment in fragments:
        assert fragment in message, message
    if name not in ("unnamed node", "softmax in the middle", "reshape computed"):
        assert "'here'" in message, message
        assert "opset" in message, message


def graph_model(graph, opset=17, **fields):
    return helper.make_model(
        graph, **{"opset_imports": [helper.make_opsetid("", opset)], "ir_version": IR_VERSION, **fields}
    )


def relu_graph(inputs=None, outputs=("y",), initializer=(), **fields):
    return helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], name="here")],
        "g",
        inputs if inputs is not None else [tensor_info("x", ["N", 3])],
        [tensor_info(name, None) for name in outputs],
        initializer=list(initializer),
        **fields,
    )


def with_function():
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("local", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    return graph_model(relu_graph(), functions=[function])


def with_subgraph():
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["b"])], "branch", [], [tensor_info("b", ["N", 3])])
    nodes = [helper.make_node("If", ["c"], ["y"], name="here", then_branch=branch, else_branch=branch)]
    return make_model(nodes, {"x": ["N", 3]}, ["y"], {"c": np.bool_(True)})


def sparse():
    values = numpy_helper.from_array(np.ones(1, np.float32), "few")
    indices = numpy_helper.from_array(ints(0), "where")
    return graph_model(relu_graph(sparse_initializer=[helper.make_sparse_tensor(values, indices, [3])]))


def sequence_input():
    info = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, ["N", 3])
    return graph_model(relu_graph([info]))


def nodes_model(*nodes, outputs=("y",), constants=None):
    return make_model(list(nodes), {"x": ["N", 3]}, list(outputs), constants)


def node(op, sources, *targets):
    return helper.make_node(op, sources, list(targets), name=f"{op}_{targets[0]}")


def attribute_twice():
    double = helper.make_node("LeakyRelu", ["x"], ["y"], name="here", alpha=0.5)
    double.attribute.append(double.attribute[0])
    return nodes_model(double)


def graph_as_attribute():
    inner = helper.make_graph([], "inner", [], [])
    return nodes_model(helper.make_node("Relu", ["x"], ["y"], name="here", body=inner))


STRUCTURE = {
    "attribute twice": (attribute_twice, ["'here' (LeakyRelu, opset 17)", "alpha", "twice"]),
    "graph as attribute": (graph_as_attribute, ["'here' (Relu, opset 17)", "'body'", "sub-graph"]),
    "old opset": (lambda: graph_model(relu_graph(), opset=10), ["opset 10", "11 to", "version_converter"]),
    "future opset": (lambda: graph_model(relu_graph(), opset=999), ["opset 999", "newer onnx"]),
    "no opset": (lambda: graph_model(relu_graph(), opset_imports=[helper.make_opsetid("a.b", 1)]), ["exactly one"]),
    "future format": (lambda: graph_model(relu_graph(), ir_version=999), ["IR version 999"]),
    "function": (with_function, ["'Twice'", "inline"]),
    "sub-graph": (with_subgraph, ["'here' (If, opset 17)"]),
    "sparse": (sparse, ["'few'", "sparse"]),
    "no input": (
        lambda: graph_model(relu_graph([], initializer=[numpy_helper.from_array(ints(1), "x")])), ["no input"]),
    "no output": (lambda: graph_model(relu_graph(outputs=())), ["no output"]),
    "output twice": (lambda: graph_model(relu_graph(outputs=("y", "y"))), ["output twice"]),
    "sequence": (sequence_input, ["'x'", "not a tensor"]),
    "integer input": (
        lambda: graph_model(relu_graph([tensor_info("x", ["N", 3], TensorProto.UINT8)])), ["'x'", "uint8", "float32"]),
    "no shape": (lambda: graph_model(relu_graph([tensor_info("x", None)])), ["'x'", "no shape"]),
    "batch only": (lambda: graph_model(relu_graph([tensor_info("x", ["N"])])), ["'x'", "1 axes"]),
    "dynamic": (
        lambda: graph_model(relu_graph([tensor_info("x", ["N", 3, "H"])])), ["'x'", "'H'", "axis 2", "only axis 0"]),
    "unknown": (lambda: graph_model(relu_graph([tensor_info("x", ["N", None])])), ["'x'", "axis 1"]),
    "zero": (lambda: graph_model(relu_graph([tensor_info("x", ["N", 0])])), ["'x'", "length 0", "axis 1"]),
    "negative batch": (lambda: graph_model(relu_graph([tensor_info("x", [-1, 3])])), ["'x'", "batch of -1"]),
    "absurd input": (lambda: graph_model(relu_graph([tensor_info("x", ["N", 2**40, 2**40])])), ["'x'", "elements"]),
    "many axes": (lambda: graph_model(relu_graph([tensor_info("x", ["N", *[1] * 20])])), ["'x'", "axes"]),
    "two batches": (
        lambda: make_model([node("Add", ["x", "z"], "y")], {"x": [2, 3], "z": [4, 3]}, ["y"]), ["batch of 4", "2"]),
    "two inputs": (
        lambda: graph_model(relu_graph([tensor_info("x", ["N", 3]), tensor_info("x", ["N", 3])])), ["two inputs"]),
    "dangling": (lambda: nodes_model(node("Relu", ["nowhere"], "y")), ["'Relu_y'", "'nowhere'", "made by no node"]),
    "made twice": (
        lambda: nodes_model(node("Relu", ["x"], "y"), node("Tanh", ["x"], "y")), ["'y'", "twice", "'Tanh_y'"]),
    "makes an input": (lambda: nodes_model(node("Relu", ["x"], "x")), ["'x'", "twice"]),
    "cycle": (
        lambda: nodes_model(node("Add", ["x", "b"], "a"), node("Relu", ["a"], "b"), node("Relu", ["b"], "y")),
        ["cycle", "'Add_a'"]),
    "self": (lambda: nodes_model(node("Add", ["x", "y"], "y")), ["cycle", "'Add_y'"]),
    "missing output": (lambda: nodes_model(node("Relu", ["x"], "z")), ["'y'", "made by no node"]),
    "output is the input": (lambda: nodes_model(node("Identity", ["x"], "y")), ["'y'", "input 'x' itself"]),
    "output is a constant": (
        lambda: nodes_model(node("Identity", ["c"], "y"), constants={"c": np.float32(1)}), ["'y'", "constant"]),
    "stored twice": (
        lambda: graph_model(relu_graph(initializer=[numpy_helper.from_array(ints(1), "c")] * 2)), ["'c'", "twice"]),
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURE)
def test_unsound_structure_is_refused(name):
    build, fragments = STRUCTURE[name]
    with pytest.raises(ModelError) as caught:
        load_onnx(build())
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message, message
