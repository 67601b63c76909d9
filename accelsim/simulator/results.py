"""What a run returns: counts, records per layer, outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.simulator.counts import AccessCount, OperationCount, Toggles, ZeroOperands
from accelsim.simulator.energy import Energy
from accelsim.simulator.memory import MemoryTraffic
from accelsim.simulator.timing import CycleCount
from accelsim.tables import html_table, text_table


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
    accesses : AccessCount
        Accesses of registers, SRAM and DRAM with their widths.
    energy : Energy
        Energy proxy by part; see also `energy_pj`.
    zero_operands : ZeroOperands
        Multiplications with a zero operand.
    toggles : Toggles or None
        Bit toggles of the PEs' registers; with ``activity=True``, and zeros for a layer without multiplications.
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
    accesses: AccessCount
    energy: Energy
    zero_operands: ZeroOperands
    toggles: Toggles | None
    utilisation: float
    overflow_events: int | None
    overflowed_outputs: int | None
    partial_overflow_events: int | None
    range_min: int | None
    range_max: int | None

    def having_met(self, met: Mapping[str, object]) -> LayerRecord:
        """Return the record with some of its counts replaced: `dataclasses.replace` without setting each field anew."""
        record = object.__new__(LayerRecord)
        object.__setattr__(record, "__dict__", {**self.__dict__, **met})
        return record

    @property
    def energy_pj(self) -> float:
        """Energy proxy in picojoule, all parts."""
        return self.energy.total_pj

    @property
    def needed_bits(self) -> int | None:
        """Width of an accumulator that would have held every running sum; None where the range was not tracked."""
        if self.range_min is None or self.range_max is None:
            return None
        return max(self.range_max.bit_length(), (-self.range_min - 1).bit_length() if self.range_min < 0 else 0) + 1

    def to_dict(self) -> dict[str, Any]:
        """Return the record for JSON."""
        record = asdict(self)
        for part in ("cycles", "operations", "accesses", "energy"):
            record[part] = getattr(self, part).to_dict()
        record["energy_pj"] = self.energy_pj
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
    batch_samples : int
        Samples that ran at a time in a thread.
    peak_batch_bytes : int
        What the arrays of running batches took together at most, over all threads, by the model of
        `accelsim.simulator.working_memory`, or what small batches keep of theirs, if that is more; bounded by
        ``memory_bytes`` where that has room for a sample in each thread.
    """

    outputs: Mapping[str, npt.NDArray[Any]]
    real_outputs: Mapping[str, npt.NDArray[np.float32]]
    layers: tuple[LayerRecord, ...]
    num_samples: int
    tensors: Mapping[str, npt.NDArray[Any]]
    batch_samples: int = 0
    peak_batch_bytes: int = 0

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
    def accesses(self) -> AccessCount:
        """Accesses of registers, SRAM and DRAM of all layers."""
        return sum((layer.accesses for layer in self.layers), AccessCount())

    @property
    def energy(self) -> Energy:
        """Energy proxy of all layers by part."""
        return sum((layer.energy for layer in self.layers), Energy())

    @property
    def energy_pj(self) -> float:
        """Energy proxy of all layers in picojoule, all parts."""
        return self.energy.total_pj

    @property
    def zero_operands(self) -> ZeroOperands:
        """Multiplications with a zero operand of all layers."""
        return sum((layer.zero_operands for layer in self.layers), ZeroOperands())

    @property
    def toggles(self) -> Toggles | None:
        """Bit toggles of all layers; None where they were not counted."""
        counted = [layer.toggles for layer in self.layers if layer.toggles is not None]
        return sum(counted, Toggles()) if len(counted) == len(self.layers) else None

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
            "operations": self.operations.to_dict(),
            "memory": asdict(self.memory),
            "accesses": self.accesses.to_dict(),
            "energy": self.energy.to_dict(),
            "energy_pj": self.energy_pj,
            "zero_operands": asdict(self.zero_operands),
            "toggles": None if self.toggles is None else asdict(self.toggles),
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

    def __repr__(self) -> str:
        return (
            f"<SimulationResult of {self.num_samples} samples: {len(self.layers)} layers, {self.cycles.total} cycles>"
        )

    def _repr_html_(self) -> str:
        events = "not tracked" if self.overflow_events is None else f"{self.overflow_events:,}"
        caption = (
            f"{self.num_samples:,} samples, {self.cycles.total:,} cycles, {self.operations.total:,} operations, "
            f"{self.energy_pj / 1e6:,.3f} uJ by the energy proxy; overflow events: {events}"
        )
        return html_table(*self.table(), caption)


def _optional(count: int | None) -> str:
    return "" if count is None else f"{count:,}"
