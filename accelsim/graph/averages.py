"""Averages over a whole image."""

from __future__ import annotations

from accelsim.graph.graph import Graph, Node


def averages_whole_image(graph: Graph, node: Node) -> bool:
    """Whether a node makes one mean per channel of all of its input.

    Parameters
    ----------
    graph : Graph
        Has the shapes.
    node : Node
        Any node of it.

    Returns
    -------
    bool
        True for GlobalAveragePool, for ReduceMean, and for an AveragePool whose only window is the image, not padded.
    """
    if node.op in ("GlobalAveragePool", "ReduceMean"):
        return True
    if node.op != "AveragePool":
        return False
    space = graph.shapes[node.inputs[0]][2:]
    pads = node.attributes["pads"]
    assert isinstance(pads, tuple)
    return node.attributes["kernel_shape"] == space and not any(pads)
