"""MobileNetV2-1.0 at 224 x 224 with random weights, as an ONNX model."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, repeats, stride of the first: Sandler et al. 2018, table 2."""


class _Builder:
    """Nodes and weights so far."""

    def __init__(self) -> None:
        self.nodes: list[object] = []
        self.weights: list[object] = []
        self.rng = np.random.default_rng(0)

    def constant(self, name: str, values: object) -> str:
        """Add a constant."""
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype=np.float32), name))
        return name

    def conv(self, source: str, inputs: int, outputs: int, size: int, stride: int, groups: int, relu6: bool) -> str:
        """Add a convolution with a bias, and ReLU6."""
        name = f"conv{len(self.nodes)}"
        fan = inputs // groups * size * size
        weights = self.constant(
            f"{name}.w", self.rng.normal(0, (2 / fan) ** 0.5, (outputs, inputs // groups, size, size))
        )
        bias = self.constant(f"{name}.b", self.rng.normal(0, 0.1, outputs))
        pad = size // 2
        self.nodes.append(
            helper.make_node(
                "Conv", [source, weights, bias], [name], name=f"{name}_node", group=groups, strides=[stride, stride],
                pads=[pad] * 4,
            )
        )  # fmt: skip
        if not relu6:
            return name
        self.nodes.append(helper.make_node("Clip", [name, "zero", "six"], [f"{name}.relu6"], name=f"{name}_relu6"))
        return f"{name}.relu6"


def mobilenet_v2() -> bytes:
    """Return the model."""
    b = _Builder()
    b.constant("zero", 0.0), b.constant("six", 6.0)
    x, channels = b.conv("image", 3, 32, 3, 2, 1, True), 32
    for expansion, outputs, repeats, first_stride in BLOCKS:
        for repeat in range(repeats):
            stride, hidden, source = first_stride if repeat == 0 else 1, channels * expansion, x
            if expansion > 1:
                x = b.conv(x, channels, hidden, 1, 1, 1, True)
            x = b.conv(x, hidden, hidden, 3, stride, hidden, True)
            x = b.conv(x, hidden, outputs, 1, 1, 1, False)
            if stride == 1 and channels == outputs:
                b.nodes.append(helper.make_node("Add", [source, x], [f"{x}.sum"], name=f"{x}_sum"))
                x = f"{x}.sum"
            channels = outputs
    x = b.conv(x, channels, 1280, 1, 1, 1, True)
    b.nodes.append(helper.make_node("GlobalAveragePool", [x], ["pooled"], name="pool"))
    b.nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"))
    b.constant("fc.w", b.rng.normal(0, 0.03, (1000, 1280))), b.constant("fc.b", np.zeros(1000))
    b.nodes.append(helper.make_node("Gemm", ["flat", "fc.w", "fc.b"], ["logits"], name="fc", transB=1))
    graph = helper.make_graph(
        b.nodes, "mobilenet_v2_random",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1000])], b.weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
