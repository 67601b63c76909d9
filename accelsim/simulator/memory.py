"""Memory traffic in closed form: docs/timing.md section 5."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

from accelsim.machine import Machine


@dataclass(frozen=True)
class MemoryTraffic:
    """What moves between the grid, its buffers and DRAM.

    Parameters
    ----------
    weight_reads, activation_reads : int
        Elements that enter the grid, docs/timing.md (15) to (18).
    partial_sum_writes, partial_sum_reads : int
        Accumulators that wait for the next reduction tile.
    output_writes : int
        Outputs.
    dram_bytes : int
        Bytes read from and written to DRAM under the tiling rule, (19) to (22).
    """

    weight_reads: int = 0
    activation_reads: int = 0
    partial_sum_writes: int = 0
    partial_sum_reads: int = 0
    output_writes: int = 0
    dram_bytes: int = 0

    def __add__(self, other: MemoryTraffic) -> MemoryTraffic:
        return MemoryTraffic(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class GemmShape:
    """A GEMM as the memories see it.

    Parameters
    ----------
    num_outputs, reduction, num_positions : int
        N, K and P.
    input_elements : int or None
        Stored inputs of one group: the unpadded tensor of a convolution; None is K·P.
    weight_bits, activation_bits, output_bits : int
        Widths of what is stored.
    groups : int
        So many GEMMs of that shape.
    """

    num_outputs: int
    reduction: int
    num_positions: int
    input_elements: int | None = None
    weight_bits: int = 8
    activation_bits: int = 8
    output_bits: int = 8
    groups: int = 1


def gemm_traffic(shape: GemmShape, machine: Machine) -> MemoryTraffic:
    """Count the accesses and the DRAM bytes of a GEMM, over all its groups.

    Parameters
    ----------
    shape : GemmShape
        Sizes and widths.
    machine : Machine
        Grid, dataflow and buffers.

    Returns
    -------
    MemoryTraffic
        docs/timing.md (15) to (22).
    """
    n, k, p = shape.num_outputs, shape.reduction, shape.num_positions
    walk, memory = _walk(n, k, p, machine), machine.memory
    partials = n * p * (walk.reduction_passes - 1)
    inputs = _bytes(k * p if shape.input_elements is None else shape.input_elements, shape.activation_bits)
    weights_stay = _fits(_bytes(walk.kept_weights, shape.weight_bits), memory.weight_buffer_bytes)
    inputs_stay = _fits(inputs, memory.activation_buffer_bytes)
    sums_stay = _fits(_bytes(walk.kept_sums, machine.accumulator_bits), memory.output_buffer_bytes)
    dram = _bytes(n * k, shape.weight_bits) * (1 if weights_stay else walk.weight_passes)
    dram += inputs * (1 if inputs_stay else walk.input_passes)
    dram += _bytes(n * p, shape.output_bits)
    dram += 0 if sums_stay else 2 * _bytes(partials, machine.accumulator_bits)
    return MemoryTraffic(
        weight_reads=n * k * walk.weight_passes * shape.groups,
        activation_reads=k * p * walk.input_passes * shape.groups,
        partial_sum_writes=partials * shape.groups,
        partial_sum_reads=partials * shape.groups,
        output_writes=n * p * shape.groups,
        dram_bytes=dram * shape.groups,
    )


class _Walk(NamedTuple):
    """How the folds of a dataflow go over the operands, in elements."""

    weight_passes: int
    """How often every weight enters the grid."""
    input_passes: int
    """How often every element of the activation columns enters the grid."""
    reduction_passes: int
    """How often every output meets the accumulators below the grid; 1 where it is finished in one go."""
    kept_weights: int
    """Weights that lie between two uses of the same one."""
    kept_sums: int
    """Accumulators that wait below the grid at a time."""


def _walk(n: int, k: int, p: int, machine: Machine) -> _Walk:
    rows, columns = machine.rows, machine.columns
    match machine.dataflow:
        case "output_stationary":
            return _Walk(_tiles(p, rows), _tiles(n, columns), 1, min(columns, n) * k, 0)
        case "weight_stationary":
            return _Walk(1, _tiles(n, columns), _tiles(k, rows), 0, min(columns, n) * p)
        case "input_stationary":
            return _Walk(_tiles(p, columns), 1, _tiles(k, rows), n * k, n * min(columns, p))
        case _:
            return _Walk(p, _tiles(n, rows), 1, min(rows, n) * k, 0)


def _tiles(length: int, size: int) -> int:
    return -(-length // size)


def _bytes(elements: int, bits: int) -> int:
    return -(-elements * bits // 8)


def _fits(size: int, buffer: int | None) -> bool:
    return buffer is None or size <= buffer
