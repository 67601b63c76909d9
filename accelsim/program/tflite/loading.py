"""From a .tflite file to an integer program: docs/numerics.md section 7."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import get_args

import numpy as np

from accelsim.errors import ModelError
from accelsim.graph.graph import Tensor
from accelsim.machine import Machine
from accelsim.program.layers import Layer
from accelsim.program.program import IntegerProgram
from accelsim.program.tflite import elementwise, linear, moving, softmax, windows
from accelsim.program.tflite.context import Context, Kernels
from accelsim.program.tflite.flatbuffer import MAX_FILE_BYTES, parse
from accelsim.program.tflite.model import FORMATS, TfliteModel, TfliteOperator, TfliteTensor

TfliteSource = str | PathLike[str] | bytes
"""What `load_tflite` takes."""

_LINEAR = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_LOWER: Mapping[str, Callable[[Context, TfliteOperator], list[Layer]]] = {
    "CONV_2D": linear.conv_2d,
    "DEPTHWISE_CONV_2D": linear.depthwise_conv_2d,
    "FULLY_CONNECTED": linear.fully_connected,
    "AVERAGE_POOL_2D": windows.average_pool_2d,
    "MAX_POOL_2D": windows.max_pool_2d,
    "ADD": elementwise.add,
    "SUB": elementwise.add,
    "MUL": elementwise.mul,
    "MEAN": elementwise.mean,
    "LEAKY_RELU": elementwise.leaky_relu,
    "RELU": elementwise.relu,
    "RELU6": elementwise.relu,
    "RELU_N1_TO_1": elementwise.relu,
    "RELU_0_TO_1": elementwise.relu,
    "LOGISTIC": elementwise.table,
    "TANH": elementwise.table,
    "QUANTIZE": elementwise.quantize,
    "DEQUANTIZE": elementwise.dequantize,
    "SOFTMAX": softmax.softmax,
    "RESHAPE": moving.reshape,
    "SQUEEZE": moving.reshape,
    "EXPAND_DIMS": moving.reshape,
    "TRANSPOSE": moving.transpose,
    "PAD": moving.pad,
    "PADV2": moving.pad,
    "CONCATENATION": moving.concatenation,
    "PACK": moving.pack,
    "STRIDED_SLICE": moving.strided_slice,
    "SLICE": moving.slice_,
    "SPLIT": moving.split,
}


def load_tflite(model: TfliteSource, *, kernels: Kernels = "litert") -> IntegerProgram:
    """Read a quantized TFLite model as an integer program.

    Parameters
    ----------
    model : path or bytes
        A .tflite file with INT8 or INT16 activations and INT8 or INT4 weights.
    kernels : {"litert", "tflite_micro"}
        Whose reference kernels are meant, LiteRT's BUILTIN_REF or TFLite Micro's: one and the same file gives different
        last bits in FULLY_CONNECTED and LEAKY_RELU.

    Returns
    -------
    IntegerProgram
        For ``edge_16x16`` with 32-bit accumulators, 64-bit ones where the model has a 64-bit bias, and the requantizer
        ``tflite``, which stands for the kernels' own arithmetic in every operator. `accelsim.simulate` runs it on any
        other machine, too; another requantizer is then that of every operator. Inputs and outputs have the model's own
        layout (channels last); an integer array is taken as the stored input, any other as real numbers.

    Raises
    ------
    ModelError
        When the file cannot be read, is damaged, or has an operator without an integer form here.
    LoweringError
        When a multiplier is out of range.

    Examples
    --------
    >>> program = ax.load_tflite("model_int8.tflite")  # doctest: +SKIP
    >>> ax.simulate(program, images).outputs           # doctest: +SKIP
    """
    if kernels not in get_args(Kernels):
        raise ModelError(f"kernels must be one of {', '.join(get_args(Kernels))}, got {kernels!r}")
    data, name = _read(model)
    source = TfliteProgramSource(parse(data, name), kernels, data)
    return source.lower(source.default_machine())


def _read(model: TfliteSource) -> tuple[bytes, str]:
    """Return the file's bytes and a name for it."""
    if isinstance(model, bytes | bytearray | memoryview):
        return bytes(model), "tflite"
    path = Path(fspath(model))
    try:
        if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
            raise ModelError(f"model file {str(path)!r} is larger than {MAX_FILE_BYTES:,} bytes")
        return path.read_bytes(), path.stem
    except (OSError, ValueError) as failure:
        reason = getattr(failure, "strerror", None) or failure
        raise ModelError(f"model file {str(path)!r} cannot be read: {reason}") from None


