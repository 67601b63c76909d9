"""Which channels can be rescaled without changing the network, and the rescaling: white paper equations (20) to (22).

Dividing a channel by s > 0 where it is made and multiplying by s where it is read changes nothing if all that stands
between is homogeneous: ReLU, PReLU, pooling, and with bounds divided by s too, any clip. The tensors between the layers
that make and those that read a channel are one `ScaleGroup`; every layer inside a group has one scale per channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.graph.graph import Graph, Node
from accelsim.graph.operators import LINEAR, RESHAPES
from accelsim.ptq.moments import Moments
from accelsim.ptq.rewriting import Rewriting, bias_of

Float64 = npt.NDArray[np.float64]

_HOMOGENEOUS = frozenset({"Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean"})
_BOUNDED = frozenset({"Clip", "ChannelClip"})


@dataclass(frozen=True, eq=False)
class ScaleGroup:
    """Tensors whose channels have one scale each.

    Parameters
    ----------
    tensors : tuple of str
        In graph order.
    channels : int
        How many channels they all have.
    producers, consumers : tuple of Node
        The Conv, Gemm and MatMul nodes that make a tensor of the group, and those that read one.
    inner : tuple of Node
        Nodes that stand between tensors of the group.
    """

    tensors: tuple[str, ...]
    channels: int
    producers: tuple[Node, ...]
    consumers: tuple[Node, ...]
    inner: tuple[Node, ...]

    @property
    def chain(self) -> bool:
        """Whether the group is a plain chain from one layer to one other, without a branch."""
        return (
            len(self.producers) == len(self.consumers) == 1
            and not any(node.op in ("Add", "Sub") for node in self.inner)
            and len(self.tensors) == len(self.inner) + 1
        )


def scale_groups(graph: Graph) -> tuple[ScaleGroup, ...]:
    """Find the tensors whose channels can be rescaled.

    Parameters
    ----------
    graph : Graph
        The network with batch norms folded.

    Returns
    -------
    tuple of ScaleGroup
        In graph order. Graph inputs and outputs keep their scale, and so does everything tied to them, to a constant,
        or to a function that is not homogeneous.

    Notes
    -----
    An addition ties its inputs and its output together. A flattened channel is tied only where it stays one channel.
    """
    union = _Union(graph.shapes)
    for tensor in (*(tensor.name for tensor in graph.inputs), *graph.outputs):
        union.fix(tensor)
    for node in graph.nodes:
        _tie(graph, node, union)
    members: dict[str, list[str]] = {}
    for name in graph.shapes:
        root = union.root(name)
        if root not in union.fixed:
            members.setdefault(root, []).append(name)
    groups = []
    for names in members.values():
        inside = set(names)
        linear = [node for node in graph.nodes if node.op in LINEAR]
        group = ScaleGroup(
            tuple(names),
            graph.channels(names[0]),
            tuple(node for node in linear if node.output in inside),
            tuple(node for node in linear if node.inputs[0] in inside),
            tuple(node for node in graph.nodes if node.op not in LINEAR and node.output in inside),
        )
        if group.producers and group.consumers:
            groups.append(group)
    return tuple(groups)


def rescale(graph: Graph, scales: Mapping[str, Float64]) -> Graph:
    """Divide the channels of tensors by scales.

    Parameters
    ----------
    graph : Graph
        The network.
    scales : mapping of tensor name to float64 array, shape (channels,)
        For every tensor of some groups, as `scales_by_tensor` spreads them.

    Returns
    -------
    Graph
        The same function; weights and biases are computed in float64 and rounded to float32 once.
    """
    rewriting = Rewriting(graph)
    for node in graph.nodes:
        if node.op in LINEAR:
            _rescale_layer(graph, node, scales, rewriting)
        elif node.op in _BOUNDED and node.output in scales:
            low, high = clip_bounds(graph, node)
            set_clip_bounds(rewriting, node, low / scales[node.output], high / scales[node.output])
    return rewriting.result()


def scales_by_tensor(groups: Mapping[ScaleGroup, Float64]) -> dict[str, Float64]:
    """Spread the scales of groups over their tensors."""
    return {name: scale for group, scale in groups.items() for name in group.tensors}


def rescale_moments(norms: Mapping[str, Moments], scales: Mapping[str, Float64]) -> dict[str, Moments]:
    """Return the moments of rescaled tensors."""
    return {name: moments.divided(scales[name]) if name in scales else moments for name, moments in norms.items()}


def clip_bounds(graph: Graph, node: Node) -> tuple[Float64, Float64]:
    """Return the bounds of a Relu, Clip or ChannelClip, one per channel: float64 (channels,), infinite where none."""
    channels = graph.channels(node.output)
    if node.op == "ChannelClip":
        low, high = (graph.constants[name].astype(np.float64) for name in node.inputs[1:])
        return low, high
    attributes: dict[str, Any] = {"min": 0.0, "max": np.inf, **node.attributes}
    return np.full(channels, float(attributes["min"])), np.full(channels, float(attributes["max"]))


def set_clip_bounds(rewriting: Rewriting, node: Node, low: Float64, high: Float64) -> None:
    """Make a Relu, Clip or ChannelClip a ChannelClip with other bounds."""
    rewriting.replace_node(node, replace(node, op="ChannelClip", inputs=node.inputs[:1], attributes={}))
    rewriting.set_operand(node, 1, low, "low")
    rewriting.set_operand(node, 2, high, "high")


class _Union:
    """Disjoint sets of tensors."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._parent = {name: name for name in names}
        self._fixed: set[str] = set()

    @property
    def fixed(self) -> set[str]:
        """Roots of the sets that keep their scale."""
        return {self.root(name) for name in self._fixed}

    def root(self, name: str) -> str:
        while self._parent[name] != name:
            self._parent[name] = self._parent[self._parent[name]]
            name = self._parent[name]
        return name

    def tie(self, *names: str) -> None:
        for other in names[1:]:
            self._parent[self.root(other)] = self.root(names[0])

    def fix(self, name: str) -> None:
        self._fixed.add(name)


