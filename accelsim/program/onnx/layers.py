"""Kinds of layers that only ONNX models have. Shapes are those of one run of the model.

Scales and zero points are inputs like any other, most of them constants of the program: a model may compute them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from accelsim.formats import IntegerFormat
from accelsim.program.layers import Layer
from accelsim.program.onnx.quantization import Layout

if TYPE_CHECKING:
    from accelsim.program.onnx.nodes import NodeRunner


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizeLayer(Layer):
    """Real numbers to codes, docs/numerics.md (60); inputs are the tensor, its scale and its zero point.

    Parameters
    ----------
    layout : Layout
        How scales lie over the tensor.
    format : IntegerFormat
        Of the codes.
    """

    layout: Layout
    format: IntegerFormat


@dataclass(frozen=True, kw_only=True, eq=False)
class DequantizeLayer(Layer):
    """Codes or accumulators to real numbers, docs/numerics.md (61); inputs as in `QuantizeLayer`."""

    layout: Layout


@dataclass(frozen=True, kw_only=True, eq=False)
class DynamicQuantizeLayer(Layer):
    """One of the three results of DynamicQuantizeLinear, docs/numerics.md (62).

    Parameters
    ----------
    part : {"codes", "scale", "zero_point"}
        Which one.
    """

    part: Literal["codes", "scale", "zero_point"]


@dataclass(frozen=True, kw_only=True, eq=False)
class NodeLayer(Layer):
    """A node run as the model says, in float32 or on codes that it only moves.

    Parameters
    ----------
    runner : NodeRunner
        Runs it.
    index : int
        Which of the node's outputs is stored.
    """

    runner: NodeRunner
    index: int


@dataclass(frozen=True, kw_only=True, eq=False)
class QLinearBinaryLayer(Layer):
    """ONNX Runtime's QLinearAdd or QLinearMul, docs/numerics.md (64) and (65).

    Inputs are a, its scale, its zero point, b, its scale, its zero point, the output's scale and zero point.

    Parameters
    ----------
    multiplies : bool
        QLinearMul.
    format : IntegerFormat
        Of the output.
    """

    multiplies: bool
    format: IntegerFormat


@dataclass(frozen=True, kw_only=True, eq=False)
class FloatBinaryLayer(Layer):
    """Add, Sub or Mul between DequantizeLinear and QuantizeLinear, in float32: docs/numerics.md (63).

    Inputs as in `QLinearBinaryLayer`.

    Parameters
    ----------
    function : {"Add", "Sub", "Mul"}
        What is computed.
    clamp : pair of int
        The output's format, narrowed by a fused activation function.
    """

    function: Literal["Add", "Sub", "Mul"]
    clamp: tuple[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class QLinearAveragePoolLayer(Layer):
    """ONNX Runtime's QLinearAveragePool, docs/numerics.md (66); inputs are x, its scale and zero point, those of y.

    Parameters
    ----------
    kernel_shape, strides, pads : tuple of int
        Over the spatial axes; pads in ONNX order.
    count_padding : bool
        Padded taps count.
    channels_last : bool
        Axis 1 is the first spatial one.
    format : IntegerFormat
        Of the output.
    """

    kernel_shape: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    count_padding: bool
    channels_last: bool
    format: IntegerFormat


@dataclass(frozen=True, kw_only=True, eq=False)
class QLinearGlobalAveragePoolLayer(Layer):
    """ONNX Runtime's QLinearGlobalAveragePool, docs/numerics.md (67); inputs as in `QLinearAveragePoolLayer`."""

    channels_last: bool
    format: IntegerFormat
