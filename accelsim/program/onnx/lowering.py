"""From the structure of a quantized ONNX model to an integer program for a machine.

The nodes are walked through in order. A DequantizeLinear makes no layer at first: what it stands for is kept, so that
the node behind it can be an integer layer; only a node that needs real numbers has it computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from accelsim.errors import FormatError, LoweringError, ModelError
from accelsim.formats import QuantizationParameters
from accelsim.graph.graph import Tensor
from accelsim.machine import Machine, Requantizer
from accelsim.program.layers import Layer, ReshapeLayer
from accelsim.program.onnx.layers import DequantizeLayer, DynamicQuantizeLayer, NodeLayer, QuantizeLayer
from accelsim.program.onnx.nodes import NodeRunner
from accelsim.program.onnx.quantization import Layout, dequantize, layout_of
from accelsim.program.onnx.structure import Step, Structure
from accelsim.program.onnx.tensors import FORMATS, Array, TensorType
from accelsim.program.program import IntegerProgram, Lowerable
from accelsim.program.storage import StoredTensor

FLOAT_PRODUCTS = frozenset((
    "Attention", "Conv", "ConvTranspose", "DeformConv", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN",
))  # fmt: skip
"""Operators that multiply and accumulate; their integer forms are the grid's, and they have no other here."""

NATIVE = Requantizer.preset("onnxruntime")


@dataclass(frozen=True)
class Dequantized:
    """What a float tensor is made of.

    Parameters
    ----------
    codes : str
        Tensor that holds the codes.
    type : TensorType
        Of the codes.
    scale, zero_point : str or None
        Tensors; None is a zero point of 0.
    layout : Layout
        How the scales lie.
    parameters : QuantizationParameters or None
        Of the whole tensor, where they are constant and the same for all of it.
    """

    codes: str
    type: TensorType
    scale: str
    zero_point: str | None
    layout: Layout
    parameters: QuantizationParameters | None


