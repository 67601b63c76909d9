"""A `Graph` or `QuantizedGraph` written as a standard ONNX model, for another runtime to evaluate.

In a fake-quant model every stored tensor passes through the quantizer block of the white paper's figure 4b, spelled
with plain float32 nodes, so that it works at any bit-width and in any runtime::

    x ─ Div(s) ─ Round ─ Add(z) ─ Clip(q_min, q_max) ─ Sub(z) ─ Mul(s)

ONNX's Round breaks ties to even, and float32 holds all codes of up to 16 bits exactly: the block computes what
`QuantizationParameters.quantize` and ``dequantize`` compute, bit for bit.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper

from accelsim.errors import DataError, ModelError
from accelsim.files import write_whole
from accelsim.formats import QuantizationParameters
from accelsim.graph.builder import ModelBuilder
from accelsim.graph.graph import Graph, Node, Shape
from accelsim.graph.onnx_file import read_model
from accelsim.graph.operators import DATA_MOVEMENT, LINEAR
from accelsim.graph.quantized import QuantizedGraph, QuantizedWeights

STYLES = ("fake_quant", "qdq")
"""Ways to write a quantized network."""


def to_onnx(graph: Graph, outputs: Sequence[str] | None = None) -> ModelProto:
    """Write a float graph as a plain ONNX model.

    Parameters
    ----------
    graph : Graph
        The network.
    outputs : sequence of str, optional
        Tensors that the model is to return, inner ones too; by default the graph's outputs. Nodes that none of them
        needs are left out.

    Returns
    -------
    onnx.ModelProto
        Opset 17 (19 where an average pool is dilated), the batch symbolic. Every input of the graph is an input.

    Raises
    ------
    ModelError
        When an output is not a tensor of the graph.
    """
    wanted = _outputs(graph, outputs, known=set(graph.shapes))
    builder = ModelBuilder(graph)
    for node in _needed(graph, wanted):
        for name in node.inputs:
            if name in graph.constants:
                builder.constant(name, graph.constants[name])
        builder.emit(node, node.inputs, node.output)
    return builder.model(_inputs(graph), [(name, graph.shapes[name]) for name in wanted])


def expose_outputs(source: bytes, names: Sequence[str]) -> bytes:
    """Give a serialized ONNX model other outputs.

    Parameters
    ----------
    source : bytes
        A model as it came, see ``Graph.source``.
    names : sequence of str
        Tensors that it is to return: inputs or outputs of nodes.

    Returns
    -------
    bytes
        The same model with these outputs in this order.

    Raises
    ------
    ModelError
        When the bytes are no model, or hold no such tensor.
    """
    model, _, _ = read_model(source)
    declared = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    made = {name for node in model.graph.node for name in node.output if name}
    values = []
    for name in names:
        if name not in declared and name not in made:
            raise ModelError(f"the model makes no tensor {name!r}; it cannot be an output")
        # The runtime infers the shape itself; only the type must be there.
        values.append(declared.get(name) or helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    del model.graph.output[:]
    model.graph.output.extend(values)
    return bytes(model.SerializeToString())


@dataclass(frozen=True)
class _Active:
    """A quantized graph with some of its quantizers switched off."""

    quantized: QuantizedGraph
    activations: Mapping[str, QuantizationParameters]
    weights: Mapping[str, QuantizedWeights]

    @classmethod
    def of(cls, quantized: QuantizedGraph, names: Container[str] | None) -> _Active:
        if names is None:
            return cls(quantized, quantized.activations, quantized.weights)
        return cls(
            quantized,
            {name: parameters for name, parameters in quantized.activations.items() if name in names},
            {name: weights for name, weights in quantized.weights.items() if name in names},
        )


def to_fake_quant_onnx(
    quantized: QuantizedGraph, outputs: Sequence[str] | None = None, active: Container[str] | None = None
) -> ModelProto:
    """Write a quantized graph as a float ONNX model with quantizer blocks: simulated quantization.

    Parameters
    ----------
    quantized : QuantizedGraph
        The network with its quantizers.
    outputs : sequence of str, optional
        Tensors that the model is to return, by default the graph's outputs.
    active : container of str, optional
        Tensors and constants that are quantized, by default all; the others stay float. A bias belongs to the weights
        of its node: with them float it is the float network's, and integers stand for it only if the node's input
        is quantized, too.

    Returns
    -------
    onnx.ModelProto
        A tensor that has a quantizer carries its quantized values under its own name, and its values before the
        quantizer as ``<name>.unquantized``. For an input of the graph the name belongs to what is fed; the quantized
        values are ``<name>.quantized``. Weights are the dequantized integers, biases the dequantized bias integers.

    Raises
    ------
    ModelError
        When an output is not a tensor of the model.
    """
    graph, view = quantized.graph, _Active.of(quantized, active)
    builder = ModelBuilder(graph)
    fed = {tensor.name for tensor in graph.inputs}
    second = {  # graph tensor -> the name of its other version
        name: builder.fresh(f"{name}.quantized" if name in fed else f"{name}.unquantized") for name in view.activations
    }
    origin = {**{name: name for name in graph.shapes}, **{other: name for name, other in second.items()}}
    wanted = _outputs(graph, outputs, known=set(origin))
    read = {name: second[name] if name in fed and name in second else name for name in graph.shapes}
    for tensor in graph.inputs:
        if tensor.name in second:
            _quantizer(builder, tensor.name, second[tensor.name], view.activations[tensor.name])
    for node in _needed(graph, [origin[name] for name in wanted]):
        inputs = _operands(builder, view, node, read)
        parameters = view.activations.get(node.output)
        if parameters is None or _redundant(view, node, parameters):
            builder.emit(node, inputs, node.output)
            if second.get(node.output) in wanted:
                builder.add("Identity", [node.output], second[node.output])
        else:
            builder.emit(node, inputs, second[node.output])
            _quantizer(builder, second[node.output], node.output, parameters)
    return builder.model(_inputs(graph), [(name, graph.shapes[origin[name]]) for name in wanted])


def save_quantized_onnx(quantized: QuantizedGraph, path: str | PathLike[str], style: str = "fake_quant") -> None:
    """Write a quantized graph to an ONNX file, which appears whole or not at all.

    Parameters
    ----------
    quantized : QuantizedGraph
        The network with its quantizers.
    path : path
        The file to make.
    style : {"fake_quant", "qdq"}
        How quantization is spelled: with plain float nodes, or with QuantizeLinear and DequantizeLinear.

    Raises
    ------
    DataError
        When the style is unknown, or the file cannot be written.
    """
    if style not in STYLES:
        raise DataError(f"style must be one of {', '.join(STYLES)}, got {style!r}")
    if style == "qdq":
        from accelsim.graph.qdq import to_qdq_onnx

        write_whole(path, to_qdq_onnx(quantized).SerializeToString())
        return
    write_whole(path, to_fake_quant_onnx(quantized).SerializeToString())


def _outputs(graph: Graph, outputs: Sequence[str] | None, known: set[str]) -> tuple[str, ...]:
    """Return the outputs asked for, each a tensor that exists."""
    wanted = tuple(graph.outputs if outputs is None else outputs)
    for name in wanted:
        if name not in known:
            raise ModelError(f"tensor {name!r} is not in the graph; it cannot be an output")
    if len(set(wanted)) != len(wanted):
        raise ModelError(f"an output is asked for twice: {', '.join(wanted)}")
    return wanted


def _inputs(graph: Graph) -> list[tuple[str, Shape]]:
    """Return names and shapes of the graph's inputs."""
    return [(tensor.name, tensor.shape) for tensor in graph.inputs]


