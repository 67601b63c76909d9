"""The integer program: layers in order, the quantizers of what they store, the machine that they were made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from accelsim.errors import DataError
from accelsim.graph.graph import Tensor
from accelsim.machine import Machine
from accelsim.program.layers import GridLayer, Layer, MacLayer
from accelsim.program.storage import StoredTensor
from accelsim.tables import html_table, text_table


class Lowerable(Protocol):
    """What a program was made of, where it can be made anew for another machine."""

    def lower(self, machine: Machine) -> IntegerProgram:
        """Return the program for a machine; raise LoweringError where it has none."""


@runtime_checkable
class Portable(Lowerable, Protocol):
    """A `Lowerable` that can be read anew from bytes, by another process."""

    @property
    def form(self) -> str:
        """Which reader the bytes are for; see `accelsim.explore.models`."""

    @property
    def data(self) -> bytes:
        """The model's file."""


@runtime_checkable
class Rebatchable(Lowerable, Protocol):
    """A `Lowerable` whose programs depend on how many samples there are."""

    def with_batch(self, batch: int) -> Lowerable:
        """Return what makes programs for a number of samples."""


@dataclass(frozen=True, eq=False)
class IntegerProgram:
    """What the accelerator executes.

    Parameters
    ----------
    name : str
        Of the model.
    inputs : tuple of Tensor
        What it is fed with. ``Tensor.stored`` says that integer arrays are taken as the codes themselves.
    outputs : tuple of str
        Tensors that it returns, in the model's order.
    layers : tuple of Layer
        In the order of execution.
    tensors : mapping of str to QuantizationParameters or PlainTensor
        How every stored tensor lies in memory.
    constants : mapping of str to int32 or float32 array
        Constant operands of layers.
    machine : Machine
        What it was lowered for: its requantizer, zero-point mode and reduction order are built in.
    whole : bool
        Shapes are those of one run of the model, its own leading axis included; samples are one more axis in front.
        Arrays come and go with the two axes as one: n runs of a model with leading axis b are n * b rows. Else axis 0
        of the model is the samples.
    source : Lowerable or None
        Makes the program anew for a machine with another arithmetic; None where it is bound to its machine's.
    coupled : bool
        What is computed of a sample depends on the others, as with one scale for all of them: ``source`` is a
        `Rebatchable`, and has to make a program for each number of samples.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...]
    layers: tuple[Layer, ...]
    tensors: Mapping[str, StoredTensor]
    constants: Mapping[str, npt.NDArray[Any]]
    machine: Machine
    whole: bool = False
    source: Lowerable | None = None
    coupled: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))
        object.__setattr__(self, "constants", MappingProxyType(dict(self.constants)))

    @cached_property
    def last_uses(self) -> tuple[tuple[str, ...], ...]:
        """Tensors that nothing reads any more, after each layer."""
        last = {name: i for i, layer in enumerate(self.layers) for name in layer.inputs}
        return tuple(
            tuple(name for name in dict.fromkeys(layer.inputs) if last[name] == i)
            for i, layer in enumerate(self.layers)
        )

    def store(self, name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the values of an input as they lie in memory.

        Parameters
        ----------
        name : str
            Of the input.
        values : array
            Real numbers, or the codes themselves where they are integers and the input is ``stored``.

        Returns
        -------
        array of the tensor's type, same shape
            Codes; float32 for an input of that type.

        Raises
        ------
        DataError
            When integers are outside the input's type, or real numbers meet one without a scale.
        """
        tensor = self.tensors[name]
        is_stored = next(entry.stored for entry in self.inputs if entry.name == name)
        if is_stored and values.dtype.kind in "iu":
            low, high = tensor.format.minimum, tensor.format.maximum
            if values.size and (values.min() < low or values.max() > high):
                raise DataError(
                    f"input {name!r} is stored as {tensor.format} ({low}..{high}), got {values.min()}..{values.max()}; "
                    "real numbers are given as floats"
                )
            wide = np.int32 if tensor.format.bits <= 32 else np.int64
            return values.astype(tensor.format.dtype if tensor.format.bits <= 16 else wide)
        try:
            return tensor.quantize(values)
        except DataError as failure:
            raise DataError(f"input {name!r}: {failure}") from None

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample."""
        return sum(layer.macs for layer in self.layers if isinstance(layer, GridLayer))

    def summary(self) -> str:
        """Return the program layer by layer, as a table.

        Returns
        -------
        str
            One row per layer: shapes, widths, zero points, the first channel's multiplier, the clamp.
        """
        return f"{self._headline()}\n{text_table(*self._table())}"

    def __repr__(self) -> str:
        return f"<IntegerProgram {self._headline()}>"

    def _repr_html_(self) -> str:
        return html_table(*self._table(), self._headline())

    def _headline(self) -> str:
        machine = self.machine
        return (
            f"{self.name}: {len(self.layers)} layers, {self.macs:,} MACs a sample; requantizer "
            f"{machine.requantizer.name}, zero points {machine.zero_point}, reduction {machine.reduction_order}"
        )

    def _table(self) -> tuple[list[str], list[list[str]]]:
        """Return the header and one row per layer."""
        header = ["layer", "op", "output", "groups x N x K", "weights", "start", "z_x", "z_y", "multiplier", "clamp"]
        rows = []
        for layer in self.layers:
            shape = "x".join(map(str, layer.output_shape))
            stored = self.tensors[layer.output]
            if isinstance(layer, MacLayer):
                per = "per channel" if layer.rescale is not None and layer.rescale.reals.size > 1 else "per tensor"
                rows.append(
                    [
                        layer.name,
                        layer.op,
                        f"{shape} {stored.format}",
                        f"{layer.groups}x{layer.num_outputs}x{layer.reduction}",
                        f"{layer.weight_format} {per}",
                        f"{layer.start.min()}..{layer.start.max()}",
                        str(int(self.tensors[layer.inputs[0]].zero_point)),
                        str(layer.zero_point),
                        _multiplier(layer),
                        f"{layer.clamp[0]}..{layer.clamp[1]}",
                    ]
                )
            else:
                zero_point = str(int(stored.zero_point))
                rows.append([layer.name, layer.op, f"{shape} {stored.format}", "", "", "", "", zero_point, "", ""])
        return header, rows


def _multiplier(layer: MacLayer) -> str:
    """Spell the first channel's multiplier as the machine holds it."""
    rescale = layer.rescale
    if rescale is None:
        return "none: stores accumulators"
    more = ", ..." if rescale.reals.size > 1 else ""
    match rescale.requantizer.multiplier:
        case "integer" if len(rescale.requantizer.rounding) == 2:
            scale = rescale.requantizer.multiplier_bits - 1 - rescale.exponents[0]
            return f"{rescale.mantissas[0]} / 2^{scale}{more}"
        case "integer" | "power_of_two":
            return f"{rescale.mantissas[0]} / 2^{rescale.exponents[0]}{more}"
        case _:
            return f"{rescale.reals[0]:.9g}{more}"
