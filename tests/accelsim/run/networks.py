"""Tiny float networks that together use every operator of a Graph, in all its shapes."""

import functools
import zlib

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import accelsim as ax

SAMPLES = 2
CALIBRATION = 12


class Model:
    """An ONNX model under construction; weights are random, the same in every run."""

    def __init__(self, name, opset=17):
        self.name, self.opset = name, opset
        self.inputs, self.nodes, self.constants = {}, [], {}
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))

    def input(self, name, *shape):
        self.inputs[name] = shape
        return name

    def node(self, op, inputs, output, *constants, **attributes):
        """Append a node named after its output; arrays in ``constants`` become further inputs."""
        names = [inputs] if isinstance(inputs, str) else list(inputs)
        for number, value in enumerate(constants):
            names.append(self.constant(f"{output}.{number}", value))
        self.nodes.append(helper.make_node(op, names, [output], name=f"{output}_node", **attributes))
        return output

    def constant(self, name, value):
        array = np.asarray(value)
        self.constants[name] = array if array.dtype == np.int64 else array.astype(np.float32)
        return name

    def random(self, *shape):
        return self.rng.normal(size=shape)

    def graph(self, *outputs):
        model = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info(k, TensorProto.FLOAT, ["N", *v]) for k, v in self.inputs.items()],
            [helper.make_tensor_value_info(k, TensorProto.FLOAT, None) for k in outputs],
            [numpy_helper.from_array(value, key) for key, value in self.constants.items()],
        )
        opset = helper.make_opsetid("", self.opset)
        return ax.load_onnx(helper.make_model(model, opset_imports=[opset], ir_version=8 if self.opset < 19 else 9))


def convolutions():
    """2-D: asymmetric pads, strides, groups, depthwise with a multiplier, dilation; batch norms; Gemm."""
    m = Model("convolutions")
    x = m.input("image", 2, 5, 5)
    x = m.node("Conv", x, "c1", m.random(4, 2, 3, 2), m.random(4), pads=[1, 0, 2, 1], strides=[2, 1])
    norm = (m.rng.uniform(0.5, 2, 4), m.random(4), m.random(4), m.rng.uniform(0.5, 2, 4))
    x = m.node("BatchNormalization", x, "n1", *norm)
    x = m.node("Relu", x, "r1")
    x = m.node("Conv", x, "c2", m.random(4, 2, 2, 2), group=2, pads=[0, 1, 0, 0])
    x = m.node("Clip", x, "r2", 0.0, 1.5)
    x = m.node("Conv", x, "c3", m.random(8, 1, 2, 2), m.random(8), group=4, dilations=[1, 2], pads=[1, 1, 1, 1])
    x = m.node("GlobalAveragePool", x, "pooled")
    x = m.node("Flatten", x, "flat")
    x = m.node("Gemm", x, "logits", m.random(3, 8), m.random(3), transB=1)
    return m.graph(x)


def signals():
    """1-D: convolutions, pooling, means; MatMul of rank 2."""
    m = Model("signals")
    x = m.input("signal", 3, 9)
    x = m.node("Conv", x, "c1", m.random(4, 3, 3), m.random(4), pads=[2, 1], strides=[2])
    x = m.node("Relu", x, "r1")
    x = m.node("Conv", x, "c2", m.random(4, 1, 2), m.random(4), group=4, dilations=[2], pads=[1, 0])
    y = m.node("AveragePool", x, "average", kernel_shape=[2], strides=[2])
    z = m.node("MaxPool", x, "maximum", kernel_shape=[2], strides=[2])
    x = m.node("Concat", [y, z], "both", axis=1)
    x = m.node("PRelu", x, "p1", m.random(8, 1))
    x = m.node("ReduceMean", x, "mean", axes=[2], keepdims=0)
    x = m.node("MatMul", x, "logits", m.random(8, 3))
    return m.graph(x)


def residuals():
    """Add, Sub and Mul of two tensors, of one and a constant, with broadcasting, a tensor with itself."""
    m = Model("residuals")
    x = m.input("image", 3, 3, 3)
    a = m.node("Relu", m.node("Conv", x, "c1", m.random(3, 3, 1, 1)), "r1")
    b = m.node("Conv", a, "c2", m.random(3, 3, 3, 3), m.random(3), pads=[1, 1, 1, 1])
    s = m.node("Relu", m.node("Add", [a, b], "sum"), "r2")
    gate = m.node("Conv", m.node("GlobalAveragePool", s, "pooled"), "g1", m.random(3, 3, 1, 1), m.random(3))
    gate = m.node("HardSigmoid", gate, "g2")
    gated = m.node("Mul", [s, gate], "gated")
    d = m.node("Sub", [gated, b], "difference")
    shifted = m.node("Add", d, "shifted", m.random(3, 1, 1))
    turned = m.node("Sub", [m.constant("one", m.random(1, 3, 3, 1)), shifted], "turned")
    scaled = m.node("Mul", turned, "scaled", -1.5)
    return m.graph(m.node("Clip", m.node("Mul", [scaled, scaled], "square"), "clipped", 0.25, 4.0), shifted)


def movements():
    """Concat, Transpose, Reshape, Squeeze, Unsqueeze, Flatten, Pad with 0 and with another value."""
    m = Model("movements")
    x = m.input("image", 2, 3, 4)
    c = m.node("Conv", x, "c1", 0.1 * m.random(1, 2, 1, 1))  # its range lies inside that of x: only it is rescaled
    x = m.node("Concat", [x, c, x], "joined", axis=1)
    x = m.node("Pad", x, "padded", np.array([0, 1, 0, 1, 0, 0, 2, 0]))
    x = m.node("Pad", x, "framed", np.array([0, 0, 1, 0, 0, 0, 0, 1]), -0.75)
    x = m.node("Transpose", x, "turned", perm=[0, 2, 3, 1])
    x = m.node("Reshape", x, "square", np.array([0, 9, -1]))
    y = m.node("Unsqueeze", x, "deep", np.array([1]))
    x = m.node("Squeeze", y, "shallow", np.array([1]))
    x = m.node("Concat", [x, x], "wide", axis=2)
    return m.graph(m.node("Flatten", x, "flat"), y)


