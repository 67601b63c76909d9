"""Cycles: docs/timing.md, fold by fold, and what each PE does, cycle by cycle."""

from dataclasses import dataclass, field
from itertools import product

from tests.naive.gemm import inner_register
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

    def used(rows, columns):
        return (R, C) if machine.ragged_folds == "full" else (len(rows), len(columns))

    result = []
    match machine.dataflow:
        case "output_stationary":
            for columns, rows in product(cut(N, C), cut(P, R)):
                r, c = used(rows, columns)
                result.append(Fold(rows, columns, 0, K + r + c - 2, r))
        case "weight_stationary":
            for columns, rows in product(cut(N, C), cut(K, R)):
                r, c = used(rows, columns)
                result.append(Fold(rows, columns, r, P + r + c - 2, 0))
        case "input_stationary":
            for columns, rows in product(cut(P, C), cut(K, R)):
                r, c = used(rows, columns)
                result.append(Fold(rows, columns, r, N + r + c - 2, 0))
        case "broadcast":
            for rows, position in product(cut(N, R), range(P)):
                result.append(Fold(rows, range(position, position + 1), 1, -(-K // C), 1))
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
    """The registers after one multiply cycle, {(i, j): value}; PEs in a bubble have no operands."""

    fold: int
    accumulators: dict = field(default_factory=dict)
    weights: dict = field(default_factory=dict)
    activations: dict = field(default_factory=dict)
    row_accumulators: dict = field(default_factory=dict)


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
    values = {(n, p): accumulator.ov(starts[n]) for n in range(N) for p in range(P)}
    cycles = []
    for index, fold in enumerate(folds(N, K, P, machine)):
        walk(weights, activations, index, fold, machine, accumulator, inner, values, cycles)
    return cycles, values


def _walk_output_stationary(W, X, index, fold, machine, accumulator, inner, values, cycles):
    K = len(X)
    for t in range(fold.multiply):
        cycle = Cycle(index)
        for (i, p), (j, n) in product(enumerate(fold.rows), enumerate(fold.columns)):
            k = t - i - j
            if 0 <= k < K:
                values[n, p] = accumulator.ov(values[n, p] + W[n][k] * X[k][p])
                cycle.weights[i, j], cycle.activations[i, j] = W[n][k], X[k][p]
            cycle.accumulators[i, j] = values[n, p]
        cycles.append(cycle)


def _walk_weight_stationary(W, X, index, fold, machine, accumulator, inner, values, cycles):
    P = len(X[0])
    sums = {}  # the partial-sum registers; what enters the top is 0
    for t in range(fold.multiply):
        cycle = Cycle(index)
        for (i, k), (j, n) in product(enumerate(fold.rows), enumerate(fold.columns)):
            p = t - i - j
            cycle.accumulators[i, j] = 0
            if 0 <= p < P:
                cycle.accumulators[i, j] = inner.ov(sums.get((i - 1, j), 0) + W[n][k] * X[k][p])
                cycle.weights[i, j], cycle.activations[i, j] = W[n][k], X[k][p]
                if i == len(fold.rows) - 1:
                    values[n, p] = accumulator.ov(values[n, p] + cycle.accumulators[i, j])
        sums = cycle.accumulators
        cycles.append(cycle)


def _walk_input_stationary(W, X, index, fold, machine, accumulator, inner, values, cycles):
    N = len(W)
    sums = {}
    for t in range(fold.multiply):
        cycle = Cycle(index)
        for (i, k), (j, p) in product(enumerate(fold.rows), enumerate(fold.columns)):
            n = t - i - j
            cycle.accumulators[i, j] = 0
            if 0 <= n < N:
                cycle.accumulators[i, j] = inner.ov(sums.get((i - 1, j), 0) + W[n][k] * X[k][p])
                cycle.weights[i, j], cycle.activations[i, j] = W[n][k], X[k][p]
                if i == len(fold.rows) - 1:
                    values[n, p] = accumulator.ov(values[n, p] + cycle.accumulators[i, j])
        sums = cycle.accumulators
        cycles.append(cycle)


def _walk_broadcast(W, X, index, fold, machine, accumulator, inner, values, cycles):
    K, (p,) = len(X), fold.columns
    for t in range(fold.multiply):
        cycle = Cycle(index)
        for i, n in enumerate(fold.rows):
            total = 0
            for j in range(machine.columns):
                k = t * machine.columns + j
                cycle.accumulators[i, j] = W[n][k] * X[k][p] if k < K else 0
                if k < K:
                    cycle.weights[i, j], cycle.activations[i, j] = W[n][k], X[k][p]
                total += cycle.accumulators[i, j]
            values[n, p] = accumulator.ov(values[n, p] + inner.ov(total))
            cycle.row_accumulators[i] = values[n, p]
        cycles.append(cycle)
