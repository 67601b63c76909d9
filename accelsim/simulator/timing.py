"""Cycles in closed form: docs/timing.md. No values are needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import Any, NamedTuple

from accelsim.arrays import whole_number
from accelsim.errors import OperandError
from accelsim.machine import Machine
from accelsim.simulator.memory import GemmShape, gemm_traffic
from accelsim.tables import html_table


@dataclass(frozen=True)
class CycleCount:
    """Cycles by what they are spent on.

    Parameters
    ----------
    multiply : int
        Cycles in which PEs multiply, docs/timing.md (9).
    load, drain : int
        Visible cycles of loading (weights, activations, biases) and of reading out, (10) to (12).
    stall : int
        Cycles of waiting for memory, (23).
    vector : int
        Cycles of the vector unit, (24); they are those of layers without multiplications.
    """

    multiply: int = 0
    load: int = 0
    drain: int = 0
    stall: int = 0
    vector: int = 0

    @property
    def total(self) -> int:
        """All cycles, (13)."""
        return self.multiply + self.load + self.drain + self.stall + self.vector

    def __add__(self, other: CycleCount) -> CycleCount:
        return CycleCount(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def to_dict(self) -> dict[str, int]:
        """Return the counts with their total, for JSON."""
        return {**asdict(self), "total": self.total}

    def _repr_html_(self) -> str:
        return html_table(list(self.to_dict()), [[f"{count:,}" for count in self.to_dict().values()]], "cycles")


class Fold(NamedTuple):
    """Cycles of one fold, docs/timing.md (1) to (4)."""

    load: int
    multiply: int
    drain: int


def gemm_cycles(
    *,
    num_outputs: int,
    reduction: int,
    num_positions: int,
    machine: Machine,
    groups: int = 1,
    input_elements: int | None = None,
    weight_bits: int = 8,
    activation_bits: int = 8,
    output_bits: int = 8,
) -> CycleCount:
    """Count the cycles of a GEMM without running it.

    Parameters
    ----------
    num_outputs : int
        Output channels N of one group, at least 1.
    reduction : int
        Length K of the reduction, at least 1.
    num_positions : int
        Output positions P: pixels times batch, at least 1.
    machine : Machine
        Grid, dataflow, buffers and bandwidth.
    groups : int
        Groups of that size, run one after the other.
    input_elements : int, optional
        Stored inputs of one group; K·P when left out. For stalls only, like the widths.
    weight_bits, activation_bits, output_bits : int
        Widths of what moves to and from DRAM.

    Returns
    -------
    CycleCount
        docs/timing.md (9) to (13) and (23).

    Raises
    ------
    OperandError
        When a size is below 1.

    Examples
    --------
    >>> machine = Machine(rows=4, columns=4, dataflow="output_stationary")
    >>> gemm_cycles(num_outputs=4, reduction=4, num_positions=4, machine=machine).multiply
    10
    """
    if not isinstance(machine, Machine):
        raise OperandError(f"machine must be a Machine, got {machine!r}; Machine.preset and Machine.load make one")
    sizes = {
        "num_outputs": num_outputs, "reduction": reduction, "num_positions": num_positions,
        "input_elements": input_elements, "weight_bits": weight_bits, "activation_bits": activation_bits,
        "output_bits": output_bits, "groups": groups,
    }  # fmt: skip
    whole: dict[str, Any] = {
        name: None if size is None and name == "input_elements" else whole_number(name, size, 1)
        for name, size in sizes.items()
    }
    return _cycles(GemmShape(**whole), machine)


@lru_cache(maxsize=1024)
def _cycles(shape: GemmShape, machine: Machine) -> CycleCount:
    """Count the cycles of a GEMM; those of shapes asked for before are remembered."""
    multiply = load = drain = 0
    for before, after, count in _neighbours(
        shape.num_outputs, shape.reduction, shape.num_positions, shape.groups, machine
    ):
        if after is not None:
            behind = before.multiply if machine.double_buffered and before is not None else 0
            multiply += count * after.multiply
            load += count * max(0, after.load - behind)
        if before is not None:
            ahead = after.multiply if machine.double_buffered and after is not None else 0
            drain += count * max(0, before.drain - ahead)
    busy = multiply + load + drain
    bandwidth = machine.memory.dram_bytes_per_cycle
    stall = 0
    if bandwidth is not None:
        # The bandwidth as it was written, 0.3 and not the float beside it: 3 bytes take 10 cycles.
        stall = max(0, ceil(gemm_traffic(shape, machine).dram_bytes / Fraction(repr(bandwidth))) - busy)
    return CycleCount(multiply=multiply, load=load, drain=drain, stall=stall)


def vector_cycles(vector_operations: int, machine: Machine) -> CycleCount:
    """Count the cycles of a layer on the vector unit.

    Parameters
    ----------
    vector_operations : int
        Element operations of the layer over all samples, `OperationCount.vector_operations`.
    machine : Machine
        Whose ``vector_lanes`` do one element operation each per cycle; without lanes the cycles are not counted.

    Returns
    -------
    CycleCount
        docs/timing.md (24).

    Examples
    --------
    >>> vector_cycles(100, Machine(vector_lanes=16)).vector
    7
    """
    lanes = machine.vector_lanes
    return CycleCount() if lanes is None else CycleCount(vector=-(-vector_operations // lanes))


def _neighbours(
    num_outputs: int, reduction: int, num_positions: int, groups: int, machine: Machine
) -> Iterator[tuple[Fold | None, Fold | None, int]]:
    """Yield (fold, the fold after it, how often this pair occurs), with None before the first and after the last.

    Every fold comes after exactly one other or None, so summing over ``after`` visits each fold once, and likewise over
    ``before``. Tiles of a dimension have at most two lengths, so there are few different pairs, however large the GEMM.
    """
    rows, columns = machine.rows, machine.columns
    match machine.dataflow:
        case "output_stationary":
            outer, inner = _tiles(num_outputs, columns), _tiles(num_positions, rows)
        case "weight_stationary":
            outer, inner = _tiles(num_outputs, columns), _tiles(reduction, rows)
        case "input_stationary":
            outer, inner = _tiles(num_positions, columns), _tiles(reduction, rows)
        case "broadcast":
            outer, inner = _tiles(num_outputs, rows), _tiles(num_positions, 1)

    def fold(outer_size: int, inner_size: int) -> Fold:
        return _fold(machine, outer_size, inner_size, num_outputs, reduction, num_positions)

    first, last = inner[0][0], inner[-1][0]
    yield None, fold(outer[0][0], first), 1
    for outer_size, outer_count in outer:  # neighbours within one pass over the inner tiles
        for inner_size, inner_count in inner:
            if inner_count > 1:
                yield (
                    fold(outer_size, inner_size),
                    fold(outer_size, inner_size),
                    outer_count * groups * (inner_count - 1),
                )
        if len(inner) == 2:
            yield fold(outer_size, first), fold(outer_size, last), outer_count * groups
    for outer_size, outer_count in outer:  # from the last inner tile of one pass to the first of the next
        if outer_count > 1:
            yield fold(outer_size, last), fold(outer_size, first), groups * (outer_count - 1)
    if len(outer) == 2:
        yield fold(outer[0][0], last), fold(outer[1][0], first), groups
    if groups > 1:
        yield fold(outer[-1][0], last), fold(outer[0][0], first), groups - 1
    yield fold(outer[-1][0], last), None, 1


def _tiles(length: int, size: int) -> list[tuple[int, int]]:
    """Return the tiles of a dimension as runs of (tile length, count): whole ones, then the ragged one."""
    whole, ragged = divmod(length, size)
    return [(size, whole)] * (whole > 0) + [(ragged, 1)] * (ragged > 0)


def _fold(
    machine: Machine, outer_size: int, inner_size: int, num_outputs: int, reduction: int, num_positions: int
) -> Fold:
    """Return the cycles of a fold, docs/timing.md section 2; sizes are those of its outer and inner tile."""
    latency = machine.pe_latency_cycles - 1
    if machine.dataflow == "broadcast":
        return Fold(1, -(-reduction // machine.columns) + latency, 1)
    full = machine.ragged_folds == "full"
    r = machine.rows if full else inner_size
    c = machine.columns if full else outer_size
    skewed = r + c - 2 + latency
    match machine.dataflow:
        case "output_stationary":
            return Fold(0, reduction + skewed, r)
        case "weight_stationary":
            return Fold(r, num_positions + skewed, 0)
        case _:
            return Fold(r, num_outputs + skewed, 0)
