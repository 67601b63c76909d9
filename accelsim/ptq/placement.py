"""Which tensors are stored as integers, and which of them share a quantizer: white paper sections 2.3.2 and 2.3.3."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from accelsim.errors import CalibrationError
from accelsim.graph.averages import averages_whole_image
from accelsim.graph.graph import Graph, Node
from accelsim.graph.operators import CLAMPS, ELEMENTWISE, LINEAR, RESHAPES

SHARING = RESHAPES | {"AveragePool", "GlobalAveragePool", "MaxPool", "Pad", "ReduceMean", "Transpose"}
"""Operators whose output has the quantizer of their input; the average of a whole image may have one of its own."""


@dataclass(frozen=True)
class Placement:
    """The quantizers of a network's activations.

    Parameters
    ----------
    calibrated : tuple of str
        Tensors with a quantizer of their own that needs a range, in graph order.
    shared : mapping of str to str
        Tensor to the tensor of ``calibrated`` or ``fixed`` whose quantizer it has.
    fixed : tuple of str
        Outputs of Softmax: the range is 0..1 whatever the data.
    required : mapping of str to tuple of float
        Values, other than 0, that the range of a tensor must include because a Pad writes them.
    """

    calibrated: tuple[str, ...]
    shared: Mapping[str, str]
    fixed: tuple[str, ...]
    required: Mapping[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shared", MappingProxyType(dict(self.shared)))
        object.__setattr__(self, "required", MappingProxyType(dict(self.required)))


def place_quantizers(graph: Graph, separate: Container[str] = ()) -> Placement:
    """Decide where activations are quantized.

    Parameters
    ----------
    graph : Graph
        The network with batch norms folded.
    separate : container of str
        Averages of a whole image that have a quantizer of their own.

    Returns
    -------
    Placement
        Every graph input and output is in it, and every other tensor unless it lives inside a layer.

    Raises
    ------
    CalibrationError
        When a Pad writes a value that is not finite.

    Notes
    -----
    A layer is a Conv, Gemm, MatMul, Add, Sub or Mul together with the Relu, Clip or ChannelClip that alone reads its
    output; nothing is stored between the two. Any other activation function reads stored integers and makes stored
    integers, as a table over its input's codes needs. Pooling, shape operators and Pad keep the quantizer of their
    input, but for the averages of ``separate``; Concat has one of its own, to which each input is requantized.
    """
    calibrated = [tensor.name for tensor in graph.inputs]
    shared: dict[str, str] = {}
    fixed: list[str] = []
    required: dict[str, list[float]] = {}
    for node in graph.nodes:
        if node.op in SHARING and node.output not in separate:
            source = shared[node.output] = shared.get(node.inputs[0], node.inputs[0])
            if node.op == "Pad":
                value = _pad_value(node)
                if value != 0:
                    required.setdefault(source, []).append(value)
        elif node.op == "Softmax":
            fixed.append(node.output)
        elif not fuses_with_activation(graph, node):
            calibrated.append(node.output)
    return Placement(
        tuple(calibrated), shared, tuple(fixed), {name: tuple(values) for name, values in required.items()}
    )


def separable_averages(graph: Graph) -> tuple[str, ...]:
    """Return the averages of a whole image that could have a quantizer of their own, in graph order.

    Notes
    -----
    White paper section 2.3.3 keeps the input's quantizer because averaging does not change the range much. That holds
    for small windows: an average of a whole image is often far from its greatest value.
    """
    return tuple(node.output for node in graph.nodes if averages_whole_image(graph, node))


def fuses_with_activation(graph: Graph, node: Node) -> bool:
    """Whether the node's output lives inside its layer, because a Relu or Clip alone reads it."""
    if node.op not in LINEAR | ELEMENTWISE or node.output in graph.outputs:
        return False
    consumers = graph.consumers(node.output)
    return len(consumers) == 1 and consumers[0].op in CLAMPS


def _pad_value(node: Node) -> float:
    value = node.attributes["value"]
    assert isinstance(value, int | float)
    if not math.isfinite(value):
        raise CalibrationError(
            f"node {node.name!r} (Pad) writes {value}, which no quantizer can hold; pad with a finite value"
        )
    return float(value)
