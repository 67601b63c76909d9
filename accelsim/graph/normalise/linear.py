"""Layers with weights: Conv, Gemm, MatMul."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accelsim.graph.normalise.call import Call, Layer, Operand
from accelsim.graph.normalise.window import resolve_window


def conv(call: Call) -> Layer:
    """Normalise a convolution with constant weights on one or two spatial axes."""
    shape = call.shape()
    if len(shape) not in (3, 4):
        raise call.refuse(
            f"convolution over {len(shape) - 2} spatial axes is not supported (input shape {shape}), 1 or 2 are"
        )
    weights = call.floats(1, "weights")
    if weights.ndim != len(shape):
        raise call.refuse(f"the weights have shape {weights.shape}, but the input has {len(shape)} axes")
    group = call.integer("group", 1)
    channels = call.lengths()[0]
    if group < 1 or weights.shape[1] * group != channels or weights.shape[0] % group:
        raise call.refuse(
            f"group {group} and weights of shape {weights.shape} do not fit an input with {channels} channels"
        )
    kernel = weights.shape[2:]
    if call.ints("kernel_shape") not in (None, kernel):
        raise call.refuse(f"kernel_shape {call.ints('kernel_shape')} is not that of the weights, {kernel}")
    operands: tuple[Operand, ...] = (call.inputs[0], call.inputs[1])
    if call.has(2):
        bias = call.floats(2, "bias")
        if bias.shape != weights.shape[:1]:
            raise call.refuse(f"the bias must have shape {weights.shape[:1]}, got {bias.shape}")
        operands += (call.inputs[2],)
    window = resolve_window(call, kernel)
    return Layer(
        operands,
        (None, weights.shape[0], *window.output),
        {"strides": window.strides, "pads": window.pads, "dilations": window.dilations, "group": group},
    )


def gemm(call: Call) -> Layer:
    """Normalise a matrix product to ``x · Wᵀ + b``, with alpha, beta and the transposition in the constants."""
    shape = call.shape()
    if call.flag("transA"):
        raise call.refuse("transA=1 moves the batch axis and is not supported; transpose the data instead")
    if len(shape) != 2:
        raise call.refuse(f"the input must have 2 axes, got shape {shape}")
    weights = call.floats(1, "weights")
    if weights.ndim != 2:
        raise call.refuse(f"the weights must have 2 axes, got shape {weights.shape}")
    given = weights
    if not call.flag("transB"):
        weights = weights.T
    if weights.shape[1] != shape[1]:
        raise call.refuse(f"weights of shape {given.shape} do not fit an input of shape {shape}")
    alpha, beta = call.real("alpha", 1.0), call.real("beta", 1.0)
    scaled = _scaled(call, weights, alpha, "weights")
    operands: tuple[Operand, ...] = (call.inputs[0], call.inputs[1] if scaled is given else scaled)
    if call.has(2):
        bias = call.floats(2, "bias")
        num_outputs = weights.shape[0]
        # A bias broadcasts to (batch, N): a scalar, (1,), (N,), (1, 1) or (1, N).
        if (
            bias.ndim > 2
            or (bias.ndim == 2 and bias.shape[0] != 1)
            or bias.shape[-1:] not in ((), (1,), (num_outputs,))
        ):
            raise call.refuse(f"the bias must have one value per output, {num_outputs}, got shape {bias.shape}")
        full = _scaled(call, bias, beta, "bias")
        if full.shape != (num_outputs,):
            full = np.broadcast_to(full.reshape(-1), (num_outputs,))
        if beta != 0.0:
            operands += (call.inputs[2] if full is bias else full,)
    return Layer(operands, (None, weights.shape[0]))


def _scaled(call: Call, values: npt.NDArray[np.float32], factor: float, what: str) -> npt.NDArray[np.float32]:
    """Return ``factor * values`` rounded once to float32, the same object where the factor is 1."""
    if factor == 1.0:
        return values
    with np.errstate(over="ignore"):
        scaled = (values.astype(np.float64) * factor).astype(np.float32)
    if not np.isfinite(scaled).all():
        raise call.refuse(f"the {what} leave float32's range when scaled by {factor}")
    return scaled


def matmul(call: Call) -> Layer:
    """Normalise a product with a constant matrix on the right."""
    if call.is_constant(0):
        raise call.refuse(
            f"the constant {call.inputs[0]!r} stands on the left; only x · W with a constant W is supported"
        )
    shape = call.shape()
    if not call.is_constant(1):
        raise call.refuse("both operands are computed; only x · W with a constant W is supported")
    weights = call.floats(1, "weights")
    if weights.ndim != 2:
        raise call.refuse(f"the weights must have 2 axes, got shape {weights.shape}")
    if weights.shape[0] != shape[-1] or len(shape) < 2:
        raise call.refuse(f"weights of shape {weights.shape} do not fit an input of shape {shape}")
    return Layer((call.inputs[0], call.inputs[1]), (*shape[:-1], weights.shape[1]))
