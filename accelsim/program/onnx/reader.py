"""From a quantized ONNX model to an integer program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from onnx import ModelProto

from accelsim.errors import AccelsimError, ModelError
from accelsim.graph.onnx_file import ModelSource, read_model
from accelsim.graph.reader import one_line
from accelsim.machine import Machine
from accelsim.program.onnx import elementwise, linear, lowering, moving
from accelsim.program.onnx.described import DescribedModel, described_graph
from accelsim.program.onnx.lowering import Lowering
from accelsim.program.onnx.structure import CONTRIB_DOMAIN, Step, Structure, read_structure
from accelsim.program.program import IntegerProgram

QUANTIZED = frozenset((
    "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul",
    "QuantizeLinear",
))  # fmt: skip
"""Operators of the standard domain by which a quantized model is known."""

COUPLING = frozenset(("CumSum", "DynamicQuantizeLinear"))
"""Operators whose result for a sample depends on the others."""

HANDLERS: dict[str, Callable[[Lowering, Step], None]] = {
    "Add": elementwise.float_binary,
    "AveragePool": moving.average_pool,
    "Concat": elementwise.concat,
    "Conv": linear.float_product,
    "ConvInteger": linear.conv_integer,
    "DequantizeLinear": lowering.dequantize_linear,
    "DynamicQuantizeLinear": lowering.dynamic_quantize_linear,
    "Gemm": linear.float_product,
    "GlobalAveragePool": moving.average_pool,
    "MatMul": linear.float_product,
    "MatMulInteger": linear.matmul_integer,
    "MaxPool": moving.move,
    "Mul": elementwise.float_binary,
    "Pad": moving.move,
    "QGemm": linear.qgemm,
    "QLinearAdd": elementwise.qlinear_binary,
    "QLinearAveragePool": moving.qlinear_average_pool,
    "QLinearConcat": elementwise.qlinear_concat,
    "QLinearConv": linear.qlinear_conv,
    "QLinearGlobalAveragePool": moving.qlinear_average_pool,
    "QLinearLeakyRelu": elementwise.qlinear_function,
    "QLinearMatMul": linear.qlinear_matmul,
    "QLinearMul": elementwise.qlinear_binary,
    "QLinearSigmoid": elementwise.qlinear_function,
    "QuantizeLinear": elementwise.requantize_linear,
    "Sub": elementwise.float_binary,
    "Transpose": moving.move,
    **dict.fromkeys(elementwise.UNARY, elementwise.unary),
    **dict.fromkeys(moving.RESHAPING | moving.BY_RUNTIME, moving.move),
}
"""What lowers a node; others run in float as the model says."""


@dataclass(frozen=True)
class QuantizedModel:
    """A quantized model that was read, from which programs are made.

    Parameters
    ----------
    proto : onnx.ModelProto
        The model.
    name : str
        Its name.
    data : bytes
        Its file.
    batch : int
        What stands in for an open leading length.
    """

    proto: ModelProto
    name: str
    data: bytes
    batch: int = 1
    form: ClassVar[str] = "onnx"

    @cached_property
    def structure(self) -> Structure:
        """The model's nodes and types."""
        return read_structure(self.proto, self.batch)

    def with_batch(self, batch: int) -> QuantizedModel:
        """Return the model with another leading length."""
        return replace(self, batch=batch)

    def lower(self, machine: Machine) -> IntegerProgram:
        """Return the program for a machine; raise LoweringError or ModelError where there is none."""
        try:
            structure = self.structure
            program: IntegerProgram = Lowering(structure, machine).program(self.name, self, HANDLERS)
            if structure.symbolic and not is_parallel(structure, read_structure(self.proto, 2 * self.batch)):
                program = replace(program, coupled=True)
        except AccelsimError as error:
            raise type(error)(one_line(str(error))) from None
        except UnicodeDecodeError as error:
            raise ModelError(f"the model holds a name that is not valid UTF-8: {error.reason}") from None
        return program


def is_parallel(structure: Structure, doubled: Structure) -> bool:
    """Return whether a model with an open leading length computes every sample by itself.

    Parameters
    ----------
    structure, doubled : Structure
        The model with some leading length and with twice that length.
    """
    varying = set(structure.inputs)
    for step in structure.steps:
        if varying.intersection(step.inputs):
            if step.op in COUPLING or _works_along_samples(structure, step):
                return False
            varying.update(filter(None, step.proto.output))
    for name in varying:
        shape, other = (kept.types[name].shape if name in kept.types else () for kept in (structure, doubled))
        if not shape or not other or other != (2 * shape[0], *shape[1:]):
            return False
    return True


def _works_along_samples(structure: Structure, step: Step) -> bool:
    """Whether a node works along axis 0."""
    axis, rank = step.attribute("axis", None), len(structure.types[step.inputs[0]].shape) if step.inputs else 0
    return isinstance(axis, int) and axis in (0, -rank)


def load_integer_onnx(model: ModelSource) -> IntegerProgram:
    """Read an ONNX model that was quantized elsewhere.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto
        With QLinear or integer operators, ONNX Runtime's own among them, or with QuantizeLinear and DequantizeLinear
        around float operators (QDQ). Opset 10 or newer; the lengths of all axes fixed, of axis 0 perhaps open.

    Returns
    -------
    IntegerProgram
        For the default machine of such models: ``edge_16x16`` with 32-bit wrapping accumulators and the requantizer
        ``onnxruntime``. `accelsim.simulate` runs it on any other machine, too.

    Raises
    ------
    ModelError
        When the model is malformed, has nothing quantized, or a pattern that has no integer meaning: one line that
        names the nodes.
    LoweringError
        When an integer layer does not fit the machine.
    """
    try:
        proto, data, label = read_model(model)
    except ModelError as error:
        raise ModelError(one_line(str(error))) from None
    if not is_quantized_onnx(proto):
        raise ModelError(
            f"the model {proto.graph.name or label!r} has no quantized operator; read it with load_onnx and quantize it"
        )
    quantized = described_graph(proto)
    if quantized is not None:
        return DescribedModel(quantized, data).lower(default_machine())
    return QuantizedModel(proto, proto.graph.name or label, data).lower(default_machine())


def default_machine() -> Machine:
    """Return the machine that ONNX models are read for."""
    return Machine.preset("edge_16x16").replace(accumulator_bits=32, overflow="wrap", requantizer="onnxruntime")


def is_quantized_onnx(proto: ModelProto) -> bool:
    """Whether a model has any operator that works on integers."""
    return any(node.op_type in QUANTIZED or node.domain == CONTRIB_DOMAIN for node in proto.graph.node)
