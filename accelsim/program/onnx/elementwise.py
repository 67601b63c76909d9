"""Nodes that work element by element: sums and products, functions as tables, and joining."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from accelsim.errors import LoweringError, ModelError
from accelsim.formats import QuantizationParameters
from accelsim.program.layers import AddLayer, ConcatLayer, MultiplyLayer, TableLayer
from accelsim.program.onnx.layers import FloatBinaryLayer, QLinearBinaryLayer
from accelsim.program.onnx.linear import clamp_function
from accelsim.program.onnx.lowering import (
    Dequantized,
    Lowering,
    name_of,
    quantize_linear,
    run_as_it_says,
)
from accelsim.program.onnx.nodes import NodeRunner
from accelsim.program.onnx.products import Bounds, clamp_of
from accelsim.program.onnx.quantization import Layout, dequantize, quantize
from accelsim.program.onnx.structure import Step
from accelsim.program.onnx.tensors import FORMATS, Array, TensorType
from accelsim.program.rescale import Addition, Rescale

UNARY = frozenset((
    "Abs", "Celu", "Clip", "Cos", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log",
    "Mish", "Neg", "Reciprocal", "Relu", "Selu", "Sigmoid", "Sin", "Softplus", "Softsign", "Sqrt", "Swish",
    "Tanh", "ThresholdedRelu",
))  # fmt: skip
"""Functions of one element, which become tables between DequantizeLinear and QuantizeLinear."""

_FUNCTION_OPSET = 16
"""Of the standard functions that ONNX Runtime's own operators stand for."""

Operand = tuple[str, str, str | None]
"""Codes, scale, zero point."""


def qlinear_binary(lowering: Lowering, step: Step) -> None:
    """Lower QLinearAdd and QLinearMul."""
    made = lowering.types[step.output]
    a, b = ((step.inputs[i], step.inputs[i + 1], step.input(i + 2)) for i in (0, 3))
    target = (step.output, step.inputs[6], step.input(7))
    sources = [_operand_parameters(lowering, step, operand) for operand in (a, b)]
    stored = _operand_parameters(lowering, step, target)
    for operand, parameters in zip((a, b), sources, strict=True):
        lowering.learn(operand[0], parameters)
    if lowering.native:
        lowering.emit(
            QLinearBinaryLayer, name_of(step), step.op, _binary_inputs(lowering, (a, b), target), step.output, made,
            stored, multiplies=step.op == "QLinearMul", format=FORMATS[made.type],
        )  # fmt: skip
        return
    if stored is None or sources[0] is None or sources[1] is None:
        raise LoweringError(f"{step.label}: with scales that a run computes it needs the requantizer onnxruntime")
    function = "Mul" if step.op == "QLinearMul" else "Add"
    _rescaled(lowering, step, function, (a, b), (sources[0], sources[1]), stored, step.output, step.op, ())


def float_binary(lowering: Lowering, step: Step) -> None:
    """Lower Add, Sub and Mul of dequantized operands, up to a QuantizeLinear; else they run in float."""
    a, b = (lowering.quantized(name) for name in step.inputs)
    found = followers_up_to_quantizer(lowering, step.output)
    if a is None or b is None or a.parameters is None or b.parameters is None or found is None:
        run_as_it_says(lowering, step)
        return
    fused, bounds, end = found
    stored = lowering.target(end)
    assert stored is not None
    lowering.fuse([*fused, end])
    op = "+".join([step.op, *(follower.op for follower in fused)])
    operands = [(made.codes, made.scale, made.zero_point) for made in (a, b)]
    if lowering.native:
        target = (end.output, end.inputs[1], end.input(2))
        inputs = _binary_inputs(lowering, operands, target)
        lowering.emit(
            FloatBinaryLayer, name_of(step), op, inputs, end.output, lowering.types[end.output], stored,
            function=step.op, clamp=clamp_of(stored, bounds),
        )  # fmt: skip
        return
    _rescaled(lowering, step, step.op, operands, (a.parameters, b.parameters), stored, end.output, op, bounds)


def _operand_parameters(lowering: Lowering, step: Step, operand: Operand) -> QuantizationParameters | None:
    codes, scale, zero_point = operand
    known = lowering.types[lowering.resolve(codes)]
    if not known.is_code:
        raise ModelError(f"{step.label}: {codes!r} must hold codes of at most 16 bits")
    if prod(lowering.types[lowering.resolve(scale)].shape) != 1:
        raise ModelError(f"{step.label}: the scale {scale!r} must be one number")
    return lowering.parameters(scale, zero_point, known.type, Layout(), step.label)


def _binary_inputs(lowering: Lowering, operands: Sequence[Operand], target: Operand) -> list[str]:
    """Return the names that a layer of two operands reads: each with scale and zero point, then those of the output."""
    rank = max(len(lowering.types[lowering.resolve(codes)].shape) for codes, _, _ in operands)
    names = []
    for codes, scale, zero_point in operands:
        zero = lowering.zero_point(zero_point, scale, TensorProto.INT32)
        names += [lowering.read(codes, rank), lowering.read(scale), lowering.read(zero)]
    zero = lowering.zero_point(target[2], target[1], TensorProto.INT32)
    return [*names, lowering.read(target[1]), lowering.read(zero)]


