"""Operators that only move codes: RESHAPE and its kin, TRANSPOSE, PAD, CONCATENATION, PACK, slices."""

from __future__ import annotations

from math import prod
from typing import Any

from accelsim.errors import ModelError
from accelsim.formats import QuantizationParameters
from accelsim.program.layers import ConcatLayer, Layer, PadLayer, ReshapeLayer, TransposeLayer
from accelsim.program.tflite.context import Context
from accelsim.program.tflite.layers import SliceLayer
from accelsim.program.tflite.model import TfliteOperator, TfliteTensor


def reshape(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower RESHAPE, SQUEEZE and EXPAND_DIMS: the output's own shape says all."""
    source, output, _ = _moved(context, operator)
    if source.size != output.size:
        raise ModelError(f"{operator.where}: {source.shape} cannot become {output.shape}")
    return [ReshapeLayer(**context.common(operator, (source.name,)))]


def transpose(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower TRANSPOSE."""
    source, output, _ = _moved(context, operator)
    permutation, rank = context.constant(operator, 1).integers(), len(source.shape)
    if sorted(axis % rank if rank else axis for axis in permutation) != list(range(rank)):
        raise ModelError(f"{operator.where}: must permute the axes 0..{rank - 1}, got {permutation}")
    axes = tuple(axis % rank for axis in permutation)
    if tuple(source.shape[axis] for axis in axes) != output.shape:
        raise ModelError(f"{operator.where}: {source.shape} permuted by {axes} is not {output.shape}")
    return [
        TransposeLayer(**context.common(operator, (source.name,)), permutation=(0, *(axis + 1 for axis in axes)))
    ]  # fmt: skip


def pad(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower PAD with the zero point and PADV2 with a code of its own."""
    source, output, target = _moved(context, operator)
    widths, rank = context.constant(operator, 1).integers(), len(source.shape)
    before, after = widths[0::2], widths[1::2]
    padded = tuple(sum(lengths) for lengths in zip(before, source.shape, after, strict=False))
    if len(widths) != 2 * rank or min(widths, default=0) < 0 or padded != output.shape:
        raise ModelError(f"{operator.where}: {source.shape} padded by {widths} is not {output.shape}")
    code = int(target.zero_point)
    if operator.op == "PADV2":
        value = context.constant(operator, 2)
        if value.data is None or value.dtype != output.dtype or value.size != 1:
            raise ModelError(f"{operator.where}: the padding must be one constant {output.dtype}, got {value.dtype}")
        code = int(value.data.reshape(-1)[0])
    return [PadLayer(**context.common(operator, (source.name,)), pads=(0, *before, 0, *after), code=code)]


def concatenation(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower CONCATENATION; inputs on another grid than the output are requantized."""
    context.unfused(operator)
    sources = [context.activation(operator, position) for position in range(len(operator.inputs))]
    axis = _axis(operator, len(context.output(operator).shape))
    return [_joined(context, operator, [tensor.name for tensor in sources], sources, axis)]


def pack(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower PACK: every input gets an axis of length 1, along which they are joined."""
    output = context.output(operator)
    axis = _axis(operator, len(output.shape))
    shape = (*output.shape[:axis], 1, *output.shape[axis + 1 :])
    sources = [context.activation(operator, position) for position in range(len(operator.inputs))]
    layers: list[Layer] = []
    names = []
    for position, tensor in enumerate(sources):
        if prod(shape) != tensor.size or tensor.shape != (*shape[:axis], *shape[axis + 1 :]):
            raise ModelError(f"{operator.where}: input {position} of shape {tensor.shape} does not fit {output.shape}")
        names.append(f"{operator.name} part {position}")
        context.tensors[names[-1]] = context.stored(operator, tensor)
        layers.append(
            ReshapeLayer(name=names[-1], op="RESHAPE", inputs=(tensor.name,), output=names[-1], output_shape=shape)
        )
    return [*layers, _joined(context, operator, names, sources, axis, shape)]


def _joined(
    context: Context,
    operator: TfliteOperator,
    names: list[str],
    sources: list[TfliteTensor],
    axis: int,
    shape: tuple[int, ...] | None = None,
) -> ConcatLayer:
    """Return the layer that joins inputs along an axis; ``shape`` is that of every part where it is not its own."""
    output = context.output(operator)
    stored = context.activations_stored(operator, *sources, output)
    target = stored.pop()
    shapes = [tensor.shape if shape is None else shape for tensor in sources]
    fits = all(
        len(part) == len(output.shape)
        and part[:axis] + part[axis + 1 :] == output.shape[:axis] + output.shape[axis + 1 :]
        for part in shapes
    )
    if not shapes or not fits or sum(part[axis] for part in shapes) != output.shape[axis]:
        raise ModelError(f"{operator.where}: inputs {shapes} joined along axis {axis} do not make {output.shape}")
    return ConcatLayer(
        **context.common(operator, names),
        axis=axis + 1,
        zero_points=tuple(int(parameters.zero_point) for parameters in stored),
        rescales=tuple(
            None if parameters == target else context.rescale(operator, [parameters.scale], target.scale)
            for parameters in stored
        ),
        sizes=tuple(tensor.size for tensor in sources),
        zero_point=int(target.zero_point),
        output_format=target.format,
        clamp=(target.format.minimum, target.format.maximum),
    )


def strided_slice(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower STRIDED_SLICE without ellipses and new axes."""
    source, output, _ = _moved(context, operator)
    options, rank = operator.options, len(source.shape)
    begin, end, strides = (context.constant(operator, position).integers() for position in (1, 2, 3))
    if {len(begin), len(end), len(strides)} != {rank} or 0 in strides:
        raise ModelError(f"{operator.where}: begin, end and strides (not 0) must have {rank} values")
    if options["EllipsisMask"] or options["NewAxisMask"] or options["Offset"]:
        raise ModelError(f"{operator.where}: ellipses, new axes and offsets are not supported")
    ranges = []
    for axis, length in enumerate(source.shape):
        bit, step = 1 << axis, strides[axis]
        if options["ShrinkAxisMask"] & bit:
            start = begin[axis] + length if begin[axis] < 0 else begin[axis]
            if options["BeginMask"] & bit:
                start = 0 if step > 0 else length - 1
            ranges.append((start, start + 1, 1))
            continue
        low = None if options["BeginMask"] & bit else begin[axis]
        high = None if options["EndMask"] & bit else end[axis]
        ranges.append(slice(low, high, step).indices(length))
    return [_sliced(context, operator, source, output, ranges)]


def slice_(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower SLICE: from ``begin`` on so many of each axis, all where it is -1."""
    source, output, _ = _moved(context, operator)
    begin, size = (context.constant(operator, position).integers() for position in (1, 2))
    if len(begin) != len(source.shape) or len(size) != len(source.shape):
        raise ModelError(f"{operator.where}: begin and size must have {len(source.shape)} values")
    ranges = [
        (start, length if count == -1 else start + count, 1)
        for start, count, length in zip(begin, size, source.shape, strict=True)
    ]
    return [_sliced(context, operator, source, output, ranges)]


def split(context: Context, operator: TfliteOperator) -> list[Layer]:
    """Lower SPLIT into equal parts."""
    source = context.activation(operator, 1)
    axes, rank = context.constant(operator, 0).integers(), len(source.shape)
    if len(axes) != 1 or not -rank <= axes[0] < rank or source.shape[axes[0]] % len(operator.outputs):
        raise ModelError(f"{operator.where}: {source.shape} cannot be split along axis {axes} evenly")
    axis = axes[0] % rank
    part = source.shape[axis] // len(operator.outputs)
    layers: list[Layer] = []
    for index, _ in enumerate(operator.outputs):
        output = context.output(operator, index)
        _same_quantizer(context, operator, source, output)
        ranges: list[tuple[int, int, int]] = [(0, length, 1) for length in source.shape]
        ranges[axis] = (index * part, (index + 1) * part, 1)
        layers.append(_sliced(context, operator, source, output, ranges, index))
    return layers


def _sliced(
    context: Context,
    operator: TfliteOperator,
    source: TfliteTensor,
    output: TfliteTensor,
    ranges: list[tuple[int, int, int]],
    position: int = 0,
) -> SliceLayer:
    """Return the layer of a slice; refuse ranges that leave the input or make another shape."""
    taken = [range(*bounds) for bounds in ranges]
    inside = all(
        part and 0 <= part[0] < length and 0 <= part[-1] < length
        for part, length in zip(taken, source.shape, strict=True)
    )
    if not inside or prod(len(part) for part in taken) != output.size:
        raise ModelError(f"{operator.where}: ranges {ranges} of {source.shape} are not {output.shape}")
    return SliceLayer(**context.common(operator, (source.name,), position), ranges=tuple(ranges))


def _moved(context: Context, operator: TfliteOperator) -> tuple[TfliteTensor, TfliteTensor, QuantizationParameters]:
    """Return input, output and its quantizer of an operator that only moves codes."""
    source, output = context.activation(operator, 0), context.output(operator)
    return source, output, _same_quantizer(context, operator, source, output)


def _same_quantizer(
    context: Context, operator: TfliteOperator, source: TfliteTensor, output: TfliteTensor
) -> QuantizationParameters:
    """Return the quantizer of the output; refuse another type or zero point than the input's: codes are copied."""
    stored, target = context.stored(operator, source), context.stored(operator, output)
    if source.dtype != output.dtype or stored.zero_point != target.zero_point:
        raise ModelError(f"{operator.where}: input and output must have one quantizer, got {stored} and {target}")
    return target


def _axis(operator: TfliteOperator, rank: int) -> int:
    """Return an operator's axis, counted from the front."""
    axis: Any = operator.options["Axis"]
    if not -rank <= axis < rank:
        raise ModelError(f"{operator.where}: axis must be within {-rank}..{rank - 1}, got {axis}")
    return int(axis % rank)
