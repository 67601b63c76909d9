"""A network with its quantizers: what post-training quantization makes and lowering reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import ModelError
from accelsim.formats import QuantizationParameters
from accelsim.graph.graph import Graph, Node
from accelsim.graph.operators import LINEAR
from accelsim.tables import html_table


@dataclass(frozen=True)
class QuantizedWeights:
    """Integer weights of one layer and what they stand for.

    Parameters
    ----------
    integers : integer array
        Stored weights, same shape as the float constant they replace.
    parameters : QuantizationParameters
        Scale and zero point, per tensor or per channel.
    """

    integers: npt.NDArray[Any]
    parameters: QuantizationParameters

    def __post_init__(self) -> None:
        if self.integers.dtype.kind not in "iu":
            raise ModelError(f"integer weights must be integers, got {self.integers.dtype}")
        low, high = self.parameters.format.minimum, self.parameters.format.maximum
        if self.integers.size and not (low <= self.integers.min() and self.integers.max() <= high):
            raise ModelError(
                f"integer weights must be codes of {self.parameters.format} ({low}..{high}), "
                f"got {self.integers.min()}..{self.integers.max()}"
            )
        integers = np.array(self.integers, dtype=self.parameters.format.dtype)
        integers.setflags(write=False)
        object.__setattr__(self, "integers", integers)

    def dequantize(self) -> npt.NDArray[np.float32]:
        """Return the real weights that the integers stand for."""
        return self.parameters.dequantize(self.integers)


@dataclass(frozen=True)
class QuantizedGraph:
    """A float graph with a quantizer on the tensors that are stored as integers.

    A tensor without an entry in ``activations`` is never stored: it lives inside the layer that makes it, between the
    accumulator and the requantizer. So a convolution whose output has no entry is fused with the activation function
    that follows (white paper, section 2.3.2).

    Parameters
    ----------
    graph : Graph
        The float network with batch norms folded, and its channels rescaled where that was asked for.
    activations : mapping of tensor name to QuantizationParameters
        Per-tensor quantizers of the graph's inputs and of every stored tensor.
    weights : mapping of constant name to QuantizedWeights
        Integers of every constant operand of Conv, Gemm and MatMul, and of a constant operand of Add, Sub and Mul.
    original : Graph
        The network before any change: the float reference.
    log : tuple of str
        What each step of the quantization did, one line each.
    biases : mapping of node name to float64 array of shape (channels,)
        Corrected biases: they take the place of the float network's, also where a node has none.

    Raises
    ------
    ModelError
        When a quantizer names no tensor, or an input or output of the graph has none.
    """

    graph: Graph
    activations: Mapping[str, QuantizationParameters]
    weights: Mapping[str, QuantizedWeights]
    original: Graph
    log: tuple[str, ...] = ()
    biases: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "activations", MappingProxyType(dict(self.activations)))
        object.__setattr__(self, "weights", MappingProxyType(dict(self.weights)))
        for name, parameters in self.activations.items():
            if name not in self.graph.shapes:
                raise ModelError(f"quantizer of {name!r}: the graph makes no such tensor")
            if parameters.per_channel:
                raise ModelError(f"quantizer of {name!r}: activations are quantized per tensor")
        for name in self.weights:
            if name not in self.graph.constants:
                raise ModelError(f"integer weights {name!r}: the graph has no such constant")
            if self.weights[name].integers.shape != self.graph.constants[name].shape:
                raise ModelError(
                    f"integer weights {name!r} must have shape {self.graph.constants[name].shape}, "
                    f"got {self.weights[name].integers.shape}"
                )
        self._own_biases()
        for name in [tensor.name for tensor in self.graph.inputs] + list(self.graph.outputs):
            if name not in self.activations:
                raise ModelError(f"graph input or output {name!r} has no quantizer")

    def _own_biases(self) -> None:
        """Check the corrected biases and make them read-only."""
        nodes = {node.name: node for node in self.graph.nodes}
        biases = {}
        for name, value in self.biases.items():
            if name not in nodes or nodes[name].op not in LINEAR:
                raise ModelError(f"corrected bias of {name!r}: the graph has no Conv, Gemm or MatMul of this name")
            bias = np.array(value, dtype=np.float64)
            channels = self.graph.constants[nodes[name].inputs[1]].shape[1 if nodes[name].op == "MatMul" else 0]
            if bias.shape != (channels,) or not np.isfinite(bias).all():
                raise ModelError(
                    f"corrected bias of {name!r} must be {channels} finite numbers, got shape {bias.shape}"
                )
            bias.setflags(write=False)
            biases[name] = bias
        object.__setattr__(self, "biases", MappingProxyType(biases))

    def bias(self, node: Node) -> npt.NDArray[np.float64] | None:
        """Return the bias of a Conv, Gemm or MatMul node, corrected where it was: None where it has none."""
        if node.name in self.biases:
            return self.biases[node.name]
        return self.graph.constants[node.inputs[2]].astype(np.float64) if len(node.inputs) > 2 else None

    def bias_integers(self, node: Node) -> npt.NDArray[np.int64]:
        """Return the bias of a Conv, Gemm or MatMul node in accumulator units.

        Parameters
        ----------
        node : Node
            A node whose weights are quantized and whose input is stored.

        Returns
        -------
        int64 array, shape (channels,)
            ``round_half_even(b / (s_x * s_w))`` in float64, zeros where the node has no bias. Values beyond int64's
            range are clamped; what does not fit an accumulator is lowering's to judge.

        Notes
        -----
        White paper section 2.1: the bias scale is the product of the scales of input and weights. docs/numerics.md (6).
        """
        weights = self.weights[node.inputs[1]]
        channels = weights.integers.shape[1 if node.op == "MatMul" else 0]
        bias = self.bias(node)
        if bias is None:
            return np.zeros(channels, dtype=np.int64)
        steps = np.rint(bias / self.bias_scale(node))
        limit = float(1 << 62)
        return np.clip(steps, -limit, limit).astype(np.int64)

    def bias_scale(self, node: Node) -> npt.NDArray[np.float64]:
        """Return the real value of one accumulator unit, ``s_x * s_w``, per output channel: float64 (channels,)."""
        weights = self.weights[node.inputs[1]]
        channels = weights.integers.shape[1 if node.op == "MatMul" else 0]
        product = self.activations[node.inputs[0]].scale.astype(np.float64) * weights.parameters.scale.astype(
            np.float64
        )
        return np.broadcast_to(product, (channels,))

    def __repr__(self) -> str:
        return f"<QuantizedGraph {self.graph.name!r}: {len(self.graph.nodes)} nodes, {len(self.weights)} of weights>"

    def _repr_html_(self) -> str:
        rows = []
        for node in self.graph.nodes:
            weights = [self.weights[name].parameters for name in node.inputs if name in self.weights]
            formats = [f"{w.format} {'per channel' if w.per_channel else 'per tensor'}" for w in weights]
            stored = self.activations.get(node.output)
            quantizer = ["", "", ""]
            if stored is not None:
                quantizer = [str(stored.format), f"{float(stored.scale):.6g}", str(int(stored.zero_point))]
            rows.append([node.name, node.op, ", ".join(formats), node.output, *quantizer])
        header = ["node", "op", "weights", "output", "stored as", "scale", "zero point"]
        caption = f"{self.graph.name}: {len(rows)} nodes; an output without a quantizer is fused with the next node"
        return html_table(header, rows, caption)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the quantized graph to one file (a zip of arrays and JSON, no pickle); see `accelsim.graph.archive`."""
        from accelsim.graph.archive import save_quantized

        save_quantized(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> QuantizedGraph:
        """Read a quantized graph that `save` wrote; raise DataError where the file is not one."""
        from accelsim.graph.archive import load_quantized

        return load_quantized(path)

    def to_onnx(self, path: str | PathLike[str], style: str = "fake_quant") -> None:
        """Write the network as an ONNX model.

        Parameters
        ----------
        path : path
            The file to make; it appears whole or not at all.
        style : {"fake_quant", "qdq"}
            ``fake_quant``: float operators between plain Div, Round, Clip, Mul quantizer blocks (figure 4b of the white
            paper), at any bit-width. ``qdq``: float operators between QuantizeLinear and DequantizeLinear, with integer
            weights, at any bit-width; `accelsim.load_integer_onnx` reads it back to the same integers.
        """
        from accelsim.graph.writer import save_quantized_onnx

        save_quantized_onnx(self, path, style)