def _needed(graph: Graph, outputs: Sequence[str]) -> list[Node]:
    """Return the nodes that contribute to some tensors, in order."""
    wanted = set(outputs)
    kept = []
    for node in reversed(graph.nodes):
        if node.output in wanted:
            kept.append(node)
            wanted.update(node.inputs)
    return kept[::-1]


def _operands(builder: ModelBuilder, view: _Active, node: Node, read: dict[str, str]) -> list[str]:
    """Return the names of a node's operands, with the quantized values of its constants stored."""
    quantized, constants = view.quantized, view.quantized.graph.constants
    names = []
    for index, name in enumerate(node.inputs):
        if name not in constants:
            names.append(read[name])
        elif index == 2 and _has_own_bias(view, node):
            names.append(_own_bias(builder, view, node, name))
        else:
            names.append(builder.constant(name, _constant(view, name)))
    if len(node.inputs) == 2 and node.name in quantized.biases and _has_own_bias(view, node):
        names.append(_own_bias(builder, view, node, f"{node.output}.bias"))
    return names


def _has_own_bias(view: _Active, node: Node) -> bool:
    """Return whether the bias of a node is not the float network's: it is corrected, or in accumulator units."""
    return node.op in LINEAR and node.inputs[1] in view.weights


def _own_bias(builder: ModelBuilder, view: _Active, node: Node, name: str) -> str:
    """Store the real values of a node's bias; a bias shared by two layers has two scales, and two sets of values."""
    quantized = view.quantized
    if node.inputs[0] in view.activations:
        value = quantized.bias_integers(node) * quantized.bias_scale(node)
    else:
        bias = quantized.bias(node)
        assert bias is not None
        value = bias
    return builder.new_constant(f"{name}.quantized", value.astype(np.float32))


def _constant(view: _Active, name: str) -> npt.NDArray[np.float32]:
    """Return the values that stand for a constant: those of its integers where it has some."""
    if name in view.weights:
        return view.weights[name].dequantize()
    return view.quantized.graph.constants[name]


def _redundant(view: _Active, node: Node, parameters: QuantizationParameters) -> bool:
    """Return whether a node only moves values that are on the quantizer's grid already."""
    return node.op in DATA_MOVEMENT and view.activations.get(node.inputs[0]) == parameters


def _quantizer(builder: ModelBuilder, source: str, target: str, parameters: QuantizationParameters) -> None:
    """Append the quantizer block from one tensor to another."""
    scale = builder.new_constant(f"{target}.scale", np.array(parameters.scale, dtype=np.float32))
    zero = builder.new_constant(f"{target}.zero_point", np.array(parameters.zero_point, dtype=np.float32))
    low = builder.new_constant(f"{target}.minimum", np.array(parameters.format.minimum, dtype=np.float32))
    high = builder.new_constant(f"{target}.maximum", np.array(parameters.format.maximum, dtype=np.float32))
    value = source
    for op, operands in (
        ("Div", (scale,)),
        ("Round", ()),
        ("Add", (zero,)),
        ("Clip", (low, high)),
        ("Sub", (zero,)),
    ):
        value = builder.add(op, [value, *operands], builder.fresh(f"{target}.{op.lower()}"))
    builder.add("Mul", [value, scale], target)
