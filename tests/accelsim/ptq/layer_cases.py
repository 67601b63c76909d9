"""Single linear layers with calibration data, for the tests of weight rounding."""

import numpy as np

from accelsim.formats import IntegerFormat
from accelsim.graph.graph import Node
from accelsim.ptq.folding import weight_axis
from accelsim.ptq.ranges import weight_range
from accelsim.reference import OnnxRunner
from tests.accelsim.ptq.ptq_networks import Net

KINDS = ("dense", "matmul", "conv", "strided", "dilated", "grouped", "depthwise", "conv1d")


def one_layer(kind, rng, activation="Relu", channels=4, side=7):
    """Return a graph of one linear layer and an activation function, and the layer's node."""
    shape = {"dense": (channels,), "matmul": (3, channels), "conv1d": (channels, side)}.get(
        kind, (channels, side, side)
    )
    net = Net(x=shape)
    if kind in ("dense", "matmul"):
        bias = [rng.normal(size=6)] if kind == "dense" else []
        net.add("Gemm" if kind == "dense" else "MatMul", "x", "y", [rng.normal(size=(channels, 6)), *bias])
    else:
        group = {"grouped": 2, "depthwise": channels}.get(kind, 1)
        kernel = (3,) if kind == "conv1d" else (3, 2)
        outputs = 2 * channels if kind in ("grouped", "depthwise") else 6
        options = {
            "strided": {"strides": [2, 3], "pads": [0, 1, 1, 0]},
            "dilated": {"dilations": [2, 1], "pads": [2, 0, 1, 1]},
        }.get(kind, {"pads": [1] * (2 * len(kernel))})
        weights = rng.normal(size=(outputs, channels // group, *kernel))
        net.add("Conv", "x", "y", [weights, rng.normal(size=outputs)], group=group, **options)
    net.add(activation, "y", "z") if activation else None
    graph = net.graph("z" if activation else "y")
    return graph, next(node for node in graph.nodes if node.output == "y")


def data_of(graph, node: Node, rng, samples=24, noise=0.05):
    """Return `Batches` of a layer: correlated inputs with a bit of noise on them, and its float outputs."""
    shape = graph.inputs[0].shape[1:]
    x = rng.normal(size=(samples, *shape)) + 2 * rng.normal(size=(samples, *(1,) * len(shape)))
    x = np.maximum(x, 0).astype(np.float32)
    x_hat = (x + noise * rng.normal(size=x.shape)).astype(np.float32)
    y = OnnxRunner.of_normalised(graph, [node.output]).run({"x": x})[node.output]
    return lambda: ((x_hat[i : i + 10], y[i : i + 10]) for i in range(0, samples, 10))


def grid_of(graph, node: Node, bits=3, per_channel=True, scheme="symmetric"):
    """Return a min-max grid of the layer's weights."""
    axis = weight_axis(node) if per_channel else None
    return weight_range(graph.constants[node.inputs[1]], IntegerFormat(bits, True), scheme, "min_max", axis=axis)
