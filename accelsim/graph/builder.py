"""An ONNX model under construction: nodes of a `Graph` spelled as standard ONNX nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from accelsim.graph.graph import Graph, Node, Shape

_OPSET = 17
_IR_VERSION = 8
# The first opset in which AveragePool has dilations, and the IR version that came with it.
_OPSET_DILATED_AVERAGE = 19
_IR_VERSION_DILATED_AVERAGE = 9
# The first opset in which QuantizeLinear makes 4 and 16 bits, and the IR version that came with it.
_OPSET_QUANTIZED = 21
_IR_VERSION_QUANTIZED = 10


class ModelBuilder:
    """Collects nodes and constants, and names them without collisions.

    Parameters
    ----------
    graph : Graph
        Its shapes, inputs and names are those of the model.
    quantized : bool
        It will hold QuantizeLinear and DequantizeLinear nodes of 4, 8 and 16 bits.
    """

    def __init__(self, graph: Graph, quantized: bool = False) -> None:
        self._graph = graph
        self._nodes: list[NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._bounds: dict[str, tuple[str, str]] = {}
        self._node_names = {node.name for node in graph.nodes}
        self._tensor_names = set(graph.shapes) | set(graph.constants) | set(graph.outputs)
        dilated = any(
            node.op == "AveragePool" and any(step != 1 for step in _ints(node, "dilations")) for node in graph.nodes
        )
        self.opset = _OPSET_DILATED_AVERAGE if dilated else _OPSET
        self._ir_version = _IR_VERSION_DILATED_AVERAGE if dilated else _IR_VERSION
        if quantized:
            self.opset, self._ir_version = _OPSET_QUANTIZED, _IR_VERSION_QUANTIZED

    def fresh(self, wanted: str) -> str:
        """Return a tensor name that is not taken, the wanted one where possible."""
        return _fresh(wanted, self._tensor_names)

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """Store a constant under a name that the graph has for it; a second time does nothing."""
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
        return name

    def tensor(self, wanted: str, data_type: int, value: npt.NDArray[Any]) -> str:
        """Store a constant of an ONNX type that numpy may not have; return its name."""
        name = self.fresh(wanted)
        flat = value.reshape(-1).tolist()
        self._initializers[name] = helper.make_tensor(name, data_type, value.shape, flat)
        return name

    def new_constant(self, wanted: str, value: npt.NDArray[Any]) -> str:
        """Store a constant that the graph does not have; return its name."""
        return self.constant(self.fresh(wanted), value)

    def add(self, op: str, inputs: Sequence[str], output: str, name: str | None = None, **attributes: Any) -> str:
        """Append a standard node; return its output. ``name`` is None for a node that the graph does not have."""
        if name is None:
            name = _fresh(output, self._node_names)
        self._nodes.append(helper.make_node(op, list(inputs), [output], name=name, **attributes))
        return output

    def model(self, inputs: Iterable[tuple[str, Shape]], outputs: Iterable[tuple[str, Shape]]) -> ModelProto:
        """Return the finished model with the batch ``N`` left open."""
        proto = helper.make_graph(
            self._nodes,
            self._graph.name or "model",
            [_value_info(name, shape) for name, shape in inputs],
            [_value_info(name, shape) for name, shape in outputs],
            initializer=list(self._initializers.values()),
        )
        return helper.make_model(
            proto,
            producer_name="accelsim",
            ir_version=self._ir_version,
            opset_imports=[helper.make_opsetid("", self.opset)],
        )

    def emit(self, node: Node, inputs: Sequence[str], output: str) -> None:
        """Append a node of the graph.

        Parameters
        ----------
        node : Node
            The node, with its normalised attributes.
        inputs : sequence of str
            Names to read its operands from.
        output : str
            Name to give its output.
        """
        shape = self._graph.shapes[node.output]
        attributes: dict[str, Any] = {
            key: list(value) if isinstance(value, tuple) else value for key, value in node.attributes.items()
        }
        operands = list(inputs)
        op = node.op
        match node.op:
            case "Gemm":
                attributes = {"transB": 1}
            case "MatMul" if len(operands) == 3:
                product = self.add("MatMul", operands[:2], self.fresh(f"{output}.product"))
                op, operands = "Add", [product, operands[2]]
            case "Conv":
                attributes["kernel_shape"] = list(self._graph.constants[node.inputs[1]].shape[2:])
            case "Clip":
                operands, attributes = [*operands, *self._clip_bounds(node)], {}
            case "ChannelClip":
                self._emit_channel_clip(node, operands, output)
                return
            case "PRelu":
                operands[1] = self.slope(node, operands[1])
            case "Swish":
                self._emit_swish(node, operands[0], output)
                return
            case "MaxPool":
                del attributes["count_include_pad"]
            case "AveragePool" if set(_ints(node, "dilations")) == {1}:
                del attributes["dilations"]
            case "ReduceMean" if self.opset >= 18:
                axes = np.array(attributes.pop("axes"), dtype=np.int64)
                operands.append(self.new_constant(f"{node.name}.axes", axes))
            case "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze":
                # 0 copies axis 0 of the input, the batch.
                target = np.array([0, *shape[1:]], dtype=np.int64)
                op, operands = "Reshape", [operands[0], self.new_constant(f"{node.name}.shape", target)]
            case "Pad":
                pads = self.new_constant(f"{node.name}.pads", np.array(attributes["pads"], dtype=np.int64))
                value = self.new_constant(f"{node.name}.value", np.array(attributes["value"], dtype=np.float32))
                operands, attributes = [operands[0], pads, value], {"mode": "constant"}
        self.add(op, operands, output, node.name, **attributes)

    def _clip_bounds(self, node: Node) -> list[str]:
        """Return the names of Clip's bounds, empty or left out where they are infinite."""
        names = []
        for key in ("min", "max"):
            value = np.array(node.attributes[key], dtype=np.float32)
            names.append(self.new_constant(f"{node.name}.{key}", value) if np.isfinite(value) else "")
        while names and not names[-1]:
            names.pop()
        return names

    def _emit_channel_clip(self, node: Node, operands: Sequence[str], output: str) -> None:
        """Append ``Min(Max(x, low), high)``: standard nodes with a bound per channel."""
        low, high = self.channel_bounds(node)
        raised = self.add("Max", [operands[0], low], self.fresh(f"{output}.raised"))
        self.add("Min", [raised, high], output, node.name)

    def channel_bounds(self, node: Node) -> tuple[str, str]:
        """Store the bounds of a ChannelClip, once, in a shape that broadcasts along axis 1; return their names."""
        if node.name not in self._bounds:
            rank = len(self._graph.shapes[node.inputs[0]])
            names = []
            for name, kind in zip(node.inputs[1:], ("low", "high"), strict=True):
                value = self._graph.constants[name].reshape(-1, *(1,) * (rank - 2))
                names.append(self.new_constant(f"{node.name}.{kind}", value))
            self._bounds[node.name] = (names[0], names[1])
        return self._bounds[node.name]

    def slope(self, node: Node, name: str) -> str:
        """Return PRelu's slope in a shape that broadcasts along axis 1."""
        if name != node.inputs[1]:
            return name  # it is in that shape already
        value = self._graph.constants[name]
        rank = len(self._graph.shapes[node.inputs[0]])
        if value.ndim == 0 or rank == 2:
            return name
        return self.new_constant(f"{node.name}.slope", value.reshape(-1, *(1,) * (rank - 2)))

    def _emit_swish(self, node: Node, value: str, output: str) -> None:
        """Append x · sigmoid(alpha · x); Swish itself came with opset 24 only."""
        argument = value
        if node.attributes["alpha"] != 1.0:
            alpha = self.new_constant(f"{node.name}.alpha", np.array(node.attributes["alpha"], dtype=np.float32))
            argument = self.add("Mul", [value, alpha], self.fresh(f"{output}.scaled"))
        gate = self.add("Sigmoid", [argument], self.fresh(f"{output}.sigmoid"))
        self.add("Mul", [value, gate], output, node.name)


def _fresh(wanted: str, taken: set[str]) -> str:
    """Return a name that is not taken yet, and take it."""
    name, number = wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    taken.add(name)
    return name


def _ints(node: Node, key: str) -> tuple[int, ...]:
    """Return an attribute that is a tuple of integers."""
    value = node.attributes[key]
    return value if isinstance(value, tuple) else ()


def _value_info(name: str, shape: Shape) -> onnx.ValueInfoProto:
    """Return the declaration of a float32 tensor with a symbolic batch."""
    return helper.make_tensor_value_info(
        name, TensorProto.FLOAT, ["N" if length is None else length for length in shape]
    )
