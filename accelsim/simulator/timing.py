"""Cycles in closed form: docs/timing.md. No values are needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from accelsim.errors import OperandError
from accelsim.machine import Machine
from accelsim.simulator.memory import GemmShape, gemm_traffic


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
        Cycles of waiting for memory.
    """

    multiply: int = 0
    load: int = 0
    drain: int = 0
    stall: int = 0

    @property
    def total(self) -> int:
        """All cycles, (13)."""
        return self.multiply + self.load + self.drain + self.stall

    def __add__(self, other: CycleCount) -> CycleCount:
        return CycleCount(
            self.multiply + other.multiply, self.load + other.load, self.drain + other.drain, self.stall + other.stall
        )

    def to_dict(self) -> dict[str, int]:
        """Return the counts with their total, for JSON."""
        return {
            "multiply": self.multiply,
            "load": self.load,
            "drain": self.drain,
            "stall": self.stall,
            "total": self.total,
        }


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
    shape = GemmShape(
        num_outputs, reduction, num_positions, input_elements, weight_bits, activation_bits, output_bits, groups
    )
    for name, size in vars(shape).items():
        if size is not None and size < 1:
            raise OperandError(f"{name} must be at least 1, got {size}")
    multiply = load = drain = 0
    for before, after, count in _neighbours(num_outputs, reduction, num_positions, groups, machine):
        hidden = machine.double_buffered
        if after is not None:
            multiply += after.multiply * count
            load += max(0, after.load - (before.multiply if hidden and before else 0)) * count
        if before is not None:
            drain += max(0, before.drain - (after.multiply if hidden and after else 0)) * count
    bandwidth = machine.memory.dram_bytes_per_cycle
    stall = 0
    if bandwidth is not None:
        stall = max(0, ceil(gemm_traffic(shape, machine).dram_bytes / bandwidth) - (multiply + load + drain))
    return CycleCount(multiply=multiply, load=load, drain=drain, stall=stall)


def _neighbours(
    num_outputs: int, reduction: int, num_positions: int, groups: int, machine: Machine
) -> Iterator[tuple[Fold | None, Fold | None, int]]:
    """Yield (fold, the fold after it, how often this pair occurs), with None before the first and after the last."""
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
    if machine.dataflow == "broadcast":
        return Fold(1, -(-reduction // machine.columns), 1)
    full = machine.ragged_folds == "full"
    r = machine.rows if full else inner_size
    c = machine.columns if full else outer_size
    match machine.dataflow:
        case "output_stationary":
            return Fold(0, reduction + r + c - 2, r)
        case "weight_stationary":
            return Fold(r, num_positions + r + c - 2, 0)
        case _:
            return Fold(r, num_outputs + r + c - 2, 0)
