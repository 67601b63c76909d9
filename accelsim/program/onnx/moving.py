"""Nodes that move elements, and pooling. What moves dequantized values moves the codes that they stand for."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto

from accelsim.errors import LoweringError, ModelError
from accelsim.formats import QuantizationParameters
from accelsim.program.geometry import Geometry
from accelsim.program.layers import AveragePoolLayer, MaxPoolLayer, PadLayer, ReshapeLayer, TransposeLayer
from accelsim.program.onnx.elementwise import _join
from accelsim.program.onnx.layers import NodeLayer, QLinearAveragePoolLayer, QLinearGlobalAveragePoolLayer
from accelsim.program.onnx.linear import check_padded, check_steps, same_pads
from accelsim.program.onnx.lowering import Lowering, name_of, run_as_it_says
from accelsim.program.onnx.nodes import NodeRunner
from accelsim.program.onnx.quantization import Layout
from accelsim.program.onnx.structure import Step
from accelsim.program.onnx.tensors import FORMATS, TensorType

RESHAPING = frozenset(["Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"])
BY_RUNTIME = frozenset(["Expand", "Gather", "Slice", "Tile"])
"""Moved by ONNX Runtime, which takes codes of 8 bits for these."""
_EIGHT_BITS = (TensorProto.INT8, TensorProto.UINT8)


def move(lowering: Lowering, step: Step) -> None:
    """Lower a node that moves elements."""
    source = lowering.quantized(step.inputs[0])
    made = lowering.types[step.output]
    extra = [name for name in step.proto.output[1:] if name]
    if source is not None and source.parameters is not None and not extra:
        codes = TensorType(source.type.type, made.shape)
        target = lowering.fresh(f"{step.output}.codes", codes)
        if _moved(lowering, step, source.codes, target, codes, source.parameters):
            lowering.add_dequantized(step.output, replace(source, codes=target, type=codes))
            return
        del lowering.types[target]
    if not extra and source is None and lowering.types[lowering.resolve(step.inputs[0])].type == made.type:
        tensor = lowering.resolve(step.inputs[0])
        held = lowering.tensors.get(tensor)
        parameters = held if isinstance(held, QuantizationParameters) else None
        if _moved(lowering, step, tensor, step.output, made, parameters):
            return
    run_as_it_says(lowering, step)


def _moved(
    lowering: Lowering, step: Step, source: str, target: str, made: TensorType, stored: QuantizationParameters | None
) -> bool:
    """Append the layer that moves a tensor; return False where there is none."""
    name, known = name_of(step), lowering.types[lowering.resolve(source)]
    if step.op in RESHAPING:
        if prod(known.shape) != prod(made.shape):
            raise ModelError(f"{step.label}: a tensor of shape {known.shape} does not have the shape {made.shape}")
        lowering.emit(ReshapeLayer, name, step.op, (lowering.read(source),), target, made, stored)
        return True
    if step.op == "Transpose":
        order = step.attribute("perm", tuple(range(len(known.shape)))[::-1])
        if sorted(order) != list(range(len(known.shape))):
            raise ModelError(
                f"{step.label}: perm {tuple(order)} is no order of the {len(known.shape)} axes of its input"
            )
        permutation = (0, *(axis + 1 for axis in order))
        inputs = (lowering.read(source),)
        lowering.emit(TransposeLayer, name, step.op, inputs, target, made, stored, permutation=permutation)
        return True
    if step.op == "MaxPool":
        geometry = _geometry(lowering, step, known.shape, made.shape)
        if geometry is None or not known.is_code:
            return False
        lowering.emit(MaxPoolLayer, name, step.op, (lowering.read(source),), target, made, stored, geometry=geometry)
        return True
    if step.op == "Pad":
        return _padded(lowering, step, source, target, made, stored)
    if step.op in BY_RUNTIME and known.type in _EIGHT_BITS:
        return _moved_by_runtime(lowering, step, source, target, made, stored)
    return False


def _padded(
    lowering: Lowering, step: Step, source: str, target: str, made: TensorType, stored: QuantizationParameters | None
) -> bool:
    """Append a Pad of one constant around codes."""
    pads, value = lowering.constant(step.input(1)), lowering.constant(step.input(2))
    varies = step.input(2) is not None and value is None
    if step.attribute("mode", "constant") != "constant" or pads is None or varies or step.input(3) is not None:
        return False
    counts = tuple(int(count) for count in pads.reshape(-1))
    rank = len(made.shape)
    if stored is None or len(counts) != 2 * rank or min(counts, default=0) < 0:
        return False
    number = 0.0 if value is None else float(value.reshape(-1)[0])
    is_code = value is not None and lowering.types[lowering.resolve(step.inputs[2])].is_code
    code = int(number) if is_code else int(stored.quantize(np.float32(number)))
    half = len(counts) // 2
    whole = (0, *counts[:half], 0, *counts[half:])
    inputs = (lowering.read(source),)
    lowering.emit(PadLayer, name_of(step), step.op, inputs, target, made, stored, pads=whole, code=code)
    return True


def _moved_by_runtime(
    lowering: Lowering, step: Step, source: str, target: str, made: TensorType, stored: QuantizationParameters | None
) -> bool:
    """Append a node that ONNX Runtime moves codes with."""
    node = NodeProto()
    node.CopyFrom(step.proto)
    node.input[0], node.output[0] = source, target
    if any(name in step.inputs[1:] for name in (source, target)):
        return False
    names = list(dict.fromkeys(filter(None, node.input)))
    runner = NodeRunner(node, lowering.structure.opset, {**lowering.types, target: made}, step.label)
    inputs = [lowering.read(name) for name in names]
    lowering.emit(NodeLayer, name_of(step), step.op, inputs, target, made, stored, runner=runner, index=0)
    return True


def _geometry(lowering: Lowering, step: Step, x: tuple[int, ...], y: tuple[int, ...]) -> Geometry | None:
    """Return the window of a pool over one or two axes; None for others."""
    axes = len(x) - 2
    if axes not in (1, 2):
        return None
    kernel, strides, pads, dilations = pool_window(step, x[2:], y[2:])
    geometry = Geometry.of((x[1], *x[2:]), kernel, strides, pads, dilations, y[2:])
    return geometry if _every_window_has_a_tap(geometry) else None


def _every_window_has_a_tap(geometry: Geometry) -> bool:
    """Whether no window lies in the padding altogether."""
    for axis in (0, 1):
        length, pad = geometry.input_shape[1 + axis], geometry.pads[axis]
        for position in range(geometry.output_shape[axis]):
            start = position * geometry.strides[axis] - pad
            taps = range(
                start, start + geometry.kernel_shape[axis] * geometry.dilations[axis], geometry.dilations[axis]
            )
            if not any(0 <= tap < length for tap in (taps if len(taps) < 4096 else taps[:4096])):
                return False
    return True


def pool_window(
    step: Step, space: tuple[int, ...], output: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return kernel, strides, explicit pads and dilations of a pool."""
    axes = len(space)
    kernel = tuple(step.attribute("kernel_shape", space))
    strides = tuple(step.attribute("strides", (1,) * axes))
    dilations = tuple(step.attribute("dilations", (1,) * axes))
    pads = tuple(step.attribute("pads", (0,) * (2 * axes)))
    mode = step.attribute("auto_pad", "NOTSET")
    if any(len(values) != axes or min(values) < 1 for values in (kernel, strides, dilations)):
        raise ModelError(f"{step.label}: kernel_shape, strides and dilations must have {axes} values above 0")
    if mode.startswith("SAME"):
        pads = same_pads(space, kernel, strides, dilations, output, mode)
    elif mode == "VALID":
        pads = (0,) * (2 * axes)
    if len(pads) != 2 * axes or min(pads) < 0:
        raise ModelError(f"{step.label}: pads {pads} must be {2 * axes} values of at least 0")
    check_padded(step, (1, 1, *space), pads)
    check_steps(step, *strides, *dilations)
    return kernel, strides, pads, dilations


