"""Nodes that become products on the grid.

QLinearConv, QLinearMatMul, ConvInteger, MatMulInteger, QGemm, and Conv, Gemm and MatMul of dequantized operands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto

from accelsim.errors import ModelError
from accelsim.formats import QuantizationParameters
from accelsim.graph.limits import MAX_WINDOW_STEP, num_elements
from accelsim.program.layers import MacLayer, RuntimeMacLayer, TransposeLayer
from accelsim.program.onnx.lowering import (
    Dequantized,
    Lowering,
    check_width,
    name_of,
    refuse_product,
)
from accelsim.program.onnx.products import Bounds, Product, Window, layers_of, output_parameters
from accelsim.program.onnx.quantization import Layout
from accelsim.program.onnx.structure import Step
from accelsim.program.onnx.tensors import FORMATS, Array, TensorType

_ACCUMULATOR = TensorProto.INT32


def qlinear_conv(lowering: Lowering, step: Step) -> None:
    """Lower QLinearConv."""
    names = ("x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero", "bias")
    _quantized_product(lowering, step, _named(step, names), _window(lowering, step, step.inputs[3]), step.op)


def qlinear_matmul(lowering: Lowering, step: Step) -> None:
    """Lower QLinearMatMul."""
    names = ("x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero")
    _quantized_product(lowering, step, _named(step, names), None, step.op)


def conv_integer(lowering: Lowering, step: Step) -> None:
    """Lower ConvInteger."""
    roles = _named(step, ("x", "w", "x_zero", "w_zero"))
    _quantized_product(lowering, step, roles, _window(lowering, step, step.inputs[1]), step.op)


def matmul_integer(lowering: Lowering, step: Step) -> None:
    """Lower MatMulInteger."""
    _quantized_product(lowering, step, _named(step, ("x", "w", "x_zero", "w_zero")), None, step.op)


def qgemm(lowering: Lowering, step: Step) -> None:
    """Lower QGemm; without an output scale its result is float32."""
    names = ("x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "bias", "y_scale", "y_zero")
    roles = _named(step, names)
    for role, flag in (("x", "transA"), ("w", "transB")):
        if step.attribute(flag, 0):
            roles[role] = transposed(lowering, roles[role])
    alpha = float(step.attribute("alpha", 1.0))
    if "y_scale" in roles:
        _quantized_product(lowering, step, roles, None, step.op, alpha=alpha)
        return
    scales = [lowering.constant(roles[role]) for role in ("x_scale", "w_scale")]
    if scales[0] is None or scales[1] is None or scales[0].size != 1:
        raise ModelError(f"{step.label}: its scales must be constants, that of A one number")
    roles = {role: name for role, name in roles.items() if not role.endswith("scale")}
    # As in ONNX Runtime, the product may be an infinity or no number.
    with np.errstate(over="ignore", invalid="ignore"):
        scale = np.float32(alpha) * _float(scales[0]).reshape(-1) * _float(scales[1]).reshape(-1)
    _accumulated(lowering, step, roles, None, scale, 1)


def float_product(lowering: Lowering, step: Step) -> None:
    """Lower Conv, Gemm or MatMul of dequantized operands, with what follows up to a QuantizeLinear."""
    x, w = (lowering.quantized(name) for name in step.inputs[:2])
    if x is None or w is None:
        missing = " and ".join(f"{name!r}" for name, made in zip(step.inputs, (x, w), strict=False) if made is None)
        refuse_product(lowering, step, f"{missing} is not the output of a DequantizeLinear")
        return
    if x.parameters is None:
        refuse_product(lowering, step, f"the scale of {step.inputs[0]!r} is not one constant")
    channels = _channel_axis(step, lowering.types[step.inputs[1]].shape)
    w_scale, w_zero = lowering.constant(w.scale), lowering.constant(w.zero_point)
    if w.layout.block or w.layout.axis not in (None, channels):
        refuse_product(lowering, step, f"the scales of {step.inputs[1]!r} are not one per output channel")
    if w_scale is None or (w.zero_point is not None and w_zero is None) or not w.type.is_code:
        refuse_product(lowering, step, f"the scale of {step.inputs[1]!r} is not constant")
    roles = {"x": x.codes, "w": w.codes, "x_scale": x.scale, "w_scale": w.scale}
    roles |= {} if x.zero_point is None else {"x_zero": x.zero_point}
    roles |= {} if w.zero_point is None else {"w_zero": w.zero_point}
    window = _window(lowering, step, step.inputs[1]) if step.op == "Conv" else None
    alpha = 1.0
    if step.op == "Gemm":
        alpha = float(step.attribute("alpha", 1.0))
        for role, flag in (("x", "transA"), ("w", "transB")):
            if step.attribute(flag, 0):
                roles[role] = transposed(lowering, roles[role])
    steps = np.float64(alpha) * _float(w_scale).astype(np.float64)
    if w_scale is None or not (np.isfinite(steps).all() and (steps > 0).all()):
        refuse_product(lowering, step, f"the scales of {step.inputs[1]!r} times alpha are not finite and above 0")
    fused, bounds, bias_name, target = _followers(lowering, step)
    unit = (
        alpha * _float(lowering.constant(x.scale)).astype(np.float64) * _float(w_scale).astype(np.float64).reshape(-1)
    )
    factor = float(step.attribute("beta", 1.0)) if step.op == "Gemm" else 1.0
    bias = _bias(lowering, step, bias_name, unit, factor, fused)
    if bias is not None:
        roles["bias"] = lowering.new_constant(f"{name_of(step)}.bias", bias, TensorProto.INT64)
    if target is None:
        roles = {role: name for role, name in roles.items() if not role.endswith("scale")}
        scale = (np.float32(alpha) * _float(lowering.constant(x.scale)) * _float(w_scale)).reshape(-1)
        _accumulated(lowering, step, roles, window, scale, 1 if step.op == "Conv" else -1)
        return
    lowering.fuse(fused)
    roles |= {"y_scale": target.inputs[1]} | ({} if target.input(2) is None else {"y_zero": target.inputs[2]})
    op = "+".join([step.op, *(follower.op for follower in fused if follower.op != "QuantizeLinear")])
    _quantized_product(lowering, step, roles, window, op, target.output, alpha, bounds)


def _named(step: Step, names: tuple[str, ...]) -> dict[str, str]:
    """Return the inputs of a node by their role."""
    return {role: name for index, role in enumerate(names) if (name := step.input(index)) is not None}


def _float(value: Array | None) -> Array:
    assert value is not None
    return value.astype(np.float32)


def _quantized_product(
    lowering: Lowering,
    step: Step,
    roles: dict[str, str],
    window: Window | None,
    op: str,
    output: str | None = None,
    alpha: float = 1.0,
    bounds: tuple[Bounds, ...] = (),
) -> None:
    """Append a product; with an output scale its codes, else its accumulators."""
    target = step.output if output is None else output
    made = lowering.types[target]
    x, w = (lowering.types[lowering.resolve(roles[role])] for role in ("x", "w"))
    for operand, name in ((x, roles["x"]), (w, roles["w"])):
        if not operand.is_code:
            raise ModelError(f"{step.label}: {name!r} must hold codes of at most 16 bits")
    if "y_scale" in roles and not made.is_code:
        raise ModelError(f"{step.label}: its output {target!r} must hold codes of at most 16 bits")
    product = Product(
        label=step.label,
        name=name_of(step),
        op=op,
        output=target,
        x_shape=x.shape,
        w_shape=w.shape,
        y_shape=made.shape,
        x_format=FORMATS[x.type],
        w_format=FORMATS[w.type],
        y_format=FORMATS[made.type] if "y_scale" in roles else None,
        window=window,
        alpha=alpha,
        bounds=bounds,
    )
    where = f"layer {product.name!r}"
    check_width(lowering, where, "weight", product.w_format, lowering.machine.weight_bits)
    check_width(lowering, where, "activation", product.x_format, lowering.machine.activation_bits)
    if "x_scale" in roles:
        read = lowering.parameters(roles["x_scale"], roles.get("x_zero"), x.type, Layout(), step.label)
        lowering.learn(roles["x"], read)
    known = {role: value for role, name in roles.items() if (value := lowering.constant(name)) is not None}
    if set(roles) - set(known) <= {"x"} and product.is_single:
        _append_known(lowering, product, known, roles["x"], made)
    else:
        _append_bound(lowering, product, roles, known, made)


def _append_known(lowering: Lowering, product: Product, known: Mapping[str, Array], x: str, made: TensorType) -> None:
    """Append a product of which all but the input is constant."""
    ((layer, _),) = layers_of(product, known, lowering.machine)
    stored = None if product.y_format is None else output_parameters(product, known)
    fields = {name: getattr(layer, name) for name in _MAC_FIELDS}
    lowering.emit(MacLayer, product.name, product.op, (lowering.read(x),), product.output, made, stored, **fields)


_MAC_FIELDS = (
    "weights", "start", "weight_zero_points", "input_offset", "pad_value", "geometry", "weight_format", "input_format",
    "rescale", "zero_point", "output_format", "clamp", "depth",
)  # fmt: skip


def _append_bound(
    lowering: Lowering, product: Product, roles: Mapping[str, str], known: Mapping[str, Array], made: TensorType
) -> None:
    """Append a product with operands that a run computes."""
    stored: QuantizationParameters | None = None
    if product.y_format is not None and {"y_scale", "y_zero"} & set(roles) <= set(known):
        stored = output_parameters(product, known)
    order = tuple(roles)
    groups, num_outputs, reduction, num_positions = product.sizes
    machine = lowering.machine

    def bind(values: Any) -> list[tuple[MacLayer, Array]]:
        return layers_of(product, dict(zip(order, values, strict=True)), machine)

    lowering.emit(
        RuntimeMacLayer, product.name, product.op, [lowering.read(roles[role]) for role in order], product.output, made,
        stored, bind=bind, groups=groups, num_outputs=num_outputs, reduction=reduction, num_positions=num_positions,
        weight_format=product.w_format, input_format=product.x_format, requantizes=product.y_format is not None,
    )  # fmt: skip


def _accumulated(
    lowering: Lowering, step: Step, roles: dict[str, str], window: Window | None, scale: Array, axis: int
) -> None:
    """Append a product that stores accumulators, and what they stand for under the node's own name: (71)."""
    made = TensorType(_ACCUMULATOR, lowering.types[step.output].shape)
    accumulators = lowering.fresh(f"{step.output}.accumulators", made)
    _quantized_product(lowering, step, roles, window, step.op, accumulators)
    flat = np.ascontiguousarray(scale, dtype=np.float32).reshape(-1)
    if flat.size not in (1, made.shape[axis]):
        raise ModelError(f"{step.label}: its weights have {flat.size} scales for {made.shape[axis]} output channels")
    layout = Layout() if flat.size == 1 else Layout(axis % len(made.shape))
    scales = lowering.new_constant(f"{step.output}.scale", flat, TensorProto.FLOAT)
    zeros = lowering.new_constant(f"{step.output}.zero_point", np.zeros(flat.shape, np.int32), _ACCUMULATOR)
    lowering.add_dequantized(step.output, Dequantized(accumulators, made, scales, zeros, layout, None))


