"""An energy proxy: operation counts times a table.

The figures are M. Horowitz's for a 45 nm process at 0.9 V ("Computing's energy problem", ISSCC 2014): integer addition
0.03 pJ at 8 bits and 0.1 pJ at 32, integer multiplication 0.2 pJ at 8 bits and 3.1 pJ at 32. Between and beyond them
the white paper's rule (section 2.1) is used: linear in bits for an addition, quadratic for a multiplication, through
the 32-bit figure.
"""

from __future__ import annotations

from accelsim.simulator.results import OperationCount

ADD_PJ_PER_BIT = 0.1 / 32
MULTIPLY_PJ_PER_BIT_SQUARED = 3.1 / (32 * 32)


def arithmetic_energy_pj(
    operations: OperationCount, weight_bits: int, activation_bits: int, accumulator_bits: int
) -> float:
    """Weigh the arithmetic operations of a layer.

    Parameters
    ----------
    operations : OperationCount
        What was done.
    weight_bits, activation_bits : int
        Widths of a PE's operands.
    accumulator_bits : int
        Width of the additions and of the requantizer's operand.

    Returns
    -------
    float
        Picojoule of arithmetic; memories and registers are not in it.
    """
    product = MULTIPLY_PJ_PER_BIT_SQUARED * weight_bits * activation_bits
    wide_product = MULTIPLY_PJ_PER_BIT_SQUARED * accumulator_bits * 32
    addition = ADD_PJ_PER_BIT * accumulator_bits
    return (
        operations.multiplications * product
        + (operations.additions + operations.row_sum_additions) * addition
        + operations.row_sum_multiplications * MULTIPLY_PJ_PER_BIT_SQUARED * weight_bits * accumulator_bits
        + operations.requantizations * wide_product
        + operations.vector_operations * ADD_PJ_PER_BIT * activation_bits
    )
