"""PE-cycles per second of the stepped engine, for each dataflow.

    python benchmarks/stepped.py

A PE-cycle is one PE in one multiply cycle, busy or in a bubble. Times are CPU time of the process on one core, best of
several runs after one that is not counted.
"""

from __future__ import annotations

import platform
import time
from typing import Any, NamedTuple

import numpy as np

import accelsim as ax
from accelsim.tables import text_table

ROUNDS = 7
N, K, P = 64, 576, 256
CASES: tuple[tuple[str, int, dict[str, Any], str], ...] = (
    ("32 bits, wrap", 8, {}, "overflow"),
    ("18 bits, saturate", 8, {"accumulator_bits": 18, "partial_sum_bits": 18, "overflow": "saturate"}, "overflow"),
    ("running range", 8, {}, "range"),
    ("16-bit operands, 40 bits", 16, {"accumulator_bits": 40}, "overflow"),
)
"""Name, width of the operands, fields of the machine, tracking level."""
DATAFLOWS = ("output_stationary", "weight_stationary", "input_stationary", "broadcast")


class Rate(NamedTuple):
    """What the engine did per CPU second."""

    pe_cycles: float
    macs: float
    multiply_cycles: int


def step_rate(
    machine: ax.Machine, num_outputs: int, reduction: int, num_positions: int, track: str, bits: int = 8
) -> Rate:
    """Step a GEMM of random operands, signed weights and unsigned activations, several times.

    Parameters
    ----------
    machine : Machine
        The grid.
    num_outputs, reduction, num_positions : int
        N, K and P.
    track : str
        Tracking level.
    bits : int
        Width of the operands.
    """
    rng = np.random.default_rng(0)
    half = 1 << (bits - 1)
    weights = rng.integers(1 - half, half, (num_outputs, reduction))
    activations = rng.integers(0, 2 * half, (reduction, num_positions))
    times = []
    for _ in range(ROUNDS + 1):
        start = time.process_time()
        result = ax.matmul(weights, activations, machine, engine="stepped", track=track)
        times.append(time.process_time() - start)
    cycles, seconds = result.cycles.multiply, min(times[1:])
    return Rate(
        cycles * machine.num_pes / seconds, num_outputs * reduction * num_positions / seconds, cycles
    )  # fmt: skip


def main() -> None:
    """Print the table."""
    rows = []
    for size in (16, 32):
        for dataflow in DATAFLOWS:
            for name, bits, machine_fields, track in CASES:
                machine = ax.Machine(rows=size, columns=size, dataflow=dataflow, **machine_fields)
                rate = step_rate(machine, N, K, P, track, bits)
                rows.append(
                    [f"{size}x{size}", dataflow, name, f"{rate.multiply_cycles:,}", f"{rate.pe_cycles / 1e6:,.0f}",
                     f"{rate.macs / 1e6:,.0f}"]
                )  # fmt: skip
    print(f"{platform.machine()}, Python {platform.python_version()}, {N}x{K}x{P}, one core, no trace")
    print(text_table(["grid", "dataflow", "case", "cycles", "MPE-cycles/s", "MMAC/s"], rows))


if __name__ == "__main__":
    main()
