"""Tiny ONNX models for the tests of reader and writer, and ONNX Runtime without any optimisation to run them."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

NEWEST_OPSET = onnx.defs.onnx_opset_version()
OPSETS = (11, 13, 17, 18, NEWEST_OPSET)
IR_VERSION = 8


def tensor_info(name, shape, elem_type=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, elem_type, shape)


def make_model(nodes, inputs, outputs, constants=None, opset=17, ir_version=IR_VERSION, name="tiny"):
    """Build a model; ``inputs`` maps names to shapes, ``outputs`` names float tensors of any shape."""
    graph = helper.make_graph(
        nodes,
        name,
        [tensor_info(key, shape) for key, shape in inputs.items()],
        [tensor_info(key, None) for key in outputs],
        initializer=[numpy_helper.from_array(np.asarray(value), key) for key, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def run(model, feeds):
    """Run a model (proto or bytes) in ONNX Runtime with all graph optimisations off; return {output: array}."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def random_array(shape, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def feeds_of(model, samples=3, seed=5):
    """Make random input for a model, with the fixed batch where it has one."""
    known = {tensor.name for tensor in model.graph.initializer}
    feeds = {}
    for index, value in enumerate(value for value in model.graph.input if value.name not in known):
        dims = value.type.tensor_type.shape.dim
        batch = dims[0].dim_value if dims[0].HasField("dim_value") else samples
        shape = (batch, *(dim.dim_value for dim in dims[1:]))
        feeds[value.name] = random_array(shape, seed + index, scale=2.0)
    return feeds


def small_network():
    """Build a network that uses most of the reader: convolution, batch norm, clip, residual, pooling, Gemm."""
    rng = np.random.default_rng(3)
    constants = {
        "w1": rng.normal(size=(4, 2, 3, 3)).astype(np.float32),
        "b1": rng.normal(size=4).astype(np.float32),
        "scale": rng.uniform(0.5, 2, 4).astype(np.float32),
        "shift": rng.normal(size=4).astype(np.float32),
        "mean": rng.normal(size=4).astype(np.float32),
        "var": rng.uniform(0.5, 2, 4).astype(np.float32),
        "low": np.float32(0),
        "high": np.float32(6),
        "w2": rng.normal(size=(4, 1, 3, 3)).astype(np.float32),
        "w3": rng.normal(size=(3, 4)).astype(np.float32),
        "b3": rng.normal(size=3).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "scale", "shift", "mean", "var"], ["n1"], name="norm"),
        helper.make_node("Clip", ["n1", "low", "high"], ["a1"], name="relu6"),
        helper.make_node("Conv", ["a1", "w2"], ["c2"], name="depthwise", pads=[1, 1, 1, 1], group=4),
        helper.make_node("Add", ["a1", "c2"], ["r"], name="residual"),
        helper.make_node("Relu", ["r"], ["a2"], name="relu"),
        helper.make_node("GlobalAveragePool", ["a2"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], name="dense", transB=1),
    ]
    return make_model(nodes, {"x": ["N", 2, 6, 6]}, ["y"], constants)
