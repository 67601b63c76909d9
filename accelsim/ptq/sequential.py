"""The float and the quantized network in step, layer by layer, for what has to see the layers before as they will be.

Rounding (white paper equation (35)) and empirical bias correction (section 3.3) of a layer need its input x as the
float network has it and x̂ as the layers before it, quantized for good, make it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.formats import QuantizationParameters
from accelsim.graph.feeds import Feeds
from accelsim.graph.graph import Graph, Node, Tensor
from accelsim.graph.operators import LINEAR
from accelsim.graph.quantized import QuantizedGraph, QuantizedWeights
from accelsim.reference.batches import samples_per_batch
from accelsim.reference.runner import OnnxRunner

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

FRONTIER_BYTES = 1 << 30
"""All tensors that are kept at one time, over all samples, stay under this; where they would not, fewer samples run."""


@dataclass(frozen=True)
class StoredLayer:
    """The nodes between stored tensors and the next stored tensor.

    Parameters
    ----------
    nodes : tuple of Node
        The first with the activation functions that are fused with it.
    inputs : tuple of str
        Stored tensors that it reads.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]

    @property
    def node(self) -> Node:
        """The node that the layer begins with."""
        return self.nodes[0]

    @property
    def output(self) -> str:
        """The stored tensor that it makes."""
        return self.nodes[-1].output

    @property
    def linear(self) -> bool:
        """Whether it has weights."""
        return self.node.op in LINEAR

    @property
    def activation(self) -> tuple[Node, ...]:
        """The fused activation functions, in order."""
        return self.nodes[1:]


def stored_layers(graph: Graph, activations: Mapping[str, QuantizationParameters]) -> tuple[StoredLayer, ...]:
    """Cut a network at its stored tensors, in graph order.

    Parameters
    ----------
    graph : Graph
        The network.
    activations : mapping
        Its stored tensors.
    """
    layers: list[StoredLayer] = []
    inner: set[str] = set()
    for node in graph.nodes:
        if node.name in inner:
            continue
        nodes = [node]
        while nodes[-1].output not in activations:
            (follower,) = graph.consumers(nodes[-1].output)
            nodes.append(follower)
            inner.add(follower.name)
        inputs = tuple(dict.fromkeys(name for name in node.inputs if name not in graph.constants))
        layers.append(StoredLayer(tuple(nodes), inputs))
    return tuple(layers)


