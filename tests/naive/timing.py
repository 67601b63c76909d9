"""Cycles: docs/timing.md, fold by fold, and what each PE does, cycle by cycle."""

from dataclasses import dataclass, field
from itertools import product

from tests.naive.gemm import inner_register, truncated
from tests.naive.integers import Register


@dataclass(frozen=True)
class Fold:
    """One pair of tiles; ``rows`` and ``columns`` are the indices that the grid's rows and columns hold."""

    rows: range
    columns: range
    load: int
    multiply: int
    drain: int


def cut(length, size):
    return [range(begin, min(begin + size, length)) for begin in range(0, length, size)]


def folds(num_outputs, reduction, num_positions, machine):
    """Return the folds in their order: docs/timing.md sections 1 and 2."""
    R, C = machine.rows, machine.columns
    N, K, P = num_outputs, reduction, num_positions
    late = machine.pe_latency_cycles - 1  # (4a)

    def used(rows, columns):
        return (R, C) if machine.ragged_folds == "full" else (len(rows), len(columns))

    result = []
    match machine.dataflow:
        case "output_stationary":
            for columns, rows in product(cut(N, C), cut(P, R)):
                r, c = used(rows, columns)
                result.append(Fold(rows, columns, 0, K + r + c - 2 + late, r))
        case "weight_stationary":
            for columns, rows in product(cut(N, C), cut(K, R)):
                r, c = used(rows, columns)
                result.append(Fold(rows, columns, r, P + r + c - 2 + late, 0))
        case "input_stationary":
            for columns, rows in product(cut(P, C), cut(K, R)):
                r, c = used(rows, columns)
                result.append(Fold(rows, columns, r, N + r + c - 2 + late, 0))
        case "broadcast":
            for rows, position in product(cut(N, R), range(P)):
                result.append(Fold(rows, range(position, position + 1), 1, -(-K // C) + late, 1))
    return result


@dataclass(frozen=True)
class Cycles:
    load: int
    multiply: int
    drain: int

    @property
    def total(self):
        return self.load + self.multiply + self.drain


def count(num_outputs, reduction, num_positions, machine, groups=1):
    """Walk the folds of all groups and count (9) to (12)."""
    sequence = folds(num_outputs, reduction, num_positions, machine) * groups
    load = drain = 0
    for index, fold in enumerate(sequence):
        behind = sequence[index - 1].multiply if machine.double_buffered and index > 0 else 0
        load += max(0, fold.load - behind)
        ahead = sequence[index + 1].multiply if machine.double_buffered and index + 1 < len(sequence) else 0
        drain += max(0, fold.drain - ahead)
    return Cycles(load, sum(fold.multiply for fold in sequence), drain)


@dataclass
class Cycle:
    """The registers after one multiply cycle, {(i, j): value}; PEs in a bubble have no operands.

    ``row_accumulators`` and ``column_accumulators`` are {i: value} and {j: value}. The sets hold the places of the
    registers that overflowed in the cycle: docs/trace.md (1) to (4).
    """

    fold: int
    accumulators: dict = field(default_factory=dict)
    weights: dict = field(default_factory=dict)
    activations: dict = field(default_factory=dict)
    row_accumulators: dict = field(default_factory=dict)
    column_accumulators: dict = field(default_factory=dict)
    overflow: set = field(default_factory=set)
    row_overflow: set = field(default_factory=set)
    tree_overflow: set = field(default_factory=set)
    column_overflow: set = field(default_factory=set)


def brought_in(register, value, marks, place):
    """Return ``ov(value)``; put the place among the marks where the value did not fit."""
    before = register.events
    inside = register.ov(value)
    if register.events > before:
        marks.add(place)
    return inside


def trace(weights, activations, starts, machine):
    """Walk every PE of every multiply cycle, (5) to (8); return the Cycles and the accumulators {(n, p): value}.

    ``weights`` and ``activations`` are what the PEs multiply, ``starts`` the start value of each channel.
    """
    N, K, P = len(weights), len(activations), len(activations[0])
    walk = {
        "output_stationary": _walk_output_stationary,
        "weight_stationary": _walk_weight_stationary,
        "input_stationary": _walk_input_stationary,
        "broadcast": _walk_broadcast,
    }[machine.dataflow]
    accumulator, inner = Register(machine.accumulator_bits, machine.overflow), inner_register(machine)
    values = {(n, p): accumulator.ov(truncated(starts[n], machine)) for n in range(N) for p in range(P)}
    cycles = []
    for index, fold in enumerate(folds(N, K, P, machine)):
        walk(weights, activations, index, fold, machine, accumulator, inner, values, cycles)
    return cycles, values


def _walk_output_stationary(W, X, index, fold, machine, accumulator, inner, values, cycles):
    K, late = len(X), machine.pe_latency_cycles - 1
    for t in range(fold.multiply):
        cycle = Cycle(index)
        for (i, p), (j, n) in product(enumerate(fold.rows), enumerate(fold.columns)):
            k = t - i - j  # multiplied in this cycle
            if 0 <= k < K:
                cycle.weights[i, j], cycle.activations[i, j] = W[n][k], X[k][p]
            k -= late  # added in this cycle
            if 0 <= k < K:
                total = values[n, p] + truncated(W[n][k] * X[k][p], machine)
                values[n, p] = brought_in(accumulator, total, cycle.overflow, (i, j))
            cycle.accumulators[i, j] = values[n, p]
        cycles.append(cycle)


def _walk_weight_stationary(W, X, index, fold, machine, accumulator, inner, values, cycles):
    def operands(k, n, p):
        return W[n][k], X[k][p]

    _walk_stationary_operand(operands, len(X[0]), index, fold, machine, accumulator, inner, values, cycles)


def _walk_input_stationary(W, X, index, fold, machine, accumulator, inner, values, cycles):
    def operands(k, p, n):
        return W[n][k], X[k][p]

    swapped = Transposed(values)
    _walk_stationary_operand(operands, len(W), index, fold, machine, accumulator, inner, swapped, cycles)


class Transposed:
    """The accumulators under (p, n) instead of (n, p)."""

    def __init__(self, values):
        self.values = values

    def __getitem__(self, place):
        return self.values[place[1], place[0]]

    def __setitem__(self, place, value):
        self.values[place[1], place[0]] = value


def _walk_stationary_operand(operands, length, index, fold, machine, accumulator, inner, values, cycles):
    """(6) and (7): column j belongs to ``other``, and ``length`` values of ``moving`` pass through the grid."""
    late = machine.pe_latency_cycles - 1
    # With "full" the sums pass the rows that are not in use before they leave the grid.
    last = machine.rows - 1 if machine.ragged_folds == "full" else len(fold.rows) - 1
    sums = {}  # the partial-sum registers; what enters the top is 0
    finished = {}  # {(j, moving): the sum after the last row in use}
    for t in range(fold.multiply):
        cycle = Cycle(index)
        for (i, k), (j, other) in product(enumerate(fold.rows), enumerate(fold.columns)):
            moving = t - i - j  # multiplied in this cycle
            if 0 <= moving < length:
                cycle.weights[i, j], cycle.activations[i, j] = operands(k, other, moving)
            moving -= late  # added in this cycle
            cycle.accumulators[i, j] = 0
            if 0 <= moving < length:
                weight, activation = operands(k, other, moving)
                total = sums.get((i - 1, j), 0) + truncated(weight * activation, machine)
                cycle.accumulators[i, j] = finished[j, moving] = brought_in(inner, total, cycle.overflow, (i, j))
        for j, other in enumerate(fold.columns):
            moving = t - last - j - late  # leaves in this cycle
            if 0 <= moving < length:
                total = values[other, moving] + finished[j, moving]
                values[other, moving] = brought_in(accumulator, total, cycle.column_overflow, j)
                cycle.column_accumulators[j] = values[other, moving]
        sums = cycle.accumulators
        cycles.append(cycle)


def _walk_broadcast(W, X, index, fold, machine, accumulator, inner, values, cycles):
    K, (p,), late = len(X), fold.columns, machine.pe_latency_cycles - 1
    for t in range(fold.multiply):
        cycle = Cycle(index)
        for i, n in enumerate(fold.rows):
            total = 0
            for j in range(machine.columns):
                k = t * machine.columns + j  # multiplied in this cycle
                if k < K:
                    cycle.weights[i, j], cycle.activations[i, j] = W[n][k], X[k][p]
                k -= late * machine.columns  # added in this cycle
                cycle.accumulators[i, j] = truncated(W[n][k] * X[k][p], machine) if 0 <= k < K else 0
                total += cycle.accumulators[i, j]
            if t >= late:
                tree = brought_in(inner, total, cycle.tree_overflow, i)
                values[n, p] = brought_in(accumulator, values[n, p] + tree, cycle.row_overflow, i)
            cycle.row_accumulators[i] = values[n, p]
        cycles.append(cycle)
