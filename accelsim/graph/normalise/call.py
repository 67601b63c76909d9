"""A node under normalisation, and what can become of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import AttributeProto, NodeProto

from accelsim.errors import ModelError
from accelsim.graph.graph import AttributeValue, Shape
from accelsim.graph.onnx_structure import describe

Operand = str | npt.NDArray[np.float32]
"""A tensor or constant by name, or a new constant."""


@dataclass(frozen=True)
class Layer:
    """A node of the graph to be.

    Parameters
    ----------
    inputs : tuple of str or array
        Operands; an array becomes a constant of its own.
    shape : tuple
        Shape of the output with None for the batch.
    attributes : mapping
        Normalised attributes.
    op : str or None
        Operator, None where it stays what it was.
    """

    inputs: tuple[Operand, ...]
    shape: Shape
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    op: str | None = None


@dataclass(frozen=True)
class Alias:
    """The output is another name of a tensor or constant."""

    tensor: str


@dataclass(frozen=True)
class Folded:
    """The output is a constant."""

    value: npt.NDArray[Any]


Result = Layer | Alias | Folded


class Call:
    """One ONNX node and what is known of its inputs.

    Parameters
    ----------
    proto : NodeProto
        The node; it has passed ONNX's checker.
    inputs : tuple of str
        Its inputs with aliases resolved, empty where an optional one is left out.
    opset : int
        Opset of the model.
    shapes : mapping
        Shapes of the tensors that depend on the input.
    constants : mapping
        Arrays of those that do not.
    batch_size : int or None
        The batch that the model is fixed to.
    """

    def __init__(
        self,
        proto: NodeProto,
        inputs: tuple[str, ...],
        opset: int,
        shapes: Mapping[str, Shape],
        constants: Mapping[str, npt.NDArray[Any]],
        batch_size: int | None,
    ) -> None:
        self.op: str = proto.op_type
        self.opset = opset
        self.inputs = inputs
        self.batch_size = batch_size
        self.num_used_outputs = sum(1 for name in proto.output if name)
        self.label = describe(proto, opset)
        self._shapes = shapes
        self._constants = constants
        self._attributes = {attribute.name: attribute for attribute in proto.attribute}

    def refuse(self, reason: str) -> ModelError:
        """Return the error that says why this node is not supported."""
        return ModelError(f"{self.label}: {reason}")

    def has(self, index: int) -> bool:
        """Return whether an input is given."""
        return index < len(self.inputs) and self.inputs[index] != ""

    def is_constant(self, index: int) -> bool:
        """Return whether an input is given and constant."""
        return self.has(index) and self.inputs[index] in self._constants

    def shape(self, index: int = 0) -> Shape:
        """Return the shape of an input that must depend on the graph's input."""
        name = self.inputs[index] if self.has(index) else ""
        if name in self._constants:
            raise self.refuse(f"input {index}, {name!r}, must not be a constant")
        if name not in self._shapes:
            raise self.refuse(f"input {index}, {name!r}, is missing")
        return self._shapes[name]

    def lengths(self, index: int = 0) -> tuple[int, ...]:
        """Return the shape of an input without the batch."""
        return tuple(length for length in self.shape(index)[1:] if length is not None)

    def constant(self, index: int, what: str) -> npt.NDArray[Any]:
        """Return a constant input of any type, refusing one that is computed."""
        if not self.is_constant(index):
            name = self.inputs[index] if self.has(index) else ""
            raise self.refuse(f"the {what}, input {index} {name!r}, must be a constant")
        return self._constants[self.inputs[index]]

    def floats(self, index: int, what: str) -> npt.NDArray[np.float32]:
        """Return a constant float32 input whose values are finite."""
        values = self.constant(index, what)
        if values.dtype != np.float32:
            raise self.refuse(f"the {what}, constant {self.inputs[index]!r}, must be float32, got {values.dtype}")
        if values.size == 0:
            raise self.refuse(f"the {what}, constant {self.inputs[index]!r}, is empty: shape {values.shape}")
        if not np.isfinite(values).all():
            raise self.refuse(f"the {what}, constant {self.inputs[index]!r}, holds inf or nan")
        return values

    def scalar(self, index: int, what: str, default: float) -> float:
        """Return an optional constant float input of one element; it may be infinite."""
        if not self.has(index):
            return default
        values = self.constant(index, what)
        if values.dtype != np.float32 or values.size != 1:
            raise self.refuse(f"the {what} must be one float32 value, got shape {values.shape} of {values.dtype}")
        value = float(values.reshape(()))
        if np.isnan(value):
            raise self.refuse(f"the {what} is nan")
        return value

    def integers(self, index: int, what: str) -> tuple[int, ...]:
        """Return a constant input of whole numbers."""
        values = self.constant(index, what)
        if values.dtype.kind != "i" or values.ndim > 1:
            raise self.refuse(f"the {what} must be whole numbers along one axis, got {values.dtype}{values.shape}")
        return tuple(int(value) for value in values.reshape(-1))

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        return int(self._attributes[name].i) if name in self._attributes else default

    def flag(self, name: str, default: int = 0) -> int:
        """Return an integer attribute that is 0 or 1; runtimes disagree about what any other number means."""
        value = self.integer(name, default)
        if value not in (0, 1):
            raise self.refuse(f"attribute {name} must be 0 or 1, got {value}")
        return value

    def real(self, name: str, default: float) -> float:
        """Return a float attribute: a float32 value, finite."""
        value = float(np.float32(self._attributes[name].f if name in self._attributes else default))
        if not np.isfinite(value):
            raise self.refuse(f"attribute {name} must be finite, got {value}")
        return value

    def ints(self, name: str) -> tuple[int, ...] | None:
        """Return an attribute that is a list of integers, None where it is left out."""
        return tuple(int(value) for value in self._attributes[name].ints) if name in self._attributes else None

    def text(self, name: str, default: str) -> str:
        """Return a string attribute."""
        return self._attributes[name].s.decode("utf-8", "replace") if name in self._attributes else default

    def attribute(self, name: str) -> AttributeProto | None:
        """Return an attribute as it stands in the model."""
        return self._attributes.get(name)

    def axis(self, value: int, rank: int) -> int:
        """Return an axis counted from the front, refusing one that does not exist."""
        if not -rank <= value < rank:
            raise self.refuse(f"axis {value} does not exist; the tensor has {rank} axes")
        return value % rank
