"""Fold batch norms and constant per-channel arithmetic into the linear layer before them: white paper section 2.3.1.

Every such node is an affine map per channel, ``y = factor * x + shift``. After a linear layer ``x = W u + b`` it is
absorbed: ``y = (factor * W) u + (factor * b + shift)``, equations (10) to (12). All of it is computed in float64 and
stored as float32 once, however many maps follow each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from accelsim.errors import ModelError
from accelsim.graph.graph import AttributeValue, Graph, Node
from accelsim.graph.operators import ELEMENTWISE, LINEAR
from accelsim.ptq.moments import Moments

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _ChannelMap:
    """The map ``y = factor * x + shift``, per channel of an axis; a single value serves every axis."""

    input: str
    factor: Float64
    shift: Float64
    axis: int | None


@dataclass(frozen=True)
class Folded:
    """A network without batch norms.

    Parameters
    ----------
    graph : Graph
        The same function. A linear layer that absorbed what follows it makes the tensor of the last node absorbed,
        under that tensor's name, so tensors can be held against the original model's by name. A batch norm without a
        linear layer to itself has become a depthwise 1x1 convolution (rank 3 and 4), or a Mul and an Add. No two nodes
        share a weight constant any more, as each has a quantizer of its own.
    log : tuple of str
        One line per node that was folded or replaced.
    norms : mapping of tensor name to Moments
        What the batch norms tell of the tensors that they made: mean β and deviation |γ| (as far as the norm's epsilon
        lets them) of every channel, through the constant arithmetic that was folded after them.
    """

    graph: Graph
    log: tuple[str, ...]
    norms: Mapping[str, Moments]


def fold(graph: Graph) -> Folded:
    """Rewrite the network without batch norms.

    Parameters
    ----------
    graph : Graph
        The network as it was read.

    Returns
    -------
    Folded
        Graph, log and the batch norms' statistics.

    Raises
    ------
    ModelError
        When a folded weight or bias is not finite in float32.

    Notes
    -----
    A layer whose own output is a graph output, or is read by a second node, is left as it is.
    """
    folding = _Folding(graph)
    for node in graph.nodes:
        folding.take(node)
    folded = folding.result()
    norms = {name: moments for name, moments in folding.norms.items() if name in folded.shapes}
    return Folded(folded, tuple(folding.log), norms)


class _Folding:
    """The nodes taken so far, with weights and biases that are still open for more folding in float64."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.log: list[str] = []
        self.norms: dict[str, Moments] = {}
        self._nodes: list[Node] = []
        self._maker: dict[str, int] = {}  # tensor -> index of the node that makes it
        self._weights: dict[int, Float64] = {}  # index of a changed linear node -> its weights
        self._biases: dict[int, Float64] = {}
        self._shapes = dict(graph.shapes)
        self._constants = dict(graph.constants)
        self._uses: dict[str, int] = {}
        for node in graph.nodes:
            for name in node.inputs:
                self._uses[name] = self._uses.get(name, 0) + 1

    def take(self, node: Node) -> None:
        """Fold the node, replace it, or keep it."""
        channel_map = _channel_map(self.graph, node)
        self._note_moments(node, channel_map)
        if channel_map is not None and self._foldable(channel_map):
            self._fold(node, channel_map)
        elif node.op == "BatchNormalization":
            assert channel_map is not None
            self._replace_batch_norm(node, channel_map)
        else:
            self._append(node)

    def _note_moments(self, node: Node, channel_map: _ChannelMap | None) -> None:
        """Keep what is known of the channels that a batch norm, or constant arithmetic after one, makes."""
        if node.op == "BatchNormalization":
            scale, offset, _, variance = (self.graph.constants[name].astype(np.float64) for name in node.inputs[1:5])
            epsilon = float(node.attributes["epsilon"])  # type: ignore[arg-type]
            self.norms[node.output] = Moments(offset, np.abs(scale) * np.sqrt(variance / (variance + epsilon)))
        elif channel_map is not None and channel_map.axis in (1, None) and channel_map.input in self.norms:
            self.norms[node.output] = self.norms[channel_map.input].mapped(channel_map.factor, channel_map.shift)

    def result(self) -> Graph:
        """Store the folded values and give each node its own weights."""
        taken: set[str] = set()
        nodes = []
        for index, node in enumerate(self._nodes):
            inputs = list(node.inputs)
            if index in self._weights:
                inputs[1] = self._store(f"{inputs[1]}.folded", self._weights[index], node)
                bias = self._store(f"{node.output}.bias.folded", self._biases[index], node)
                inputs = [*inputs[:2], bias]
            for slot, name in enumerate(inputs):
                if name in self._constants and _has_quantizer(node, slot):
                    if name in taken:
                        inputs[slot] = name = self._store(f"{name}.copy", self._constants[name], node)
                    taken.add(name)
            nodes.append(replace(node, inputs=tuple(inputs)))
        return replace(self.graph, shapes=self._shapes, source=None, batch_size=None).with_nodes(nodes, self._constants)

    def _append(self, node: Node) -> None:
        self._maker[node.output] = len(self._nodes)
        self._nodes.append(node)

    def _foldable(self, channel_map: _ChannelMap) -> bool:
        """Whether a linear layer makes the map's input, for this node alone, with channels on the map's axis."""
        name = channel_map.input
        if name not in self._maker or self._uses[name] != 1 or name in self.graph.outputs:
            return False
        linear = self._nodes[self._maker[name]]
        if linear.op not in LINEAR:
            return False
        return channel_map.axis is None or channel_map.axis == self._channel_axis(linear)

    def _channel_axis(self, linear: Node) -> int:
        return len(self._shapes[linear.output]) - 1 if linear.op == "MatMul" else 1

    def _fold(self, node: Node, channel_map: _ChannelMap) -> None:
        """Absorb the map in the linear layer before it."""
        index = self._maker.pop(channel_map.input)
        linear = self._nodes[index]
        weights = self._weights.get(index, self._constants[linear.inputs[1]].astype(np.float64))
        channels = weights.shape[weight_axis(linear)]
        bias = self._biases.get(index)
        if bias is None:
            given = self._constants[linear.inputs[2]] if len(linear.inputs) > 2 else np.zeros(channels)
            bias = given.astype(np.float64)
        factor = np.broadcast_to(channel_map.factor, (channels,))
        sides = [1] * weights.ndim
        sides[weight_axis(linear)] = channels
        # A factor that overflows is reported by `_store`, which knows the layer's final value.
        with np.errstate(over="ignore", invalid="ignore"):
            self._weights[index] = weights * factor.reshape(sides)
            self._biases[index] = bias * factor + channel_map.shift
        self._nodes[index] = replace(linear, output=node.output)
        self._maker[node.output] = index
        self.log.append(f"folded {node.op} {node.name!r} into {linear.op} {linear.name!r}")

    def _replace_batch_norm(self, node: Node, channel_map: _ChannelMap) -> None:
        """Write a batch norm that has no linear layer to itself as a layer of its own."""
        rank, channels = len(self._shapes[node.output]), channel_map.factor.size
        if rank in (3, 4):
            spatial = rank - 2
            weights = channel_map.factor.reshape((channels, 1) + (1,) * spatial)
            inputs = (
                channel_map.input,
                self._store(f"{node.output}.weight", weights, node),
                self._store(f"{node.output}.bias", channel_map.shift, node),
            )
            attributes: dict[str, AttributeValue] = {
                "strides": (1,) * spatial,
                "pads": (0,) * (2 * spatial),
                "dilations": (1,) * spatial,
                "group": channels,
            }
            self._append(Node(node.name, "Conv", inputs, node.output, attributes))
            self.log.append(f"replaced BatchNormalization {node.name!r} by a depthwise 1x1 Conv")
            return
        sides = (channels,) + (1,) * (rank - 2)
        scaled = self._fresh(f"{node.output}.scaled")
        self._shapes[scaled] = self._shapes[node.output]
        factor = self._store(f"{node.output}.factor", channel_map.factor.reshape(sides), node)
        shift = self._store(f"{node.output}.shift", channel_map.shift.reshape(sides), node)
        names = {other.name for other in self.graph.nodes}
        add_name = _unique(f"{node.name}.shift", names)
        self._append(Node(node.name, "Mul", (channel_map.input, factor), scaled))
        self._append(Node(add_name, "Add", (scaled, shift), node.output))
        self.log.append(f"replaced BatchNormalization {node.name!r} by Mul and Add")

    def _fresh(self, name: str) -> str:
        return _unique(name, {*self._constants, *self._shapes, *self.graph.shapes})

    def _store(self, name: str, values: npt.NDArray[np.floating], node: Node) -> str:
        """Add a float32 constant under a name that is still free; return the name."""
        with np.errstate(over="ignore", invalid="ignore"):
            stored = values.astype(np.float32)
        if not np.isfinite(stored).all():
            raise ModelError(
                f"node {node.name!r} ({node.op}): weights or bias are not finite in float32 after folding; "
                "look for a batch norm with a variance of 0 or huge parameters"
            )
        name = self._fresh(name)
        self._constants[name] = stored
        return name


