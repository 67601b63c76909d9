"""How wide the registers of a network must be: the results."""

from __future__ import annotations

import html
import json
from dataclasses import asdict, dataclass
from typing import Any

from accelsim.machine import Machine
from accelsim.tables import html_table, text_table

REGISTERS = {
    "accumulator": "accumulator",
    "partial_sum": "partial sum",
    "adder_tree": "adder tree",
    "multiplier": "multiplier",
}
"""Kinds of register, and what they are called in a table."""


@dataclass(frozen=True)
class SearchStep:
    """One width that was tried.

    Parameters
    ----------
    overflow : str
        ``wrap`` or ``saturate``; for a multiplier, which does not overflow, ``none``.
    bits : int
        Width.
    accuracy : float
        Share of the searched samples, 0..1, that are right: with labels top-1 accuracy, without the share that has the
        answer of the exact integers.
    overflow_events : int
        Events of that kind of register, over the searched samples.
    num_run : int
        Samples that were simulated again; the others overflow nowhere.
    """

    overflow: str
    bits: int
    accuracy: float
    overflow_events: int
    num_run: int


@dataclass(frozen=True)
class RegisterWidths:
    """One kind of register of a layer, or of all layers at once.

    Parameters
    ----------
    register : {"accumulator", "partial_sum", "adder_tree", "multiplier"}
        Which.
    proven_bits : int or None
        Width that is enough for any input: docs/widths.md section 1; for a multiplier section 3, None where nothing is
        proven.
    proven_low, proven_high : int or None
        Least and greatest value; None for a multiplier.
    tight : bool
        Whether some input needs all of ``proven_bits``.
    needed_bits : int
        Width that was enough on the data.
    needed_low, needed_high : int or None
        Least and greatest value on the data; None for a multiplier.
    distribution : tuple of (int, int)
        (width, how many outputs needed exactly it), narrowest first; empty for a multiplier.
    holds_wrap_bits, holds_saturate_bits : int
        Narrowest width down to which the accuracy holds at every width, with this register of this layer narrowed
        alone (all layers together in `WidthReport.network`). The same number twice for a multiplier.
    steps : tuple of SearchStep
        What was tried.
    """

    register: str
    proven_bits: int | None
    proven_low: int | None
    proven_high: int | None
    tight: bool
    needed_bits: int
    needed_low: int | None
    needed_high: int | None
    distribution: tuple[tuple[int, int], ...]
    holds_wrap_bits: int
    holds_saturate_bits: int
    steps: tuple[SearchStep, ...]

    def bits_for(self, share: float) -> int | None:
        """Return the width that is enough for a share of the outputs, 0..1; None without a distribution."""
        total, seen = sum(count for _, count in self.distribution), 0
        for bits, count in self.distribution:
            seen += count
            if seen >= share * total:
                return bits
        return None


@dataclass(frozen=True)
class LayerWidths:
    """The registers of one layer.

    Parameters
    ----------
    name, op : str
        As in the program.
    channels, reduction : int
        Output channels over all groups, and terms of a sum.
    registers : tuple of RegisterWidths
        Accumulator, then partial sum or adder tree where the grid has them, then an integer multiplier.
    """

    name: str
    op: str
    channels: int
    reduction: int
    registers: tuple[RegisterWidths, ...]

    def register(self, name: str) -> RegisterWidths:
        """Return a register by its kind; raise KeyError where the grid has none."""
        return {register.register: register for register in self.registers}[name]


@dataclass(frozen=True)
class WidthReport:
    """Proven, needed and sufficient widths of every layer of a network.

    Parameters
    ----------
    network : str
        Its name.
    machine : Machine
        Whose order of additions and requantizer were looked at.
    num_samples : int
        Samples whose ranges were tracked.
    num_searched : int
        Samples that the accuracy is measured on, the first ones of those.
    metric : str
        ``top1`` with labels, else ``agreement`` with the exact integers.
    exact_accuracy : float
        Of the searched samples with registers that hold everything, 0..1.
    max_loss : float
        Accuracy holds where it is at most this much lower, 0..1.
    layers : tuple of LayerWidths
        In the order of execution.
    network_registers : tuple of RegisterWidths
        All layers at once: the widest of the proven and needed widths, and a search that narrows all of them together.
    """

    network: str
    machine: Machine
    num_samples: int
    num_searched: int
    metric: str
    exact_accuracy: float
    max_loss: float
    layers: tuple[LayerWidths, ...]
    network_registers: tuple[RegisterWidths, ...]

    def register(self, name: str) -> RegisterWidths:
        """Return a register of all layers at once by its kind; raise KeyError where the grid has none."""
        return {register.register: register for register in self.network_registers}[name]

    @property
    def curve(self) -> tuple[SearchStep, ...]:
        """Accuracy by the width of all accumulators, for both overflow modes."""
        return self.register("accumulator").steps

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return the header and one row per register, as text."""
        header = ["layer", "K", "register", "proven", "needed", "half need", "99.9 % need", "holds: wrap", "saturate"]
        rows = [
            [layer.name, str(layer.reduction), *_cells(register)]
            for layer in self.layers
            for register in layer.registers
        ]
        return header, rows + [["all layers", "", *_cells(register)] for register in self.network_registers]

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        record = asdict(self)
        return {**record, "machine": self.machine.model_dump(mode="json")}

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    def summary(self) -> str:
        """Say in which terms the numbers are to be read."""
        metric = "top-1 accuracy" if self.metric == "top1" else "agreement with the exact integers"
        return (
            f"{self.network}, {self.machine.rows}x{self.machine.columns} {self.machine.dataflow}. proven: for any "
            f"input; needed: on {self.num_samples:,} samples; holds: {metric} of {self.num_searched:,} samples at most "
            f"{100 * self.max_loss:g} points under the exact integers' {100 * self.exact_accuracy:.2f} %, this "
            "register narrowed alone."
        )

    def __str__(self) -> str:
        return f"{text_table(*self.table())}\n\n{self.summary()}"

    def _repr_html_(self) -> str:
        return html_table(*self.table()) + f"<p>{html.escape(self.summary())}</p>"


def _cells(register: RegisterWidths) -> list[str]:
    """Return a register's cells of the table."""
    half, most = register.bits_for(0.5), register.bits_for(0.999)
    return [
        REGISTERS[register.register],
        "" if register.proven_bits is None else str(register.proven_bits),
        str(register.needed_bits),
        "" if half is None else str(half),
        "" if most is None else str(most),
        str(register.holds_wrap_bits),
        str(register.holds_saturate_bits),
    ]
