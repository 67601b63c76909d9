"""One GEMM: docs/numerics.md (7), (8) and section 3, output by output and addition by addition."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate as running_sums
from math import ceil, floor

from tests.naive.integers import Register
from tests.naive.rounding import rnd_quotient


@dataclass(frozen=True)
class Output:
    accumulator: int
    events: int
    first_overflow: int
    partial_events: int
    range_min: int
    range_max: int


def terms(weights, activations, bias, z_w, z_x, zero_point):
    """Return the products, the start value and the last addend (None where there is none) of one output."""
    if zero_point == "at_input":
        return [(w - z_w) * (x - z_x) for w, x in zip(weights, activations, strict=True)], bias, None
    products = [w * x for w, x in zip(weights, activations, strict=True)]
    start = bias - z_x * sum(weights) + len(weights) * z_w * z_x
    last = -z_w * sum(activations) if z_w != 0 else None
    return products, start, last


def truncated(value, machine):
    """(13a): what a PE passes on of a product, and what becomes of the start value and of (8)."""
    return rnd_quotient(value, 2**machine.product_shift_bits, machine.product_rounding)


def tiles(sequence, length):
    return [sequence[i : i + length] for i in range(0, len(sequence), length)]


def inner_register(machine):
    bits = machine.adder_tree_bits if machine.dataflow == "broadcast" else machine.partial_sum_bits
    return Register(bits, machine.overflow)


def addends(products, machine, inner):
    """Return (what the accumulator is given, its exact value) for each addition of (13) to (16)."""
    if machine.dataflow == "output_stationary":
        return [(m, m) for m in products]
    if machine.dataflow == "broadcast":
        return [(inner.ov(sum(tile)), sum(tile)) for tile in tiles(products, machine.columns)]
    additions = []
    for tile in tiles(products, machine.rows):
        c = 0
        for m in tile:
            c = inner.ov(c + m)
        additions.append((c, sum(tile)))
    return additions


def accumulate(products, start, last, machine):
    """Return the Output of one accumulator."""
    if machine.product_shift_bits:
        products, start = [truncated(m, machine) for m in products], truncated(start, machine)
        last = None if last is None else truncated(last, machine)
    accumulator, inner = Register(machine.accumulator_bits, machine.overflow), inner_register(machine)
    additions = addends(products, machine, inner)
    if last is not None:
        additions.append((last, last))
    value = accumulator.ov(start)
    first = 0 if accumulator.events else -1
    for number, (addend, _) in enumerate(additions):
        value = accumulator.ov(value + addend)
        if accumulator.events and first == -1:
            first = number
    exact = list(running_sums((exact_addend for _, exact_addend in additions), initial=start))
    return Output(value, accumulator.events, first, inner.events, min(exact), max(exact))


def gemm(weights, activations, machine, bias=None, weight_zero_points=None, activation_zero_point=0):
    """Return the Outputs [n][p] of lists W[n][k] and X[k][p]."""
    bias = bias or [0] * len(weights)
    weight_zero_points = weight_zero_points or [0] * len(weights)
    columns = list(zip(*activations, strict=True))
    return [
        [
            accumulate(*terms(row, column, b, z_w, activation_zero_point, machine.zero_point), machine)
            for column in columns
        ]
        for row, b, z_w in zip(weights, bias, weight_zero_points, strict=True)
    ]


def bounds(weights, x_low, x_high, start, z_w, machine):
    """(17) and (18): where any partial sum of the products lies, with truncated products as well."""
    unit = 2**machine.product_shift_bits
    d = Fraction(abs(z_w) * len(weights) * max(abs(x_low), abs(x_high)), unit)
    start = Fraction(start, unit)
    low = floor(start) + sum(floor(Fraction(min(0, w * x_low, w * x_high), unit)) for w in weights) - ceil(d)
    high = ceil(start) + sum(ceil(Fraction(max(0, w * x_low, w * x_high), unit)) for w in weights) + ceil(d)
    return low, high
