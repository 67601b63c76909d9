"""How time and peak memory of the fast engine grow, as a plot with the slope of each line on logarithmic axes.

    OPENBLAS_NUM_THREADS=1 python benchmarks/growth.py growth.svg

Processor time, best of several runs; memory is what Python and numpy allocate at most during a run, without inputs.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

import accelsim as ax
from accelsim.data import digits_model_path, load_digits
from accelsim.program.lowering import lower

Run = Callable[[], object]


def measure(run: Run) -> tuple[float, float]:
    """Return the best time of a run in seconds, and the most memory that it takes in bytes."""
    run()
    best = float("inf")
    for _ in range(7):
        began = time.process_time()
        run()
        best = min(best, time.process_time() - began)
    tracemalloc.start()
    run()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return best, float(peak)


def product(n: int, k: int, p: int, bits: int = 32) -> Run:
    """Return a run of a matrix product; with 18 bits its accumulators overflow and every addition is stepped."""
    rng = np.random.default_rng(0)
    weights, activations = rng.integers(-127, 128, (n, k), np.int8), rng.integers(0, 256, (k, p), np.uint8)
    machine = ax.Machine(accumulator_bits=bits)
    return lambda: ax.matmul(weights, activations, machine)


def network() -> Callable[[int], Run]:
    """Return what makes runs of the shipped network on some images."""
    digits = load_digits()
    quantized = ax.quantize(ax.load_onnx(digits_model_path()), calibration=digits.x_calibration[:64])
    program = lower(quantized, ax.Machine())
    images = np.concatenate([digits.x_test] * 20)
    return lambda count: lambda: ax.simulate(program, images[:count], memory_bytes=4 << 20)


def stepped(size: int) -> Run:
    """Return a run of one product on a square grid, all registers stepped."""
    rng = np.random.default_rng(0)
    weights, activations = rng.integers(-127, 128, (128, 128), np.int8), rng.integers(0, 256, (128, 128), np.uint8)
    machine = ax.Machine(rows=size, columns=size)
    return lambda: ax.matmul(weights, activations, machine, engine="stepped")


def main() -> None:
    """Measure, print the slopes and write the plot."""
    of_network, powers = network(), [2**i for i in range(6)]
    lines: dict[str, tuple[list[int], Callable[[int], Run]]] = {
        "K (64 x K x 2048)": ([256 * i for i in powers], lambda k: product(64, k, 2048)),
        "N (N x 512 x 2048)": ([64 * i for i in powers], lambda n: product(n, 512, 2048)),
        "P (64 x 512 x P)": ([1024 * i for i in powers], lambda p: product(64, 512, p)),
        "P, stepped additions": ([1024 * i for i in powers[:4]], lambda p: product(64, 512, p, 18)),
        "images of the shipped network": ([256 * i for i in powers], of_network),
        "rows = columns of a stepped grid": ([4, 8, 16, 32, 64], stepped),
    }
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.subplots(1, 2)
    for name, (sizes, make) in lines.items():
        times, peaks = zip(*(measure(make(size)) for size in sizes), strict=True)
        relative = np.array(sizes) / sizes[0]
        for axis, values in zip(axes, (times, peaks), strict=True):
            half = len(sizes) // 2  # where fixed costs no longer count
            slope = np.polyfit(np.log(relative[half - 1 :]), np.log(values[half - 1 :]), 1)[0]
            axis.loglog(relative, values, marker="o", label=f"{name}: {slope:.2f}")
            print(f"{name:34s} {'time' if axis is axes[0] else 'memory':7s} slope {slope:5.2f}")
    for axis, what in zip(axes, ("seconds", "bytes at most"), strict=True):
        axis.set(xlabel="size, relative to the smallest", ylabel=what)
        axis.legend(fontsize=7, title="slope of the upper half", title_fontsize=7)
    figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "growth.svg")


if __name__ == "__main__":
    main()
