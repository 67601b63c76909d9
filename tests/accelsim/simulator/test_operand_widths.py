"""Operands of unequal width and signedness: every pair on every dataflow, in every overflow mode, on both engines."""

import numpy as np
import pytest

import accelsim as ax
from tests.accelsim.simulator.gemm_cases import DATAFLOWS, assert_equal, flatten
from tests.naive import gemm as naive

PAIRS = ((2, 8), (8, 2), (4, 8), (8, 8), (8, 16), (16, 8), (16, 16), (1, 1), (1, 16))


def limits(bits, signed):
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def operand(rng, shape, bits, signed):
    """Random codes, the ends of the range among them in every row."""
    low, high = limits(bits, signed)
    values = rng.integers(low, high + 1, size=shape)
    values[:, 0], values[:, -1] = low, high
    return values


@pytest.mark.parametrize("signs", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize(("weight_bits", "activation_bits"), PAIRS)
@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_every_pair_of_widths_equals_the_oracle(dataflow, weight_bits, activation_bits, signs):
    rng = np.random.default_rng([weight_bits, activation_bits, *signs])
    weights = operand(rng, (3, 9), weight_bits, signs[0])
    activations = operand(rng, (9, 4), activation_bits, signs[1])
    product = weight_bits + activation_bits
    grid = {
        "rows": 2, "columns": 3, "dataflow": dataflow, "weight_bits": weight_bits, "activation_bits": activation_bits,
    }  # fmt: skip
    overflowed = set()
    # A register as wide as a product overflows; one that is wider by the terms of the sum, signs included, does not.
    for bits in (max(4, product - 1), max(4, product), product + 6):
        for overflow in ("wrap", "saturate", "error"):
            machine = ax.Machine(
                **grid, accumulator_bits=bits, partial_sum_bits=bits, adder_tree_bits=bits, overflow=overflow
            )
            expected = naive.gemm(weights.tolist(), activations.tolist(), machine)
            events = any(output.events or output.partial_events for output in flatten(expected))
            if events:
                overflowed.add(bits)
            for engine in ("stepped", "fast"):
                if overflow == "error" and events:
                    with pytest.raises(ax.AccumulatorOverflowError):
                        ax.matmul(weights, activations, machine, engine=engine)
                else:
                    result = ax.matmul(weights, activations, machine, engine=engine, track="range")
                    assert_equal(result, expected, "range")
    assert product + 6 not in overflowed
    if product > 2:
        assert overflowed


@pytest.mark.parametrize(("weight_bits", "activation_bits"), PAIRS)
def test_a_pe_takes_both_signs_of_its_width_and_nothing_wider(weight_bits, activation_bits):
    machine = ax.Machine(weight_bits=weight_bits, activation_bits=activation_bits)
    for name, bits in (("weights", weight_bits), ("activations", activation_bits)):
        for signed in (True, False):
            low, high = limits(bits, signed)
            other = [[0], [0]]
            for values in ([[low, high]], [[low - 1, high]], [[low, high + 1]]):
                fits = any(
                    least <= min(values[0]) and max(values[0]) <= most
                    for least, most in (limits(bits, True), limits(bits, False))
                )
                arguments = (values, other) if name == "weights" else ([[0]], values)
                if fits:
                    ax.matmul(*arguments, machine)
                else:
                    with pytest.raises(ax.OperandError, match=name):
                        ax.matmul(*arguments, machine)
