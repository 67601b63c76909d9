"""Changes of a float network's weights, biases and bounds, under new names, so that nothing shared changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import ModelError
from accelsim.graph.graph import Graph, Node

INFINITE = ("low", "high")
"""Kinds of operands that may be infinite."""


def free_name(wanted: str, taken: Iterable[str]) -> str:
    """Return a name, with a number behind it where it is taken."""
    names = set(taken)
    candidate, number = wanted, 2
    while candidate in names:
        candidate, number = f"{wanted}.{number}", number + 1
    return candidate


def bias_of(graph: Graph, node: Node) -> npt.NDArray[np.float64]:
    """Return the bias of a Conv, Gemm or MatMul in float64, zeros where it has none: shape (channels,)."""
    if len(node.inputs) > 2:
        return graph.constants[node.inputs[2]].astype(np.float64)
    weights = graph.constants[node.inputs[1]]
    return np.zeros(weights.shape[1 if node.op == "MatMul" else 0])


class Rewriting:
    """Collects changes of a graph; `result` is the changed graph.

    Parameters
    ----------
    graph : Graph
        What is changed.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._nodes: dict[str, Node] = {node.name: node for node in graph.nodes}
        self._constants: dict[str, npt.NDArray[Any]] = {}

    def set_operand(self, node: Node, slot: int, values: npt.NDArray[np.floating[Any]], kind: str) -> None:
        """Give a node another constant.

        Parameters
        ----------
        node : Node
            A node of the graph.
        slot : int
            Place among its inputs; one behind the last appends.
        values : float array
            Stored as float32.
        kind : str
            Part of the constant's name where the node had none: ``bias``.

        Raises
        ------
        ModelError
            When a value is not finite in float32.
        """
        with np.errstate(over="ignore"):
            stored = np.asarray(values).astype(np.float32)
        if np.isnan(stored).any() or (kind not in INFINITE and np.isinf(stored).any()):
            raise ModelError(f"node {node.name!r} ({node.op}): its {kind} is not finite in float32 any more")
        current = self._nodes[node.name]
        name = free_name(f"{node.output}.{kind}", (*self._graph.shapes, *self._graph.constants, *self._constants))
        self._constants[name] = stored
        inputs = list(current.inputs)
        inputs[slot : slot + 1] = [name]
        self._nodes[node.name] = replace(current, inputs=tuple(inputs))

    def set_weights(self, node: Node, values: npt.NDArray[np.floating[Any]]) -> None:
        """Give a Conv, Gemm or MatMul other weights, in the shape that it has them."""
        self.set_operand(node, 1, values, "weight")

    def set_bias(self, node: Node, values: npt.NDArray[np.floating[Any]]) -> None:
        """Give a Conv, Gemm or MatMul another bias; it may have had none."""
        self.set_operand(node, 2, values, "bias")

    def replace_node(self, node: Node, other: Node) -> None:
        """Put another node of the same name in the place of a node."""
        self._nodes[node.name] = other

    def result(self, shapes: Mapping[str, tuple[int | None, ...]] | None = None) -> Graph:
        """Return the changed graph."""
        graph = self._graph if not shapes else replace(self._graph, shapes={**self._graph.shapes, **shapes})
        return graph.with_nodes([self._nodes[node.name] for node in graph.nodes], self._constants)
