"""Memory traffic in closed form: docs/timing.md section 5."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import ceil

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
        Stored inputs: the unpadded tensor of a convolution; None is K·P.
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
    rows, columns = machine.rows, machine.columns
    keeps_partials = machine.dataflow in ("weight_stationary", "input_stationary")
    partials = n * p * (ceil(k / rows) - 1) if keeps_partials else 0
    match machine.dataflow:
        case "output_stationary":
            weight_passes, input_passes = ceil(p / rows), ceil(n / columns)
            held_weights, held_sums = min(columns, n) * k, 0
            weight_reads = n * k * weight_passes
        case "weight_stationary":
            weight_passes, input_passes = 1, ceil(n / columns)
            held_weights, held_sums = 0, min(columns, n) * p
            weight_reads = n * k
        case "input_stationary":
            weight_passes, input_passes = ceil(p / columns), 1
            held_weights, held_sums = n * k, n * min(columns, p)
            weight_reads = n * k * weight_passes
        case "broadcast":
            weight_passes, input_passes = p, ceil(n / rows)
            held_weights, held_sums = min(rows, n) * k, 0
            weight_reads = n * k * p
    memory = machine.memory
    input_bytes = _bytes(k * p if shape.input_elements is None else shape.input_elements, shape.activation_bits)
    dram = _bytes(n * p, shape.output_bits)
    stays = _fits(_bytes(held_weights, shape.weight_bits), memory.weight_buffer_bytes)
    dram += _bytes(n * k, shape.weight_bits) * (1 if stays else weight_passes)
    dram += input_bytes * (1 if _fits(input_bytes, memory.activation_buffer_bytes) else input_passes)
    if not _fits(_bytes(held_sums, machine.accumulator_bits), memory.output_buffer_bytes):
        dram += 2 * _bytes(partials, machine.accumulator_bits)
    one = (weight_reads, k * p * input_passes, partials, partials, n * p, dram)
    return MemoryTraffic(*(count * shape.groups for count in one))


def _bytes(elements: int, bits: int) -> int:
    return ceil(elements * bits / 8)


def _fits(size: int, buffer: int | None) -> bool:
    return buffer is None or size <= buffer
