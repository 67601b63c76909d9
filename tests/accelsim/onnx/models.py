"""Small quantized ONNX models, and ONNX Runtime to run them as they are."""

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import accelsim as ax

RANGES = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-(1 << 15), (1 << 15) - 1), "uint16": (0, (1 << 16) - 1)}


class Model:
    """An ONNX model under construction, with the values of its inputs."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.constants, self.inputs, self.feeds = [], [], [], {}

    def name(self):
        return f"t{len(self.nodes) + len(self.constants) + len(self.inputs)}"

    def constant(self, value, data_type=None):
        """Store a constant; with a data type, one that numpy does not have."""
        name, value = f"c{len(self.constants)}", np.asarray(value)
        if data_type is None:
            self.constants.append(numpy_helper.from_array(value, name))
        else:
            self.constants.append(helper.make_tensor(name, data_type, value.shape, value.reshape(-1).tolist()))
        return name

    def input(self, values, batch=None):
        name, values = f"x{len(self.inputs)}", np.asarray(values)
        data_type = helper.np_dtype_to_tensor_dtype(values.dtype)
        shape = values.shape if batch is None else (batch, *values.shape[1:])
        self.inputs.append(helper.make_tensor_value_info(name, data_type, shape))
        self.feeds[name] = values
        return name

    def node(self, op, inputs, output=None, domain="", outputs=1, **attributes):
        names = (
            [output or f"y{len(self.nodes)}"] if outputs == 1 else [f"y{len(self.nodes)}.{i}" for i in range(outputs)]
        )
        self.nodes.append(helper.make_node(op, inputs, names, name=f"{op}_{names[0]}", domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def contrib(self, op, inputs, **attributes):
        return self.node(op, inputs, domain="com.microsoft", **attributes)

    def codes(self, dtype, *shape, most=None):
        low, high = RANGES[dtype] if most is None else (-most, most)
        return self.rng.integers(low, high + 1, shape).astype(dtype)

    def scale(self, *shape):
        """A scale; half of them powers of two, with which ties are common."""
        exponents = self.rng.uniform(-8, 0, shape)
        return np.exp2(np.round(exponents) if self.rng.random() < 0.5 else exponents).astype(np.float32)

    def zero_point(self, dtype, *shape):
        return self.rng.integers(*RANGES[dtype], shape, endpoint=True).astype(dtype)

    def quantizer(self, dtype, factor=1.0):
        """Constants of a random quantizer of a whole tensor."""
        scale = np.asarray(self.scale() * np.float32(factor), dtype=np.float32)
        return [self.constant(scale), self.constant(np.asarray(self.zero_point(dtype)))]

    def dequantized(self, codes, dtype, factor=1.0):
        return self.node("DequantizeLinear", [codes, *self.quantizer(dtype, factor)])

    def quantized(self, tensor, dtype, factor=1.0):
        return self.node("QuantizeLinear", [tensor, *self.quantizer(dtype, factor)])

    def model(self, *outputs, opset=21):
        made = {name: helper.make_empty_tensor_value_info(name) for name in outputs}
        graph = helper.make_graph(self.nodes, "quantized", self.inputs, list(made.values()), self.constants)
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def by_onnxruntime(model, feeds, optimize=False):
    """Return the outputs of ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def differing(model, feeds, machine=None):
    """Return how many elements of all outputs differ from ONNX Runtime's, and the program."""
    program = ax.load_integer_onnx(model)
    result = ax.simulate(program, feeds, machine)
    count = 0
    for codes, wanted in zip(result.outputs.values(), by_onnxruntime(model, feeds), strict=True):
        assert (codes.shape, codes.dtype) == (wanted.shape, wanted.dtype)
        count += int((codes != wanted).sum())
    return count, program


INT4 = TensorProto.INT4
