"""Accesses of registers, SRAM and DRAM in closed form: docs/energy.md section 2."""

from __future__ import annotations

from collections import Counter
from math import ceil

from accelsim.machine import Machine
from accelsim.simulator.counts import Access, AccessCount, ordered
from accelsim.simulator.memory import GemmShape, MemoryTraffic
from accelsim.simulator.operations import additions_per_output
from accelsim.simulator.widths import GridWidths, ceil_log2


def gemm_accesses(
    shape: GemmShape, traffic: MemoryTraffic, asymmetric_groups: int, machine: Machine, widths: GridWidths
) -> AccessCount:
    """Count the accesses of a GEMM over all its groups.

    Parameters
    ----------
    shape : GemmShape
        Sizes and widths.
    traffic : MemoryTraffic
        Its memory traffic, docs/timing.md section 5.
    asymmetric_groups : int
        Groups that need row sums.
    machine, widths
        Grid and widths.

    Returns
    -------
    AccessCount
        docs/energy.md (6) and (7).
    """
    n, k, p, groups = shape.num_outputs, shape.reduction, shape.num_positions, shape.groups
    macs, outputs = n * k * p * groups, n * p * groups
    weight_writes = activation_writes = macs
    if machine.dataflow == "weight_stationary":
        weight_writes = n * k * groups
    if machine.dataflow == "input_stationary":
        activation_writes = k * p * groups
    chained = machine.dataflow in ("weight_stationary", "input_stationary")
    kinds: Counter[Access] = Counter()
    kinds[Access("register", "weight", widths.weight)] += weight_writes
    kinds[Access("register", "activation", widths.activation)] += activation_writes
    kinds[Access("register", "product", widths.product)] += macs * (machine.pe_latency_cycles - 1)
    kinds[Access("register", "partial_sum", widths.inner)] += macs if chained else 0
    additions = outputs * (1 + additions_per_output(machine, k))
    if asymmetric_groups:
        kinds[Access("register", "row_sum", widths.activation + ceil_log2(k))] += asymmetric_groups * k * p
    kinds[Access("register", "accumulator", widths.accumulator)] += additions
    kinds[Access("sram", "weight_read", shape.weight_bits)] += traffic.weight_reads
    kinds[Access("sram", "activation_read", shape.activation_bits)] += traffic.activation_reads
    kinds[Access("sram", "partial_sum_write", widths.accumulator)] += traffic.partial_sum_writes
    kinds[Access("sram", "partial_sum_read", widths.accumulator)] += traffic.partial_sum_reads
    kinds[Access("sram", "output_write", shape.output_bits)] += traffic.output_writes
    kinds[Access("dram", "bytes", 8)] += ceil(traffic.dram_bytes)
    return AccessCount(ordered(kinds))


def vector_accesses(inputs: list[tuple[int, int]], output: tuple[int, int]) -> AccessCount:
    """Count the accesses of a layer without multiplications, docs/energy.md (8).

    Parameters
    ----------
    inputs : list of (int, int)
        Elements and width of each input.
    output : pair of int
        Elements and width of the output.
    """
    kinds: Counter[Access] = Counter()
    for elements, bits in inputs:
        kinds[Access("sram", "activation_read", bits)] += elements
    kinds[Access("sram", "output_write", output[1])] += output[0]
    return AccessCount(ordered(kinds))