def _rescaled(
    lowering: Lowering,
    step: Step,
    function: str,
    operands: Sequence[Operand],
    sources: tuple[QuantizationParameters, QuantizationParameters],
    stored: QuantizationParameters,
    output: str,
    op: str,
    bounds: Sequence[Bounds],
) -> None:
    """Append a sum or product in the machine's own arithmetic, docs/numerics.md (25) to (28)."""
    a, b = sources
    where, requantizer = f"layer {name_of(step)!r}", lowering.machine.requantizer
    rank = max(len(lowering.types[lowering.resolve(codes)].shape) for codes, _, _ in operands)
    inputs = [lowering.read(codes, rank) for codes, _, _ in operands]
    fields: dict[str, Any] = {
        "zero_points": (int(a.zero_point), int(b.zero_point)),
        "zero_point": int(stored.zero_point),
        "output_format": stored.format,
        "clamp": clamp_of(stored, bounds),
    }
    made = lowering.types[output]
    if function == "Mul":
        rescale = Rescale.of(requantizer, [a.scale, b.scale], stored.scale, where)
        lowering.emit(MultiplyLayer, name_of(step), op, inputs, output, made, stored, rescale=rescale, **fields)
        return
    fields |= vars(Addition.of(requantizer, a, b, stored.scale, where))
    fields["sign"] = -1 if function == "Sub" else 1
    lowering.emit(AddLayer, name_of(step), op, inputs, output, made, stored, **fields)


def followers_up_to_quantizer(lowering: Lowering, tensor: str) -> tuple[list[Step], tuple[Bounds, ...], Step] | None:
    """Return the clamps that follow a tensor and the QuantizeLinear behind them; None where there is no such end."""
    fused: list[Step] = []
    bounds: list[Bounds] = []
    while (user := lowering.only_user(tensor)) is not None:
        if user.op == "QuantizeLinear" and user.inputs[0] == tensor and lowering.target(user) is not None:
            return fused, tuple(bounds), user
        clamped = clamp_function(lowering, user)
        if clamped is None:
            return None
        fused.append(user)
        bounds.append(clamped)
        tensor = user.output
    return None


def unary(lowering: Lowering, step: Step) -> None:
    """Lower functions of one element between DequantizeLinear and QuantizeLinear as a table; else they run in float."""
    source = lowering.quantized(step.inputs[0])
    steps = [step]
    while (user := lowering.only_user(steps[-1].output)) is not None and _is_function(lowering, user):
        steps.append(user)
    end = lowering.only_user(steps[-1].output)
    stored = None if end is None else lowering.target(end)
    if source is None or source.parameters is None or end is None or stored is None or not _is_function(lowering, step):
        run_as_it_says(lowering, step)
        return
    lowering.fuse([*steps, end])
    functions = [_function(lowering, entry.proto, entry.label) for entry in steps]
    op = "+".join(entry.op for entry in steps)
    append_table(lowering, name_of(step), op, source.codes, source.parameters, stored, functions, end.output)


def _is_function(lowering: Lowering, step: Step) -> bool:
    """Whether a node is a function of its first input, element by element."""
    return step.op in UNARY and all(lowering.constant(name) is not None for name in step.inputs[1:] if name)


def _function(lowering: Lowering, node: NodeProto, label: str) -> Callable[[Array], Array]:
    """Return a node as a function of a vector."""

    def run(values: Array) -> Array:
        vector = TensorType(TensorProto.FLOAT, values.shape)
        types = {**lowering.types, node.input[0]: vector, node.output[0]: vector}
        others = [lowering.constant(name) for name in dict.fromkeys(filter(None, node.input[1:]))]
        opset = lowering.structure.opset if not node.domain else _FUNCTION_OPSET
        return NodeRunner(node, opset, types, label).run([values, *(other for other in others if other is not None)])[0]

    return run


def append_table(
    lowering: Lowering,
    name: str,
    op: str,
    codes: str,
    source: QuantizationParameters,
    stored: QuantizationParameters,
    functions: Sequence[Callable[[Array], Array]],
    output: str,
) -> None:
    """Append a layer that looks functions up for every code of its input, docs/numerics.md (72)."""
    every = np.arange(source.format.minimum, source.format.maximum + 1)
    values: Array = dequantize(every, source.scale, source.zero_point, Layout())
    for function in functions:
        values = function(values)
    table = quantize(values, stored.scale, stored.zero_point, Layout(), stored.format)
    lowering.emit(
        TableLayer, name, op, (lowering.read(codes),), output, lowering.types[output], stored,
        tables=np.ascontiguousarray(table.reshape(1, -1)), lowest=source.format.minimum,
    )  # fmt: skip