@dataclass(frozen=True, eq=False)
class TfliteProgramSource:
    """A TFLite model that can be lowered for any machine.

    Parameters
    ----------
    model : TfliteModel
        The file's content.
    kernels : {"litert", "tflite_micro"}
        As in `load_tflite`.
    data : bytes
        The file.
    """

    model: TfliteModel
    kernels: Kernels
    data: bytes

    @property
    def form(self) -> str:
        """Whose kernels the file is read for."""
        return self.kernels

    def default_machine(self) -> Machine:
        """Return the machine of the stack that the model comes from."""
        machine = Machine.preset("edge_16x16").replace(accumulator_bits=32, overflow="wrap", requantizer="tflite")
        context = Context(self.model, machine, self.kernels)
        on_grid = [operator for operator in self.model.operators if operator.op in _LINEAR]
        wide = any(linear.sums_in_64_bits(context, operator) for operator in on_grid)
        return machine.replace(accumulator_bits=64) if wide else machine

    def lower(self, machine: Machine) -> IntegerProgram:
        """Return the program for a machine; errors as in `load_tflite`."""
        with np.errstate(over="ignore", under="ignore"):  # a multiplier out of range is refused, or is 0
            return self._lower(machine)

    def _lower(self, machine: Machine) -> IntegerProgram:
        """Lower operator by operator."""
        model = self.model
        context = Context(model, machine, self.kernels)
        known = {model.tensors[index].name for index in model.inputs}
        for index in model.inputs:
            self._declare(context, model.tensors[index], "the model's input")
        layers: list[Layer] = []
        lengths: set[str] = set()
        for operator in model.operators:
            self._check_order(operator, known)
            if self._counts_lengths(operator, lengths):
                lengths |= {model.tensors[index].name for index in operator.outputs}
                known |= lengths
                continue
            if operator.op not in _LOWER:
                raise ModelError(
                    f"{operator.where}: the operator has no integer form here; known are {', '.join(sorted(_LOWER))}"
                )
            for index in operator.outputs:
                self._declare(context, model.tensors[index], operator.where)
            layers += _LOWER[operator.op](context, operator)
            known |= {model.tensors[index].name for index in operator.outputs}
        for index in model.outputs:
            if model.tensors[index].name not in known - lengths:
                raise ModelError(f"the model's output {model.tensors[index].name!r} is made by no operator")
        return IntegerProgram(
            name=model.name,
            inputs=tuple(self._input(model.tensors[index]) for index in dict.fromkeys(model.inputs)),
            outputs=tuple(dict.fromkeys(model.tensors[index].name for index in model.outputs)),
            layers=tuple(layers),
            tensors=context.tensors,
            constants=context.constants,
            machine=machine,
            whole=True,
            source=self,
        )

    def _check_order(self, operator: TfliteOperator, known: set[str]) -> None:
        """Refuse an operator that reads what is not there yet, or makes what is there already."""
        for index in operator.inputs:
            tensor = self.model.tensors[index] if index >= 0 else None
            if tensor is not None and tensor.data is None and tensor.name not in known:
                raise ModelError(f"{operator.where}: {tensor.where} is read before it is computed")
        for index in operator.outputs:
            tensor = self.model.tensors[index]
            if tensor.data is not None or tensor.name in known:
                raise ModelError(f"{operator.where}: {tensor.where} is made twice, or is a constant")

    def _counts_lengths(self, operator: TfliteOperator, lengths: set[str]) -> bool:
        """Whether an operator only computes the shape that a later one takes; the file says that one's shape, too."""
        tensors = self.model.tensors
        if any(tensors[index].dtype not in ("INT32", "INT64") for index in operator.outputs):
            return False
        computed = [tensors[index].name for index in operator.inputs if index >= 0 and tensors[index].data is None]
        return operator.op == "SHAPE" or (bool(computed) and set(computed) <= lengths)

    @staticmethod
    def _declare(context: Context, tensor: TfliteTensor, where: str) -> None:
        """Note how a tensor is stored."""
        if tensor.data is not None:
            raise ModelError(f"{where}: {tensor.where} is a constant")
        context.tensors[tensor.name] = elementwise.FLOAT32 if tensor.dtype == "FLOAT32" else context.quantizer(tensor)

    @staticmethod
    def _input(tensor: TfliteTensor) -> Tensor:
        return Tensor(tensor.name, tensor.shape, stored=tensor.dtype in FORMATS)
