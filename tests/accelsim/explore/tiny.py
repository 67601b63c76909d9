"""A network that is small enough for uncompiled kernels: a convolution, a ReLU and a matrix product."""

from types import SimpleNamespace

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import accelsim as ax


def tiny_network():
    """Return a quantized network with 8 images, their labels and its float model."""
    random = np.random.default_rng(5)
    weights = {
        "filters": random.normal(size=(4, 2, 3, 3), scale=0.3),
        "bias": random.normal(size=4, scale=0.1),
        "matrix": random.normal(size=(4 * 9, 3), scale=0.3),
    }
    nodes = [
        helper.make_node("Conv", ["image", "filters", "bias"], ["features"], pads=[1, 1, 1, 1], name="conv"),
        helper.make_node("Relu", ["features"], ["positive"], name="relu"),
        helper.make_node("Flatten", ["positive"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "matrix"], ["scores"], name="classifier"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 2, 3, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    network = ax.load_onnx(model)
    images = random.normal(size=(24, 2, 3, 3)).astype(np.float32)
    quantized = ax.quantize(network, images[8:], ax.PTQConfig(weight_bits=4))
    answers = next(iter(ax.simulate(quantized, images[:8], track="none").outputs.values())).argmax(axis=1)
    return SimpleNamespace(graph=network, quantized=quantized, images=images[:8], labels=answers.astype(np.int64))