def qlinear_average_pool(lowering: Lowering, step: Step) -> None:
    """Lower QLinearAveragePool and QLinearGlobalAveragePool."""
    made = lowering.types[step.output]
    x = lowering.types[lowering.resolve(step.inputs[0])]
    if not x.is_code:
        raise ModelError(f"{step.label}: {step.inputs[0]!r} must hold codes")
    source = lowering.parameters(step.inputs[1], step.input(2), x.type, Layout(), step.label)
    stored = lowering.parameters(step.inputs[3], step.input(4), made.type, Layout(), step.label)
    lowering.learn(step.inputs[0], source)
    is_last = bool(step.attribute("channels_last", 0))
    space = x.shape[1:-1] if is_last else x.shape[2:]
    output = made.shape[1:-1] if is_last else made.shape[2:]
    is_global = step.op == "QLinearGlobalAveragePool"
    kernel, strides, pads, _ = (
        (space, space, (0,) * (2 * len(space)), ()) if is_global else pool_window(step, space, output)
    )
    counts = bool(step.attribute("count_include_pad", 0)) and not is_global
    if not lowering.native:
        _own_average(lowering, step, source, stored, (kernel, strides, pads), counts, is_last)
        return
    names = [step.inputs[0], step.inputs[1], lowering.zero_point(step.input(2), step.inputs[1], x.type)]
    names += [step.inputs[3], lowering.zero_point(step.input(4), step.inputs[3], made.type)]
    inputs = [lowering.read(name) for name in names]
    common: dict[str, Any] = {"channels_last": is_last, "format": FORMATS[made.type]}
    # A window that covers the whole image is ONNX Runtime's global pool, with another rounding.
    if is_global or (kernel == space and not any(pads) and all(length == 1 for length in output)):
        lowering.emit(
            QLinearGlobalAveragePoolLayer, name_of(step), step.op, inputs, step.output, made, stored, **common
        )
        return
    lowering.emit(
        QLinearAveragePoolLayer, name_of(step), step.op, inputs, step.output, made, stored, kernel_shape=kernel,
        strides=strides, pads=pads, count_padding=counts, **common,
    )  # fmt: skip