def _tie(graph: Graph, node: Node, union: _Union) -> None:
    """Tie what a node reads and makes, or fix it."""
    tensors = [name for name in (*node.inputs, node.output) if name not in graph.constants]
    shapes = [graph.shapes[name] for name in tensors]
    same_channels = all(len(shape) > 1 and shape[1] == shapes[0][1] for shape in shapes)
    if node.op in LINEAR:
        if node.op == "MatMul" and len(graph.shapes[node.output]) != 2:  # its channels are not on axis 1
            for name in tensors:
                union.fix(name)
        return
    tied = node.op in _HOMOGENEOUS | _BOUNDED
    if node.op in RESHAPES:
        tied = same_channels
    elif node.op == "Pad":
        pads = node.attributes["pads"]
        tied = node.attributes["value"] == 0 and isinstance(pads, tuple) and not (pads[1] or pads[len(pads) // 2 + 1])
    elif node.op in ("Add", "Sub"):
        tied = len(tensors) == 3 and len(set(shapes)) == 1
    if tied and same_channels:
        union.tie(*tensors)
    else:
        for name in tensors:
            union.fix(name)


def _rescale_layer(graph: Graph, node: Node, scales: Mapping[str, Float64], rewriting: Rewriting) -> None:
    """Multiply a layer's weights by the scales of what it reads, and divide by those of what it makes."""
    read, made = scales.get(node.inputs[0]), scales.get(node.output)
    if read is None and made is None:
        return
    weights = graph.constants[node.inputs[1]].astype(np.float64)
    by_output = weights.T if node.op == "MatMul" else weights  # (outputs, inputs of a group, ...)
    outputs, taken = by_output.shape[:2]
    if read is not None:
        groups = node.attributes["group"] if node.op == "Conv" else 1
        assert isinstance(groups, int)
        factors = np.repeat(read.reshape(groups, taken), outputs // groups, axis=0)
        by_output = by_output * factors.reshape(outputs, taken, *(1,) * (by_output.ndim - 2))
    if made is not None:
        by_output = by_output / made.reshape(-1, *(1,) * (by_output.ndim - 1))
        if len(node.inputs) > 2:
            rewriting.set_bias(node, bias_of(graph, node) / made)
    rewriting.set_weights(node, by_output.T if node.op == "MatMul" else by_output)