def weight_axis(node: Node) -> int:
    """Return the axis of a Conv, Gemm or MatMul node's weights that counts its output channels."""
    return 1 if node.op == "MatMul" else 0


def _has_quantizer(node: Node, slot: int) -> bool:
    """Whether a constant at this place among the node's inputs is stored as integers."""
    return (node.op in LINEAR and slot == 1) or node.op in ELEMENTWISE


def _unique(name: str, taken: set[str]) -> str:
    """Return the name, with a number behind it where it is taken."""
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}.{number}", number + 1
    return candidate


def _channel_map(graph: Graph, node: Node) -> _ChannelMap | None:
    """Return the node as a map per channel, None where it is something else."""
    if node.op == "BatchNormalization":
        scale, offset, mean, variance = (graph.constants[name].astype(np.float64) for name in node.inputs[1:5])
        epsilon = float(node.attributes["epsilon"])  # type: ignore[arg-type]
        with np.errstate(all="ignore"):  # a factor that is not finite is refused when it is stored
            factor = scale / np.sqrt(variance + epsilon)
            return _ChannelMap(node.inputs[0], factor, offset - factor * mean, 1)
    if node.op not in ELEMENTWISE:
        return None
    left, right = node.inputs
    if (left in graph.constants) == (right in graph.constants):
        return None
    name, constant = (right, left) if left in graph.constants else (left, right)
    shape = graph.shapes[name]
    values = graph.constants[constant].astype(np.float64)
    if values.ndim > len(shape) or graph.shapes[node.output] != shape:
        return None  # the constant widens the tensor, so it is no map of it
    sides = (1,) * (len(shape) - values.ndim) + values.shape
    long_axes = [axis for axis, length in enumerate(sides) if length > 1]
    if len(long_axes) > 1 or long_axes == [0]:
        return None
    vector = values.reshape(-1)
    one, zero = np.ones_like(vector), np.zeros_like(vector)
    axis = long_axes[0] if long_axes else None
    if node.op == "Mul":
        return _ChannelMap(name, vector, zero, axis)
    if node.op == "Add":
        return _ChannelMap(name, one, vector, axis)
    # Sub: x - c, or c - x where the constant stands on the left
    return _ChannelMap(name, one, -vector, axis) if name == left else _ChannelMap(name, -one, vector, axis)
