"""Operators that files spell with several nodes, and operators that may stand at the end only."""

from __future__ import annotations

import numpy as np

from accelsim.errors import ModelError
from accelsim.graph.graph import Node
from accelsim.graph.operators import RESHAPES

_SIXTH = float(np.float32(1 / 6))


def merge_gates(nodes: list[Node], outputs: tuple[str, ...]) -> list[Node]:
    """Replace ``x · gate(x)`` by the operator that it is.

    Parameters
    ----------
    nodes : list of Node
        Nodes in topological order.
    outputs : tuple of str
        Graph outputs; a gate that is one is left alone.

    Returns
    -------
    list of Node
        ``Mul(x, Sigmoid(x))`` as Swish, ``Mul(x, HardSigmoid(x; 1/6, 1/2))`` as HardSwish, in either order of the
        operands. The new node has the product's name and output.
    """
    makers = {node.output: node for node in nodes}
    uses: dict[str, int] = dict.fromkeys(outputs, 1)
    for node in nodes:
        for name in node.inputs:
            uses[name] = uses.get(name, 0) + 1
    merged: dict[str, Node] = {}
    dropped: set[str] = set()
    for node in nodes:
        if node.op != "Mul":
            continue
        for value, gated in (node.inputs, reversed(node.inputs)):
            gate = makers.get(gated)
            if gate is None or gate.inputs[0] != value or uses[gated] != 1 or gate.name in dropped:
                continue
            if gate.op == "Sigmoid":
                merged[node.name] = Node(node.name, "Swish", (value,), node.output, {"alpha": 1.0})
            elif gate.op == "HardSigmoid" and gate.attributes == {"alpha": _SIXTH, "beta": 0.5}:
                merged[node.name] = Node(node.name, "HardSwish", (value,), node.output)
            else:
                continue
            dropped.add(gate.name)
            break
    return [merged.get(node.name, node) for node in nodes if node.name not in dropped]


def check_softmax(nodes: list[Node], outputs: tuple[str, ...], opset: int) -> None:
    """Raise a ModelError where a Softmax is followed by anything but reshapes.

    Parameters
    ----------
    nodes : list of Node
        Nodes in topological order.
    outputs : tuple of str
        Graph outputs.
    opset : int
        Opset of the model, for the message.
    """
    sources: dict[str, str] = {}  # tensor -> the Softmax whose values it holds
    for node in nodes:
        softmax = next((sources[name] for name in node.inputs if name in sources), None)
        if softmax is not None and node.op not in RESHAPES:
            raise ModelError(
                f"node {softmax!r} (Softmax, opset {opset}) is followed by node {node.name!r} ({node.op}); "
                "Softmax is supported at the end of the network only"
            )
        if node.op == "Softmax":
            sources[node.output] = node.name
        elif softmax is not None:
            sources[node.output] = softmax
