"""The operators of a `Graph`: what the reader normalises to, and all that later stages have to know.

Every node has exactly the attributes listed here. Shapes of all tensors stand in ``Graph.shapes``; the batch is axis 0.

============================  =======================================================================================
operator                      meaning
============================  =======================================================================================
Conv                          (x, W[, b]), 1-D or 2-D; W and b constant; pads in ONNX order: begins, then ends
Gemm                          (x, W[, b]): ``x · Wᵀ + b`` with x (batch, K), W (N, K) and b (N,) constant
MatMul                        (x, W[, b]): ``x · W + b`` with W (K, N) and b (N,) constant; the reader never sets b
BatchNormalization            (x, scale, B, mean, var), all but x constant
Relu, Sigmoid, Tanh           (x)
HardSwish                     (x): ``x · max(0, min(1, x/6 + 1/2))``
Clip                          (x); ``min`` and ``max`` are infinite where a bound is absent
ChannelClip                   (x, low, high): ``min(max(x, low), high)``, one bound per channel of axis 1, constant, may
                              be infinite; what becomes of Clip where channels are rescaled, the reader never makes it
LeakyRelu, HardSigmoid        (x)
PRelu                         (x, slope), slope constant of shape () or (channels of axis 1,)
Swish                         (x): ``x · sigmoid(alpha · x)``
Add, Sub, Mul                 (a, b), at most one of them constant
Concat                        (x, ...), none constant; ``axis`` at least 1
MaxPool, AveragePool          (x), 1-D or 2-D
GlobalAveragePool             (x), keeps the spatial axes with length 1
ReduceMean                    (x), over exactly all spatial axes
Flatten, Reshape, Squeeze,    (x): the same elements in the same order, in the shape of the output; the batch stays
Unsqueeze                     axis 0
Transpose                     (x); ``perm[0]`` is 0
Pad                           (x); ``pads`` for all axes, non-negative, filled with ``value``
Softmax                       (x); only where nothing but reshapes stands between it and a graph output
============================  =======================================================================================
"""

from __future__ import annotations

from typing import NamedTuple


class Operator(NamedTuple):
    """What a node of one operator looks like.

    Attributes
    ----------
    fewest, most : int or None
        Number of inputs; ``most`` is None where there is no limit.
    attributes : tuple of str
        Names of the attributes, all of them always present.
    """

    fewest: int
    most: int | None
    attributes: tuple[str, ...] = ()


_POOL = ("kernel_shape", "strides", "pads", "dilations", "ceil_mode", "count_include_pad")

OPERATORS: dict[str, Operator] = {
    "Conv": Operator(2, 3, ("strides", "pads", "dilations", "group")),
    "Gemm": Operator(2, 3),
    "MatMul": Operator(2, 3),
    "BatchNormalization": Operator(5, 5, ("epsilon",)),
    "Relu": Operator(1, 1),
    "Clip": Operator(1, 1, ("min", "max")),
    "ChannelClip": Operator(3, 3),
    "LeakyRelu": Operator(1, 1, ("alpha",)),
    "PRelu": Operator(2, 2),
    "Sigmoid": Operator(1, 1),
    "Tanh": Operator(1, 1),
    "HardSigmoid": Operator(1, 1, ("alpha", "beta")),
    "HardSwish": Operator(1, 1),
    "Swish": Operator(1, 1, ("alpha",)),
    "Add": Operator(2, 2),
    "Sub": Operator(2, 2),
    "Mul": Operator(2, 2),
    "Concat": Operator(1, None, ("axis",)),
    "MaxPool": Operator(1, 1, _POOL),
    "AveragePool": Operator(1, 1, _POOL),
    "GlobalAveragePool": Operator(1, 1),
    "ReduceMean": Operator(1, 1, ("axes", "keepdims")),
    "Flatten": Operator(1, 1),
    "Reshape": Operator(1, 1),
    "Squeeze": Operator(1, 1),
    "Unsqueeze": Operator(1, 1),
    "Transpose": Operator(1, 1, ("perm",)),
    "Pad": Operator(1, 1, ("pads", "value")),
    "Softmax": Operator(1, 1, ("axis",)),
}
"""Every operator that a Graph may hold."""

LINEAR = frozenset({"Conv", "Gemm", "MatMul"})
"""Layers with weights: ``Y = W · X + b``."""

ACTIVATIONS = frozenset(
    {"Relu", "Clip", "ChannelClip", "LeakyRelu", "PRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Swish"}
)
"""Functions of one element (PRelu, ChannelClip: of one element and its channel)."""

CLAMPS = frozenset({"Relu", "Clip", "ChannelClip"})
"""Activation functions that a requantizer's clamp computes."""

ELEMENTWISE = frozenset({"Add", "Sub", "Mul"})
"""Functions of two elements."""

RESHAPES = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
"""The same elements in the same order, under another shape."""

DATA_MOVEMENT = RESHAPES | {"Transpose", "MaxPool"}
"""Every output element is one of the input's elements, unchanged."""
