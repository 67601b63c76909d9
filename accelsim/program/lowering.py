"""From a quantized graph to an integer program for a machine: docs/numerics.md sections 2, 5 and 6."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.errors import LoweringError
from accelsim.formats import IntegerFormat, QuantizationParameters
from accelsim.graph.averages import averages_whole_image
from accelsim.graph.graph import Node
from accelsim.graph.operators import ACTIVATIONS, CLAMPS, ELEMENTWISE, LINEAR, RESHAPES
from accelsim.graph.quantized import QuantizedGraph
from accelsim.machine import Machine
from accelsim.program import layers as kinds
from accelsim.program.activations import FusedBounds, activation_tables
from accelsim.program.geometry import Geometry
from accelsim.program.program import IntegerProgram
from accelsim.program.rescale import Addition, Rescale

WIDEST_START = 1 << 61
_SOFTMAX_FRACTION_BITS = 23


def lower(quantized: QuantizedGraph, machine: Machine) -> IntegerProgram:
    """Lower a quantized graph for a machine.

    Parameters
    ----------
    quantized : QuantizedGraph
        Network with quantizers on every stored tensor.
    machine : Machine
        Its requantizer, zero-point mode, reduction order and operand widths decide the program.

    Returns
    -------
    IntegerProgram
        The network in integers.

    Raises
    ------
    LoweringError
        When a layer has no integer form: operands wider than the machine's, a multiplier out of range, tensors that
        must share a quantizer and do not.
    """
    if not isinstance(quantized, QuantizedGraph):
        raise LoweringError(
            f"only a QuantizedGraph is lowered, got {type(quantized).__name__}; a float network is quantized first"
        )
    if not isinstance(machine, Machine):
        raise LoweringError(f"machine must be a Machine, got {machine!r}; Machine.preset and Machine.load make one")
    return _Lowering(quantized, machine).program()


class _Lowering:
    """One walk over the graph."""

    def __init__(self, quantized: QuantizedGraph, machine: Machine) -> None:
        self.quantized = quantized
        self.graph = quantized.graph
        self.machine = machine
        self.constants: dict[str, Any] = {}

    def program(self) -> IntegerProgram:
        """Lower every node, fused ones with the layer before them."""
        layers: list[kinds.Layer] = []
        fused: set[str] = set()
        for node in self.graph.nodes:
            if node.name in fused:
                continue
            followers = self._followers(node)
            fused |= {follower.name for follower in followers}
            layers.append(self._layer(node, followers))
        return IntegerProgram(
            self.graph.name,
            self.graph.inputs,
            self.graph.outputs,
            tuple(layers),
            self.quantized.activations,
            self.constants,
            self.machine,
        )

    def _followers(self, node: Node) -> list[Node]:
        """Return the nodes between this one and the first tensor that is stored."""
        followers: list[Node] = []
        last = node
        while last.output not in self.quantized.activations:
            consumers = self.graph.consumers(last.output)
            if len(consumers) != 1 or consumers[0].op not in CLAMPS or node.op not in LINEAR | ELEMENTWISE:
                raise LoweringError(
                    f"node {last.name!r} ({last.op}): its output {last.output!r} has no quantizer and is not "
                    f"followed by one Relu or Clip that could be fused"
                )
            last = consumers[0]
            followers.append(last)
        return followers

    def _layer(self, node: Node, followers: list[Node]) -> kinds.Layer:
        """Lower one node with its fused followers."""
        output = (followers or [node])[-1].output
        common: dict[str, Any] = {
            "name": node.name,
            "op": "+".join([node.op, *(follower.op for follower in followers)]),
            "inputs": tuple(name for name in node.inputs if name not in self.graph.constants),
            "output": output,
            "output_shape": self._shape(output),
        }
        if node.op in LINEAR:
            return self._linear(node, followers, common)
        if node.op in ELEMENTWISE:
            return self._elementwise(node, followers, common)
        if node.op in ACTIVATIONS:
            source = self._stored(node.inputs[0], node)
            tables = activation_tables(node, self.graph, source, self._stored(output, node))
            return kinds.TableLayer(**common, tables=tables, lowest=source.format.minimum)
        if node.op in RESHAPES:
            self._same_quantizer(node)
            return kinds.ReshapeLayer(**common)
        lowering: dict[str, Callable[[Node, dict[str, Any]], kinds.Layer]] = {
            "Concat": self._concat,
            "MaxPool": self._max_pool,
            "AveragePool": self._average_pool,
            "GlobalAveragePool": self._average_pool,
            "ReduceMean": self._average_pool,
            "Softmax": self._softmax,
            "Transpose": self._transpose,
            "Pad": self._pad,
        }
        if node.op not in lowering:
            raise LoweringError(f"node {node.name!r} ({node.op}) has no integer form; fold it before lowering")
        return lowering[node.op](node, common)

    def _linear(self, node: Node, followers: list[Node], common: dict[str, Any]) -> kinds.Layer:
        """Lower Conv, Gemm and MatMul: docs/numerics.md section 2."""
        where = f"layer {node.name!r}"
        source, target = self._stored(node.inputs[0], node), self._stored(common["output"], node)
        if node.inputs[1] not in self.quantized.weights:
            raise LoweringError(f"{where}: its weights {node.inputs[1]!r} are not quantized")
        quantized_weights = self.quantized.weights[node.inputs[1]]
        parameters = quantized_weights.parameters
        self._check_width(where, "weight", parameters.format, self.machine.weight_bits)
        self._check_width(where, "activation", source.format, self.machine.activation_bits)
        integers = quantized_weights.integers.astype(np.int32)
        geometry = None
        if node.op == "Conv":
            geometry = self._conv_geometry(node)
            if self.machine.reduction_order == "spatial_first":
                integers = np.moveaxis(integers, 1, -1)
        elif node.op == "MatMul":
            integers = integers.T
        weights = np.ascontiguousarray(integers).reshape(integers.shape[0], -1)
        weight_zeros = np.broadcast_to(parameters.zero_point, weights.shape[:1]).astype(np.int64)
        zero_point = int(source.zero_point)
        bias = self.quantized.bias_integers(node)
        at_input = self.machine.zero_point == "at_input"
        if at_input:
            start, last = bias, np.zeros_like(weight_zeros)
            weights = weights - weight_zeros.astype(np.int32)[:, None]
        else:
            sums = weights.sum(axis=1, dtype=np.int64)
            start = bias - zero_point * sums + weights.shape[1] * zero_point * weight_zeros  # (7)
            last = weight_zeros
        if (np.abs(start) > WIDEST_START).any():
            channel = int(np.abs(start).argmax())
            raise LoweringError(
                f"{where}: the bias of channel {channel} is {start[channel]} accumulator units, beyond 2^61; "
                f"its weight scale is too small for its bias"
            )
        factors: list[npt.ArrayLike] = [source.scale, parameters.scale]
        if self.machine.product_shift_bits > 0:  # an accumulator counts in units of 2^h products, (13a)
            factors.append(np.float32(2.0**self.machine.product_shift_bits))
        return kinds.MacLayer(
            **common,
            weights=weights,
            start=start,
            weight_zero_points=last,
            input_offset=zero_point if at_input else 0,
            pad_value=0 if at_input else zero_point,
            geometry=geometry,
            weight_format=parameters.format,
            input_format=source.format,
            rescale=Rescale.of(self.machine.requantizer, factors, target.scale, where),
            zero_point=int(target.zero_point),
            output_format=target.format,
            **FusedBounds.of(followers, self.graph, target).fields(),
        )

    def _elementwise(self, node: Node, followers: list[Node], common: dict[str, Any]) -> kinds.Layer:
        """Lower Add, Sub and Mul of two stored tensors, or of one and a constant."""
        where = f"layer {node.name!r}"
        target = self._stored(common["output"], node)
        sources = []
        for name in node.inputs:
            if name in self.graph.constants:
                if name not in self.quantized.weights:
                    raise LoweringError(f"{where}: its constant {name!r} is not quantized")
                constant = self.quantized.weights[name]
                self.constants[name] = constant.integers.astype(np.int32)
                sources.append(constant.parameters)
            else:
                sources.append(self._stored(name, node))
        a, b = sources
        shared = {
            **common,
            "inputs": node.inputs,
            "zero_points": (int(a.zero_point), int(b.zero_point)),
            "zero_point": int(target.zero_point),
            "output_format": target.format,
            **FusedBounds.of(followers, self.graph, target).fields(),
        }
        requantizer = self.machine.requantizer
        if node.op == "Mul":
            return kinds.MultiplyLayer(
                **shared, rescale=Rescale.of(requantizer, [a.scale, b.scale], target.scale, where)
            )
        addition = Addition.of(requantizer, a, b, target.scale, where)
        return kinds.AddLayer(**shared, sign=-1 if node.op == "Sub" else 1, **vars(addition))

    def _concat(self, node: Node, common: dict[str, Any]) -> kinds.Layer:
        """Lower Concat: (29)."""
        target = self._stored(node.output, node)
        sources = [self._stored(name, node) for name in node.inputs]
        rescales = [
            None
            if source == target
            else Rescale.of(self.machine.requantizer, [source.scale], target.scale, f"layer {node.name!r}")
            for source in sources
        ]
        return kinds.ConcatLayer(
            **common,
            axis=_integer(node, "axis"),
            zero_points=tuple(int(source.zero_point) for source in sources),
            rescales=tuple(rescales),
            sizes=tuple(prod(self._shape(name)) for name in node.inputs),
            zero_point=int(target.zero_point),
            output_format=target.format,
            clamp=(target.format.minimum, target.format.maximum),
        )

    def _max_pool(self, node: Node, common: dict[str, Any]) -> kinds.Layer:
        """Lower MaxPool: (30)."""
        self._same_quantizer(node)
        return kinds.MaxPoolLayer(**common, geometry=self._pool_geometry(node))

    def _average_pool(self, node: Node, common: dict[str, Any]) -> kinds.Layer:
        """Lower AveragePool, GlobalAveragePool and ReduceMean over space: (31), or (36) where the grids differ."""
        source, target = self._stored(node.inputs[0], node), self._stored(node.output, node)
        if source != target and averages_whole_image(self.graph, node):
            return self._mean(node, source, target, common)
        stored = self._same_quantizer(node)
        if node.op == "AveragePool":
            geometry, count_padding = self._pool_geometry(node), bool(node.attributes["count_include_pad"])
        else:
            channels, *space = self._shape(node.inputs[0])
            ones, zeros = (1,) * len(space), (0,) * (2 * len(space))
            geometry = Geometry.of((channels, *space), tuple(space), ones, zeros, ones, ones)
            count_padding = False
        return kinds.AveragePoolLayer(
            **common,
            geometry=geometry,
            count_padding=count_padding,
            zero_point=int(stored.zero_point),
            requantizer=self.machine.requantizer,
        )

    def _mean(
        self, node: Node, source: QuantizationParameters, target: QuantizationParameters, common: dict[str, Any]
    ) -> kinds.Layer:
        """Lower the average of a whole image onto a grid of its own: (36)."""
        space = self._shape(node.inputs[0])[1:]
        count = prod(space)
        divisor = np.float64(target.scale) * count
        return kinds.MeanLayer(
            **common,
            axes=tuple(range(2, 2 + len(space))),
            count=count,
            source_zero_point=int(source.zero_point),
            rescale=Rescale.of(self.machine.requantizer, [source.scale], divisor, f"layer {node.name!r}"),
            zero_point=int(target.zero_point),
            output_format=target.format,
            clamp=(target.format.minimum, target.format.maximum),
        )

    def _softmax(self, node: Node, common: dict[str, Any]) -> kinds.Layer:
        """Lower Softmax: (33)."""
        source, target = self._stored(node.inputs[0], node), self._stored(node.output, node)
        bits = target.format.bits
        if target.format.signed or int(target.zero_point) != 0 or float(target.scale) != 2.0**-bits:
            raise LoweringError(
                f"layer {node.name!r}: Softmax is stored unsigned with scale 2^-bits and zero point 0, got {target}"
            )
        steps = np.arange(1 << source.format.bits, dtype=np.float64)
        exponentials = np.rint(np.exp(-np.float64(source.scale) * steps) * 2.0**_SOFTMAX_FRACTION_BITS)
        return kinds.SoftmaxLayer(
            **common, axis=_integer(node, "axis"), exponentials=exponentials.astype(np.int64), bits=bits
        )

    def _transpose(self, node: Node, common: dict[str, Any]) -> kinds.Layer:
        self._same_quantizer(node)
        return kinds.TransposeLayer(**common, permutation=_integers(node, "perm"))

    def _pad(self, node: Node, common: dict[str, Any]) -> kinds.Layer:
        stored = self._same_quantizer(node)
        value = np.array(node.attributes["value"], dtype=np.float32)
        return kinds.PadLayer(**common, pads=_integers(node, "pads"), code=int(stored.quantize(value)))

    def _conv_geometry(self, node: Node) -> Geometry:
        """Return the window of a convolution."""
        return Geometry.of(
            self._shape(node.inputs[0]),
            self.graph.constants[node.inputs[1]].shape[2:],
            _integers(node, "strides"),
            _integers(node, "pads"),
            _integers(node, "dilations"),
            self._shape(node.output)[1:],
            _integer(node, "group"),
        )

    def _pool_geometry(self, node: Node) -> Geometry:
        """Return the window of a pooling layer."""
        return Geometry.of(
            self._shape(node.inputs[0]),
            _integers(node, "kernel_shape"),
            _integers(node, "strides"),
            _integers(node, "pads"),
            _integers(node, "dilations"),
            self._shape(node.output)[1:],
        )

    def _stored(self, name: str, node: Node) -> QuantizationParameters:
        """Return the quantizer of a tensor; refuse a node that reads or makes one that is not stored."""
        if name not in self.quantized.activations:
            raise LoweringError(f"node {node.name!r} ({node.op}): tensor {name!r} has no quantizer")
        return self.quantized.activations[name]

    def _same_quantizer(self, node: Node) -> QuantizationParameters:
        """Return the quantizer that a node's input and output share; refuse the node where they differ."""
        stored = self._stored(node.inputs[0], node)
        if self._stored(node.output, node) != stored:
            raise LoweringError(
                f"node {node.name!r} ({node.op}): input {node.inputs[0]!r} and output {node.output!r} must have "
                f"the same quantizer"
            )
        return stored

    def _shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without the batch."""
        return tuple(length for length in self.graph.shapes[name][1:] if length is not None)

    @staticmethod
    def _check_width(where: str, what: str, stored: IntegerFormat, bits: int | None) -> None:
        """Refuse operands that a PE cannot hold."""
        if bits is not None and stored.bits > bits:
            raise LoweringError(
                f"{where}: {what}s are {stored}, the machine's PEs take {bits}-bit {what}s; quantize to {bits} bits or "
                f"raise {what}_bits"
            )


def _integer(node: Node, name: str) -> int:
    value = node.attributes[name]
    if not isinstance(value, int):
        raise LoweringError(f"node {node.name!r} ({node.op}): attribute {name} must be an integer, got {value!r}")
    return value


def _integers(node: Node, name: str) -> tuple[int, ...]:
    value = node.attributes[name]
    if not isinstance(value, tuple):
        raise LoweringError(f"node {node.name!r} ({node.op}): attribute {name} must be integers, got {value!r}")
    return value
