"""Small float networks for the tests of post-training quantization, made as ONNX models and read as a Graph."""

import numpy as np
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from accelsim.graph.reader import load_onnx
from accelsim.reference import OnnxRunner


class Net:
    """Collects ONNX nodes; `graph` reads them back through the reader."""

    def __init__(self, **inputs):
        self.inputs = inputs
        self.nodes = []
        self.constants = {}

    def add(self, op, inputs, output, constants=(), **attributes):
        """Append a node; arrays in ``constants`` become further inputs."""
        names = [inputs] if isinstance(inputs, str) else list(inputs)
        for number, value in enumerate(constants):
            name = f"{output}_c{number}"
            self.constants[name] = np.asarray(value, dtype=np.int64 if op in ("Reshape", "Pad") else np.float32)
            names.append(name)
        if op == "Pad":
            self.constants[names[-1]] = self.constants[names[-1]].astype(np.float32)
        self.nodes.append(helper.make_node(op, names, [output], name=f"{output}_node", **attributes))
        return output

    def batch_norm(self, source, output, channels, rng):
        values = (
            rng.uniform(0.5, 2, channels) * rng.choice([-1, 1], channels),
            rng.normal(size=channels),
            rng.normal(size=channels),
            rng.uniform(0.1, 3, channels),
        )
        return self.add("BatchNormalization", source, output, values, epsilon=1e-3)

    def graph(self, *outputs, batch="N"):
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])
            for name, shape in self.inputs.items()
        ]
        returned = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        constants = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, "net", inputs, returned, constants)
        return load_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def conv_net(rng, channels=4, side=6):
    """Conv, batch norm, Relu, depthwise conv, Clip, residual Add, pooling, Gemm."""
    net = Net(image=(3, side, side))
    net.add("Conv", "image", "c1", [rng.normal(size=(channels, 3, 3, 3))], pads=[1, 1, 1, 1])
    net.batch_norm("c1", "n1", channels, rng)
    net.add("Relu", "n1", "r1")
    net.add("Conv", "r1", "c2", [rng.normal(size=(channels, 1, 3, 3))], pads=[1, 1, 1, 1], group=channels)
    net.batch_norm("c2", "n2", channels, rng)
    net.add("Clip", "n2", "r2", [0.0, 6.0])
    net.add("Add", ["r1", "r2"], "sum")
    net.add("GlobalAveragePool", "sum", "pooled")
    net.add("Flatten", "pooled", "flat")
    net.add("Gemm", "flat", "logits", [rng.normal(size=(7, channels)), rng.normal(size=7)], transB=1)
    return net.graph("logits")


def run_float(graph, images, outputs=None):
    """Run the normalised graph in ONNX Runtime."""
    name = graph.inputs[0].name
    return OnnxRunner.of_normalised(graph, outputs).run({name: np.asarray(images, dtype=np.float32)})


@st.composite
def linear_chains(draw):
    """A random chain of linear layers, batch norms, constant arithmetic and activations; rank 2, 3 or 4."""
    rank = draw(st.integers(2, 4))
    channels = draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    net = Net(x=(channels, *[4] * (rank - 2)))
    tensor, made = "x", []
    steps = draw(
        st.lists(
            st.sampled_from(["linear", "norm", "Add", "Sub", "rsub", "Mul", "scalar", "pixel", "Relu", "tap"]),
            min_size=1,
            max_size=7,
        )
    )
    taps = []
    for number, step in enumerate(steps):
        output = f"t{number}"
        vector = rng.uniform(0.5, 2, size=(channels, *[1] * (rank - 2))) * rng.choice([-1, 1])
        if step == "linear" and rank == 2 and draw(st.booleans()):
            net.add("MatMul", tensor, output, [rng.normal(size=(channels, channels))])
        elif step == "linear" and rank == 2:
            net.add("Gemm", tensor, output, [rng.normal(size=(channels, channels)), rng.normal(size=channels)])
        elif step == "linear":
            biases = [rng.normal(size=channels)] if draw(st.booleans()) else []
            net.add("Conv", tensor, output, [rng.normal(size=(channels, channels, *[1] * (rank - 2))), *biases])
        elif step == "norm":
            net.batch_norm(tensor, output, channels, rng)
        elif step == "rsub":
            net.constants[f"{output}_left"] = vector.astype(np.float32)
            net.add("Sub", [f"{output}_left", tensor], output)
        elif step == "scalar":
            net.add("Mul", tensor, output, [np.float32(1.5)])
        elif step == "pixel":
            net.add("Add", tensor, output, [rng.normal(size=(1, *[4] * (rank - 2)))])
        elif step == "tap":  # a second reader of the tensor, or a graph output inside the chain
            output = tensor
            taps.append(net.add("Relu", tensor, f"tap{number}"))
            if draw(st.booleans()) and tensor != "x":
                taps.append(tensor)
        elif step == "Relu":
            net.add("Relu", tensor, output)
        else:
            net.add(step, tensor, output, [vector])
        tensor = output
        made.append(output)
    outputs = [name for name in dict.fromkeys([tensor, *taps]) if name != "x"]
    if not outputs:
        outputs = [net.add("Relu", tensor, "end")]
    return net.graph(*outputs)
