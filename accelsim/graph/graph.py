"""The float network: nodes, tensors and constants, after reading and normalisation.

A `Graph` is what the rest of the package knows of a model. Reading a file into it, with every refusal, is the work of
`accelsim.graph.reader`; a Graph that exists is valid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import ModelError
from accelsim.tables import html_table

Shape = tuple[int | None, ...]
"""Lengths of the axes; None stands for the batch, and only at axis 0."""

AttributeValue = int | float | tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """An input.

    Parameters
    ----------
    name : str
        Its name in the model.
    shape : tuple
        Axis lengths with None for the batch at axis 0.
    stored : bool
        It is an integer tensor of the model: integer arrays are taken as the stored integers themselves. Else all
        arrays are real numbers.
    """

    name: str
    shape: Shape
    stored: bool = False


@dataclass(frozen=True)
class Node:
    """One operator with one output.

    Parameters
    ----------
    name : str
        Unique in the graph.
    op : str
        ONNX operator name (or ``Swish``), as in `accelsim.graph.operators`.
    inputs : tuple of str
        Names of tensors; a name in ``Graph.constants`` is a constant.
    output : str
        Name of the tensor it makes.
    attributes : mapping
        Normalised attributes: every one present, padding explicit.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "attributes", MappingProxyType(dict(self.attributes)))


@dataclass(frozen=True)
class Graph:
    """A float network in topological order.

    Parameters
    ----------
    name : str
        Name of the model.
    opset : int
        ONNX opset that the model was written for.
    inputs : tuple of Tensor
        What the network is fed with.
    outputs : tuple of str
        Names of the tensors that it returns, in the model's order.
    nodes : tuple of Node
        In an order in which every tensor is made before it is used.
    constants : mapping of str to array
        Weights and other constants, read-only.
    shapes : mapping of str to tuple
        Shape of every tensor that is not a constant, with None for the batch.
    source : bytes or None
        The ONNX model as it was read, for the float reference; None for a graph that was made in memory.
    batch_size : int or None
        The batch that ``source`` is fixed to, None where it takes any.

    Raises
    ------
    ModelError
        When a tensor is used before it is made, made twice, or has no shape.
    """

    name: str
    opset: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, npt.NDArray[Any]]
    shapes: Mapping[str, Shape]
    source: bytes | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        constants = {}
        for name, value in self.constants.items():
            array = np.array(value)
            array.setflags(write=False)
            constants[name] = array
        object.__setattr__(self, "constants", MappingProxyType(constants))
        object.__setattr__(self, "shapes", MappingProxyType(dict(self.shapes)))
        known = set(constants) | {tensor.name for tensor in self.inputs}
        names: set[str] = set()
        for node in self.nodes:
            for name in node.inputs:
                if name not in known:
                    raise ModelError(f"node {node.name!r} ({node.op}) uses tensor {name!r} before any node makes it")
            if node.output in known:
                raise ModelError(f"tensor {node.output!r} is made twice, the second time by node {node.name!r}")
            if node.name in names:
                raise ModelError(f"two nodes are named {node.name!r}")
            known.add(node.output)
            names.add(node.name)
            if node.output not in self.shapes:
                raise ModelError(f"tensor {node.output!r} of node {node.name!r} ({node.op}) has no shape")
        for name in self.outputs:
            if name not in known:
                raise ModelError(f"graph output {name!r} is made by no node")

    def __repr__(self) -> str:
        return f"<Graph {self.name!r}: {len(self.nodes)} nodes>"

    def _repr_html_(self) -> str:
        rows = [
            [
                node.name,
                node.op,
                ", ".join(name for name in node.inputs if name not in self.constants),
                " + ".join("x".join(map(str, self.constants[n].shape)) for n in node.inputs if n in self.constants),
                "x".join("N" if length is None else str(length) for length in self.shapes[node.output]),
            ]
            for node in self.nodes
        ]
        return html_table(["node", "op", "inputs", "constants", "output"], rows, f"{self.name}: {len(rows)} nodes")

    def producer(self, tensor: str) -> Node | None:
        """Return the node that makes a tensor, None for an input or a constant."""
        return next((node for node in self.nodes if node.output == tensor), None)

    def consumers(self, tensor: str) -> tuple[Node, ...]:
        """Return the nodes that read a tensor, in topological order."""
        return tuple(node for node in self.nodes if tensor in node.inputs)

    def channels(self, tensor: str) -> int:
        """Return the length of axis 1 of a tensor, its channels."""
        length = self.shapes[tensor][1]
        if length is None:
            raise ModelError(f"tensor {tensor!r} has no fixed number of channels")
        return length

    def with_nodes(self, nodes: Iterable[Node], constants: Mapping[str, npt.NDArray[Any]] | None = None) -> Graph:
        """Return the graph with other nodes, and some constants added or replaced.

        Parameters
        ----------
        nodes : iterable of Node
            The new nodes, in topological order. New tensors must have a shape in the old graph.
        constants : mapping, optional
            Constants to add or replace; those that no node uses any more are dropped.

        Returns
        -------
        Graph
            The changed copy, without unused constants and shapes.
        """
        nodes = tuple(nodes)
        merged = {**self.constants, **(constants or {})}
        used = {name for node in nodes for name in node.inputs} | set(self.outputs)
        made = {node.output for node in nodes} | {tensor.name for tensor in self.inputs}
        return replace(
            self,
            nodes=nodes,
            constants={name: value for name, value in merged.items() if name in used},
            shapes={name: shape for name, shape in self.shapes.items() if name in made},
        )