class SequentialRun:
    """Both networks on all samples, one layer at a time.

    Parameters
    ----------
    graph : Graph
        The float network that is being quantized.
    activations : mapping of tensor name to QuantizationParameters
        Quantizers of all stored tensors.
    feeds : Feeds
        The samples.

    Notes
    -----
    Between layers only stored tensors that a later layer reads are kept: of the float network as float32, of the
    quantized one as codes. The number of samples is cut, evenly over the data, so that they fit `FRONTIER_BYTES`.
    """

    def __init__(self, graph: Graph, activations: Mapping[str, QuantizationParameters], feeds: Feeds) -> None:
        self._graph, self._activations = graph, activations
        self.layers = stored_layers(graph, activations)
        fitting = max(1, FRONTIER_BYTES // max(1, self._peak_bytes()))
        self.num_samples = min(feeds.num_samples, fitting)
        chosen = np.linspace(0, feeds.num_samples, self.num_samples, endpoint=False).astype(np.intp)
        self._batch = samples_per_batch(graph)
        self._real: dict[str, Float32] = {}
        self._codes: dict[str, npt.NDArray[Any]] = {}
        fed = feeds.take(chosen)
        for name, values in fed.items():
            self._real[name] = values
            self._codes[name] = activations[name].quantize(values)
        self._reads = self._last_reads()

    def _last_reads(self) -> dict[str, int]:
        """Return which layer is the last to read a tensor."""
        return {name: index for index, layer in enumerate(self.layers) for name in layer.inputs}

    def _peak_bytes(self) -> int:
        """Return the greatest number of bytes of a sample that are kept at one time."""
        last = self._last_reads()
        live = {tensor.name for tensor in self._graph.inputs}
        peak = 0
        for index, layer in enumerate(self.layers):
            live.add(layer.output)
            peak = max(peak, sum(self._sample_bytes(name) for name in live))
            live = {name for name in live if last.get(name, -1) > index}
        return peak

    def _sample_bytes(self, name: str) -> int:
        elements = math.prod(length or 1 for length in self._graph.shapes[name][1:])
        return elements * (4 + self._activations[name].format.dtype.itemsize)

    def batches(self, layer: StoredLayer) -> Iterator[tuple[Float32, Float32]]:
        """Yield batch by batch what a linear layer reads, quantized, and what it should make.

        Parameters
        ----------
        layer : StoredLayer
            The linear layer that comes next.

        Yields
        ------
        x_hat : float32 array
            The layer's input in the quantized network, dequantized.
        y : float32 array
            The output of its Conv, Gemm or MatMul in the float network, bias included, before the activation function.
        """
        runner = OnnxRunner.of_normalised(_sub_network(self._graph, layer), [layer.node.output])
        (source,) = layer.inputs
        for part in self._parts():
            made = runner.run({source: self._real[source][part]})[layer.node.output]
            yield self._activations[source].dequantize(self._codes[source][part]), made

    def simulate(self, layer: StoredLayer, weights: Mapping[str, QuantizedWeights]) -> Iterator[Float32]:
        """Yield batch by batch what a quantized linear layer makes before the activation function.

        Parameters
        ----------
        layer : StoredLayer
            The layer that comes next.
        weights : mapping of constant name to QuantizedWeights
            With the layer's; its bias is that of the float network.
        """
        name = layer.node.output
        wanted = f"{name}.unquantized" if name == layer.output else name
        runner = OnnxRunner.of_simulated(self._quantized(layer, weights, {}), [wanted])
        for part in self._parts():
            yield runner.run(self._dequantized(layer, part))[wanted]

    def advance(
        self, layer: StoredLayer, weights: Mapping[str, QuantizedWeights], biases: Mapping[str, Float64]
    ) -> None:
        """Run both networks through a layer; its weights and bias are final now.

        Parameters
        ----------
        layer, weights
            As in `simulate`.
        biases : mapping of node name to float64 array
            Corrected biases.
        """
        real = OnnxRunner.of_normalised(_sub_network(self._graph, layer))
        simulated = OnnxRunner.of_simulated(self._quantized(layer, weights, biases))
        name = layer.output
        parameters = self._activations[name]
        made_real, made_codes = [], []
        for part in self._parts():
            made_real.append(real.run({source: self._real[source][part] for source in layer.inputs})[name])
            made_codes.append(parameters.quantize(simulated.run(self._dequantized(layer, part))[name]))
        self._real[name], self._codes[name] = np.concatenate(made_real), np.concatenate(made_codes)
        index = self.layers.index(layer)
        for source in [name for name in self._real if self._reads.get(name, -1) <= index]:
            del self._real[source], self._codes[source]

    def _parts(self) -> Iterator[slice]:
        for start in range(0, self.num_samples, self._batch):
            yield slice(start, min(start + self._batch, self.num_samples))

    def _dequantized(self, layer: StoredLayer, part: slice) -> dict[str, Float32]:
        return {name: self._activations[name].dequantize(self._codes[name][part]) for name in layer.inputs}

    def _quantized(
        self, layer: StoredLayer, weights: Mapping[str, QuantizedWeights], biases: Mapping[str, Float64]
    ) -> QuantizedGraph:
        """Return the layer as a quantized network of its own."""
        cut = _sub_network(self._graph, layer)
        stored = {name: self._activations[name] for name in (*layer.inputs, layer.output)}
        integers = {name: weights[name] for name in cut.constants if name in weights}
        corrected = {node.name: biases[node.name] for node in cut.nodes if node.name in biases}
        return QuantizedGraph(cut, stored, integers, cut, biases=corrected)


def _sub_network(graph: Graph, layer: StoredLayer) -> Graph:
    """Return a layer as a network of its own."""
    names = {node.name for node in layer.nodes}
    nodes = tuple(node for node in graph.nodes if node.name in names)
    used = {name for node in nodes for name in node.inputs}
    return Graph(
        name=graph.name,
        opset=graph.opset,
        inputs=tuple(Tensor(name, graph.shapes[name]) for name in layer.inputs),
        outputs=(layer.output,),
        nodes=nodes,
        constants={name: graph.constants[name] for name in graph.constants if name in used},
        shapes={name: graph.shapes[name] for name in (*layer.inputs, *(node.output for node in nodes))},
    )