def pools():
    """Windows with ceil_mode, count_include_pad, dilation, asymmetric pads; means that keep their axes."""
    m = Model("pools", opset=13)
    x = m.input("image", 2, 5, 6)
    outputs = [
        m.node("MaxPool", x, "m1", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]),
        m.node("MaxPool", x, "m2", kernel_shape=[2, 2], strides=[2, 4], ceil_mode=1),
        m.node("MaxPool", x, "m3", kernel_shape=[2, 2], dilations=[2, 3]),
        m.node("AveragePool", x, "a1", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]),
        m.node("AveragePool", x, "a2", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1], count_include_pad=1),
        m.node("AveragePool", x, "a3", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        m.node("AveragePool", x, "a4", kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 0, 0], ceil_mode=1,
               count_include_pad=1),
        m.node("ReduceMean", x, "r1", axes=[2, 3], keepdims=1),
        m.node("ReduceMean", x, "r2", axes=[-1, -2], keepdims=0),
        m.node("GlobalAveragePool", x, "g1"),
    ]  # fmt: skip
    return m.graph(*outputs)


def functions():
    """Every activation function on its own, on one feature map."""
    m = Model("functions")
    x = m.input("image", 3, 2, 2)
    x = m.node("Conv", x, "c1", 2 * m.random(3, 3, 1, 1), m.random(3))
    outputs = [
        m.node("Relu", x, "relu"),
        m.node("Clip", x, "clip", -0.5, 1.25),
        m.node("LeakyRelu", x, "leaky", alpha=0.2),
        m.node("PRelu", x, "prelu", m.random(3, 1, 1)),
        m.node("PRelu", x, "prelu of one", m.random(1)),
        m.node("Sigmoid", x, "sigmoid"),
        m.node("Tanh", x, "tanh"),
        m.node("HardSigmoid", x, "hard sigmoid", alpha=0.3, beta=0.4),
        m.node("HardSwish", x, "hard swish"),
        m.node("Mul", [x, m.node("Sigmoid", x, "gate")], "swish"),
    ]
    return m.graph(*outputs)


def tokens():
    """MatMul of rank 3, with and without a bias, a Softmax over the last axis."""
    m = Model("tokens")
    x = m.input("tokens", 4, 5)
    x = m.node("Add", m.node("MatMul", x, "p1", m.random(5, 6)), "b1", m.random(6))
    x = m.node("Relu", x, "r1")
    y = m.node("MatMul", x, "p2", m.random(6, 3))
    x = m.node("Transpose", y, "turned", perm=[0, 2, 1])
    x = m.node("MatMul", x, "p3", m.random(4, 4))
    return m.graph(m.node("Softmax", x, "shares", axis=-1), y)


def classifier():
    """Two inputs, a batch norm that nothing absorbs, a Softmax over the channels behind a Flatten."""
    m = Model("classifier")
    a, b = m.input("left", 2, 3, 3), m.input("right", 2, 3, 1)
    x = m.node("Add", [a, b], "sum")
    norm = (m.rng.uniform(0.5, 2, 2), m.random(2), m.random(2), m.rng.uniform(0.5, 2, 2))
    x = m.node("BatchNormalization", x, "norm", *norm)
    x = m.node("Relu", x, "r1")
    x = m.node("Conv", x, "c1", m.random(4, 2, 3, 3), m.random(4))
    return m.graph(m.node("Flatten", m.node("Softmax", x, "shares", axis=1), "flat"))


NETWORKS = {
    build.__name__: build
    for build in (convolutions, signals, residuals, movements, pools, functions, tokens, classifier)
}

CONFIGS = {
    "8 bits": {},
    "8 bits per channel": {"per_channel": True, "activation_range": "min_max"},
    "asymmetric weights": {"weight_scheme": "affine", "weight_bits": 5, "activation_bits": 6},
    "asymmetric weights per channel": {
        "weight_scheme": "affine", "per_channel": True, "weight_bits": 7, "activation_signed": True},
    "4 and 8 bits, symmetric": {"weight_bits": 4, "activation_scheme": "symmetric"},
    "2 bits": {"weight_bits": 2, "activation_bits": 2, "per_channel": True},
    "3 and 12 bits": {"weight_bits": 3, "activation_bits": 12, "activation_signed": True},
    "16 bits": {"weight_bits": 16, "activation_bits": 16},
    "plain": {"equalize": False, "prune_constants": False, "bias_correction": "none"},
    "cross-layer": {"equalization": "cross_layer", "absorb_biases": "always"},
}  # fmt: skip
"""Choices of quantization; with ``power_of_two`` in addition for the shift-only requantizer."""


@functools.cache
def graph_of(name):
    return NETWORKS[name]()


@functools.cache
def images_of(name, samples=SAMPLES, seed=1):
    rng = np.random.default_rng(seed)
    return {
        tensor.name: (2 * rng.normal(size=(samples, *tensor.shape[1:]))).astype(np.float32)
        for tensor in graph_of(name).inputs
    }


@functools.cache
def quantized_network(name, config="8 bits", power_of_two=False):
    """A network quantized on random calibration data."""
    chosen = ax.PTQConfig(**CONFIGS[config], power_of_two=power_of_two)
    return ax.quantize(graph_of(name), images_of(name, CALIBRATION, seed=0), chosen)
