"""The quantized network cut into its layers, each fed with stored tensors, so that no layer inherits a difference."""

from __future__ import annotations

from dataclasses import replace

from accelsim.graph.graph import Tensor
from accelsim.graph.quantized import QuantizedGraph

SUFFIX = ".own"
"""What a layer makes of stored inputs has the name of its tensor with this behind it."""


def cut_at_stored_tensors(quantized: QuantizedGraph) -> QuantizedGraph:
    """Make every stored tensor an input of the network.

    Parameters
    ----------
    quantized : QuantizedGraph
        The network.

    Returns
    -------
    QuantizedGraph
        Its inputs are the network's inputs and every stored tensor that a node makes; its outputs, ``<name>.own``, are
        the same tensors as computed from these inputs, one layer at a time.
    """
    graph = quantized.graph
    stored = [node.output for node in graph.nodes if node.output in quantized.activations]
    own = {name: own_name(quantized, name) for name in stored}
    return replace(
        quantized,
        graph=replace(
            graph,
            inputs=graph.inputs + tuple(Tensor(name, graph.shapes[name]) for name in stored),
            outputs=tuple(own.values()),
            nodes=tuple(replace(node, output=own.get(node.output, node.output)) for node in graph.nodes),
            shapes={**graph.shapes, **{own[name]: graph.shapes[name] for name in stored}},
        ),
        activations={
            **quantized.activations,
            **{own[name]: quantized.activations[name] for name in stored},
        },
    )


def own_name(quantized: QuantizedGraph, name: str) -> str:
    """Return the name, not taken by another tensor, of what a layer makes of stored inputs."""
    candidate = name + SUFFIX
    while candidate in quantized.graph.shapes or candidate in quantized.graph.constants:
        candidate += SUFFIX
    return candidate