def average_pool(lowering: Lowering, step: Step) -> None:
    """Lower a mean of dequantized values on a machine with an arithmetic of its own; else it runs in float."""
    source = lowering.quantized(step.inputs[0])
    end = lowering.only_user(step.output)
    stored = None if end is None else lowering.target(end)
    x, y = lowering.types[step.inputs[0]].shape, lowering.types[step.output].shape
    usable = source is not None and source.parameters is not None and end is not None and stored is not None
    if lowering.native or not usable or len(x) - 2 not in (1, 2):
        run_as_it_says(lowering, step)
        return
    assert source is not None
    assert end is not None
    space = x[2:]
    window = (space, (1,) * len(space), (0,) * (2 * len(space)))
    if step.op == "AveragePool":
        kernel, strides, pads, dilations = pool_window(step, space, y[2:])
        if max(dilations) > 1:
            run_as_it_says(lowering, step)
            return
        window = (kernel, strides, pads)
    lowering.fuse([end])
    renamed = replace(step)
    _average(
        lowering, renamed, source.codes, source.parameters, stored, window,
        bool(step.attribute("count_include_pad", 0)), end.output,
    )  # fmt: skip


def _own_average(
    lowering: Lowering,
    step: Step,
    source: QuantizationParameters | None,
    stored: QuantizationParameters | None,
    window: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]],
    count_padding: bool,
    channels_last: bool,
) -> None:
    """Append a QLinear pool in the machine's own arithmetic."""
    if source is None or stored is None or channels_last or len(window[0]) not in (1, 2):
        raise LoweringError(
            f"{step.label}: channels_last, pools over 3 axes and scales that a run computes need the requantizer "
            f"onnxruntime"
        )
    _average(lowering, step, step.inputs[0], source, stored, window, count_padding, step.output)


def _average(
    lowering: Lowering,
    step: Step,
    codes: str,
    source: QuantizationParameters | None,
    stored: QuantizationParameters | None,
    window: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]],
    count_padding: bool,
    output: str,
) -> None:
    """Append an average on the input's grid, docs/numerics.md (31), and the step to the output's where they differ."""
    assert source is not None
    assert stored is not None
    x, y = lowering.types[lowering.resolve(codes)], lowering.types[output]
    kernel, strides, pads = window
    geometry = Geometry.of((x.shape[1], *x.shape[2:]), kernel, strides, pads, (1,) * len(kernel), y.shape[2:])
    target = output
    if source != stored:
        target = lowering.fresh(f"{output}.mean", TensorType(x.type, y.shape))
    lowering.emit(
        AveragePoolLayer, name_of(step), step.op, (lowering.read(codes),), target, lowering.types[target], source,
        geometry=geometry, count_padding=count_padding, zero_point=int(source.zero_point),
        requantizer=lowering.machine.requantizer,
    )  # fmt: skip
    if source != stored:
        _join(lowering, step, [target], [source], stored, 0, output)
