"""Nodes whose inputs do not vary, computed while a model is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from accelsim.program.onnx import quantization
from accelsim.program.onnx.nodes import NodeRunner
from accelsim.program.onnx.tensors import FORMATS, Array, TensorType

if TYPE_CHECKING:
    from accelsim.program.onnx.structure import Step


def fold(step: Step, opset: int, types: Mapping[str, TensorType], constants: Mapping[str, Array]) -> Array:
    """Return the one output of a node.

    Parameters
    ----------
    step : Step
        The node; all its inputs are constants.
    opset : int
        Version of the standard operator set.
    types, constants : mapping
        Of the tensors so far, its output among the types.

    Raises
    ------
    ModelError
        When it cannot be computed.
    """
    if step.op == "QuantizeLinear":
        scale = constants[step.inputs[1]]
        zero_point = constants.get(step.input(2) or "", np.zeros_like(scale, dtype=np.int64))
        layout = quantization.layout_of(step, types)
        stored = FORMATS[types[step.output].type]
        codes = quantization.quantize(constants[step.inputs[0]], scale, zero_point, layout, stored)
        return codes.astype(stored.dtype)
    names = list(dict.fromkeys(filter(None, step.inputs)))
    runner = NodeRunner(step.proto, opset, types, step.label)
    return runner.run([constants[name] for name in names])[0]
