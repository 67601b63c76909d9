"""Operations, accesses, zero operands and bit toggles: docs/energy.md, counted while walking the loops."""

from collections import Counter
from itertools import product

from tests.naive import timing
from tests.naive.gemm import truncated
from tests.naive.integers import Register


def bits_of_sum(bits, terms):
    """Width of a sum of some terms: one bit more each time the number of terms doubles, rounded up."""
    while terms > 1:
        bits, terms = bits + 1, -(-terms // 2)
    return bits


class Widths:
    """Widths in a machine: docs/energy.md section 1."""

    def __init__(self, machine, weight_bits, activation_bits):
        wider = machine.zero_point == "at_input"
        self.weight = (weight_bits if machine.weight_bits is None else machine.weight_bits) + wider
        self.activation = (activation_bits if machine.activation_bits is None else machine.activation_bits) + wider
        self.exact = self.weight + self.activation
        self.product = max(1, self.exact - machine.product_shift_bits)
        self.accumulator = machine.accumulator_bits
        if machine.dataflow == "broadcast":
            chosen, terms = machine.adder_tree_bits, machine.columns
        else:
            chosen, terms = machine.partial_sum_bits, machine.rows
        self.inner = min(64, bits_of_sum(self.product, terms)) if chosen is None else chosen


def count(N, K, P, machine, widths, asymmetric):
    """Walk one GEMM; ``asymmetric`` says of each channel whether z_w is not 0.

    Returns operations by (kind, a, b), accesses by (place, what, bits) without those of timing.md section 5.
    """
    operations, accesses = Counter(), Counter()
    late = machine.pe_latency_cycles - 1
    weight = "register", "weight", widths.weight
    activation = "register", "activation", widths.activation
    accumulator = "register", "accumulator", widths.accumulator
    partial = "register", "partial_sum", widths.inner
    for _ in product(range(N), range(P)):
        accesses[accumulator] += 1  # the start value

    def multiply():
        operations["multiply", widths.weight, widths.activation] += 1
        accesses["register", "product", widths.product] += late
        if machine.product_shift_bits > 0 and machine.product_rounding != "floor":
            operations["add", widths.exact, widths.exact] += 1

    for fold in timing.folds(N, K, P, machine):
        if machine.dataflow == "output_stationary":
            for _, _, _ in product(fold.rows, fold.columns, range(K)):
                multiply()
                accesses[weight] += 1
                accesses[activation] += 1
                operations["add", widths.accumulator, widths.product] += 1
                accesses[accumulator] += 1
        elif machine.dataflow == "broadcast":
            for _ in fold.rows:
                for first in range(0, K, machine.columns):
                    for k in range(first, min(first + machine.columns, K)):
                        multiply()
                        accesses[weight] += 1
                        accesses[activation] += 1
                        if k > first:  # a tree of k inputs has k - 1 adders
                            operations["add", widths.inner, widths.product] += 1
                    operations["add", widths.accumulator, widths.inner] += 1
                    accesses[accumulator] += 1
        else:
            kept, moving, length = weight, activation, P
            if machine.dataflow == "input_stationary":
                kept, moving, length = activation, weight, N
            for _ in product(fold.rows, fold.columns):
                accesses[kept] += 1
            for _, _ in product(fold.columns, range(length)):
                for row, _ in enumerate(fold.rows):
                    multiply()
                    accesses[moving] += 1
                    accesses[partial] += 1
                    if row > 0:  # above the first row is 0
                        operations["add", widths.inner, widths.product] += 1
                operations["add", widths.accumulator, widths.inner] += 1
                accesses[accumulator] += 1
    if any(asymmetric):
        row_sum = bits_of_sum(widths.activation, K)
        for _, _ in product(range(P), range(K)):
            operations["add", row_sum, widths.activation] += 1
            accesses["register", "row_sum", row_sum] += 1
        for _, needed in product(range(P), asymmetric):
            if needed:
                operations["multiply", widths.weight, row_sum] += 1
                operations["add", widths.accumulator, widths.weight + row_sum] += 1
    return +operations, +accesses


def zero_operands(W, X):
    """Count products with a zero weight, a zero activation, either: (9)."""
    pairs = [(W[n][k], X[k][p]) for n, k, p in product(range(len(W)), range(len(X)), range(len(X[0])))]
    return (
        sum(w == 0 for w, _ in pairs),
        sum(x == 0 for _, x in pairs),
        sum(w == 0 or x == 0 for w, x in pairs),
    )


class Wire:
    """Something that holds bits; it counts how many change."""

    def __init__(self, bits, value=0):
        self.bits, self.value, self.toggles = bits, value, 0

    def take(self, value):
        changed = (value % 2**self.bits) ^ (self.value % 2**self.bits)
        self.toggles += changed.bit_count()
        self.value = value


def toggles(W, X, starts, machine, widths):
    """Walk the registers of one GEMM, fold by fold and cycle by cycle: (10) and (11).

    Returns toggles of weights, activations, products, sums. ``starts`` in units of a product.
    """
    N, K, P = len(W), len(X), len(X[0])
    cycles, _ = timing.trace(W, X, starts, machine)
    folds = timing.folds(N, K, P, machine)
    in_rows = machine.dataflow == "broadcast"
    chained = machine.dataflow in ("weight_stationary", "input_stationary")
    kept = {"weight_stationary": "weight", "input_stationary": "activation"}.get(machine.dataflow)
    total = Counter()
    holders = {place: Wire(getattr(widths, kept)) for place in _places(machine)} if kept else {}
    for index, fold in enumerate(folds):
        steps = [cycle for cycle in cycles if cycle.fold == index]
        for (i, j), wire in holders.items():
            used = i < len(fold.rows) and j < len(fold.columns)
            if used and kept == "weight":
                wire.take(W[fold.columns[j]][fold.rows[i]])
            elif used:
                wire.take(X[fold.rows[i]][fold.columns[j]])
            else:
                wire.take(0)
        for place in _places(machine):
            weight, activation = Wire(widths.weight), Wire(widths.activation)
            made = Wire(widths.product)
            for cycle in [*steps, timing.Cycle(index)]:  # the last one is the bubble after the fold
                w, x = cycle.weights.get(place, 0), cycle.activations.get(place, 0)
                weight.take(w)
                activation.take(x)
                made.take(truncated(w * x, machine))
            total["weight"] += 0 if kept == "weight" else weight.toggles
            total["activation"] += 0 if kept == "activation" else activation.toggles
            total["product"] += made.toggles
            if chained:
                wire = Wire(widths.inner)
                for cycle in [*steps, timing.Cycle(index)]:
                    wire.take(cycle.accumulators.get(place, 0))
                total["sum"] += wire.toggles
            elif not in_rows and place[0] < len(fold.rows) and place[1] < len(fold.columns):
                total["sum"] += _resident(steps, "accumulators", place, starts[fold.columns[place[1]]], machine)
        if in_rows:
            for i, n in enumerate(fold.rows):
                total["sum"] += _resident(steps, "row_accumulators", i, starts[n], machine)
    if kept:
        total[kept] = sum(wire.toggles for wire in holders.values())
    return tuple(total[name] for name in ("weight", "activation", "product", "sum"))


def _places(machine):
    return list(product(range(machine.rows), range(machine.columns)))


def _resident(steps, name, place, start, machine):
    """Count the toggles of an accumulator after it was loaded."""
    loaded = Register(machine.accumulator_bits, machine.overflow).ov(truncated(start, machine))
    wire = Wire(machine.accumulator_bits, loaded)
    for cycle in steps:
        wire.take(getattr(cycle, name)[place])
    return wire.toggles
