"""A quantized graph written as an ONNX model with QuantizeLinear and DequantizeLinear nodes (QDQ).

Every stored tensor is quantized and dequantized again, weights are integers behind a DequantizeLinear, biases int32
integers with the scale ``s_x * s_w``. The model also carries a description of the quantized graph (metadata property
`DESCRIPTION`), so that what is read back is the same network to the last bit, where float nodes of the same meaning
would round otherwise. A digest ties the description to the nodes and constants: a model that was changed is read like
any other.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper

from accelsim.formats import QuantizationParameters
from accelsim.graph.archive import graph_record, parameters_record
from accelsim.graph.builder import ModelBuilder
from accelsim.graph.graph import Node
from accelsim.graph.operators import LINEAR
from accelsim.graph.quantized import QuantizedGraph

DESCRIPTION = "accelsim.quantized_graph"
"""Metadata property with the description."""

VERSION = 1

_TYPES = {
    (4, True): TensorProto.INT4,
    (4, False): TensorProto.UINT4,
    (8, True): TensorProto.INT8,
    (8, False): TensorProto.UINT8,
    (16, True): TensorProto.INT16,
    (16, False): TensorProto.UINT16,
}


def to_qdq_onnx(quantized: QuantizedGraph) -> ModelProto:
    """Write a quantized graph as a QDQ model.

    Parameters
    ----------
    quantized : QuantizedGraph
        The network with its quantizers.

    Returns
    -------
    onnx.ModelProto
        Opset 21, the batch symbolic, inputs and outputs in float32. Weights of up to 4 bits lie in 4, others and
        activations in 8 or 16 bits; an activation of fewer bits than its type has is clipped before it is quantized.

    Notes
    -----
    ONNX Runtime's optimizer does not load all models with activations of 4 bits in QuantizeLinear itself.
    """
    return _Writing(quantized).model()


def digest(model: ModelProto) -> str:
    """Return a digest of the nodes, the constants and the names of inputs and outputs of a model."""
    content = hashlib.sha256()
    for part in (*model.graph.node, *model.graph.initializer):
        content.update(part.SerializeToString(deterministic=True))
    names = [[value.name for value in values] for values in (model.graph.input, model.graph.output)]
    content.update(json.dumps(names).encode())
    return content.hexdigest()


class _Writing:
    """One walk over the graph."""

    def __init__(self, quantized: QuantizedGraph) -> None:
        self.quantized, self.graph = quantized, quantized.graph
        self.builder = ModelBuilder(self.graph, quantized=True)
        self._fed = {tensor.name for tensor in self.graph.inputs}
        self._dequantized: dict[str, str] = {}
        self._held: dict[str, str] = {}
        self._integers: dict[str, str] = {}
        self._biases: dict[str, str] = {}

    def model(self) -> ModelProto:
        """Return the model."""
        builder, graph = self.builder, self.graph
        read = {name: name for name in graph.shapes}
        for tensor in graph.inputs:
            read[tensor.name] = builder.fresh(f"{tensor.name}.dequantized")
            self._pair(tensor.name, read[tensor.name], self.quantized.activations[tensor.name])
        for node in graph.nodes:
            operands = self._operands(node, read)
            parameters = self.quantized.activations.get(node.output)
            made = node.output if parameters is None else builder.fresh(f"{node.output}.unquantized")
            builder.emit(node, operands, made)
            if parameters is not None:
                self._pair(made, node.output, parameters)
        inputs = [(tensor.name, tensor.shape) for tensor in graph.inputs]
        model = builder.model(inputs, [(name, graph.shapes[name]) for name in graph.outputs])
        helper.set_model_props(model, {DESCRIPTION: json.dumps(self._description(model), allow_nan=False)})
        return model

    def _pair(self, source: str, target: str, parameters: QuantizationParameters) -> None:
        """Append QuantizeLinear and DequantizeLinear between two tensors."""
        data_type = _TYPES[8 if parameters.format.bits <= 8 else 16, parameters.format.signed]
        scale, zero_point = self._parameters(target, parameters, data_type)
        if parameters.format.bits not in (8, 16):
            limits = np.array(parameters.grid_limits).astype(np.float32)
            bounds = [
                self.builder.new_constant(f"{target}.{name}", value)
                for name, value in zip(("minimum", "maximum"), limits, strict=True)
            ]
            source = self.builder.add("Clip", [source, *bounds], self.builder.fresh(f"{target}.clipped"))
        codes = self.builder.fresh(f"{target}.codes")
        self.builder.add("QuantizeLinear", [source, scale, zero_point], codes)
        self.builder.add("DequantizeLinear", [codes, scale, zero_point], target)

    def _parameters(self, name: str, parameters: QuantizationParameters, data_type: int) -> tuple[str, str]:
        """Store a scale and a zero point; return their names."""
        scale = self.builder.new_constant(f"{name}.scale", np.array(parameters.scale, dtype=np.float32))
        return scale, self.builder.tensor(f"{name}.zero_point", data_type, np.asarray(parameters.zero_point))

    def _operands(self, node: Node, read: dict[str, str]) -> list[str]:
        """Return the names of a node's operands."""
        names = []
        for index, name in enumerate(node.inputs):
            if name not in self.graph.constants:
                names.append(read[name])
            elif index == 2 and node.op in LINEAR:
                continue
            elif name in self.quantized.weights:
                names.append(self._weights(name))
            else:
                names.append(self._real(node, name))
        if node.op in LINEAR and self.quantized.bias(node) is not None:
            names.append(self._bias(node))
        return names

    def _real(self, node: Node, name: str) -> str:
        """Store a constant that stays in float, such as the slope of a PRelu; return its name."""
        if node.op == "ChannelClip":
            bounds = dict(zip(node.inputs[1:], self.builder.channel_bounds(node), strict=True))
            self._held[name] = bounds[name]
            return name
        self._held[name] = self.builder.slope(node, name) if node.op == "PRelu" else name
        if self._held[name] == name:
            self.builder.constant(name, self.graph.constants[name])
        return self._held[name]

    def _weights(self, name: str) -> str:
        """Store integer weights once; return the name of what they stand for."""
        if name not in self._dequantized:
            weights = self.quantized.weights[name]
            stored = weights.parameters.format
            data_type = _TYPES[next(bits for bits in (4, 8, 16) if stored.bits <= bits), stored.signed]
            scale, zero_point = self._parameters(name, weights.parameters, data_type)
            self._integers[name] = self.builder.tensor(f"{name}.integers", data_type, weights.integers)
            self._dequantized[name] = self.builder.fresh(f"{name}.dequantized")
            axis = weights.parameters.axis
            attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
            operands = [self._integers[name], scale, zero_point]
            self.builder.add("DequantizeLinear", operands, self._dequantized[name], **attributes)
        return self._dequantized[name]

    def _bias(self, node: Node) -> str:
        """Store a bias: int32 integers where they fit, else float64 numbers; return the name of the float32 tensor."""
        integers = self.quantized.bias_integers(node)
        unit = self.quantized.bias_scale(node).astype(np.float32)
        target = self.builder.fresh(f"{node.name}.bias")
        if np.abs(integers).max(initial=0) < 1 << 31 and (unit >= np.finfo(np.float32).tiny).all():
            self._biases[node.name] = self.builder.tensor(f"{target}.integers", TensorProto.INT32, integers)
            scale = self.builder.new_constant(f"{target}.scale", unit)
            return self.builder.add("DequantizeLinear", [self._biases[node.name], scale], target, axis=0)
        bias = self.quantized.bias(node)
        assert bias is not None
        self._biases[node.name] = self.builder.tensor(f"{target}.real", TensorProto.DOUBLE, np.asarray(bias))
        return self.builder.add("Cast", [self._biases[node.name]], target, to=TensorProto.FLOAT)

    def _description(self, model: ModelProto) -> dict[str, Any]:
        """Describe the quantized graph: its nodes and quantizers, and the initializers that hold its arrays."""
        record = graph_record(self.graph, _NoArrays())
        record["constants"] = {
            name: {"initializer": self._held.get(name), "shape": list(value.shape)}
            for name, value in self.graph.constants.items()
        }
        return {
            "version": VERSION,
            "digest": digest(model),
            "graph": record,
            "activations": {name: parameters_record(value) for name, value in self.quantized.activations.items()},
            "weights": {
                name: {"integers": self._integers[name], "parameters": parameters_record(value.parameters)}
                for name, value in self.quantized.weights.items()
                if name in self._integers
            },
            "biases": self._biases,
        }


class _NoArrays:
    """Keeps no arrays: a model holds them itself."""

    def array(self, value: npt.NDArray[Any]) -> str:
        """Return nothing."""
        return ""

    def source(self, value: bytes | None) -> str | None:
        """Return nothing."""
        return None