class Lowering:
    """One walk over a model.

    Parameters
    ----------
    structure : Structure
        The model.
    machine : Machine
        For which.
    """

    def __init__(self, structure: Structure, machine: Machine) -> None:
        self.structure, self.machine = structure, machine
        self.native = machine.requantizer == NATIVE
        self.types = dict(structure.types)
        self.users = structure.consumers()
        self.layers: list[Layer] = []
        self.tensors: dict[str, StoredTensor] = {name: self.types[name].plain for name in structure.inputs}
        self.constants: dict[str, Array] = {}
        self.values = dict(structure.constants)
        self._dequantized: dict[str, Dequantized] = {}
        self._computed: set[str] = set()
        self._aliases: dict[str, str] = {}
        self._fused: set[int] = set()
        self._layer_names: set[str] = set()

    def program(
        self, name: str, source: Lowerable | None, handlers: dict[str, Callable[[Lowering, Step], None]]
    ) -> Any:
        """Lower every node.

        Parameters
        ----------
        name : str
            Of the model.
        source : Lowerable or None
            Makes the program anew.
        handlers : dict of operator to function
            What lowers a node; others run as the model says.

        Raises
        ------
        ModelError
            When a node has no integer form and must have one.
        LoweringError
            When an integer layer does not fit the machine.
        """
        for step in self.structure.steps:
            if id(step) not in self._fused:
                handlers.get(step.op, run_as_it_says)(self, step)
        for output in self.structure.outputs:
            self._name_output(output)
        inputs = tuple(
            Tensor(name, self.types[name].shape, stored=self.types[name].type not in (TensorProto.FLOAT,))
            for name in self.structure.inputs
        )
        return IntegerProgram(
            name, inputs, self.structure.outputs, tuple(self.layers), self.tensors, self.constants, self.machine,
            whole=True, source=source,
        )  # fmt: skip

    def _name_output(self, name: str) -> None:
        """Let an output of the model be stored under its own name."""
        tensor = self.read(name)
        if tensor in self.constants:
            raise ModelError(f"graph output {name!r} is a constant; it does not depend on any input")
        if tensor != name or name in self.structure.inputs:
            self.emit(ReshapeLayer, f"{name}.copy", "Identity", (tensor,), name, self.types[name], self.tensors[tensor])

    # -- tensors ------------------------------------------------------------------------------------------------------

    def resolve(self, name: str) -> str:
        """Return the tensor that a name stands for."""
        return self._aliases.get(name, name)

    def alias(self, name: str, tensor: str) -> None:
        """Let a name stand for another tensor."""
        self._aliases[name] = self.resolve(tensor)

    def constant(self, name: str | None) -> Array | None:
        """Return the value of a tensor that does not vary, else None."""
        return None if name is None else self.values.get(self.resolve(name))

    def quantized(self, name: str) -> Dequantized | None:
        """Return what a float tensor was dequantized from, None where it was not."""
        return self._dequantized.get(self.resolve(name))

    def add_dequantized(self, name: str, made_of: Dequantized) -> None:
        """Take up a float tensor that need not be computed."""
        self._dequantized[name] = made_of

    def new_constant(self, name: str, value: Array, data_type: int) -> str:
        """Take up a constant of the lowering; return its name."""
        fresh, number = name, 0
        while fresh in self.types:
            number += 1
            fresh = f"{name}_{number}"
        self.values[fresh] = value
        self.types[fresh] = TensorType(data_type, value.shape)
        return fresh

    def fresh(self, name: str, tensor: TensorType) -> str:
        """Return a new name for a tensor of the lowering."""
        fresh, number = name, 0
        while fresh in self.types:
            number += 1
            fresh = f"{name}_{number}"
        self.types[fresh] = tensor
        return fresh

    def read(self, name: str, rank: int | None = None) -> str:
        """Return the name under which a layer reads a tensor, computed where it has not been.

        Parameters
        ----------
        name : str
            Of the model.
        rank : int, optional
            Number of axes that it is to have, with axes of length 1 in front: so that tensors broadcast behind the axis
            of the samples.
        """
        tensor = self.resolve(name)
        if tensor in self._dequantized and tensor not in self._computed:
            self._dequantize(tensor, self._dequantized[tensor])
        shape = self.types[tensor].shape
        missing = 0 if rank is None else rank - len(shape)
        if tensor in self.values:
            return self._read_constant(tensor, missing)
        if missing <= 0:
            return tensor
        wide = TensorType(self.types[tensor].type, (1,) * missing + shape)
        target = self.fresh(f"{tensor}.wide", wide)
        self.emit(ReshapeLayer, target, "Reshape", (tensor,), target, wide, self.tensors[tensor])
        return target

    def _read_constant(self, name: str, missing: int) -> str:
        """Put a constant into the program, with the axis of the samples."""
        value = self.values[name]
        key = name if missing <= 0 else f"{name}.{missing}"
        if key not in self.constants:
            shape = (1,) * (1 + max(missing, 0)) + value.shape
            self.constants[key] = np.ascontiguousarray(value).reshape(shape)
            self.tensors.setdefault(key, self.types[name].plain)
        return key

    def _dequantize(self, name: str, made_of: Dequantized) -> None:
        """Compute a float tensor."""
        self._computed.add(name)
        codes, scale = self.constant(made_of.codes), self.constant(made_of.scale)
        zero_point = self.zero_point(made_of.zero_point, made_of.scale, made_of.type.type)
        zeros = self.constant(zero_point)
        if codes is not None and scale is not None and zeros is not None:
            self.values[name] = dequantize(codes, scale, zeros, made_of.layout)
            return
        inputs = (self.read(made_of.codes), self.read(made_of.scale), self.read(zero_point))
        self.emit(DequantizeLayer, name, "DequantizeLinear", inputs, name, self.types[name], layout=made_of.layout)

    def zero_point(self, name: str | None, scale: str, data_type: int) -> str:
        """Return the name of a zero point, that of a constant 0 where the model leaves it out."""
        if name is not None:
            return name
        zeros = np.zeros(self.types[self.resolve(scale)].shape, dtype=np.int32)
        return self.new_constant(f"{scale}.zero_point", zeros, data_type)

    def parameters(
        self, scale: str | None, zero_point: str | None, data_type: int, layout: Layout, where: str
    ) -> QuantizationParameters | None:
        """Return the quantizer of a whole tensor; None where it varies, or is not that of codes."""
        if scale is None or layout.axis is not None or data_type not in FORMATS:
            return None
        scales, zeros = self.constant(scale), self.constant(zero_point)
        if scales is None or (zero_point is not None and zeros is None):
            return None
        if scales.size == 0 or (zeros is not None and zeros.size == 0):
            raise ModelError(f"{where}: the scale {scale!r} and its zero point must not be empty")
        if zeros is not None and zeros.dtype.kind not in "iu":
            raise ModelError(f"{where}: the zero point {zero_point!r} must be an integer")
        zero = 0 if zeros is None else int(zeros.reshape(-1)[0])
        try:
            return QuantizationParameters(
                np.asarray(scales.reshape(-1)[0], np.float32), np.asarray(zero, np.int64), FORMATS[data_type]
            )
        except FormatError as error:
            raise ModelError(f"{where}: {error}") from None

    def learn(self, codes: str, parameters: QuantizationParameters | None) -> None:
        """Take up what the codes of an input of the model stand for, where a node that reads them says so first."""
        name = self.resolve(codes)
        if parameters is not None and name in self.structure.inputs:
            plain = not isinstance(self.tensors[name], QuantizationParameters)
            if plain and FORMATS.get(self.types[name].type) == parameters.format:
                self.tensors[name] = parameters

    # -- layers -------------------------------------------------------------------------------------------------------

    def emit(
        self,
        kind: type[Any],
        name: str,
        op: str,
        inputs: Iterable[str],
        output: str,
        made: TensorType,
        stored: StoredTensor | None = None,
        **fields: Any,
    ) -> None:
        """Append a layer.

        Parameters
        ----------
        kind : type
            Class of the layer.
        name, op : str
            A name in use gets a number.
        inputs : iterable of str
            As `read` returns them.
        output : str
            Tensor that it stores.
        made : TensorType
            Of that tensor.
        stored : QuantizationParameters or PlainTensor, optional
            How it lies in memory.
        fields
            What the kind has beyond all layers.
        """
        unique, number = name, 0
        while unique in self._layer_names:
            number += 1
            unique = f"{name}_{number}"
        self._layer_names.add(unique)
        self.types.setdefault(output, made)
        self.tensors[output] = made.plain if stored is None else stored
        self.layers.append(
            kind(name=unique, op=op, inputs=tuple(inputs), output=output, output_shape=made.shape, **fields)
        )

    def fuse(self, steps: Iterable[Step]) -> None:
        """Let nodes be part of a layer that is being made."""
        self._fused |= {id(step) for step in steps}

    def only_user(self, tensor: str) -> Step | None:
        """Return the one node that reads a tensor which is no output, else None."""
        users = self.users.get(tensor, [])
        if len(users) != 1 or tensor in self.structure.outputs or users[0].inputs.count(tensor) != 1:
            return None
        return users[0]

    def target(self, step: Step) -> QuantizationParameters | None:
        """Return the quantizer of a QuantizeLinear node; None where it is not that of a whole tensor, and constant."""
        if step.op != "QuantizeLinear":
            return None
        data_type = self.types[step.output].type
        layout = layout_of(step, self.types)
        return self.parameters(step.inputs[1], step.input(2), data_type, layout, step.label)


