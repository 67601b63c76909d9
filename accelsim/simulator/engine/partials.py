"""What partial sums and adder trees are given, with registers that hold everything: docs/numerics.md (14), (15)."""

from __future__ import annotations

import numpy as np

from accelsim.machine import Machine
from accelsim.simulator.engine.gemm import Int64, product_rounding, terms_per_addition
from accelsim.simulator.engine.gemm_operands import GemmOperands
from accelsim_kernels.accumulate import running_range


def partial_range(operands: GemmOperands, machine: Machine) -> tuple[Int64, Int64] | None:
    """Return the least and greatest value brought into the partial registers of every output.

    Parameters
    ----------
    operands : GemmOperands
        A GEMM as the grid sees it.
    machine : Machine
        Its dataflow says which registers there are, its grid how many terms they take.

    Returns
    -------
    pair of int64 arrays, shape (n, p), or None
        0 counts as one of the values; None on an output-stationary grid, which has no partial registers.
    """
    if machine.dataflow == "output_stationary":
        return None
    (num_outputs, reduction), num_positions = operands.weights.shape, operands.columns.shape[1]
    shape, size = (num_outputs, num_positions), terms_per_addition(machine)
    start = np.zeros(num_outputs, dtype=np.int64)
    least, greatest = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    low, high, total = (np.empty(shape, dtype=np.int64) for _ in range(3))
    for begin in range(0, reduction, size):
        tile = slice(begin, begin + size)
        weights, columns = np.ascontiguousarray(operands.weights[:, tile]), operands.wide_columns[tile]
        running_range(weights, columns, start, product_rounding(machine), np.int64(1), low, high, total)
        if machine.dataflow == "broadcast":  # a tree gives its sum only
            low[:], high[:] = total, total
        np.minimum(least, low, out=least)
        np.maximum(greatest, high, out=greatest)
    return least, greatest