def _followers(lowering: Lowering, step: Step) -> tuple[list[Step], tuple[Bounds, ...], str | None, Step | None]:
    """Return what follows a product up to a QuantizeLinear: its nodes, clamps, the bias, the QuantizeLinear itself."""
    bias = step.input(2)
    fused: list[Step] = []
    bounds: list[Bounds] = []
    tensor = step.output
    while (user := lowering.only_user(tensor)) is not None:
        if user.op == "QuantizeLinear" and user.inputs[0] == tensor:
            if lowering.target(user) is None:
                break
            return [*fused, user], tuple(bounds), bias, user
        if step.op == "MatMul" and user.op == "Add" and bias is None and not fused:
            other = next(name for name in user.inputs if name != tensor)
            if lowering.types[other].shape not in ((), (1,), lowering.types[tensor].shape[-1:]):
                break
            made_of = lowering.quantized(other)
            if lowering.constant(other) is None and (made_of is None or lowering.constant(made_of.codes) is None):
                break
            bias = other
        elif (clamped := clamp_function(lowering, user)) is not None:
            bounds.append(clamped)
        else:
            break
        fused.append(user)
        tensor = user.output
    return [], (), step.input(2), None


def clamp_function(lowering: Lowering, step: Step) -> Bounds | None:
    """Return what Relu or Clip clamps to; None for another node, or bounds that vary."""
    if step.op == "Relu":
        return Bounds(0.0, float("inf"))
    if step.op != "Clip":
        return None
    ends = [float(step.attribute("min", -np.inf)), float(step.attribute("max", np.inf))]
    for index in (1, 2):
        name = step.input(index)
        if name is not None:
            value = lowering.constant(name)
            made_of = lowering.quantized(name)
            if value is None and made_of is not None and lowering.constant(made_of.codes) is not None:
                value = lowering.constant(lowering.read(name))
            if value is None or value.size != 1:
                return None
            ends[index - 1] = float(value.reshape(-1)[0])
    return None if np.isnan(ends).any() else Bounds(*ends)