def name_of(step: Step) -> str:
    """Return what the layer of a node is called."""
    return step.proto.name or step.output


def quantize_linear(lowering: Lowering, step: Step) -> None:
    """Lower QuantizeLinear: codes that it only returns are not computed again."""
    made = lowering.types[step.output]
    if not made.is_code:
        raise ModelError(f"{step.label} makes no integers, which is not supported")
    layout = layout_of(step, lowering.types)
    parameters = lowering.parameters(step.inputs[1], step.input(2), made.type, layout, step.label)
    source = lowering.quantized(step.inputs[0])
    if source is not None and parameters is not None and source.parameters == parameters:
        lowering.alias(step.output, source.codes)
        return
    zero_point = lowering.zero_point(step.input(2), step.inputs[1], made.type)
    inputs = [lowering.read(name) for name in (step.inputs[0], step.inputs[1], zero_point)]
    lowering.emit(
        QuantizeLayer, name_of(step), "QuantizeLinear", inputs, step.output, made, parameters, layout=layout,
        format=FORMATS[made.type],
    )  # fmt: skip


def dequantize_linear(lowering: Lowering, step: Step) -> None:
    """Take up DequantizeLinear."""
    codes = lowering.types[step.inputs[0]]
    if not codes.is_code and codes.type != TensorProto.INT32:
        raise ModelError(f"{step.label} reads no integers, which is not supported")
    if lowering.types[step.output].type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        raise ModelError(f"{step.label} must make float32")
    layout = layout_of(step, lowering.types)
    parameters = lowering.parameters(step.inputs[1], step.input(2), codes.type, layout, step.label)
    lowering.learn(step.inputs[0], parameters)
    made_of = Dequantized(lowering.resolve(step.inputs[0]), codes, step.inputs[1], step.input(2), layout, parameters)
    lowering.add_dequantized(step.output, made_of)


