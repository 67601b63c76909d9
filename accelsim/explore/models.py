"""Networks as they travel to workers: a form and bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from accelsim.errors import ModelError
from accelsim.graph.archive import quantized_bytes, quantized_from_bytes
from accelsim.graph.quantized import QuantizedGraph
from accelsim.machine import Machine
from accelsim.program.lowering import lower
from accelsim.program.program import IntegerProgram, Lowerable, Portable

Form = Literal["quantized", "litert", "tflite_micro", "onnx"]
"""A quantized graph as it is saved; a .tflite file, by the kernels that are meant; a quantized ONNX model."""


@dataclass(frozen=True)
class StoredNetwork:
    """A quantized network as bytes.

    Parameters
    ----------
    form : str
        See `Form`.
    data : bytes
        The file.
    """

    form: Form
    data: bytes

    @classmethod
    def of(cls, network: QuantizedGraph | IntegerProgram) -> StoredNetwork:
        """Return a network as bytes.

        Raises
        ------
        ModelError
            When a program is bound to the machine that it was lowered for, or was not read from a file.
        """
        if isinstance(network, QuantizedGraph):
            return cls("quantized", quantized_bytes(network))
        source = network.source
        if not isinstance(source, Portable):
            raise ModelError(
                f"program {network.name!r} must come from load_tflite or load_integer_onnx, which workers can repeat; "
                "of a quantized graph give the graph"
            )
        (form,) = (form for form in get_args(Form) if form == source.form)
        return cls(form, source.data)

    @cached_property
    def _read(self) -> QuantizedGraph | Lowerable:
        """What programs are made of."""
        if self.form == "quantized":
            return quantized_from_bytes(self.data, "the quantized network")
        if self.form == "onnx":
            from accelsim.program.onnx.reader import load_integer_onnx

            source = load_integer_onnx(self.data).source
        else:
            from accelsim.program.tflite.loading import load_tflite

            source = load_tflite(self.data, kernels=self.form).source
        if source is None:
            raise AssertionError("readers of models say what they read")
        return source

    def lower(self, machine: Machine) -> IntegerProgram:
        """Return the program for a machine; raise LoweringError where it has none."""
        read = self._read
        return lower(read, machine) if isinstance(read, QuantizedGraph) else read.lower(machine)