def qlinear_function(lowering: Lowering, step: Step) -> None:
    """Lower QLinearLeakyRelu and QLinearSigmoid."""
    node = helper.make_node(step.op.removeprefix("QLinear"), ["x"], ["y"])
    if node.op_type == "LeakyRelu":
        node.attribute.append(helper.make_attribute("alpha", float(step.attribute("alpha", 0.01))))
    source = _operand_parameters(lowering, step, (step.inputs[0], step.inputs[1], step.input(2)))
    stored = _operand_parameters(lowering, step, (step.output, step.inputs[3], step.input(4)))
    if source is None or stored is None:
        raise ModelError(f"{step.label}: its scales and zero points must be constants")
    lowering.learn(step.inputs[0], source)
    node.domain = ""
    vector = TensorType(TensorProto.FLOAT, (1 << source.format.bits,))
    runner = NodeRunner(node, _FUNCTION_OPSET, {"x": vector, "y": vector}, step.label)
    append_table(
        lowering, name_of(step), step.op, step.inputs[0], source, stored, [lambda x: runner.run([x])[0]], step.output
    )


def qlinear_concat(lowering: Lowering, step: Step) -> None:
    """Lower QLinearConcat."""
    stored = _operand_parameters(lowering, step, (step.output, step.inputs[0], step.inputs[1] or None))
    operands = [step.inputs[index : index + 3] for index in range(2, len(step.inputs), 3)]
    sources = [_operand_parameters(lowering, step, (codes, scale, zero or None)) for codes, scale, zero in operands]
    if stored is None or any(source is None for source in sources):
        raise ModelError(f"{step.label}: its scales and zero points must be constants")
    known = [source for source in sources if source is not None]
    for (codes, _, _), source in zip(operands, known, strict=True):
        lowering.learn(codes, source)
    axis = step.attribute("axis", 0) % len(lowering.types[step.output].shape)
    _join(lowering, step, [codes for codes, _, _ in operands], known, stored, axis, step.output)


def concat(lowering: Lowering, step: Step) -> None:
    """Lower Concat: of codes as they are, of dequantized tensors up to a QuantizeLinear; else in float."""
    axis = step.attribute("axis", 0) % max(1, len(lowering.types[step.output].shape))
    made = [lowering.quantized(name) for name in step.inputs]
    end = lowering.only_user(step.output)
    stored = None if end is None else lowering.target(end)
    known = [entry.parameters for entry in made if entry is not None and entry.parameters is not None]
    if end is not None and stored is not None and len(known) == len(made):
        lowering.fuse([end])
        _join(lowering, step, [entry.codes for entry in made if entry is not None], known, stored, axis, end.output)
        return
    if len(known) == len(made) and all(parameters == known[0] for parameters in known):
        first = made[0]
        assert first is not None
        codes = TensorType(first.type.type, lowering.types[step.output].shape)
        target = lowering.fresh(f"{step.output}.codes", codes)
        _join(lowering, step, [entry.codes for entry in made if entry is not None], known, known[0], axis, target)
        lowering.add_dequantized(
            step.output, Dequantized(target, codes, first.scale, first.zero_point, Layout(), known[0])
        )
        return
    run_as_it_says(lowering, step)


def _join(
    lowering: Lowering,
    step: Step,
    names: Sequence[str],
    sources: Sequence[QuantizationParameters],
    stored: QuantizationParameters,
    axis: int,
    output: str,
) -> None:
    """Append a concatenation: inputs on other grids are looked up first, or rescaled by the machine."""
    where, made = f"layer {name_of(step)!r}", lowering.types[output]
    inputs, rescales = [], []
    for index, (codes, source) in enumerate(zip(names, sources, strict=True)):
        own = lowering.types[lowering.resolve(codes)]
        rescale = None
        name = codes
        if source != stored and lowering.native:
            name = lowering.fresh(f"{output}.input_{index}", TensorType(made.type, own.shape))
            append_table(lowering, f"{name_of(step)}.input_{index}", "Rescale", codes, source, stored, [], name)
        elif source != stored:
            rescale = Rescale.of(lowering.machine.requantizer, [source.scale], stored.scale, where)
        inputs.append(lowering.read(name))
        rescales.append(rescale)
    lowering.emit(
        ConcatLayer, name_of(step), step.op, inputs, output, made, stored, axis=axis + 1,
        zero_points=tuple(int(source.zero_point) for source in sources), rescales=tuple(rescales),
        sizes=tuple(prod(lowering.types[lowering.resolve(codes)].shape) for codes in names),
        zero_point=int(stored.zero_point), output_format=stored.format,
        clamp=(stored.format.minimum, stored.format.maximum),
    )  # fmt: skip


def requantize_linear(lowering: Lowering, step: Step) -> None:
    """Lower QuantizeLinear: of a dequantized tensor as a table, where the grids differ."""
    source = lowering.quantized(step.inputs[0])
    stored = lowering.target(step)
    if source is None or source.parameters is None or stored is None or source.parameters == stored:
        quantize_linear(lowering, step)
        return
    if lowering.native:
        append_table(lowering, name_of(step), "Rescale", source.codes, source.parameters, stored, [], step.output)
        return
    _join(lowering, step, [source.codes], [source.parameters], stored, 0, step.output)
