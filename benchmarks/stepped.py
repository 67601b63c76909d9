"""PE-cycles per second of the stepped engine, for each dataflow.

    python benchmarks/stepped.py

A PE-cycle is one PE in one multiply cycle, busy or in a bubble. Times are CPU time of the process on one core, best of
several runs after one that is not counted.
"""

from __future__ import annotations

import platform
import time
from typing import NamedTuple

import numpy as np

import accelsim as ax
from accelsim.tables import text_table

ROUNDS = 7
N, K, P = 64, 576, 256
DATAFLOWS = ("output_stationary", "weight_stationary", "input_stationary", "broadcast")


class Rate(NamedTuple):
    """What the engine did per CPU second."""

    pe_cycles: float
    macs: float
    multiply_cycles: int


def step_rate(machine: ax.Machine, num_outputs: int, reduction: int, num_positions: int, track: str) -> Rate:
    """Step a GEMM of random 8-bit operands several times.

    Parameters
    ----------
    machine : Machine
        The grid.
    num_outputs, reduction, num_positions : int
        N, K and P.
    track : str
        Tracking level.
    """
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (num_outputs, reduction), dtype=np.int8)
    activations = rng.integers(0, 256, (reduction, num_positions), dtype=np.uint8)
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
    for dataflow in DATAFLOWS:
        for bits, overflow, track in ((32, "wrap", "overflow"), (18, "saturate", "overflow"), (32, "wrap", "range")):
            machine = ax.Machine(dataflow=dataflow, accumulator_bits=bits, overflow=overflow)
            rate = step_rate(machine, N, K, P, track)
            rows.append(
                [dataflow, f"{bits} bits, {overflow}", track, f"{rate.multiply_cycles:,}",
                 f"{rate.pe_cycles / 1e6:,.0f}", f"{rate.macs / 1e6:,.0f}"]
            )  # fmt: skip
    print(f"{platform.machine()}, Python {platform.python_version()}, 16x16 PEs, {N}x{K}x{P}, one core, no trace")
    print(text_table(["dataflow", "accumulator", "track", "cycles", "MPE-cycles/s", "MMAC/s"], rows))


if __name__ == "__main__":
    main()
