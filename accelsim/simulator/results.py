"""What a run returns: counts, records per layer, outputs."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.simulator.memory import MemoryTraffic
from accelsim.simulator.timing import CycleCount
from accelsim.tables import text_table


@dataclass(frozen=True)
class OperationCount:
    """Arithmetic operations of a run.

    Parameters
    ----------
    multiplications : int
        Products of weights and activations made by PEs.
    additions : int
        Additions of products in trees, partial sums and accumulators: one per product.
    row_sum_additions : int
        Additions of the row sums that asymmetric weights need, docs/numerics.md (8), with the final one per output.
    row_sum_multiplications : int
        Products of row sums and weight zero points.
    requantizations : int
        Accumulators brought to codes.
    vector_operations : int
        Element operations of the layers without weights: one per input element of an addition, multiplication, rescaled
        concatenation or table, one per window tap of a pooling.
    """

    multiplications: int = 0
    additions: int = 0
    row_sum_additions: int = 0
    row_sum_multiplications: int = 0
    requantizations: int = 0
    vector_operations: int = 0

    @property
    def total(self) -> int:
        """All operations."""
        return sum(asdict(self).values())

    def __add__(self, other: OperationCount) -> OperationCount:
        return OperationCount(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class LayerRecord:
    """One layer of a run, over all samples.

    Parameters
    ----------
    name, op, output : str
        Node name, operator, name of the tensor that it makes.
    output_shape : tuple of int
        Without the batch.
    macs : int
        Multiply-accumulates on the grid.
    cycles : CycleCount
        Cycles on the grid, or of the vector unit for a layer without multiplications.
    operations : OperationCount
        Operations.
    memory : MemoryTraffic
        Accesses of the buffers and bytes of DRAM; zeros for a layer without multiplications.
    energy_pj : float
        Energy proxy of the operations in picojoule.
    utilisation : float
        Share of PE-cycles that multiply, docs/timing.md (14); 0 for a layer without multiplications.
    overflow_events : int or None
        Accumulator overflows; None where not tracked.
    overflowed_outputs : int or None
        Outputs with at least one event.
    partial_overflow_events : int or None
        Overflows of partial sums or adder trees.
    range_min, range_max : int or None
        Least and greatest value of any unbounded running sum; with ``track="range"``.
    """

    name: str
    op: str
    output: str
    output_shape: tuple[int, ...]
    macs: int
    cycles: CycleCount
    operations: OperationCount
    memory: MemoryTraffic
    energy_pj: float
    utilisation: float
    overflow_events: int | None
    overflowed_outputs: int | None
    partial_overflow_events: int | None
    range_min: int | None
    range_max: int | None

    @property
    def needed_bits(self) -> int | None:
        """Width of an accumulator that would have held every running sum; None where the range was not tracked."""
        if self.range_min is None or self.range_max is None:
            return None
        return max(self.range_max.bit_length(), (-self.range_min - 1).bit_length() if self.range_min < 0 else 0) + 1

    def to_dict(self) -> dict[str, Any]:
        """Return the record for JSON."""
        record = asdict(self)
        record["cycles"] = self.cycles.to_dict()
        record["needed_bits"] = self.needed_bits
        return record


@dataclass(frozen=True)
class SimulationResult:
    """A program run on a machine.

    Parameters
    ----------
    outputs : mapping of str to integer array
        Codes as stored on the device, in the model's order of outputs.
    real_outputs : mapping of str to float32 array
        What the codes stand for.
    layers : tuple of LayerRecord
        In the order of execution.
    num_samples : int
        Samples that were run.
    tensors : mapping of str to integer array
        Every stored tensor, where it was asked for; else empty.
    """

    outputs: Mapping[str, npt.NDArray[Any]]
    real_outputs: Mapping[str, npt.NDArray[np.float32]]
    layers: tuple[LayerRecord, ...]
    num_samples: int
    tensors: Mapping[str, npt.NDArray[Any]]

    def __post_init__(self) -> None:
        for name in ("outputs", "real_outputs", "tensors"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def cycles(self) -> CycleCount:
        """Cycles of all layers."""
        return sum((layer.cycles for layer in self.layers), CycleCount())

    @property
    def operations(self) -> OperationCount:
        """Operations of all layers."""
        return sum((layer.operations for layer in self.layers), OperationCount())

    @property
    def memory(self) -> MemoryTraffic:
        """Memory traffic of all layers."""
        return sum((layer.memory for layer in self.layers), MemoryTraffic())

    @property
    def energy_pj(self) -> float:
        """Energy proxy of all layers in picojoule."""
        return sum(layer.energy_pj for layer in self.layers)

    @property
    def overflow_events(self) -> int | None:
        """Accumulator overflows of all layers; None where not tracked."""
        events = [layer.overflow_events for layer in self.layers]
        return None if any(count is None for count in events) else sum(count or 0 for count in events)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the arrays, for JSON."""
        return {
            "num_samples": self.num_samples,
            "cycles": self.cycles.to_dict(),
            "operations": asdict(self.operations),
            "memory": asdict(self.memory),
            "energy_pj": self.energy_pj,
            "overflow_events": self.overflow_events,
            "layers": [layer.to_dict() for layer in self.layers],
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return json.dumps(self.to_dict())

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return the header and one row per layer, as text."""
        header = ["layer", "op", "output", "MACs", "cycles", "use %", "operations", "overflows", "range"]
        rows = [
            [
                layer.name,
                layer.op,
                "x".join(map(str, layer.output_shape)),
                f"{layer.macs:,}",
                f"{layer.cycles.total:,}",
                f"{100 * layer.utilisation:.1f}" if layer.macs else "",
                f"{layer.operations.total:,}",
                _optional(layer.overflow_events),
                "" if layer.range_min is None else f"{layer.range_min:,} .. {layer.range_max:,}",
            ]
            for layer in self.layers
        ]
        return header, rows

    def __str__(self) -> str:
        return text_table(*self.table())

    def _repr_html_(self) -> str:
        header, rows = self.table()
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _optional(count: int | None) -> str:
    return "" if count is None else f"{count:,}"
