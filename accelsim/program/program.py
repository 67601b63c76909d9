"""The integer program: layers in order, the quantizers of what they store, the machine that they were made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from accelsim.formats import QuantizationParameters
from accelsim.graph.graph import Graph
from accelsim.machine import Machine
from accelsim.program.layers import Layer, MacLayer
from accelsim.tables import text_table


@dataclass(frozen=True, eq=False)
class IntegerProgram:
    """What the accelerator executes.

    Parameters
    ----------
    graph : Graph
        The network that was lowered; its inputs and outputs are the program's.
    layers : tuple of Layer
        In the order of execution.
    tensors : mapping of str to QuantizationParameters
        Quantizers of every stored tensor.
    constants : mapping of str to int32 array
        Codes of constant operands of element-wise layers.
    machine : Machine
        What it was lowered for: its requantizer, zero-point mode and reduction order are built in.
    """

    graph: Graph
    layers: tuple[Layer, ...]
    tensors: Mapping[str, QuantizationParameters]
    constants: Mapping[str, npt.NDArray[np.int32]]
    machine: Machine

    def __post_init__(self) -> None:
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))
        object.__setattr__(self, "constants", MappingProxyType(dict(self.constants)))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample."""
        return sum(layer.macs for layer in self.layers if isinstance(layer, MacLayer))

    def summary(self) -> str:
        """Return the program layer by layer, as a table.

        Returns
        -------
        str
            One row per layer: shapes, widths, zero points, the first channel's multiplier, the clamp.
        """
        header = ["layer", "op", "output", "groups x N x K", "weights", "start", "z_x", "z_y", "multiplier", "clamp"]
        rows = []
        for layer in self.layers:
            shape = "x".join(map(str, layer.output_shape))
            stored = self.tensors[layer.output]
            if isinstance(layer, MacLayer):
                per = "per channel" if layer.rescale.reals.size > 1 else "per tensor"
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
        machine = self.machine
        return (
            f"{self.graph.name}: {len(self.layers)} layers, {self.macs:,} MACs a sample; requantizer "
            f"{machine.requantizer.name}, zero points {machine.zero_point}, reduction {machine.reduction_order}\n"
            + text_table(header, rows)
        )


def _multiplier(layer: MacLayer) -> str:
    """Spell the first channel's multiplier as the machine holds it."""
    rescale = layer.rescale
    more = ", ..." if rescale.reals.size > 1 else ""
    match rescale.requantizer.multiplier:
        case "integer" if len(rescale.requantizer.rounding) == 2:
            scale = rescale.requantizer.multiplier_bits - 1 - rescale.exponents[0]
            return f"{rescale.mantissas[0]} / 2^{scale}{more}"
        case "integer" | "power_of_two":
            return f"{rescale.mantissas[0]} / 2^{rescale.exponents[0]}{more}"
        case _:
            return f"{rescale.reals[0]:.9g}{more}"
