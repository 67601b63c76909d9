"""Our own Verilog arrays against the stepped grid: every register after every clock edge, outputs, events, cycles."""

import numpy as np
import pytest

import accelsim as ax
from accelsim.report.vectors import write_vectors
from tests.naive.gemm import gemm
from tests.rtl.simulator import RULES, require_simulator, simulate

DATAFLOWS = ("output_stationary", "weight_stationary")
MACHINES_PER_DATAFLOW = 26
CASES_PER_MACHINE = 5


def machine_for(dataflow, seed, rng):
    """Return a machine: wrap and saturate in turn; widths in which sums overflow and widths in which they do not."""
    pick = rng.choice
    shift = int(pick([0, 0, 0, 1, 3, 7]))
    return ax.Machine(
        rows=int(rng.integers(1, 6)),
        columns=int(rng.integers(1, 6)),
        dataflow=dataflow,
        overflow=("wrap", "saturate")[seed % 2],
        accumulator_bits=int(pick([8, 9, 10, 12, 14, 16, 18, 24, 64])),
        partial_sum_bits=None if seed % 5 == 0 else int(pick([6, 9, 14, 16, 18, 32])),
        product_shift_bits=shift,
        product_rounding=str(pick(list(RULES))),
        pe_latency_cycles=int(pick([1, 1, 1, 2, 4])),
        ragged_folds=("used", "full")[seed // 2 % 2],
    )


def operands_for(machine, rng):
    """Return (weights, activations, bias) of a GEMM of up to three folds a side, of random width and signedness."""
    N, K, P = (int(rng.integers(1, 13)) for _ in range(3))

    def operand(shape):
        bits, signed = int(rng.choice([1, 2, 4, 4, 8, 8, 16])), bool(rng.integers(2))
        low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
        values = rng.integers(low, high + 1, size=shape)
        # Ends of the range are where sums leave narrow registers and may come back.
        return np.where(rng.random(shape) < 0.3, rng.choice([low, high], size=shape), values)

    # Near the ends of its range an accumulator overflows soon, whatever its width; `half` itself does not fit.
    half = min(1 << (machine.accumulator_bits - 1), 1 << 50)
    bias = rng.choice([-half, half], size=N) * (rng.random(N) < 0.7) + rng.integers(-half // 8, half // 8, size=N)
    return operand((N, K)), operand((K, P)), bias


def assert_equal_registers(result, registers, machine):
    """Compare what the PEs of each fold held with the trace; index 0 is after the first multiply cycle."""
    trace = result.trace
    assert registers.cycles == {name: getattr(result.cycles, name) for name in ("load", "multiply", "drain")}
    assert np.array_equal(registers.fold, trace.fold)
    assert np.array_equal(registers.outputs, result.accumulators)
    assert np.array_equal(registers.events, result.overflow_events)
    assert np.array_equal(registers.partial_events, result.partial_overflow_events)
    for cycle, (used, stepped) in enumerate(windows(result, machine)):
        for names, window in ((("weights", "activations"), used), (("accumulators", "overflow"), stepped)):
            for name in names:
                assert np.array_equal(getattr(registers, name)[cycle][window], getattr(trace, name)[cycle][window]), (
                    name
                )
    if machine.dataflow == "weight_stationary":
        assert np.array_equal(registers.column_accumulators, trace.column_accumulators)
        assert np.array_equal(registers.column_overflow, trace.column_overflow)


def windows(result, machine):
    """Yield per cycle the PEs that a fold uses and the PEs that it steps, docs/timing.md section 1."""
    N, P = result.accumulators.shape
    if machine.dataflow == "output_stationary":
        tiles = [(min(machine.rows, P - p), min(machine.columns, N - n))
                 for n in range(0, N, machine.columns) for p in range(0, P, machine.rows)]  # fmt: skip
    else:
        K = result.operations.multiplications // (N * P)
        tiles = [(min(machine.rows, K - k), min(machine.columns, N - n))
                 for n in range(0, N, machine.columns) for k in range(0, K, machine.rows)]  # fmt: skip
    for fold in result.trace.fold:
        used = np.s_[: tiles[fold][0], : tiles[fold][1]]
        yield used, np.s_[:, :] if machine.ragged_folds == "full" else used


def run(machine, cases, work, **changed_parameters):
    """Return pairs of the stepped grid's result and the array's Registers."""
    folders, results = [], []
    for number, (weights, activations, bias) in enumerate(cases):
        folder = work / f"case_{number}"
        write_vectors(folder, weights=weights, activations=activations, bias=bias, machine=machine)
        folders.append(folder)
        results.append(ax.matmul(weights, activations, machine, bias=bias, engine="stepped", trace=True))
    return list(zip(results, simulate(machine, folders, work, **changed_parameters), strict=True))


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("seed", range(MACHINES_PER_DATAFLOW))
def test_random_cases(dataflow, seed, tmp_path):
    require_simulator()
    rng = np.random.default_rng([seed, DATAFLOWS.index(dataflow)])
    machine = machine_for(dataflow, seed, rng)
    cases = [operands_for(machine, rng) for _ in range(CASES_PER_MACHINE)]
    pairs = run(machine, cases, tmp_path)
    assert len(pairs) == CASES_PER_MACHINE
    for result, registers in pairs:
        assert_equal_registers(result, registers, machine)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_random_cases_reach_what_they_are_for(dataflow):
    """Without this, a change of the generator could leave the comparison with cases in which nothing happens."""
    seen = {"wrap": 0, "saturate": 0, "partial": 0, "came back": 0, "folds": 0, "pipelined": 0, "truncated": 0}
    for seed in range(MACHINES_PER_DATAFLOW):
        rng = np.random.default_rng([seed, DATAFLOWS.index(dataflow)])
        machine = machine_for(dataflow, seed, rng)
        for _ in range(CASES_PER_MACHINE):
            weights, activations, bias = operands_for(machine, rng)
            result = ax.matmul(weights, activations, machine, bias=bias, track="range")
            half = 1 << (machine.accumulator_bits - 1)
            overflowed = result.overflow_events > 0
            exact = ax.matmul(weights, activations, machine.replace(accumulator_bits=64), bias=bias).accumulators
            seen[machine.overflow] += bool(overflowed.any())
            seen["partial"] += bool(result.partial_overflow_events.any())
            seen["came back"] += bool((overflowed & (-half <= exact) & (exact < half)).any())
            seen["folds"] += weights.shape[0] > machine.columns and weights.shape[1] > machine.rows
            seen["pipelined"] += machine.pe_latency_cycles > 1
            seen["truncated"] += machine.product_shift_bits > 0
    if dataflow == "output_stationary":
        del seen["partial"]
    assert min(seen.values()) >= 20, seen


TRANSIENT = ([[100, 100, -100], [-100, -100, 100]], [[1], [1], [1]], [0, 0])
"""The exact sums, 100 and -100, fit 8 bits; the sums on the way to them do not."""


@pytest.mark.parametrize(("overflow", "expected"), [("wrap", [100, -100]), ("saturate", [27, -28])])
@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_transient_overflow(dataflow, overflow, expected, tmp_path):
    require_simulator()
    machine = ax.Machine(
        rows=3, columns=2, dataflow=dataflow, accumulator_bits=8, partial_sum_bits=8, overflow=overflow
    )
    [(result, registers)] = run(machine, [TRANSIENT], tmp_path)
    assert_equal_registers(result, registers, machine)
    assert registers.outputs[:, 0].tolist() == expected
    events = registers.partial_events if dataflow == "weight_stationary" else registers.events
    # Adding the third product to a wrapped sum, -56 or 56, leaves the range again.
    assert events.tolist() == ([[2], [2]] if overflow == "wrap" else [[1], [1]])


@pytest.mark.parametrize("overflow", ["wrap", "saturate"])
@pytest.mark.parametrize("bits", [16, 18])
@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_narrow_accumulators_of_a_long_reduction(dataflow, bits, overflow, tmp_path):
    """8x8 bits and 60 terms: sums wander out of 16 and 18 bits and back; the oracle is asked, too."""
    require_simulator()
    rng = np.random.default_rng(bits)
    machine = ax.Machine(
        rows=4, columns=4, dataflow=dataflow, accumulator_bits=bits, partial_sum_bits=bits, overflow=overflow
    )
    drift = np.where(np.arange(60) < 30, 1, -1)
    weights = rng.integers(60, 128, size=(4, 60)) * drift
    activations = rng.integers(60, 128, size=(60, 5))
    [(result, registers)] = run(machine, [(weights, activations, np.zeros(4, dtype=np.int64))], tmp_path)
    assert_equal_registers(result, registers, machine)
    expected = gemm(weights.tolist(), activations.tolist(), machine)
    assert registers.outputs.tolist() == [[output.accumulator for output in row] for row in expected]
    assert registers.events.tolist() == [[output.events for output in row] for row in expected]
    assert registers.events.min() >= 1
    exact = weights @ activations
    half = 1 << (bits - 1)
    returned = (-half <= exact) & (exact < half)
    assert returned.any()
    assert np.array_equal(registers.outputs[returned], exact[returned]) == (overflow == "wrap")


@pytest.mark.parametrize(
    ("dataflow", "change"),
    [
        ("output_stationary", {"SATURATE": 0}),
        ("output_stationary", {"ACC_BITS": 9}),
        ("output_stationary", {"LATENCY": 2}),
        ("weight_stationary", {"SATURATE": 0}),
        ("weight_stationary", {"PARTIAL_BITS": 9}),
        ("weight_stationary", {"LATENCY": 2}),
    ],
)
def test_a_wrong_array_is_noticed(dataflow, change, tmp_path):
    require_simulator()
    machine = ax.Machine(
        rows=3, columns=2, dataflow=dataflow, accumulator_bits=8, partial_sum_bits=8, overflow="saturate"
    )
    [(result, registers)] = run(machine, [TRANSIENT], tmp_path, **change)
    with pytest.raises(AssertionError):
        assert_equal_registers(result, registers, machine)
