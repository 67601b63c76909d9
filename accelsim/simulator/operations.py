"""Elementary operations by width: docs/energy.md section 1."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from math import ceil

import numpy as np
import numpy.typing as npt

from accelsim.machine import Machine, Requantizer
from accelsim.simulator.counts import Operation, OperationCount, ordered
from accelsim.simulator.widths import GridWidths, ceil_log2

FLOAT_BITS = {"float32": 32, "float64": 64}
WIDE_BITS = 32
"""Width of what the element-wise layers compute with."""


def gemm_operations(
    weights: npt.NDArray[np.int32],
    weight_zero_points: npt.NDArray[np.int64],
    groups: int,
    num_positions: int,
    machine: Machine,
    widths: GridWidths,
) -> OperationCount:
    """Count the operations of a GEMM up to its accumulators.

    Parameters
    ----------
    weights : int32 array, shape (groups * n, k)
        Operands.
    weight_zero_points : int64 array, shape (groups * n,)
        z_w of docs/numerics.md (8); a group in which one is not zero needs row sums.
    groups : int
        GEMMs of one shape.
    num_positions : int
        P of each.
    machine, widths
        Grid and widths.

    Returns
    -------
    OperationCount
        docs/energy.md (1) to (3).
    """
    row_sums, corrections = 0, int(np.count_nonzero(weight_zero_points))
    if corrections:
        row_sums = int(weight_zero_points.reshape(groups, -1).any(axis=1).sum())
    return _operations(weights.shape, num_positions, row_sums, corrections, machine, widths)


@lru_cache(maxsize=1024)
def _operations(
    shape: tuple[int, int], num_positions: int, asymmetric_groups: int, asymmetric_channels: int, machine: Machine,
    widths: GridWidths,
) -> OperationCount:  # fmt: skip
    """Count the operations of GEMMs whose weights have a shape; those asked for before are remembered."""
    num_outputs, reduction = shape
    macs = num_outputs * reduction * num_positions
    row_sums, corrections = asymmetric_groups * reduction * num_positions, asymmetric_channels * num_positions
    widest = widths.activation + ceil_log2(reduction)
    into_accumulators = num_outputs * num_positions * additions_per_output(machine, reduction)
    elementary: Counter[Operation] = Counter()
    elementary[Operation("multiply", widths.weight, widths.activation)] += macs
    if machine.product_shift_bits and machine.product_rounding != "floor":
        exact = widths.weight + widths.activation
        elementary[Operation("add", exact, exact)] += macs
    if machine.dataflow == "output_stationary":
        elementary[Operation("add", widths.accumulator, widths.product)] += macs
    else:
        elementary[Operation("add", widths.inner, widths.product)] += macs - into_accumulators
        elementary[Operation("add", widths.accumulator, widths.inner)] += into_accumulators
    elementary[Operation("add", widest, widths.activation)] += row_sums
    elementary[Operation("multiply", widths.weight, widest)] += corrections
    elementary[Operation("add", widths.accumulator, widths.weight + widest)] += corrections
    return OperationCount(
        multiplications=macs,
        additions=macs,
        row_sum_additions=row_sums + corrections,
        row_sum_multiplications=corrections,
        widths=ordered(elementary),
    )


def additions_per_output(machine: Machine, reduction: int) -> int:
    """Return how often an accumulator is added to: docs/numerics.md (13) to (16)."""
    match machine.dataflow:
        case "output_stationary":
            return reduction
        case "broadcast":
            return ceil(reduction / machine.columns)
        case _:
            return ceil(reduction / machine.rows)


def rescaling(requantizer: Requantizer, bits: int) -> Counter[Operation]:
    """Return the operations that bring one value of some width onto another grid, docs/energy.md (4)."""
    rounding = [rule for rule in requantizer.rounding if rule != "floor"]
    operations: Counter[Operation] = Counter()
    match requantizer.multiplier:
        case "integer":
            two = len(requantizer.rounding) == 2
            width = min(bits, 32 if two else 65 - requantizer.multiplier_bits)
            operations[Operation("multiply", width, requantizer.multiplier_bits)] += 1
            for rule, wide in zip(requantizer.rounding, (width + requantizer.multiplier_bits, width + 1), strict=False):
                operations[Operation("shift", wide, wide)] += 1
                operations[Operation("add", wide, wide)] += rule != "floor"
        case "power_of_two":
            operations[Operation("shift", bits, bits)] += 1
            operations[Operation("add", bits, bits)] += len(rounding)
        case kind:
            width = FLOAT_BITS[kind]
            operations[Operation("float_multiply", width, width)] += 1
            operations[Operation("float_add", width, width)] += 1
    return operations


def ending(bits: int, output_bits: int) -> Counter[Operation]:
    """Return the addition of the output zero point and the clamp."""
    return Counter({Operation("add", bits, output_bits): 1, Operation("compare", bits, output_bits): 2})
