"""From an ONNX model to a `Graph`: everything that is not supported is refused here, once, in one line.

The shape of every tensor is computed from the operators' own rules while they are normalised, with the batch left
open; shapes that the file merely declares for inner tensors are not relied on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from accelsim.errors import ModelError
from accelsim.graph.graph import Graph, Node, Shape
from accelsim.graph.limits import MAX_ELEMENTS, num_elements
from accelsim.graph.normalise import Alias, Call, Folded, Layer, normalise
from accelsim.graph.onnx_file import ModelSource, read_model
from accelsim.graph.onnx_structure import Skeleton, describe, read_skeleton
from accelsim.graph.onnx_tensors import tensor_array
from accelsim.graph.patterns import check_softmax, merge_gates

_LONGEST_MESSAGE = 600


def load_onnx(model: ModelSource) -> Graph:
    """Read a float ONNX model.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto
        A convolutional network in float32, opset 11 or newer. Axis 0 of every input is the batch; the other lengths
        are fixed. External data is read from the folder of the path only.

    Returns
    -------
    Graph
        The network with normalised operators; ``Graph.source`` holds the model as it came.

    Raises
    ------
    ModelError
        When the model is malformed, or holds an operator, attribute, type or shape that is not supported: one line
        that names the node, its operator and the opset.
    """
    try:
        proto, source, label = read_model(model)
        skeleton = read_skeleton(proto)
        return _Reading(skeleton).graph(proto.graph.name or label, source)
    except ModelError as error:
        raise ModelError(one_line(str(error))) from None
    except UnicodeDecodeError as error:
        # Protobuf checks text only when it is looked at, wherever that happens to be.
        raise ModelError(f"the model holds a name that is not valid UTF-8: {error.reason}") from None


def one_line(message: str) -> str:
    """Escape control characters and shorten what a file may have put into a message."""
    clean = "".join(character if character.isprintable() else repr(character)[1:-1] for character in message)
    return clean if len(clean) <= _LONGEST_MESSAGE else clean[: _LONGEST_MESSAGE - 4] + " ..."


class _Reading:
    """The state while the nodes of one model are walked through."""

    def __init__(self, skeleton: Skeleton) -> None:
        self._skeleton = skeleton
        self._constants: dict[str, npt.NDArray[Any]] = {}
        self._shapes: dict[str, Shape] = {tensor.name: tensor.shape for tensor in skeleton.inputs}
        self._aliases: dict[str, str] = {}
        self._num_computed = 0
        self._nodes: list[Node] = []
        self._node_names = _Names(())
        # Names that are taken, in the model or by constants made here.
        self._tensor_names = _Names(
            [*self._shapes, *skeleton.initializers, *(name for node in skeleton.nodes for name in node.output)]
        )
        for node in skeleton.nodes:
            self._read(node)

    def graph(self, name: str, source: bytes) -> Graph:
        """Return the finished graph."""
        outputs = self._skeleton.outputs
        self._name_outputs()
        nodes = merge_gates(self._nodes, outputs)
        check_softmax(nodes, outputs, self._skeleton.opset)
        used = {name for node in nodes for name in node.inputs}
        made = {node.output for node in nodes} | {tensor.name for tensor in self._skeleton.inputs}
        return Graph(
            name=name,
            opset=self._skeleton.opset,
            inputs=self._skeleton.inputs,
            outputs=outputs,
            nodes=tuple(nodes),
            constants={key: value for key, value in self._constants.items() if key in used},
            shapes={key: shape for key, shape in self._shapes.items() if key in made},
            source=source,
            batch_size=self._skeleton.batch_size,
        )

    def _read(self, proto: NodeProto) -> None:
        """Normalise one node and take up what became of it."""
        for name in proto.input:
            if name in self._skeleton.initializers and name not in self._constants:
                what = f"{describe(proto, self._skeleton.opset)}: constant {name!r}"
                self._constants[name] = tensor_array(self._skeleton.initializers[name], what)
        call = Call(
            proto,
            tuple(self._aliases.get(name, name) for name in proto.input),
            self._skeleton.opset,
            self._shapes,
            self._constants,
            self._skeleton.batch_size,
        )
        output = proto.output[0]
        result = normalise(call)
        match result:
            case Alias(tensor):
                self._aliases[output] = tensor
            case Folded(value):
                self._keep(output, value, call.label)
            case Layer():
                self._add(result, proto, output, call.label)

    def _keep(self, name: str, value: npt.NDArray[Any], label: str) -> None:
        """Take up a constant that was computed; all of them together are bounded, however often a file asks."""
        self._num_computed += value.size
        if self._num_computed > MAX_ELEMENTS:
            raise ModelError(f"{label}: the constants computed so far exceed the {MAX_ELEMENTS} elements supported")
        self._constants[name] = value

    def _add(self, layer: Layer, proto: NodeProto, output: str, label: str) -> None:
        """Append a node to the graph."""
        lengths = [length for length in layer.shape[1:] if length is not None]
        num_elements(f"the output of {label}", lengths)
        name = self._node_names.fresh(proto.name or output)
        inputs = []
        for index, operand in enumerate(layer.inputs):
            if isinstance(operand, str):
                inputs.append(operand)
            else:
                # Named after the constant that it was made from.
                constant = self._tensor_names.fresh(f"{proto.input[index]}.normalised")
                self._keep(constant, np.ascontiguousarray(operand, dtype=np.float32).reshape(operand.shape), label)
                inputs.append(constant)
        self._nodes.append(Node(name, layer.op or proto.op_type, tuple(inputs), output, layer.attributes))
        self._shapes[output] = layer.shape

    def _name_outputs(self) -> None:
        """Let every output of the model be made under its own name, though aliases have dissolved."""
        fed = {tensor.name for tensor in self._skeleton.inputs}
        taken: set[str] = {name for name in self._skeleton.outputs if name not in self._aliases}
        renamed: dict[str, str] = {}
        copies: list[tuple[str, str]] = []
        for name in self._skeleton.outputs:
            tensor = self._aliases.get(name, name)
            if tensor in fed:
                raise ModelError(f"graph output {name!r} is the input {tensor!r} itself; there is nothing to compute")
            if tensor in self._constants or tensor in self._skeleton.initializers:
                raise ModelError(f"graph output {name!r} is a constant; it does not depend on any input")
            if tensor not in self._shapes:
                raise ModelError(f"graph output {name!r} is made by no node")
            if tensor == name:
                continue
            if tensor in taken or tensor in renamed:
                copies.append((name, tensor))
            else:
                renamed[tensor] = name
        self._nodes = [_renamed(node, renamed) for node in self._nodes]
        for tensor, name in renamed.items():
            self._shapes[name] = self._shapes[tensor]
        for name, tensor in copies:
            # One tensor under two output names: a reshape to the same shape makes the second one.
            source = renamed.get(tensor, tensor)
            self._shapes[name] = self._shapes[source]
            self._nodes.append(Node(self._node_names.fresh(name), "Reshape", (source,), name))


def _renamed(node: Node, names: dict[str, str]) -> Node:
    """Return a node with some of its tensors renamed."""
    if node.output not in names and not any(name in names for name in node.inputs):
        return node
    inputs = tuple(names.get(name, name) for name in node.inputs)
    return Node(node.name, node.op, inputs, names.get(node.output, node.output), node.attributes)


class _Names:
    """Names that are taken, and new ones beside them."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)
        self._counts: dict[str, int] = {}

    def fresh(self, wanted: str) -> str:
        """Return the wanted name, or that name with the first free number."""
        name = wanted
        while name in self._taken:
            self._counts[wanted] = self._counts.get(wanted, 0) + 1
            name = f"{wanted}_{self._counts[wanted]}"
        self._taken.add(name)
        return name
