"""Memory traffic: docs/timing.md section 5, by walking the loops and counting what happens.

Nothing here is multiplied out. Every fold's multiply cycles are walked, every element that crosses the edge of the
grid is counted when it does, and what is resident in a buffer is an explicit set.
"""

from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from math import inf

from tests.naive.timing import folds


@dataclass
class Walk:
    """What is seen on the way, in elements; keys are ``("W", n, k)``, ``("X", k, p)``, ``("Y", n, p)``."""

    weight_reads: int = 0
    activation_reads: int = 0
    partial_sum_writes: int = 0
    partial_sum_reads: int = 0
    output_writes: int = 0
    weights_used: list = field(default_factory=list)
    """The weights that each fold uses, in the order of the folds."""
    inputs_used: list = field(default_factory=list)
    """The activations likewise."""
    outer: list = field(default_factory=list)
    """The outer tile that each fold belongs to."""
    most_waiting: int = 0
    """The most accumulators that wait below the grid at a time."""

    def read(self, key, fold_uses):
        """An element crosses the edge of the grid."""
        fold_uses[key[0]].add(key)
        if key[0] == "W":
            self.weight_reads += 1
        else:
            self.activation_reads += 1


def walk(num_outputs, reduction, num_positions, machine):
    """Walk all cycles of all folds of one GEMM."""
    seen, left = Walk(), Counter()
    for n in range(num_outputs):
        for p in range(num_positions):
            left["Y", n, p] = reduction  # terms that the output still lacks
    enter = {
        "output_stationary": _output_stationary,
        "weight_stationary": _weight_stationary,
        "input_stationary": _input_stationary,
        "broadcast": _broadcast,
    }[machine.dataflow]
    waiting = set()
    for fold in folds(num_outputs, reduction, num_positions, machine):
        uses = {"W": set(), "X": set()}
        outer, outputs = enter(seen, uses, fold, num_outputs, reduction, num_positions, machine)
        for key, terms in outputs.items():
            if key in waiting:
                waiting.remove(key)
                seen.partial_sum_reads += 1
            left[key] -= terms
            if left[key] == 0:
                seen.output_writes += 1
            else:
                waiting.add(key)
                seen.partial_sum_writes += 1
        seen.most_waiting = max(seen.most_waiting, len(waiting))
        seen.weights_used.append(uses["W"])
        seen.inputs_used.append(uses["X"])
        seen.outer.append(outer)
    assert not waiting
    assert set(left.values()) == {0}
    return seen


def _output_stationary(seen, uses, fold, N, K, P, machine):
    outputs = Counter()
    for t in range(fold.multiply):
        for i, p in enumerate(fold.rows):  # the left edge, skewed by i
            if 0 <= t - i < K:
                seen.read(("X", t - i, p), uses)
        for j, n in enumerate(fold.columns):  # the top edge, skewed by j
            if 0 <= t - j < K:
                seen.read(("W", n, t - j), uses)
        for i, p in enumerate(fold.rows):
            for j, n in enumerate(fold.columns):
                outputs["Y", n, p] += 0 <= t - i - j < K
    return fold.columns, outputs


def _weight_stationary(seen, uses, fold, N, K, P, machine):
    outputs = Counter()
    for k in fold.rows:
        for n in fold.columns:
            seen.read(("W", n, k), uses)
    for t in range(fold.multiply):
        for i, k in enumerate(fold.rows):
            if 0 <= t - i < P:
                seen.read(("X", k, t - i), uses)
            for j, n in enumerate(fold.columns):
                if 0 <= t - i - j < P:
                    outputs["Y", n, t - i - j] += 1
    return fold.columns, outputs


def _input_stationary(seen, uses, fold, N, K, P, machine):
    outputs = Counter()
    for k in fold.rows:
        for p in fold.columns:
            seen.read(("X", k, p), uses)
    for t in range(fold.multiply):
        for i, k in enumerate(fold.rows):
            if 0 <= t - i < N:
                seen.read(("W", t - i, k), uses)
            for j, p in enumerate(fold.columns):
                if 0 <= t - i - j < N:
                    outputs["Y", t - i - j, p] += 1
    return fold.columns, outputs


def _broadcast(seen, uses, fold, N, K, P, machine):
    outputs, (p,) = Counter(), fold.columns
    for t in range(fold.multiply):
        for j in range(machine.columns):
            k = t * machine.columns + j
            if k < K:
                seen.read(("X", k, p), uses)  # one wire for all rows
                for n in fold.rows:
                    seen.read(("W", n, k), uses)
                    outputs["Y", n, p] += 1
    return fold.rows, outputs


def must_stay(used):
    """Return the most elements that are used from one use of an element to its next one, in a list of sets."""
    most, last = 0, {}
    for index, fold in enumerate(used):
        for key in fold:
            if key in last:
                most = max(most, len(set().union(*used[last[key] : index])))
            last[key] = index
    return most


def size_of(elements, bits):
    """Whole bytes."""
    full, rest = divmod(elements * bits, 8)
    return full + (rest > 0)


def fetched(used, bits, buffer):
    """Return the bytes that come from DRAM: an element that is not resident is fetched.

    With room for what must stay, everything stays that has come; without, a fold finds nothing of the folds before it.
    Each pass over the whole operand is a stream of whole bytes.
    """
    keeps = buffer is None or size_of(must_stay(used), bits) <= buffer
    resident, fetches = set(), Counter()
    for fold in used:
        if not keeps:
            resident = set()
        fetches.update(fold - resident)
        resident |= fold
    (passes,) = set(fetches.values())  # a pass is a pass over all of it
    return passes * size_of(len(fetches), bits)


def passes_over(used, outer):
    """Merge the uses of the folds of each outer tile: in one pass of the inner loop every input is fetched once."""
    merged = []
    for index, fold in enumerate(used):
        if index and outer[index] == outer[index - 1]:
            merged[-1] = merged[-1] | fold
        else:
            merged.append(set(fold))
    return merged


@dataclass(frozen=True)
class Widths:
    weight: int = 8
    activation: int = 8
    output: int = 8


def dram_bytes(seen, machine, widths, stored=None):
    """Count the bytes between DRAM and the buffers of one GEMM, (19) to (22).

    ``stored`` says which element of the stored tensor an activation ("X", k, p) is, None for a padded tap; without it
    every activation is an element of its own.
    """
    memory = machine.memory
    inputs = seen.inputs_used
    if stored is not None:
        inputs = [{stored[key] for key in fold} - {None} for fold in inputs]
        inputs = passes_over(inputs, seen.outer)
        if machine.dataflow == "input_stationary":  # the outer loop goes over the inputs: one pass
            inputs = [set().union(*inputs)]
    sums = seen.partial_sum_writes, seen.partial_sum_reads
    room = inf if memory.output_buffer_bytes is None else memory.output_buffer_bytes
    bits = machine.accumulator_bits
    spilled = 0 if size_of(seen.most_waiting, bits) <= room else sum(size_of(count, bits) for count in sums)
    return (
        fetched(seen.weights_used, widths.weight, memory.weight_buffer_bytes)
        + fetched(inputs, widths.activation, memory.activation_buffer_bytes)
        + spilled
        + size_of(seen.output_writes, widths.output)
    )


def stall(busy, num_bytes, bandwidth):
    """Wait until DRAM has moved everything, (23): ``bandwidth``, as it is written, more bytes with every cycle."""
    cycles, moved = 0, Fraction(0)
    while moved < num_bytes:
        cycles += 1
        moved += Fraction(str(bandwidth))
    return max(0, cycles - busy)