def _bias(
    lowering: Lowering, step: Step, name: str | None, unit: Array, factor: float, fused: list[Step]
) -> Array | None:
    """Return a bias in units of the accumulator, docs/numerics.md (6); as stored where its scale is that unit."""
    if name is None:
        return None
    made_of = lowering.quantized(name)
    channels = lowering.types[step.output].shape[1 if step.op == "Conv" else -1]
    stored = None if made_of is None else lowering.constant(made_of.codes)
    if made_of is not None and stored is not None:
        scale, zeros = lowering.constant(made_of.scale), lowering.constant(made_of.zero_point)
        if scale is not None and factor == 1 and stored.size in (1, channels) and scale.size in (1, channels):
            ratio = scale.astype(np.float64).reshape(-1) / unit
            if (np.abs(ratio - 1) < 2.0**-22).all():
                integers = stored.astype(np.int64) - (0 if zeros is None else zeros.astype(np.int64))
                return np.broadcast_to(integers.reshape(-1), (channels,))
        lowering.read(name)
    real = lowering.constant(name)
    if real is None or real.size not in (1, channels) or not np.isfinite(real).all():
        refuse_product(lowering, step, f"its bias {name!r} is not one finite constant per output channel")
        return None
    steps = np.rint(real.astype(np.float64).reshape(-1) * factor / unit)
    return np.broadcast_to(np.clip(steps, -(2.0**62), 2.0**62).astype(np.int64), (channels,))


