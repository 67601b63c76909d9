"""MAC rates of the engines against numpy's float32 matmul of the same shape, in one run.

    OPENBLAS_NUM_THREADS=1 python benchmarks/ratios.py

Each figure is the best of several runs, taken in turn with the peer's, so that both see the same machine.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable

import numpy as np

import accelsim as ax
from accelsim.tables import text_table

ROUNDS = 5
N, K, P = 64, 576, 4096
STEPPED_P = 256


def seconds(run: Callable[[], object]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def best_of_pairs(ours: Callable[[], object], peer: Callable[[], object]) -> tuple[float, float]:
    """Return the best times of two calls that are made in turn, after one call of each that is not counted."""
    ours(), peer()
    pairs = [(seconds(ours), seconds(peer)) for _ in range(ROUNDS)]
    return min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (N, K), dtype=np.int8)
    activations = rng.integers(0, 256, (K, P), dtype=np.uint8)
    real_weights, real_activations = weights.astype(np.float32), activations.astype(np.float32)
    few = activations[:, :STEPPED_P]

    def peer() -> object:
        return real_weights @ real_activations

    cases: list[tuple[str, int, Callable[[], object]]] = []
    for name, bits, overflow, track in (
        ("exact, 32 bits", 32, "wrap", "overflow"),
        ("tracked, 18 bits, wrap", 18, "wrap", "overflow"),
        ("tracked, 18 bits, saturate", 18, "saturate", "overflow"),
        ("running range", 32, "wrap", "range"),
    ):
        for dataflow in ("output_stationary", "broadcast", "weight_stationary"):
            machine = ax.Machine(dataflow=dataflow, accumulator_bits=bits, overflow=overflow)
            cases.append(
                (
                    f"fast, {dataflow}, {name}",
                    N * K * P,
                    lambda machine=machine, track=track: ax.matmul(weights, activations, machine, track=track),
                )
            )
    for dataflow in ("output_stationary", "broadcast", "weight_stationary", "input_stationary"):
        machine = ax.Machine(dataflow=dataflow)
        cases.append(
            (
                f"stepped, {dataflow}, 16x16",
                N * K * STEPPED_P,
                lambda machine=machine: ax.matmul(weights, few, machine, engine="stepped"),
            )
        )
    rows = []
    for name, macs, run in cases:
        ours, other = best_of_pairs(run, peer)
        rate, peer_rate = macs / ours / 1e9, N * K * P / other / 1e9
        rows.append([name, f"{rate:.2f}", f"{peer_rate:.1f}", f"{rate / peer_rate:.4f}"])
    print(f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, {N}x{K}x{P}")
    print(f"OPENBLAS_NUM_THREADS={os.environ.get('OPENBLAS_NUM_THREADS', 'not set')}")
    print(text_table(["engine", "GMAC/s", "numpy float32 GMAC/s", "ratio"], rows))


if __name__ == "__main__":
    main()
