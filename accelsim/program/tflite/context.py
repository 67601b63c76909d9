"""What every operator's lowering has at hand: the model, the machine, and whose arithmetic is meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from accelsim.errors import FormatError, LoweringError, ModelError
from accelsim.formats import IntegerFormat, QuantizationParameters
from accelsim.machine import Machine, Requantizer
from accelsim.program.layers import Layer, ReshapeLayer
from accelsim.program.rescale import Rescale
from accelsim.program.storage import StoredTensor
from accelsim.program.tflite.model import ABSENT, TfliteModel, TfliteOperator, TfliteTensor

Kernels = Literal["litert", "tflite_micro"]
"""Whose reference kernels: LiteRT's BUILTIN_REF or TFLite Micro's."""

TFLITE = Requantizer.preset("tflite")
INT16 = Requantizer.preset("tflite_int16")
FLOAT64 = Requantizer.preset("float64_half_away")

MAX_WEIGHT_ELEMENTS = 1 << 27
"""Most weights of all layers together; operators may share one constant."""


@dataclass(eq=False)
class Context:
    """The lowering of one model for one machine, layer by layer.

    Parameters
    ----------
    model : TfliteModel
        What is lowered.
    machine : Machine
        Where it will run. With the requantizer ``tflite`` every operator has the arithmetic that the kernels give it;
        any other requantizer is that of every operator.
    kernels : {"litert", "tflite_micro"}
        Whose arithmetic that is.
    """

    model: TfliteModel
    machine: Machine
    kernels: Kernels
    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    constants: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    num_weights: int = 0

    def tensor(self, operator: TfliteOperator, position: int) -> TfliteTensor:
        """Return an input of an operator; raise ModelError where it is left out."""
        if position >= len(operator.inputs) or operator.inputs[position] == ABSENT:
            raise ModelError(f"{operator.where}: input {position} is missing")
        return self.model.tensors[operator.inputs[position]]

    def optional(self, operator: TfliteOperator, position: int) -> TfliteTensor | None:
        """Return an input of an operator, None where it is left out."""
        given = position < len(operator.inputs) and operator.inputs[position] != ABSENT
        return self.model.tensors[operator.inputs[position]] if given else None

    def activation(self, operator: TfliteOperator, position: int) -> TfliteTensor:
        """Return an input that is computed; raise ModelError where it is a constant."""
        tensor = self.tensor(operator, position)
        if tensor.data is not None:
            raise ModelError(f"{operator.where}: {tensor.where} is a constant, it must be computed")
        return tensor

    def constant(self, operator: TfliteOperator, position: int) -> TfliteTensor:
        """Return an input that is a constant; raise ModelError where it is computed."""
        tensor = self.tensor(operator, position)
        if tensor.data is None:
            raise ModelError(f"{operator.where}: {tensor.where} is computed, it must be a constant")
        return tensor

    def output(self, operator: TfliteOperator, position: int = 0) -> TfliteTensor:
        """Return an output of an operator."""
        return self.model.tensors[operator.outputs[position]]

    def stored(self, operator: TfliteOperator, tensor: TfliteTensor) -> QuantizationParameters:
        """Return a tensor's quantizer; int16 has no zero point in TFLite."""
        try:
            parameters = self.quantizer(tensor)
        except ModelError as failure:
            raise ModelError(f"{operator.where}: {failure}") from None
        if tensor.dtype == "INT16" and int(parameters.zero_point) != 0:
            raise ModelError(
                f"{operator.where}: {tensor.where}: the zero point of INT16 must be 0, got {int(parameters.zero_point)}"
            )
        return parameters

    @staticmethod
    def quantizer(tensor: TfliteTensor) -> QuantizationParameters:
        """Return the quantizer of a tensor; raise ModelError where it has none that is valid."""
        try:
            return tensor.parameters()
        except FormatError as failure:
            raise ModelError(f"{tensor.where}: {failure}") from None

    def stored_softmax(self, operator: TfliteOperator, tensor: TfliteTensor) -> QuantizationParameters:
        """Return the quantizer of a softmax's output: scale 2^-bits and the least code as zero point."""
        parameters = self.quantizer(tensor)
        bits, least = parameters.format.bits, parameters.format.minimum
        if tensor.dtype not in ("INT8", "INT16") or int(parameters.zero_point) != least:
            raise ModelError(f"{operator.where}: the output must be INT8 or INT16 with zero point {least}")
        if abs(float(parameters.scale) * 2.0**bits - 1) > 1e-3:
            raise ModelError(f"{operator.where}: the output's scale must be 2^-{bits}, got {float(parameters.scale)}")
        return parameters

    def stored_wide_softmax(self, operator: TfliteOperator, tensor: TfliteTensor) -> QuantizationParameters:
        """Return the quantizer of the output of an int16 softmax: scale 2^-15 and zero point 0."""
        parameters = self.quantizer(tensor)
        if tensor.dtype != "INT16" or int(parameters.zero_point) != 0 or float(parameters.scale) != 2.0**-15:
            raise ModelError(
                f"{operator.where}: the output must be INT16 with zero point 0 and scale 2^-15, got {tensor.dtype}, "
                f"{int(parameters.zero_point)} and {float(parameters.scale)}"
            )
        return parameters

    def activations_stored(self, operator: TfliteOperator, *tensors: TfliteTensor) -> list[QuantizationParameters]:
        """Return the quantizers of tensors of one type, INT8 or INT16; raise ModelError for others."""
        types = [tensor.dtype for tensor in tensors]
        if len(set(types)) > 1 or types[0] not in ("INT8", "INT16"):
            raise ModelError(
                f"{operator.where}: inputs and output must all be INT8 or all INT16, got {', '.join(types)}"
            )
        return [self.stored(operator, tensor) for tensor in tensors]

    def common(self, operator: TfliteOperator, inputs: Sequence[str], position: int = 0) -> dict[str, Any]:
        """Return the fields that every layer has."""
        output = self.output(operator, position)
        fused = _FUSED[operator.options.get("FusedActivationFunction", 0)] if self._has_known_fusion(operator) else ""
        return {
            "name": operator.name if position == 0 else output.name,
            "op": operator.op + fused,
            "inputs": tuple(inputs),
            "output": output.name,
            "output_shape": output.shape,
        }

    def bounds(self, operator: TfliteOperator, stored: QuantizationParameters) -> tuple[int, int]:
        """Return the clamp of a fused activation function: docs/numerics.md (43)."""
        kind = operator.options["FusedActivationFunction"]
        if kind not in _BOUNDS:
            raise ModelError(f"{operator.where}: fused activation function {kind} has no integer form")
        return clamp_of(_BOUNDS[kind], stored)

    def unfused(self, operator: TfliteOperator) -> None:
        """Refuse a fused activation function where TFLite has none."""
        if operator.options["FusedActivationFunction"] != 0:
            raise ModelError(f"{operator.where}: must have no fused activation function")

    def arithmetic(self, stack: Requantizer = TFLITE) -> Requantizer:
        """Return the requantizer of an operator whose own is ``stack``."""
        return stack if self.means_tflite else self.machine.requantizer

    @property
    def means_tflite(self) -> bool:
        """Whether the machine's requantizer leaves the choice to TFLite's kernels."""
        return self.machine.requantizer == TFLITE

    def rescale(self, operator: TfliteOperator, factors: Sequence[npt.ArrayLike], divisor: npt.ArrayLike) -> Rescale:
        """Return a multiplier in the arithmetic that most operators have."""
        return Rescale.of(self.arithmetic(), factors, divisor, operator.where)

    def check_width(self, operator: TfliteOperator, what: str, stored: IntegerFormat, bits: int | None) -> None:
        """Refuse operands that a PE cannot hold."""
        if bits is not None and stored.bits > bits:
            raise LoweringError(
                f"{operator.where}: {what}s are {stored}, the machine's PEs take {bits}-bit {what}s; raise {what}_bits"
            )

    def with_axes(self, tensor: TfliteTensor, axes: int) -> tuple[str, list[Layer]]:
        """Return the name of a tensor's codes with ones in front of its axes, and the layers that make it."""
        missing = axes - len(tensor.shape)
        if missing == 0:
            return tensor.name, []
        name, shape = f"{tensor.name} with {axes} axes", (1,) * missing + tensor.shape
        if name in self.tensors:
            return name, []
        self.tensors[name] = self.tensors[tensor.name]
        layer = ReshapeLayer(name=name, op="RESHAPE", inputs=(tensor.name,), output=name, output_shape=shape)
        return name, [layer]

    def operand(self, operator: TfliteOperator, position: int, axes: int) -> tuple[str, TfliteTensor, list[Layer]]:
        """Return an operand of an element-wise operator, which may be a constant, with its axes aligned."""
        tensor = self.tensor(operator, position)
        if tensor.data is None:
            name, layers = self.with_axes(tensor, axes)
            return name, tensor, layers
        if tensor.dtype not in ("INT8", "INT16"):
            raise ModelError(f"{operator.where}: constant {tensor.where} must be INT8 or INT16, got {tensor.dtype}")
        name = f"{tensor.name} with {axes} axes"
        shape = (1,) * (1 + axes - len(tensor.shape)) + tensor.shape
        self.constants[name] = np.array(tensor.data, dtype=np.int32).reshape(shape)
        return name, tensor, []

    def charge_weights(self, operator: TfliteOperator, count: int) -> None:
        """Refuse a model whose operators share constants until they unfold to more than any real model."""
        self.num_weights += count
        if self.num_weights > MAX_WEIGHT_ELEMENTS:
            raise ModelError(f"{operator.where}: the layers have more than {MAX_WEIGHT_ELEMENTS:,} weights together")

    @staticmethod
    def _has_known_fusion(operator: TfliteOperator) -> bool:
        return operator.options.get("FusedActivationFunction", 0) in _FUSED


def clamp_of(real_bounds: tuple[float | None, float | None], stored: QuantizationParameters) -> tuple[int, int]:
    """Return the codes of real bounds: ``z + half_away(f32(bound / s))``, inside the format, (43)."""
    bounds = []
    for bound, limit in zip(real_bounds, (stored.format.minimum, stored.format.maximum), strict=True):
        if bound is None:
            bounds.append(limit)
            continue
        steps = float(np.float32(bound) / stored.scale)
        away = np.trunc(steps) + np.sign(steps) * (abs(steps - np.trunc(steps)) >= 0.5) if np.isfinite(steps) else steps
        bounds.append(int(np.clip(int(stored.zero_point) + away, stored.format.minimum, stored.format.maximum)))
    return bounds[0], bounds[1]


_FUSED = {0: "", 1: "+Relu", 2: "+ReluN1To1", 3: "+Relu6"}
_BOUNDS: dict[int, tuple[float | None, float | None]] = {
    0: (None, None),
    1: (0.0, None),
    2: (-1.0, 1.0),
    3: (0.0, 6.0),
}