def _channel_axis(step: Step, shape: tuple[int, ...]) -> int:
    """Return the axis of a product's weights along which the output channels lie."""
    if step.op == "Conv":
        return 0
    if step.op == "Gemm":
        return 0 if step.attribute("transB", 0) else 1
    return len(shape) - 1


def transposed(lowering: Lowering, name: str) -> str:
    """Return the name of a matrix with its axes exchanged."""
    tensor = lowering.resolve(name)
    known = lowering.types[tensor]
    made = TensorType(known.type, known.shape[::-1])
    value = lowering.constant(tensor)
    if value is not None:
        return lowering.new_constant(f"{tensor}.transposed", np.ascontiguousarray(value.T), known.type)
    target = lowering.fresh(f"{tensor}.transposed", made)
    source = lowering.read(tensor)
    lowering.emit(
        TransposeLayer, target, "Transpose", (source,), target, made, lowering.tensors[source], permutation=(0, 2, 1)
    )
    return target


def _window(lowering: Lowering, step: Step, weights: str) -> Window:
    """Return the explicit window of a convolution, by ONNX's rules."""
    x, w = (lowering.types[lowering.resolve(name)].shape for name in (step.inputs[0], weights))
    y = lowering.types[step.output].shape
    space, kernel = x[2:], w[2:]
    axes = len(space)
    if not 1 <= axes <= 3 or len(kernel) != axes:
        raise ModelError(f"{step.label}: convolutions over 1 to 3 axes are supported, got shapes {x} and {w}")
    groups = step.attribute("group", 1)
    if groups < 1 or x[1] != w[1] * groups or w[0] % groups:
        raise ModelError(f"{step.label}: weights {w} do not fit {x[1]} channels in {groups} groups")
    declared = step.attribute("kernel_shape", kernel)
    if tuple(declared) != kernel:
        raise ModelError(f"{step.label}: kernel_shape {declared} is not that of its weights, {kernel}")
    strides = tuple(step.attribute("strides", (1,) * axes))
    dilations = tuple(step.attribute("dilations", (1,) * axes))
    pads = tuple(step.attribute("pads", (0,) * (2 * axes)))
    mode = step.attribute("auto_pad", "NOTSET")
    if len(strides) != axes or len(dilations) != axes or min(*strides, *dilations) < 1:
        raise ModelError(f"{step.label}: strides {strides} and dilations {dilations} must be {axes} values above 0")
    if mode.startswith("SAME"):
        pads = same_pads(space, kernel, strides, dilations, y[2:], mode)
    elif mode == "VALID":
        pads = (0,) * (2 * axes)
    if len(pads) != 2 * axes or min(pads) < 0:
        raise ModelError(f"{step.label}: pads {pads} must be {2 * axes} values of at least 0")
    check_padded(step, x, pads)
    check_steps(step, *strides, *dilations)
    return Window(strides, dilations, pads[:axes], pads[axes:], groups)


def check_padded(step: Step, x: tuple[int, ...], pads: tuple[int, ...]) -> None:
    """Raise a ModelError where an input of (batch, channels, ...) is too large with its padding."""
    axes = len(pads) // 2
    lengths = [x[2 + axis] + pads[axis] + pads[axis + axes] for axis in range(axes)]
    num_elements(f"the padded input of {step.label}", [x[0], x[1], *lengths])


def check_steps(step: Step, *steps: int) -> None:
    """Raise a ModelError where a stride or a dilation is beyond any image."""
    if max(steps) > MAX_WINDOW_STEP:
        raise ModelError(f"{step.label}: strides and dilations must be at most {MAX_WINDOW_STEP}, got {max(steps)}")


def same_pads(
    space: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    output: tuple[int, ...],
    mode: str,
) -> tuple[int, ...]:
    """Return the padding of ``auto_pad`` SAME_UPPER or SAME_LOWER in ONNX's order."""
    totals = [
        max((positions - 1) * stride + (length - 1) * dilation + 1 - size, 0)
        for positions, stride, length, dilation, size in zip(output, strides, kernel, dilations, space, strict=True)
    ]
    small = tuple(total // 2 for total in totals)
    large = tuple(total - total // 2 for total in totals)
    return small + large if mode == "SAME_UPPER" else large + small