def dynamic_quantize_linear(lowering: Lowering, step: Step) -> None:
    """Lower DynamicQuantizeLinear: a layer per result that is used."""
    source = lowering.read(step.inputs[0])
    for part, name in zip(("codes", "scale", "zero_point"), step.proto.output, strict=False):
        if name and (name in lowering.users or name in lowering.structure.outputs):
            lowering.emit(
                DynamicQuantizeLayer, f"{name_of(step)}.{part}", "DynamicQuantizeLinear", (source,), name,
                lowering.types[name], part=part,
            )  # fmt: skip


def run_as_it_says(lowering: Lowering, step: Step) -> None:
    """Let a node run in float, or on integers that it only moves."""
    if step.op in FLOAT_PRODUCTS:
        refuse_product(lowering, step, "its operands are not both quantized")
    names = list(dict.fromkeys(filter(None, step.inputs)))
    if any(lowering.types[lowering.resolve(name)].type in FORMATS and _is_narrow(lowering, name) for name in names):
        raise ModelError(f"{step.label}: the operator is not supported on integers of less than 8 bits")
    runner = NodeRunner(step.proto, lowering.structure.opset, lowering.types, step.label)
    inputs = [lowering.read(name) for name in names]
    for index, name in enumerate(filter(None, step.proto.output)):
        if name in lowering.users or name in lowering.structure.outputs:
            suffix = f".{index}" if index else ""
            lowering.emit(
                NodeLayer, f"{name_of(step)}{suffix}", step.op, inputs, name, lowering.types[name], runner=runner,
                index=index,
            )  # fmt: skip


def _is_narrow(lowering: Lowering, name: str) -> bool:
    return FORMATS[lowering.types[lowering.resolve(name)].type].bits < 8


def refuse_product(lowering: Lowering, step: Step, why: str) -> None:
    """Raise a ModelError that shows a product and its neighbours."""
    makers = {name: other for other in lowering.structure.steps for name in other.proto.output}
    before = [f"{makers[name].op} {name!r}" if name in makers else f"constant {name!r}" for name in step.inputs if name]
    after = [f"{user.op} {name_of(user)!r}" for user in lowering.users.get(step.output, [])] or ["output"]
    raise ModelError(
        f"{step.label} has no integer meaning: {why}; it stands as ({', '.join(before)}) -> {step.op} "
        f"{name_of(step)!r} -> ({', '.join(after)}). Quantize its inputs and weights with constant scales, or cut the "
        f"model there"
    )


def check_width(lowering: Lowering, where: str, what: str, stored: Any, bits: int | None) -> None:
    """Raise a LoweringError where a PE cannot hold an operand."""
    if bits is not None and stored.bits > bits:
        raise LoweringError(
            f"{where}: {what}s are {stored}, the machine's PEs take {bits}-bit {what}s; raise {what}_bits"
        )
